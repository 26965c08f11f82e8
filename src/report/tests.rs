use super::*;
use crate::analysis::{self, FitOptions, Objective, Sample, forms};
use crate::plot::{Curve, Figure, FloorLine, Series, SeriesPoint, Width};
use crate::record::{RunStatus, SCHEMA};

fn record(run_id: &str, depth: u64, status: RunStatus) -> RunRecord {
    let completed = status == RunStatus::Completed;
    RunRecord {
        schema: SCHEMA,
        run_id: run_id.into(),
        label: "SambaY, <b>μP++</b>".into(),
        architecture: "sambay".into(),
        depth,
        d_model: 64 * depth,
        params_total: 1_038_682_112,
        params_embedding: 1,
        params_matrix: 2,
        params_vector: 3,
        params_readout: 4,
        tokens: 100_000_000_000,
        flops_six_n_formula: 5.838_471e20,
        flops_six_n_exact: 1e20 / 3.0,
        flops: 7e20,
        seq_len: 4096,
        batch_tokens: 2_097_152,
        parametrization: "mup++".into(),
        lr: 4e-4,
        weight_decay: 0.1,
        seed: 1,
        precision: "bf16".into(),
        backend: "fused".into(),
        status,
        reason: (!completed).then(|| "loss is NaN at step 12,\n\"quoted\" | piped".into()),
        steps: 47_683,
        train_loss: completed.then_some(2.031),
        val_loss: completed.then_some(2.0242),
        val_loss_se: completed.then_some(0.0013),
        val_loss_2x: None,
        val_loss_3x: None,
        val_loss_4x: None,
        val_tokens: 800_000,
        floor: Some(1.2),
        wall_s: 3723.5,
        tokens_per_s: 1.25e5,
        device: "cpu".into(),
        processes: 1,
        git_commit: None,
        finished_at: "2026-01-02T03:04:05Z".into(),
    }
}

fn input() -> ReportInput {
    let points: Vec<(f64, f64)> = (0..6)
        .map(|i| {
            let x = 1e17 * 10f64.powf(0.7 * f64::from(i));
            (x, 150.0 * x.powf(-0.12) + 1.2 + 0.002 * f64::from((i * 7 + 3) % 5 - 2))
        })
        .collect();
    let fit = analysis::fit(&Sample::of_pairs(points.clone()), &FitOptions::new(forms::power_floor())).unwrap();
    let few = analysis::fit(&Sample::of_pairs(points[..3].to_vec()), &FitOptions::new(forms::power_floor()));
    let figure = Figure {
        title: "Loss against compute".into(),
        x_label: "training FLOPs".into(),
        y_label: "validation loss, nats per token".into(),
        series: vec![Series {
            name: "SambaY <script>alert(1)</script>".into(),
            points: points.iter().map(|(x, y)| SeriesPoint { x: *x, y: *y, y_se: Some(0.02) }).collect(),
            curve: Some(Curve {
                samples: points.iter().map(|(x, _)| (*x, fit.law.loss(&[*x]))).collect(),
                ..Curve::default()
            }),
        }],
        floor: Some(FloorLine { loss: 1.2, label: "true floor".into() }),
        residuals: false,
        width: Width::Full,
    };
    ReportInput {
        title: "A small study".into(),
        study: "demo".into(),
        generated_by: "lossfloor 0.1.0".into(),
        records: vec![
            record("b2", 8, RunStatus::Completed),
            record("a1", 4, RunStatus::Completed),
            record("c3", 12, RunStatus::Diverged),
        ],
        missing: vec![MissingRun { run_id: "d4".into(), label: "SambaY".into(), state: "pending".into() }],
        fits: vec![ReportFit {
            name: "flops".into(),
            inputs: "x = counted training FLOPs".into(),
            law: forms::power_floor(),
            objective: Objective::LeastSquares,
            groups: vec![
                GroupResult { group: "SambaY".into(), outcome: Ok(fit) },
                GroupResult { group: "Transformer".into(), outcome: few },
            ],
            verdict: Some("Nothing tells them apart.".into()),
        }],
        figures: vec![ReportFigure {
            caption: "Loss against compute.".into(),
            svg_path: "figures/demo.svg".into(),
            png_path: Some("figures/demo.png".into()),
            svg: figure.svg().unwrap(),
        }],
        evaluations: vec![ReportEvaluation {
            name: "books".into(),
            what: "--task phonebook --entries 3".into(),
            is_share: true,
            header: ["label", "run_id", "entries", "value"].map(str::to_owned).into(),
            rows: vec![["SambaY | <b>μP++</b>", "e5", "3", "0.750"].map(str::to_owned).into()],
        }],
        unmeasured: vec!["books: SambaY a1 step 3: <unreadable>".into()],
        corpus: Some(CorpusSummary {
            description: "synthetic text".into(),
            train_tokens: 1_000_000,
            validation_tokens: 100_000,
            vocab_size: 256,
            floor: Some(1.2),
        }),
        floor: Some(1.2),
        commands: vec![RerunCommand {
            what: "the fits".into(),
            command: "lossfloor fit results/demo.csv --form power+floor --x flops --y val_loss --group label".into(),
        }],
    }
}

