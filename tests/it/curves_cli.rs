//! `curves` as a command: laws of loss curves under several schedules.

use lossfloor::analysis::learning_curve::{CurveLaw, Logged, Schedule, lookup};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

const PEAK: f64 = 1e-3;
const STEPS: usize = 600;
const WARM_UP: usize = 20;
/// L0, A, alpha, C, lambda
const TRUTH: [f64; 5] = [2.0, 0.3, 0.5, 0.8, 0.99];

fn rate(name: &str, t: usize) -> f64 {
    let share = (t.max(WARM_UP) - WARM_UP) as f64 / (STEPS - WARM_UP) as f64;
    match name {
        _ if t < WARM_UP => PEAK * t as f64 / WARM_UP as f64,
        "constant" => PEAK,
        "cosine" => PEAK * (0.55 + 0.45 * (std::f64::consts::PI * share).cos()),
        "decay" if share > 0.7 => PEAK * (1.0 - 0.9 * (share - 0.7) / 0.3),
        "decay" => PEAK,
        _ => panic!("{name}"),
    }
}

/// Largest error of a loss, as a share of it.
const NOISE: f64 = 1e-4;

/// Losses of the true law with noise at every step of a schedule; `None` before the warm-up is over.
fn losses(name: &str) -> Vec<(usize, f64, Option<f64>)> {
    let schedule = Schedule::new((0..STEPS).map(|t| rate(name, t)).collect()).unwrap();
    let law = CurveLaw { form: lookup("annealing").unwrap(), parameters: TRUTH.to_vec() };
    let steps: Vec<usize> = (1..STEPS).collect();
    let losses = law.losses(Logged { schedule: &schedule, steps: &steps });
    let noise = |step: usize| 1.0 + NOISE * (((step * 7919 + name.len() * 104_729) % 1999) as f64 / 1000.0 - 1.0);
    let row =
        |(step, loss): (&usize, f64)| (*step, rate(name, *step), (*step >= WARM_UP).then_some(loss * noise(*step)));
    steps.iter().zip(losses).map(row).collect()
}

/// A table of these curves in the columns of the command's options.
fn table(names: &[&str]) -> String {
    let mut out = "curve,step,lr,loss\n".to_owned();
    for name in names {
        for (step, rate, loss) in losses(name) {
            let loss = loss.map_or(String::new(), |loss| loss.to_string());
            writeln!(out, "{name},{step},{rate},{loss}").unwrap();
        }
    }
    out
}

fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = super::program(folder, args).output().unwrap();
    (output.status.code(), super::text(&output.stdout), super::text(&output.stderr))
}

fn near(what: &str, got: &Value, want: f64, relative: f64) {
    let got = got.as_f64().unwrap_or_else(|| panic!("{what} is {got}"));
    assert!((got / want - 1.0).abs() < relative, "{what} is {got} instead of {want}");
}

