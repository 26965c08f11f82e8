//! Fits and comparisons at the edges: seeds at one budget, weights of any size, held parameters, one cluster, groups
//! without a fit.

use super::analysis_cli::lossfloor;
use super::studies_cli::document;
use std::path::{Path, PathBuf};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// 2 + 400·x^-0.3 and what is added, at x = 10, 20, 40, ...
fn losses(count: i32, added: impl Fn(i32) -> f64) -> impl Iterator<Item = (f64, f64)> {
    (0..count).map(move |i| {
        let x = 10.0 * 2f64.powi(i);
        (x, 2.0 + 400.0 * x.powf(-0.3) + added(i))
    })
}

/// Noise of a few thousandths that repeats after seven points.
fn noise(i: i32) -> f64 {
    0.002 * f64::from((3 * i) % 7 - 3)
}

#[test]
fn seeds_of_one_budget_count_once() {
    let place = Place::new();
    let mut table = "arch,seed,x,loss\n".to_owned();
    for (arch, lower) in [("a", 0.0), ("b", 0.05)] {
        for seed in 0..3 {
            for (x, loss) in losses(6, |i| noise(i + 2 * seed) - lower) {
                table += &format!("{arch},{seed},{x},{loss}\n");
            }
        }
    }
    let seeds = place.write("seeds.csv", &table);
    let columns = ["--form", "power+floor", "--x", "x", "--y", "loss", "--group", "arch"];
    let found = document(&[&["compare", word(&seeds)], &columns[..]].concat());
    assert_eq!(found["paired"][0]["points"].as_array().unwrap().len(), 6);
    let mean = found["paired"][0]["points"].as_array().unwrap().iter().map(|p| p["difference"].as_f64().unwrap());
    assert!(mean.sum::<f64>() / 6.0 + 0.05 < 1e-9);
    let verdict = found["verdict"].as_str().unwrap();
    assert!(verdict.contains("b is below a at all 6 budgets") && verdict.contains("(mean -0.0500, "), "{verdict}");
    assert_eq!(found["pairs"][0]["subsets"], 6);
    // An empty cell is no budget; equal losses are neither above nor below.
    let mut table = "arch,budget,x,loss\n".to_owned();
    for arch in ["a", "b"] {
        for (i, (x, loss)) in losses(6, noise).enumerate() {
            let budget = if i < 2 { format!("{i}") } else { String::new() };
            table += &format!("{arch},{budget},{x},{loss}\n");
        }
    }
    let budgets = place.write("budgets.csv", &table);
    let found = document(&[&["compare", word(&budgets), "--pair", "budget"], &columns[..]].concat());
    assert_eq!(found["paired"][0]["points"].as_array().unwrap().len(), 2);
    assert!(found["verdict"].as_str().unwrap().contains("b and a have equal losses at all 2 budgets"), "{found}");
}

#[test]
fn outliers_do_not_depend_on_the_unit_of_weights() {
    let place = Place::new();
    let table = |weight: f64, odd: f64| {
        let rows = losses(50, |i| noise(i) + if i == 30 { odd } else { 0.0 });
        "x,loss,w\n".to_owned() + &rows.map(|(x, loss)| format!("{x},{loss},{weight}\n")).collect::<String>()
    };
    for weight in [1e-4, 1.0, 1e4] {
        for (odd, lines) in [(0.0, vec![]), (0.2, vec![32])] {
            let file = place.write("t.csv", &table(weight, odd));
            let args = ["fit", word(&file), "--form", "power+floor", "--x", "x", "--y", "loss", "--weight", "w"];
            let fit = &document(&args)["fits"][0];
            let found: Vec<u64> =
                fit["outliers"].as_array().unwrap().iter().map(|row| row["line"].as_u64().unwrap()).collect();
            assert_eq!(found, lines, "weight {weight}: {fit}");
        }
    }
}

