//! `rollout`, `robustness`, `design`, `isoflop` and `calibrate` as commands: key numbers, widths, exit statuses, refusals.

use super::analysis_cli::lossfloor;
use serde_json::Value;

const FITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fits");
const PAPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/published/scaling.csv");
/// The published law of SambaY and the noise about it.
const LAW: [&str; 4] = ["--params", "A=39.8,b=0.0694,C=0.585", "--sigma", "0.001"];

pub(super) fn document(args: &[&str]) -> Value {
    let (code, out, err) = lossfloor(&[args, &["--json"]].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// The row in which these columns say this.
fn row<'a>(document: &'a Value, rows: &str, wanted: &[(&str, &str)]) -> &'a Value {
    let fits = |row: &&Value| wanted.iter().all(|(key, value)| row[*key] == *value);
    document[rows].as_array().unwrap().iter().find(fits).unwrap_or_else(|| panic!("no row {wanted:?}"))
}

fn near(value: &Value, want: f64, tolerance: f64) {
    assert!((value.as_f64().unwrap() - want).abs() <= tolerance, "{value} {want}");
}

fn refused(args: &[&str], expected: &str) {
    let (code, out, err) = lossfloor(args);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains(expected), "{err}");
}

fn narrow(out: &str) {
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn rollout_takes_tables_that_name_their_columns_differently() {
    let gadre = format!("{FITS}/gadre.csv:y=loss_c4_val,group=dataset");
    let unrepeated = format!("{FITS}/datablations.csv:where=d <= u");
    let columns = ["--n", "n", "--d", "d", "--y", "loss"];
    let options = ["--losses", "huber:1e-3", "--forms", "tied,power+floor"];
    let args = [&["rollout", &gadre, &unrepeated], &columns[..], &options].concat();
    let all = document(&args);
    for (data, form, held, error) in [
        ("datablations", "tied", 6, 2.7985),
        ("datablations", "power+floor", 6, 2.3258),
        ("gadre/rw_original", "tied", 7, 1.0131),
        ("gadre/rw_original", "power+floor", 7, 1.9716),
    ] {
        let row = row(&all, "rows", &[("data", data), ("form", form)]);
        assert_eq!(row["held"], held);
        near(&row["error_percent"], error, 1e-2);
    }
    let overall = row(&all, "rows", &[("data", "geometric mean"), ("form", "tied")]);
    assert_eq!(overall["sets"], 4);
    let (code, out, _) = lossfloor(&args);
    assert!(code == 0 && out.contains("gadre/rw_original\n form"), "{out}");
    narrow(&out);
    let wrong = format!("{FITS}/gadre.csv:loss=loss_c4_val");
    refused(&[&["rollout", &wrong], &columns[..]].concat(), "is not OPTION=VALUE");
    refused(&["rollout", &gadre, "--n", "n", "--y", "loss"], "--x, or --n and --d, have to name the columns");
    let none = format!("{FITS}/chinchilla.csv:drop-highest=few");
    refused(&[&["rollout", &none], &columns[..]].concat(), "chinchilla.csv is no count of rows");
    let unique = ["--forms", "data-constrained"];
    refused(&[&["rollout", &unrepeated], &columns[..], &unique].concat(), "needs --u as well, for datablations");
}

/// The table of docs/fits.md in percent: three sets of those behind an independent table, and their geometric means, which
/// may not be above that table's. Of a range there, the lower end counts.
#[test]
fn the_largest_published_runs_are_predicted_no_worse_than_the_reference() {
    let chinchilla = format!("{FITS}/chinchilla.csv:drop-highest=5");
    let kyo = format!("{FITS}/kyo_takano.csv");
    let gadre = format!("{FITS}/gadre.csv:y=loss_c4_val,where=dataset == rpj");
    let columns = ["--n", "n", "--d", "d", "--y", "loss"];
    let options = ["--losses", "huber:1e-3", "--forms", "tied,chinchilla,interaction,gamma,power+floor,no-floor"];
    let all = document(&[&["rollout", &chinchilla, &kyo, &gadre], &columns[..], &options].concat());
    for (form, errors, mean, reference) in [
        ("tied", [0.8331, 0.6763, 0.8325], 0.777, 1.07),
        ("chinchilla", [1.0526, 0.8397, 0.9906], 0.957, 1.30),
        ("interaction", [1.0526, 0.8454, 0.9906], 0.959, 1.36),
        ("gamma", [0.9809, 0.8348, 1.7254], 1.122, 1.30),
        ("power+floor", [1.0197, 0.9295, 2.3153], 1.300, 1.68),
        ("no-floor", [2.4114, 2.2500, 3.2282], 2.597, 2.76),
    ] {
        for (data, error) in ["chinchilla", "kyo_takano", "gadre"].into_iter().zip(errors) {
            near(&row(&all, "rows", &[("data", data), ("form", form)])["error_percent"], error, 1e-4);
        }
        let overall = &row(&all, "rows", &[("data", "geometric mean"), ("form", form)])["error_percent"];
        near(overall, mean, 1e-3);
        assert!(overall.as_f64() <= Some(reference), "{form}: {overall}");
    }
    for (data, held) in [("chinchilla", 48), ("kyo_takano", 47), ("gadre", 7)] {
        assert_eq!(row(&all, "rows", &[("data", data)])["held"], held);
    }
}

#[test]
fn robustness_states_the_spread_over_choices() {
    let groups = "fig_2a == 1 and label in [\"SambaY muP++\", \"Samba+YOCO muP++\"]";
    let fixed = ["robustness", PAPER, "--where", groups, "--x", "flops", "--y", "loss", "--group", "label"];
    let few = ["--forms", "power+floor", "--losses", "lsq", "--drops", "0", "--windows", "0,1", "--no-intervals"];
    let args = [&fixed[..], &few].concat();
    let all = document(&args);
    let of = |data: &str| row(&all, "summary", &[("data", data), ("quantity", "floor")]);
    near(&of("SambaY muP++")["least"], 0.58471, 1e-4);
    near(&of("SambaY muP++")["most"], 0.64846, 1e-4);
    // The order of the two floors is that of the choice.
    assert_eq!(of("Samba+YOCO muP++ - SambaY muP++")["same_sign"].as_f64(), Some(0.5));
    let (code, out, _) = lossfloor(&args);
    assert!(code == 0 && out.contains("SambaY muP++, power+floor\n loss"), "{out}");
    narrow(&out);
    // Without an end an interval is open, or there is none.
    let cells = [&few[..8], &["--windows", "0"]].concat();
    let cells = document(&[&fixed[..], &cells].concat());
    let floor = row(&cells, "rows", &[("data", "Samba+YOCO muP++")]);
    assert!(floor["floor_low"].is_number() && floor["floor_interval"] == "profile", "{floor}");
    assert!(row(&all, "rows", &[("data", "Samba+YOCO muP++")])["floor_interval"].is_null());
    refused(&[&args[..], &["--compare", "a,b"]].concat(), "--compare 'a,b' is not two of the groups");
    refused(&[&args[..], &["--at", "z=3"]].concat(), "--at z=3: positive values of x, n, d or u");
}

#[test]
fn a_design_says_how_well_it_determines_the_floor() {
    let place = ["--points", "5", "--decades", "2.86", "--from", "9e18"];
    let all = document(&[&["design"], &LAW[..], &place].concat());
    let floor = row(&all, "rows", &[("parameter", "C")]);
    near(&floor["kappa"], 41.285, 1e-2);
    near(&floor["se"], 0.041285, 1e-5);
    near(&row(&all, "rows", &[("parameter", "b")])["se"], 0.0018543, 1e-6);
    refused(&[&["design"], &LAW[..2], &place].concat(), "--sigma");
    refused(&["design", "--params", "A=1,b=2", "--sigma", "1"], "power+floor has A, b, C");
}

#[test]
fn isoflop_finds_the_exponents_of_porian() {
    let table = format!("{FITS}/porian_isoflop.csv");
    let fixed = ["isoflop", &table, "--n", "n", "--flops", "flops", "--y", "loss", "--draws", "20", "--where"];
    let all = document(&[&fixed[..], &["config == rw-tuned"]].concat());
    let law = |method: &str| row(&all, "laws", &[("method", method), ("size", "N")]);
    near(&law("akima")["exponent"], 0.49678, 1e-4);
    near(&law("parabola")["exponent"], 0.51369, 1e-4);
    assert_eq!(all["rows"].as_array().unwrap().len(), 24);
    refused(&["isoflop", &table, "--n", "n", "--y", "loss"], "--d or --flops has to name the column");
    // One size has no minimum.
    let (code, _, err) = lossfloor(&[&fixed[..], &["config == rw-tuned and n < 6e6"]].concat());
    assert!(code == 5 && err.contains("no budget has a minimum among its sizes"), "{code} {err}");
}

#[test]
fn calibrate_counts_intervals_that_hold_the_truth() {
    let place = ["--from", "9.1e18", "--decades", "2.86", "--points", "6", "--simulations", "20"];
    let folder = tempfile::tempdir().unwrap();
    let figure = folder.path().join("coverage.svg");
    let plot = ["--plot", figure.to_str().unwrap()];
    let all = document(&[&["calibrate"], &LAW[..], &place, &plot].concat());
    let floor = row(&all, "rows", &[("quantity", "C")]);
    assert_eq!((floor["draws"].as_u64(), floor["n"].as_u64()), (Some(20), Some(6)));
    // 95 % is due; 15 of 20 or fewer have a chance of 3e-4.
    assert!(floor["coverage"].as_f64() > Some(0.75), "{floor}");
    let svg = std::fs::read_to_string(&figure).unwrap();
    assert!(svg.contains("nominal 95 %") && svg.contains("achieved coverage"));
    let runs = concat!(env!("CARGO_MANIFEST_DIR"), "/results/quick/runs.csv");
    let finished = ["calibrate", runs, "--x", "flops", "--y", "val_loss", "--group", "architecture", "--truth", "2.17"];
    let all = document(&finished);
    let together = row(&all, "rows", &[("group", "all")]);
    assert_eq!((together["coverage"].as_f64(), together["open_below"].as_f64()), (Some(1.0), Some(1.0)));
    assert_eq!(together["independent"], 6);
    refused(&[&["calibrate"], &LAW[..], &place, &["--plot", "f.pdf"]].concat(), "--plot f.pdf: a figure is written as");
    refused(
        &[&["calibrate"], &LAW[..], &["--points", "3", "--from", "1", "--decades", "2"]].concat(),
        "needs 4 or more",
    );
    refused(&[&["calibrate"], &LAW[..], &place, &["--form", "power"]].concat(), "it has no floor");
}

/// Kinds of figures that show a table: what each says.
#[test]
fn studies_draw_tables_without_a_fit() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let mut sizes = "n,flops,loss\n".to_owned();
    for flops in [1e18f64, 1e19, 1e20] {
        for k in -2..=2 {
            let n = 0.3 * flops.sqrt() * 2f64.powi(k);
            sizes += &format!("{n},{flops},{}\n", 2.0 + 1e4 * flops.powf(-0.25) + 0.02 * f64::from(k * k));
        }
    }
    write("sizes.csv", &sizes);
    write("rates.csv", "lr,batch,loss\n1e-3,1024,2.5\n2e-3,1024,2.4\n1e-3,2048,2.6\n1e-3,2048,2.55\n");
    write("curves.csv", "run,step,loss\na,1,5\na,10,3\na,100,2\nb,1,6\nb,10,4\nb,100,2.5\n");
    let figures = |grid: &str| {
        format!(
            "study: s\nfigures:\n  \
             - {{name: sizes, kind: isoflop, isoflop: {{table: sizes.csv, n: n, flops: flops, y: loss}}}}\n  \
             - {{name: rates, kind: grid, grid: {{{grid}}}}}\n  \
             - {{name: curves, kind: curves, curves: {{table: curves.csv, x: step, y: loss, run: run}}}}\n"
        )
    };
    let reproduce = || {
        let output = super::program(folder.path(), &["reproduce", "study.yaml"]).output().unwrap();
        (output.status.code(), super::text(&output.stderr))
    };
    write("study.yaml", &figures("table: rates.csv, x: lr, y: batch, loss: loss"));
    let (code, err) = reproduce();
    assert_eq!(code, Some(0), "{err}");
    let texts = |name: &str| std::fs::read_to_string(folder.path().join(format!("results/s/{name}.svg"))).unwrap();
    let (sizes, rates, curves) = (texts("sizes"), texts("rates"), texts("curves"));
    // The minima lie at 0.3·C^0.5 exactly.
    assert!(sizes.contains("Stars: minima of the parabolas.") && sizes.contains("N ∝ C^0.500"), "{sizes}");
    // Of two runs with equal settings the better one; one corner has no run.
    assert!(rates.contains("2.550") && !rates.contains("2.600") && rates.contains("Hatched: no value."), "{rates}");
    assert!(curves.contains("\nstep\n") && curves.contains("\na\n") && curves.contains("\nb\n"), "{curves}");
    for (grid, expected) in [
        ("table: rates.csv, x: lr, y: batch, loss: loss, where: lr >", "rates: where: character"),
        ("table: rates.csv, x: lr, y: batch, loss: los", "no column 'los'; hint: did you mean 'loss'?"),
        ("table: rates.csv, x: lr, y: batch", "loss"),
    ] {
        write("study.yaml", &figures(grid));
        let (code, err) = reproduce();
        assert!(code == Some(2) && err.contains(expected), "{code:?} {err}");
    }
    write("study.yaml", "study: s\nfigures: [{name: f, kind: curves}]\n");
    let (code, err) = reproduce();
    assert!(code == Some(2) && err.contains("f: kind curves needs curves: {...}"), "{err}");
    write("study.yaml", "study: s\nfigures: [{name: f, kind: grid, grid: {x: lr, y: batch, loss: loss}}]\n");
    let (code, err) = reproduce();
    assert!(code == Some(2) && err.contains("f: without a sweep, it needs its table"), "{err}");
    write("study.yaml", "study: s\nfigures: [{name: f, palette: sepia}]\n");
    let (code, err) = reproduce();
    assert!(code == Some(2) && err.contains("figures[0].palette"), "{err}");
}