#[test]
fn a_law_is_found_again_and_predicts_other_schedules() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("runs.csv", &table(&["constant", "cosine", "decay"]));
    let schedule: String = losses("cosine").iter().map(|(step, rate, _)| format!("{step},{rate}\n")).collect();
    write("other.csv", &format!("step,lr\n{schedule}"));
    let args = "curves runs.csv --curve curve --hold-out decay --predict other.csv --starts 2 --json --out p.csv";
    let args: Vec<&str> = args.split(' ').chain(["--plot", "p.svg"]).collect();
    let (code, out, err) = run(folder.path(), &args);
    assert_eq!(code, Some(0), "{err}");
    let document: Value = serde_json::from_str(&out).unwrap();
    for (name, want) in ["L0", "A", "alpha", "C", "lambda"].iter().zip(TRUTH) {
        // Twenty times what the noise of a thousand points leaves of the worst of them, C.
        near(name, &document["params"][name], want, 1e-2);
        assert!(document["se"][name].is_null());
    }
    assert_eq!(document["status"], "converged");
    assert!(document["certificate"]["gradient"].as_f64().unwrap() < 1e-9, "{document}");
    assert!(document["se_reason"].as_str().unwrap().contains("not independent"));
    for role in ["fitted", "held_out"] {
        assert!(document["errors"][role]["worst_relative"].as_f64().unwrap() < 1.5 * NOISE, "{role}");
    }
    let roles: Vec<&str> =
        document["curves"].as_array().unwrap().iter().map(|curve| curve["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["fitted", "fitted", "held out", "predicted"]);
    // A schedule alone is predicted as the run that had it.
    let expected = losses("cosine").last().unwrap().2.unwrap();
    near("the last loss", &document["curves"][3]["last"]["law"], expected, 1.5 * NOISE);
    let rows = std::fs::read_to_string(folder.path().join("p.csv")).unwrap();
    let last: Vec<&str> = rows.lines().last().unwrap().split(',').collect();
    assert!(rows.starts_with("curve,step,lr,loss,predicted\n") && last[0] == "other" && last[3].is_empty(), "{rows}");
    assert!((last[4].parse::<f64>().unwrap() / expected - 1.0).abs() < 1.5 * NOISE);
    let figure = std::fs::read_to_string(folder.path().join("p.svg")).unwrap();
    assert!(figure.contains("learning rate") && figure.contains("not among the curves"), "{figure}");
}

#[test]
fn a_terminal_gets_tables_of_eighty_columns() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("runs.csv"), table(&["constant", "cosine", "decay"])).unwrap();
    let args = "curves runs.csv --curve curve --leave-one-out --starts 2 --hold lambda=0.99";
    let (code, out, err) = run(folder.path(), &args.split(' ').collect::<Vec<_>>());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("unseen %") && out.contains("held") && out.contains("2 of 2 independent starts"), "{out}");
    let tables = out.lines().take_while(|line| !line.starts_with("optimum"));
    assert!(tables.clone().all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn the_folder_of_a_run_is_a_curve() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["constant", "cosine"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let line = |(step, rate, loss): (usize, f64, Option<f64>)| {
            format!(
                "{{\"step\":{step},\"lr\":{rate},\"loss\":{}}}\n",
                loss.map_or("null".to_owned(), |l| l.to_string())
            )
        };
        let lines: String = losses(name).into_iter().map(line).collect();
        std::fs::write(folder.path().join(name).join("metrics.jsonl"), lines).unwrap();
    }
    let (code, out, err) = run(folder.path(), &["curves", "constant", "cosine", "--starts", "1", "--format", "csv"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("form,n,status,parameter,value,may_move,low,high\nannealing,"), "{out}");
}

#[test]
fn refusals_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("runs.csv", &table(&["constant", "cosine"]));
    write("late.csv", "step,lr,loss\n500,1e-3,3\n600,1e-3,2.9\n");
    write("few.csv", "step,lr,loss\n1,1e-3,3\n2,1e-3,2.9\n");
    let cases = [
        ("curves runs.csv", 2, "does not come after step 599; hint: --curve COL"),
        ("curves runs.csv --curve run", 2, "no column 'run'"),
        ("curves runs.csv --curve curve --hold-out wsd", 2, "no such run; there are constant, cosine"),
        ("curves runs.csv --curve curve --hold-out constant,cosine", 2, "leaves no run to fit"),
        ("curves runs.csv --curve curve --predict runs.csv", 2, "two runs are called 'constant'"),
        ("curves runs.csv --curve curve --form tissue", 2, "the forms are annealing, multi-power"),
        ("curves runs.csv --curve curve --hold beta=1", 2, "the parameters of annealing are L0, A, alpha, C, lambda"),
        (
            "curves runs.csv --curve curve --hold lambda=2",
            2,
            "'lambda' cannot be held at 2: it is searched from 0.5 to",
        ),
        ("curves runs.csv --curve curve --plot p.pdf", 2, "a figure is written as .svg or .png"),
        ("curves runs.csv --curve curve --out p.json", 2, "predicted curves are written as .csv"),
        ("curves runs.csv --curve curve --where lr>", 2, "--where"),
        ("curves late.csv", 2, "it begins at step 500, so that the rates before are unknown; hint: --warmup STEPS"),
        ("curves few.csv", 2, "annealing has 5 parameters and needs at least 6 points"),
        ("curves few.csv --leave-one-out", 2, "--leave-one-out needs two fitted runs"),
        ("curves none.csv", 2, "cannot read none.csv"),
    ];
    for (line, status, expected) in cases {
        let (code, out, err) = run(folder.path(), &line.split(' ').collect::<Vec<_>>());
        assert_eq!(code, Some(status), "{line}: {err}");
        let errors = err.lines().filter(|line| line.contains("error: ")).count();
        assert!(err.contains(expected) && errors == 1 && out.is_empty(), "{line}: {err}");
    }
}