#[test]
fn held_parameters_have_the_value_that_was_asked_for() {
    let place = Place::new();
    let rows: String = losses(12, noise).map(|(x, loss)| format!("{x},{loss}\n")).collect();
    let file = place.write("t.csv", &format!("x,loss\n{rows}"));
    let base = ["fit", word(&file), "--x", "x", "--y", "loss"];
    for (form, hold, expected) in [
        ("power+floor", "C=1,C=1.5", "'C' is held at two values"),
        ("power+floor", "b=20", "'b' cannot be held at 20: it is searched from "),
    ] {
        let (code, _, err) = lossfloor(&[&base[..], &["--form", form, "--hold", hold]].concat());
        assert!(code == 2 && err.contains(expected) && err.lines().count() == 1, "{err}");
    }
    let fit = &document(&[&base[..], &["--form", "power+floor", "--hold", "b=0.4"]].concat())["fits"][0];
    assert_eq!(fit["params"]["b"], 0.4);
    let fit = &document(&[&base[..], &["--form", "broken", "--hold", "d1=300", "--starts", "0"]].concat())["fits"][0];
    assert!((fit["params"]["d1"].as_f64().unwrap() / 300.0 - 1.0).abs() < 1e-9, "{fit}");
}

#[test]
fn an_efficiency_is_a_multiple_of_the_input() {
    let place = Place::new();
    let mut table = "arch,n,d,loss\n".to_owned();
    for (arch, gain) in [("a", 1.0), ("b", 1.5)] {
        for (i, n) in [1e7, 4e7, 1.6e8, 6.4e8].into_iter().enumerate() {
            for (k, d) in [1e9, 1e10, 1e11].into_iter().enumerate() {
                let loss = 1.8 + 40.0 * f64::powf(n * gain, -0.24) + 60.0 * f64::powf(d, -0.24);
                table += &format!("{arch},{n},{d},{}\n", loss + 1e-5 * noise((i + 3 * k) as i32));
            }
        }
    }
    let file = place.write("t.csv", &table);
    let columns = ["--n", "n", "--d", "d", "--y", "loss", "--group", "arch"];
    for form in ["over-training", "tied"] {
        let found = document(&[&["compare", word(&file), "--form", form], &columns[..]].concat());
        let gain = &found["efficiencies"][0];
        assert!((gain["efficiency"].as_f64().unwrap() - 1.5).abs() < 1e-2, "{form}: {gain}");
    }
}

#[test]
fn one_run_alone_is_not_resampled() {
    let place = Place::new();
    let rows: String = losses(12, noise).map(|(x, loss)| format!("only,{x},{loss}\n")).collect();
    let file = place.write("t.csv", &format!("run,x,loss\n{rows}"));
    let args = ["fit", word(&file), "--form", "power+floor", "--x", "x", "--y", "loss", "--cluster", "run"];
    let fit = &document(&[&args[..], &["--interval", "bootstrap:50"]].concat())["fits"][0];
    assert!(fit["interval"]["C"].is_null() && fit["se"]["C"].is_null(), "{fit}");
    let (_, out, _) = lossfloor(&[&args[..], &["--interval", "bootstrap:50"]].concat());
    assert!(out.contains("nothing to resample"), "{out}");
}

#[test]
fn intervals_of_logarithms_do_not_depend_on_the_unit() {
    let place = Place::new();
    let width = |unit: f64| {
        let rows: String = losses(10, |i| noise(i) / 50.0).map(|(x, y)| format!("{x},{}\n", unit * y)).collect();
        let file = place.write("t.csv", &format!("x,y\n{rows}"));
        let args = ["fit", word(&file), "--form", "power", "--loss", "log-lsq", "--x", "x", "--y", "y"];
        let fit = &document(&[&args[..], &["--interval", "profile"]].concat())["fits"][0];
        fit["interval"]["b"][1].as_f64().unwrap() - fit["interval"]["b"][0].as_f64().unwrap()
    };
    assert!((width(1e13) / width(1.0) - 1.0).abs() < 1e-6 && width(1.0) > 0.0);
}