/// L = 1.7 + 400/N^0.34 + 400/D^0.28, so that N grows with compute to the power 0.28/0.62 = 0.4516.
#[test]
fn studies_draw_laws_of_parameters_and_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let mut runs = "n,d,loss\n".to_owned();
    for (i, n) in [1e7, 3e7, 1e8, 3e8].iter().enumerate() {
        for (k, d) in [1e9, 3e9, 1e10, 3e10].iter().enumerate() {
            let noise = 1e-3 * (((7 * i + 3 * k) % 5) as f64 - 2.0);
            let loss = 1.7 + 400.0 * f64::powf(*n, -0.34) + 400.0 * f64::powf(*d, -0.28) + noise;
            runs += &format!("{n},{d},{loss}\n");
        }
    }
    write("runs.csv", &runs);
    let study = |fit: &str, figure: &str| {
        format!(
            "study: s\nfits: [{{name: f, table: runs.csv, y: loss, {fit}}}]\n\
             figures:\n  - {{name: surface, kind: surface, fit: f, width: column}}\n  - {{name: best, {figure}}}\n"
        )
    };
    let reproduce = |text: &str| {
        write("study.yaml", text);
        let output = super::program(folder.path(), &["reproduce", "study.yaml"]).output().unwrap();
        (output.status.code(), super::text(&output.stderr))
    };
    let (fit, best) = ("form: chinchilla, n: n, d: d, interval: 'bootstrap:20'", "kind: allocation, fit: f");
    let (code, err) = reproduce(&study(fit, best));
    assert_eq!(code, Some(0), "{err}");
    let text = |name: &str| std::fs::read_to_string(folder.path().join("results/s").join(name)).unwrap();
    let (surface, allocation) = (text("surface.svg"), text("best.svg"));
    for words in ["N = 10M", "measured − fitted", "compute-optimal N and D", "Grey lines:"] {
        assert!(surface.contains(words), "{words}: {surface}");
    }
    assert!(allocation.contains("\n0.45 [0.4") && allocation.contains("\n0.55 [0.5"), "{allocation}");
    assert!(text("fits.csv").starts_with("fit,group,form,n,status,A,A_se,B,B_se,E,E_se,E_lo,E_hi,alpha,alpha_se,beta"));
    let report = text("report.md");
    assert!(report.contains("by unweighted least squares, N = n, D = d.") && report.contains("95 % interval of E"));
    let command = "lossfloor fit runs.csv --form chinchilla --n n --d d --y loss --interval bootstrap:20";
    assert!(report.contains(command), "{report}");
    for (fit, figure, expected) in [
        ("form: chinchilla, n: n", best, "f: form chinchilla needs d: COLUMN"),
        ("form: power, x: n, d: d", best, "f: form power has no use for d"),
        ("form: chinchila, n: n, d: d", best, "f: unknown form 'chinchila'; known: power, "),
        ("form: chinchilla, n: n, d: d, loss: squares", best, "f: loss: 'squares' is not one of lsq"),
        ("form: chinchilla, n: n, d: d, loss: lad, interval: wald", best, "f: interval: lad has no profile"),
        ("form: chinchilla, n: n, d: d, compare: {}", best, "f: compare needs a form of one scale"),
        ("form: chinchilla, n: n, d: d", "kind: loss, fit: f", "best: its fit 'f' has to be of a form of one scale"),
        ("form: interaction, n: n, d: d", best, "surface: its fit 'f' has to be of a form with a best N and D"),
    ] {
        let (code, err) = reproduce(&study(fit, figure));
        assert!(code == Some(2) && err.contains(expected), "{expected}: {code:?} {err}");
    }
}

#[test]
fn the_documented_study_reads() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/studies.md")).unwrap();
    let block = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("study.yaml");
    std::fs::write(&file, block).unwrap();
    let study = lossfloor::study::Study::read(&file, &[], folder.path(), folder.path()).unwrap();
    assert_eq!((study.file.fits.len(), study.file.figures.len()), (1, 3));
}
