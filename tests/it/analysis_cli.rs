//! `fit` and `plot` as commands: the JSON contract, the table, refusals and exit statuses.

use assert_cmd::Command;
use serde_json::Value;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/published_scaling.csv");

pub(super) fn lossfloor(args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("lossfloor").unwrap().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn fit_file(name: &str, text: &str, more: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let mut args = vec!["fit", path.to_str().unwrap(), "--x", "flops", "--y", "loss"];
    args.extend(more);
    lossfloor(&args)
}

const FLOOR: [&str; 2] = ["--form", "power+floor"];

#[test]
fn json_keeps_its_contract() {
    let (code, out, err) = lossfloor(&[
        "fit",
        DATA,
        "--form",
        "power+floor",
        "--x",
        "flops",
        "--y",
        "loss",
        "--group",
        "series",
        "--json",
    ]);
    assert_eq!((code, err.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["schema"], 1);
    let fits = document["fits"].as_array().unwrap();
    assert_eq!(fits.len(), 15);
    let sambay = fits.iter().find(|fit| fit["group"] == "flops: SambaY muP++").unwrap();
    assert_eq!(
        (&sambay["form"], &sambay["n"], &sambay["status"]),
        (&"power+floor".into(), &5.into(), &"converged".into())
    );
    let near =
        |value: &Value, want: f64| assert!((value.as_f64().unwrap() / want - 1.0).abs() < 2e-3, "{value} {want}");
    near(&sambay["params"]["A"], 39.79);
    near(&sambay["params"]["b"], 0.0694);
    near(&sambay["params"]["C"], 0.5847);
    near(&sambay["se"]["C"], 0.0331);
    near(&sambay["interval"]["C"][0], 0.428);
    near(&sambay["interval"]["C"][1], 0.715);
    near(&sambay["r2"], 0.999996);
    // σ = 0.0008 with two degrees of freedom: the sum over the points, not the mean.
    near(&sambay["objective"], 2.0 * sambay["residual_sd"].as_f64().unwrap().powi(2));
    let open = fits.iter().find(|fit| fit["group"] == "flops: Transformer++ SP").unwrap();
    assert_eq!(open["interval"]["C"][0], Value::Null);

    let (_, out, _) =
        lossfloor(&["fit", DATA, "--form", "power", "--x", "flops", "--y", "loss", "--interval", "none", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    let fit = &document["fits"][0];
    assert_eq!(fit["group"], Value::Null);
    assert_eq!(fit["interval"], serde_json::json!({}));
    assert_eq!(fit["params"].as_object().unwrap().keys().collect::<Vec<_>>(), ["A", "b"]);
}

#[test]
fn the_table_is_narrow_and_gives_errors() {
    let (code, out, _) =
        lossfloor(&["fit", DATA, "--form", "power+floor", "--x", "flops", "--y", "loss", "--group", "series"]);
    assert_eq!(code, 0);
    assert!(out.lines().take(40).all(|line| line.chars().count() <= 80), "{out}");
    assert!(out.contains("± 0.033") && out.contains("C is not identified: [0, 1.491]"), "{out}");
    assert!(out.contains("line 38: loss 2.0075 lies 24 standard deviations above the law of the other rows"), "{out}");
    // Long lines break between words.
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("it counts; check whether it diverged; hint: --where"), "{out}");
}

#[test]
fn runs_that_did_not_complete_are_counted() {
    let csv = "flops,loss,status\n1,4,completed\n2,3,completed\n4,2.5,completed\n8,2.2,completed\n16,9,diverged\n";
    let (code, out, err) = fit_file("t.csv", csv, &FLOOR);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("1 diverged row left out"), "{out}");
}

#[test]
fn refusals_are_one_line_with_a_hint() {
    let few = "flops,loss\n1,4\n2,3\n4,2.5\n";
    let rising = "flops,loss\n1,1\n2,2\n4,3\n8,4\n";
    let cases: [(&str, &str, &[&str], i32, &str); 6] = [
        ("t.csv", few, &FLOOR, 2, "power+floor has 3 parameters and needs at least 4 points"),
        ("t.csv", rising, &FLOOR, 5, "the loss does not fall as x grows"),
        ("t.csv", "flop,loss\n1,2\n", &FLOOR, 2, "no column 'flops'; hint: did you mean 'flop'?"),
        ("t.csv", "flops,loss\n1,2\n2,x\n", &FLOOR, 2, "t.csv line 3, column 'loss': 'x' is not a positive number"),
        ("t.txt", few, &FLOOR, 2, "accepted are .csv, .jsonl and .parquet"),
        (
            "t.csv",
            few,
            &["--form", "power+floor", "--group", "name"],
            2,
            "no column 'name'; its columns are flops, loss",
        ),
    ];
    for (name, text, args, code, expected) in cases {
        let (got, out, err) = fit_file(name, text, args);
        assert_eq!((got, out.as_str()), (code, ""), "{err}");
        assert!(err.starts_with("error: ") && err.contains(expected) && err.lines().count() == 1, "{err}");
    }
    let (code, out, _) = fit_file("t.csv", rising, &["--form", "power+floor", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document["fits"][0]["status"]), (5, &"no_fit".into()));
    for (option, value, expected) in [
        ("--form", "chinchila", "did you mean 'chinchilla'?"),
        ("--form", "chinchilla", "--form chinchilla needs --n and --d as well"),
        ("--loss", "huber:0", "huber:DELTA"),
        ("--interval", "bootstrap:3", "K of 20 or more"),
        ("--hold", "D=1", "the parameters of power+floor are A, b, C"),
        ("--at", "y=3", "power+floor needs x=NUMBER"),
        ("--where", "depth > 3", "character 1: there is no column 'depth'"),
    ] {
        let mut args = FLOOR.to_vec();
        if option == "--form" {
            args.clear();
        }
        args.extend([option, value]);
        let (code, _, err) = fit_file("t.csv", few, &args);
        assert!(code == 2 && err.contains(expected), "{option}: {err}");
    }
    let (code, _, err) = lossfloor(&["fit", "absent.csv", "--form", "power", "--x", "a", "--y", "b"]);
    assert!(code == 2 && err.contains("cannot read absent.csv"), "{err}");
}

#[test]
fn figures_are_written_in_both_formats() {
    let folder = tempfile::tempdir().unwrap();
    for (name, start) in [("f.svg", &b"<svg width=\"1400\" height=\""[..]), ("f.png", b"\x89PNG")] {
        let path = folder.path().join(name);
        let (code, out, err) = lossfloor(&[
            "plot",
            DATA,
            "--x",
            "tokens",
            "--y",
            "loss",
            "--group",
            "series",
            "--fit",
            "power+floor",
            "--floor",
            "1.7",
            "--out",
            path.to_str().unwrap(),
            "--title",
            "Published <losses>",
        ]);
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(start), "{name}");
        if name == "f.svg" {
            let text = String::from_utf8(bytes).unwrap();
            assert!(
                text.contains("true floor 1.7000") && text.contains("C = 0.585 ± 0.033") == text.contains("C = 0.585")
            );
            assert!(text.contains("Published &lt;losses&gt;") && text.contains("DejaVu Sans, Verdana, sans-serif"));
        }
    }
    let (code, _, err) = lossfloor(&["plot", DATA, "--x", "flops", "--y", "loss", "--out", "f.pdf"]);
    assert!(code == 2 && err.contains(".svg or .png"), "{err}");
}

#[test]
fn rows_that_were_not_computed_alike_are_named() {
    let table = |second: &str| {
        format!(
            "flops,loss,status,device,precision\n1e18,3,completed,cpu,fp32\n1e19,2.5,completed,{second}\n\
             1e20,2.2,completed,cpu,fp32\n1e21,2.1,failed,auto,unknown\n"
        )
    };
    let form = ["--form", "power"];
    let (code, out, err) = fit_file("t.csv", &table("cpu,fp32"), &form);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(!out.contains("differ"), "what did not complete takes no part: {out}");
    let note = "rows differ in precision (bf16, fp32): their losses differ by rounding, too";
    let (_, out, _) = fit_file("t.csv", &table("cpu,bf16"), &form);
    assert!(out.contains(note) && !out.contains("rows differ in device"), "{out}");
    let (_, out, err) = fit_file("t.csv", &table("NVIDIA H200,bf16"), &[&form[..], &["--json"]].concat());
    assert!(err.contains(note) && err.contains("rows differ in device (NVIDIA H200, cpu)"), "{err}");
    serde_json::from_str::<Value>(&out).unwrap();
}

fn compare(more: &[&str]) -> (i32, String, String) {
    let groups = "flops: Transformer++ muP++,flops: Samba+YOCO muP++,flops: SambaY muP++";
    let fixed = ["compare", DATA, "--form", "power+floor", "--x", "flops", "--y", "loss", "--group", "series"];
    lossfloor(&[&fixed[..], &["--groups", groups], more].concat())
}

/// What the published points support: F and p of the nested tests, the reversal of the order, and the paired differences.
#[test]
fn a_comparison_of_the_published_points_claims_no_difference_of_floors() {
    let (code, out, err) = compare(&["--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&out).unwrap();
    let near = |value: &Value, want: f64, tolerance: f64| {
        assert!((value.as_f64().unwrap() - want).abs() <= tolerance, "{value} {want}");
    };
    let test = |null: &str| document["tests"].as_array().unwrap().iter().find(|t| t["null"] == null).unwrap().clone();
    let common = test("one C");
    near(&common["statistic"], 1.29, 5e-3);
    near(&common["p"], 0.34, 5e-3);
    assert_eq!(common["df"], serde_json::json!([2.0, 6.0]));
    near(&common["floors"]["flops: SambaY muP++"], 0.613, 5e-4);
    let exponent = test("one exponent");
    near(&exponent["shapes"]["b"], 0.0715, 5e-5);
    for (name, floor) in [("Transformer++", 0.578), ("SambaY", 0.629), ("Samba+YOCO", 0.635)] {
        near(&exponent["floors"][format!("flops: {name} muP++")], floor, 5e-4);
    }
    let pairs = document["pairs"].as_array().unwrap();
    let hybrids = pairs.iter().find(|t| t["baseline"] == "flops: Samba+YOCO muP++").unwrap();
    near(&hybrids["statistic"], 0.25, 5e-3);
    near(&hybrids["p"], 0.64, 5e-3);
    assert!(pairs.iter().all(|t| t["p_holm"].as_f64() > Some(0.4)));
    let paired = document["paired"].as_array().unwrap();
    near(&paired[0]["points"][0]["difference"], -0.0607, 1e-9);
    // At the smallest loss of both, the hybrid needs a fifth less compute.
    let multipliers = document["compute_multiplier"].as_array().unwrap();
    let at_the_end = multipliers.iter().find(|m| m["loss"] == 1.8172).unwrap();
    near(&at_the_end["multiplier"], 1.228, 1e-3);
    let interval = at_the_end["interval"].as_array().unwrap();
    assert!(interval[0].as_f64() > Some(1.19) && interval[1].as_f64() < Some(1.27), "{interval:?}");
    let verdict = document["verdict"].as_str().unwrap();
    for words in [
        "do not tell the irreducible losses apart",
        "C = 0.613 is not rejected (F(2, 6) = 1.29, p = 0.34)",
        "a property of the fit, not of the data",
        "flops: SambaY muP++ is above flops: Samba+YOCO muP++ at all 5 budgets, by 0.0006 to 0.0037",
    ] {
        assert!(verdict.contains(words), "{verdict}");
    }
    let (code, out, _) = compare(&["--also-x", "tokens"]);
    assert!(code == 0 && out.contains("with x = tokens:") && out.contains("by 0.0006 to 0.0037 (mean +0.00"), "{out}");
    let (code, _, err) = compare(&["--baseline", "none"]);
    assert!(code == 2 && err.contains("no group 'none'") && err.lines().count() == 1, "{err}");
}

#[test]
fn what_is_held_keeps_its_value_and_has_no_error() {
    let fixed = ["fit", DATA, "--form", "power+floor", "--x", "flops", "--y", "loss", "--json"];
    let only = ["--where", "series == \"flops: SambaY muP++\"", "--hold", "C=0.6", "--at", "x=1e23"];
    let (code, out, err) = lossfloor(&[&fixed[..], &only].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&out).unwrap();
    let fit = &document["fits"][0];
    assert_eq!((&fit["params"]["C"], &fit["se"]["C"], &fit["n"]), (&0.6.into(), &Value::Null, &5.into()));
    assert_eq!(document["options"]["held"]["C"], 0.6);
    // The exponent that belongs to this floor, and an error that the pinned floor makes smaller.
    assert!((fit["params"]["b"].as_f64().unwrap() - 0.0701).abs() < 1e-4, "{fit}");
    assert!(fit["se"]["b"].as_f64().unwrap() < 1e-4, "{fit}");
}