#[test]
fn rows_set_aside_are_told_wherever_they_are() {
    let place = Place::new();
    let rows: String = losses(12, noise).map(|(x, loss)| format!("{x},{loss},completed\n")).collect();
    let file = place.write("t.csv", &format!("x,loss,status\n{rows}5,9,diverged\n"));
    let columns = ["--x", "x", "--y", "loss"];
    for command in [&["rollout"][..], &["robustness", "--no-intervals"], &["fit", "--form", "power", "--format", "csv"]]
    {
        let (code, _, err) = lossfloor(&[&command[..1], &[word(&file)], &command[1..], &columns[..]].concat());
        assert!(code == 0 && err.contains("1 diverged row left out"), "{command:?}: {err}");
    }
}

#[test]
fn differences_are_of_groups_of_one_table() {
    let place = Place::new();
    let mut table = "arch,x,one,two\n".to_owned();
    for (arch, lower) in [("a", 0.0), ("b", 0.1)] {
        for (x, loss) in losses(12, noise) {
            table += &format!("{arch},{x},{},{}\n", loss - lower, loss - lower + 0.5);
        }
    }
    let file = place.write("t.csv", &table);
    let (one, two) = (format!("{}:y=one", word(&file)), format!("{}:y=two", word(&file)));
    let columns = ["--x", "x", "--y", "one", "--group", "arch", "--forms", "power+floor", "--no-intervals"];
    let found = document(&[&["robustness", &one, &two], &columns[..]].concat());
    let summary = found["summary"].as_array().unwrap();
    let difference = summary.iter().find(|row| row["data"] == "a - b" && row["quantity"] == "floor").unwrap();
    assert!((difference["median"].as_f64().unwrap() - 0.1).abs() < 0.02, "{difference}");
    assert!(difference["most"].as_f64().unwrap() - difference["least"].as_f64().unwrap() < 0.1, "{difference}");
}

#[test]
fn words_of_a_wide_table_stay_whole() {
    let args = ["calibrate", "--params", "A=39.8,b=0.0694,C=0.585", "--sigma", "0.001", "--from", "9.1e18"];
    let (code, out, _) = lossfloor(&[&args[..], &["--decades", "2.86", "--simulations", "20"]].concat());
    assert_eq!(code, 0);
    let header = out.lines().find(|line| line.contains("coverage")).unwrap_or_else(|| panic!("{out}"));
    assert!(header.contains("median_width") && out.lines().all(|line| line.chars().count() <= 100), "{out}");
}

/// A group without a fit takes neither the report nor the comparison of the others away.
#[test]
fn a_study_goes_on_without_a_group() {
    let place = Place::new();
    let mut table = "arch,x,loss\n".to_owned();
    for (arch, count, lower) in [("a", 8, 0.0), ("b", 2, 0.1), ("c", 8, 0.2)] {
        for (x, loss) in losses(count, |i| noise(i) - lower) {
            table += &format!("{arch},{x},{loss}\n");
        }
    }
    place.write("t.csv", &table);
    let study = |groups: &str| {
        format!(
            "study: s\nfits: [{{name: f, table: t.csv, form: power+floor, x: x, y: loss, group: arch, compare: {groups}}}]\n\
             figures: [{{name: loss, fit: f}}, {{name: forest, kind: forest, fit: f}}]\n"
        )
    };
    let reproduce = |text: &str| {
        place.write("study.yaml", text);
        let output = super::program(place.0.path(), &["reproduce", "study.yaml"]).output().unwrap();
        (output.status.code(), super::text(&output.stderr))
    };
    let report = || std::fs::read_to_string(place.0.path().join("results/s/report.md")).unwrap();
    for groups in ["{}", "{groups: [a, b, c]}"] {
        let (code, err) = reproduce(&study(groups));
        assert_eq!(code, Some(0), "{err}");
        assert!(report().contains("Left out: b has no fit") && report().contains("forest.svg"), "{}", report());
        assert!(report().contains("lossfloor compare t.csv --form power+floor --x x --y loss --group arch"));
    }
    let (code, err) = reproduce(&study("{groups: [a, b]}"));
    assert!(code == Some(0) && err.contains("figure forest: nothing to show"), "{err}");
    assert!(report().contains("Not compared: b has no fit") && !report().contains("forest.svg"), "{}", report());
    let (_, err) = reproduce(&study("{groups: [a, b]}"));
    assert!(err.contains("nothing to do"), "{err}");
    let (code, err) = reproduce(&study("{groups: [a, x]}"));
    assert!(code == Some(2) && err.contains("no group 'x'"), "{err}");
}