#[test]
fn a_report_shows_troubles_first_and_every_c_with_its_error() {
    let text = input().markdown();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} is missing from\n{text}"));
    assert!(at("2 of 4 runs are not in the fits") < at("figures/demo.svg"));
    assert!(at("diverged, loss is NaN at step 12, \"quoted\" \\| piped") < at("## Fits"));
    at("d4: no record (pending)");
    assert!(at("1 checkpoint is not evaluated") < at("books: SambaY a1 step 3"));
    assert!(at("## Evaluation: books") < at("| 3 | 0.750 |"));
    at("The value is the share of right answers");
    at("covers the true floor 1.2000");
    at("Transformer: no fit, because power+floor has 3 parameters");
    at("2.0242 ± 0.0013");
    at("lossfloor fit results/demo.csv");
    assert!(at("| a1 |") < at("| b2 |"));
}

#[test]
fn the_floor_of_the_part_that_counts_is_told_from_that_of_the_corpus() {
    assert!(!input().markdown().contains("On the part"));
    let text = ReportInput { floor: Some(1.19), ..input() }.markdown();
    assert!(text.contains("is 1.20000 nats per token. On the part that runs were evaluated on"), "{text}");
    assert!(text.contains("which is what counts for fits, it is 1.19000."), "{text}");
}

#[test]
fn runs_that_were_not_computed_alike_are_named() {
    let mut input = input();
    assert!(input.markdown().contains("All were computed on cpu in bf16 with fused kernels."), "{}", input.markdown());
    // A diverged run is in no fit.
    input.records[2].device = "GPU".into();
    assert!(!input.markdown().contains("GPU"));
    input.records[1].precision = "fp32".into();
    let text = input.markdown();
    for expected in [
        "> **Not all runs were computed alike: their losses differ by rounding as well as by model**\n>\n\
         > - 1 run: cpu in bf16 with fused kernels\n> - 1 run: cpu in fp32 with fused kernels\n",
        "| tokens/s | computed on |",
        "| cpu in fp32 with fused kernels |",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn html_is_self_contained_escaped_and_deterministic() {
    let mut shuffled = input();
    shuffled.records.reverse();
    let page = input().html();
    assert_eq!(page, shuffled.html());
    assert!(!page.contains("<script") && !page.contains("<b>μP"), "unescaped");
    assert!(page.contains("&lt;script&gt;") && page.contains("&lt;b&gt;μP++&lt;/b&gt;"));
    assert!(page.contains("<svg ") && !page.contains("src=") && !page.contains("<link"));
    for tag in ["table", "figure", "ul", "div", "pre"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    if let Some(folder) = std::env::var_os("LOSSFLOOR_KEEP_REPORT") {
        std::fs::write(std::path::Path::new(&folder).join("report.html"), &page).unwrap();
    }
}

#[test]
fn a_study_survives_its_csv() {
    let records = input().records;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results/demo.csv");
    results::write(&path, &records).unwrap();
    let read = results::read(&path).unwrap();
    assert_eq!(read, results::ordered(&records).into_iter().cloned().collect::<Vec<_>>());
    let reversed: Vec<RunRecord> = records.iter().rev().cloned().collect();
    assert_eq!(results::to_csv(&records).unwrap(), results::to_csv(&reversed).unwrap());
    std::fs::write(&path, results::to_csv(&records).unwrap().replace("completed", "finished")).unwrap();
    let error = results::read(&path).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

/// The columns of the CSV and the rows of the dictionary are the same words in the same order.
#[test]
fn the_column_dictionary_is_complete() {
    let csv = results::to_csv(&[record("a", 1, RunStatus::Completed)]).unwrap();
    let columns: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let readme = include_str!("../../results/README.md");
    let named: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(named, columns);
    assert!(readme.lines().filter(|line| line.starts_with("| `")).all(|line| line.matches(" | ").count() == 2));
}