#[test]
fn figures_that_cannot_be_are_refused_when_the_study_is_read() {
    let place = Place::new();
    let rows: String = losses(8, noise).map(|(x, loss)| format!("{x},{loss}\n")).collect();
    place.write("t.csv", &format!("x,loss\n{rows}"));
    for (form, figure, expected) in [
        ("power", "kind: reducible, fit: f", "a: its fit 'f' has to be of a form with a floor; power has none"),
        ("power+floor, loss: lad", "kind: profiles, fit: f", "a: its fit 'f' is of lad, which has no profile"),
        ("power+floor", "kind: reducible, fit: f, residuals: true", "a: residuals says nothing to this kind of figure"),
        ("power+floor", "kind: grid, fit: f, grid: {table: t.csv, x: x, y: x, loss: loss}", "a: fit says nothing"),
        (
            "power+floor",
            "kind: evaluation, evaluation: {table: t.csv, x: x, y: loss, group: x, trials: -5}",
            "a: evaluation.trials: the number of trials",
        ),
        ("power+floor, where: z == 1", "fit: f", "fit f: where: "),
        ("power+floor, table: gone.csv", "fit: f", "fit f: cannot read gone.csv"),
    ] {
        let table = if form.contains("table:") { "" } else { ", table: t.csv" };
        let fits = format!("fits: [{{name: f, form: {form}{table}, x: x, y: loss}}]");
        place.write("study.yaml", &format!("study: s\n{fits}\nfigures: [{{name: a, {figure}}}]\n"));
        let output = super::program(place.0.path(), &["reproduce", "study.yaml"]).output().unwrap();
        let err = super::text(&output.stderr);
        assert!(output.status.code() == Some(2) && err.contains(expected), "{expected}: {err}");
    }
}

#[test]
fn means_over_more_cells_come_first() {
    let place = Place::new();
    let table = |name: &str, count: i32| {
        let rows = losses(count, noise).map(|(x, loss)| format!("{x},{loss}\n")).collect::<String>();
        place.write(name, &("x,loss\n".to_owned() + &rows))
    };
    let (long, short) = (table("long.csv", 12), table("short.csv", 4));
    let columns = ["--x", "x", "--y", "loss", "--hold-out", "1", "--forms", "power+floor,power"];
    let args = [&["rollout", word(&long), word(&short), "--losses", "lsq,huber:1e-3"], &columns[..]].concat();
    let found = document(&args);
    let rows: Vec<&serde_json::Value> = found["rows"].as_array().unwrap().iter().collect();
    let means: Vec<_> = rows.iter().filter(|row| row["data"] == "geometric mean").collect();
    // Three parameters are too many for the short table.
    let sets: Vec<u64> = means.iter().map(|row| row["sets"].as_u64().unwrap()).collect();
    assert!(sets == [2, 2, 1, 1] && means[2]["form"] == "power+floor", "{means:?}");
    for row in rows.iter().filter(|row| row["data"] != "geometric mean") {
        // Squares of eleven points judge a law, those of three do not.
        let enough = row["n"] == 11 && row["loss"] == "lsq";
        assert_eq!(row["aicc"].is_number(), enough, "{row}");
    }
    let (_, _, err) = lossfloor(&args);
    assert!(err.contains("so many as 'sets' says"), "{err}");
}

#[test]
fn resamples_of_too_few_points_do_not_count() {
    let place = Place::new();
    let rows = losses(4, noise).map(|(x, loss)| format!("{x},{loss}\n")).collect::<String>();
    let table = place.write("few.csv", &("x,loss\n".to_owned() + &rows));
    let columns = ["--form", "power+floor", "--x", "x", "--y", "loss", "--interval", "bootstrap:400"];
    let (_, out, _) = lossfloor(&[&["fit", word(&table)], &columns[..]].concat());
    let lost = out.lines().find(|line| line.contains("too few different points")).unwrap_or_else(|| panic!("{out}"));
    // Of the 4⁴ draws of four points, 4·1 + 6·14 have one or two different ones: 34 %.
    let count: f64 = lost.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((count / 400.0 - 0.34375).abs() < 0.08, "{lost}");
}

#[test]
fn shapes_under_a_null_hypothesis_are_those_of_the_formula() {
    let place = Place::new();
    // L = 2 + x^-0.1 (1 + (x/1e4)^2)^-0.1: exponents .1 and .2, a break at 1e4 of width one half.
    let law = |x: f64| 2.0 + x.powf(-0.1) * (1.0 + (x / 1e4).powi(2)).powf(-0.1);
    let mut table = "arch,x,loss\n".to_owned();
    for (arch, sign) in [("a", 1.0), ("b", -1.0)] {
        for i in 0..24 {
            let x = 10f64.powf(1.0 + 0.25 * f64::from(i));
            table += &format!("{arch},{x},{}\n", law(x) + sign * 1e-6 * noise(i));
        }
    }
    let table = place.write("broken.csv", &table);
    let columns = ["--form", "broken", "--x", "x", "--y", "loss", "--group", "arch"];
    let found = document(&[&["compare", word(&table)], &columns[..]].concat());
    let shared = found["tests"].as_array().unwrap().iter().find(|test| test["null"] == "one curve").unwrap();
    assert_eq!(shared["status"], "converged");
    let at = shared["shapes"]["d1"].as_f64().unwrap();
    assert!((at / 1e4).ln().abs() < 0.01, "{shared}");
    assert_eq!(shared["shapes"].as_object().unwrap().len(), 4);
}

#[test]
fn points_without_noise_are_no_outliers() {
    let place = Place::new();
    let rows = losses(8, |_| 0.0).map(|(x, loss)| format!("{x},{loss}\n")).collect::<String>();
    let table = place.write("exact.csv", &("x,loss\n".to_owned() + &rows));
    for objective in ["lsq", "log-lsq", "huber:1e-3"] {
        let columns = ["--form", "power+floor", "--x", "x", "--y", "loss", "--loss", objective];
        let fit = &document(&[&["fit", word(&table)], &columns[..]].concat())["fits"][0];
        assert_eq!((&fit["status"], fit["certificate"]["reached"].as_u64()), (&"converged".into(), Some(16)), "{fit}");
        assert!((fit["params"]["C"].as_f64().unwrap() - 2.0).abs() < 1e-9, "{fit}");
        let (_, out, _) = lossfloor(&[&["fit", word(&table)], &columns[..]].concat());
        assert!(out.contains("goes through all points") && !out.contains("standard deviations"), "{out}");
        assert!(!out.contains("NaN") && !out.contains("resamples have no"), "{out}");
    }
}

/// Groups a and b of eight points, b with its inputs times a factor, and c with another floor, as a table.
fn groups(factor: f64) -> String {
    let mut table = "g,x,loss\n".to_owned();
    for (g, factor, lower) in [("a", 1.0, 0.0), ("b", factor, 0.02), ("c", 1.0, 0.5)] {
        for (x, loss) in losses(8, |i| noise(i + 3 * i32::from(g == "b")) - lower) {
            table += &format!("{g},{},{loss}\n", x * factor);
        }
    }
    table
}

#[test]
fn units_groups_and_columns_are_told() {
    let place = Place::new();
    let fixed = ["--form", "power+floor", "--x", "x", "--y", "loss"];
    let refused = |text: &str, more: &[&str], expected: &str| {
        let table = place.write("t.csv", text);
        let (code, out, err) = lossfloor(&[&["fit", word(&table)], &fixed[..], more].concat());
        assert!(code == 2 && out.is_empty() && err.contains(expected) && err.lines().count() == 1, "{code} {err}");
    };
    let group = ["--group", "g"];
    refused(&groups(1e-9), &group, "is at 1e9 times the values of group 'b'; hint");
    refused("x,x,loss\n1,2,3\n", &[], "column 'x' stands twice in the header");
    refused(&groups(1.0), &["--drop-highest", "24"], "--drop-highest 24 leaves no row");
    refused(&groups(1.0), &["--sigma", "-1"], "--sigma -1: a standard deviation is a positive number");
    // A gap of forty thousand is not refused, but said.
    let table = place.write("t.csv", &(groups(1.0) + "a,5e7,2.1\n"));
    let (_, out, _) = lossfloor(&[&["fit", word(&table)], &fixed[..], &group].concat());
    assert!(out.contains("x: nothing between") && out.contains("one unit"), "{out}");
    // Without --group, words that differ at equal inputs are taken for series.
    let table = place.write("t.csv", &groups(1.0));
    let (_, out, _) = lossfloor(&[&["fit", word(&table)], &fixed[..]].concat());
    assert!(out.contains("rows differ in g (a, b, c); hint: --group g"), "{out}");
    let unused = ["--seed", "x", "--cluster", "x", "--n", "x"];
    let (code, out, err) = lossfloor(&[&["compare", word(&table)], &fixed[..], &group, &unused].concat());
    assert!(code == 0 && err.contains("compare has no use for --n and --seed and --cluster"), "{err}");
    // What assumes a rejected hypothesis says so.
    assert!(out.contains("These assume one C and one exponent, which is rejected"), "{out}");
}

#[test]
fn the_edge_of_a_search_is_no_end_of_an_interval() {
    let place = Place::new();
    // One long plateau: of the exponent, many resamples say no more than that it is large.
    let rows = (0..8).map(|i| {
        let x = 10f64.powi(i);
        format!("{x},{}\n", 2.0 + if i == 0 { 1.0 } else { 0.0 } + noise(i))
    });
    let table = place.write("step.csv", &("x,loss\n".to_owned() + &rows.collect::<String>()));
    let args = ["--form", "power+floor", "--x", "x", "--y", "loss", "--interval", "bootstrap:200"];
    let args = [&["fit", word(&table)], &args[..]].concat();
    let fit = &document(&args)["fits"][0];
    assert!(fit["interval"]["b"][1].is_null() && fit["se"]["b"].is_null(), "{fit}");
    let (_, out, _) = lossfloor(&args);
    assert!(
        out.lines().any(|line| line.contains("b is not identified: ") && line.ends_with(" or more"))
            && out.contains("losses lie below C"),
        "{out}"
    );
}

#[test]
fn choices_that_leave_the_same_rows_are_one_fit() {
    let place = Place::new();
    let rows = losses(10, noise).map(|(x, loss)| format!("{x},{loss}\n")).collect::<String>();
    let table = place.write("t.csv", &("x,loss\n".to_owned() + &rows));
    let fixed = ["robustness", word(&table), "--x", "x", "--y", "loss", "--forms", "power+floor", "--losses", "lsq"];
    // The highest losses are those of the smallest scales: 0, 1, 2 or 3 rows are gone, however they are left out.
    let args = [&fixed[..], &["--drops", "0,1,2", "--windows", "0,1", "--no-intervals"]].concat();
    assert_eq!(document(&args)["rows"].as_array().unwrap().len(), 4);
    let (_, _, err) = lossfloor(&args);
    assert!(err.contains("predictions are of the loss at x = 5.120e4"), "{err}");
}
