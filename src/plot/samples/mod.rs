//! Figures with realistic data, made by every builder.

mod laws;

use super::figures::*;
use super::*;

/// Loss by FLOPs of arXiv:2507.06607, figure 2a.
const FLOPS: [f64; 5] = [9.122611e18, 1.039122e20, 5.838471e20, 2.2272e21, 6.650384e21];
const LOSSES: [(&str, [f64; 5], [f64; 3]); 5] = [
    ("Transformer++ (SP)", [2.6746, 2.2836, 2.0831, 1.9454, 1.836], [239.9, 0.1153, 1.1113]),
    ("Transformer++ (μP)", [2.5972, 2.2647, 2.0682, 1.9263, 1.8252], [54.54, 0.0763, 0.6428]),
    ("Transformer++ (μP++)", [2.5621, 2.244, 2.0505, 1.9164, 1.8172], [49.64, 0.0745, 0.6416]),
    ("Samba+YOCO (μP++)", [2.5014, 2.204, 2.0213, 1.8957, 1.79928], [40.57, 0.0702, 0.6069]),
    ("SambaY (μP++)", [2.5051, 2.2073, 2.0227, 1.8963, 1.7999], [39.79, 0.0694, 0.5847]),
];

fn law(parameters: [f64; 3], x: f64) -> f64 {
    parameters[0] * x.powf(-parameters[1]) + parameters[2]
}

fn logarithmic(from: f64, to: f64, count: usize) -> Vec<f64> {
    (0..count).map(|i| from * (to / from).powf(i as f64 / (count - 1) as f64)).collect()
}

/// Reproducible noise of about ±1.
fn noise(i: usize) -> f64 {
    ((i * 7919 + 104_729) % 1999) as f64 / 1000.0 - 1.0
}

pub(super) fn scaling(width: Width, residuals: bool) -> Chart {
    let series = LOSSES.iter().enumerate().map(|(i, (name, losses, parameters))| {
        let points = FLOPS.iter().zip(losses).map(|(x, y)| SeriesPoint { x: *x, y: *y, y_se: Some(1.3e-3) });
        let xs = logarithmic(4e18, 5e22, 160);
        let spread = |x: f64| 0.004 + 0.03 * (x / 6e20).log10().abs() * (x / 6e20).log10().abs() / 4.0;
        let floor = Floor { value: parameters[2], interval: Some(Span::new(parameters[2] - 0.4, parameters[2] + 0.4)) };
        let curve = Curve {
            samples: xs.iter().map(|x| (*x, law(*parameters, *x))).collect(),
            band: xs
                .iter()
                .map(|x| (*x, law(*parameters, *x) - spread(*x), law(*parameters, *x) + spread(*x)))
                .collect(),
            floor: Some(floor),
            legend: format!("A = {}, b = {}, C = {} ± 0.0{}3", parameters[0], parameters[1], parameters[2], i + 1),
        };
        Series { name: (*name).to_owned(), points: points.collect(), curve: Some(curve) }
    });
    let figure = Figure {
        title: "Validation loss against compute".to_owned(),
        x_label: "training compute (FLOPs)".to_owned(),
        y_label: "validation loss (nats per token)".to_owned(),
        series: series.collect(),
        floor: None,
        residuals,
        width,
    };
    figure.chart()
}

/// The data scaling of figure 2b, where floors are near the data, and a known floor.
fn floors(width: Width) -> Chart {
    let laws = [
        ("SP", [1.61, 0.4424, 1.8604], 0.024),
        ("μP++", [1.281, 0.3725, 1.8211], 0.008),
        ("SambaY", [1.175, 0.3771, 1.8174], 0.021),
    ];
    let series = laws.iter().enumerate().map(|(s, (name, parameters, se))| {
        let points = (1..=6).map(|i| {
            let x = 100.0 * f64::from(i);
            let y = law(*parameters, x) + 0.001 * noise(3 * s + i as usize);
            SeriesPoint { x, y, y_se: Some(1.3e-3) }
        });
        let interval = Span { lo: (s != 2).then_some(parameters[2] - 2.0 * se), hi: Some(parameters[2] + 1.5 * se) };
        let curve = Curve {
            samples: logarithmic(80.0, 2000.0, 160).into_iter().map(|x| (x, law(*parameters, x))).collect(),
            band: Vec::new(),
            floor: Some(Floor { value: parameters[2], interval: Some(interval) }),
            legend: format!("C = {:.3} ± {se:.3}", parameters[2]),
        };
        Series { name: (*name).to_owned(), points: points.collect(), curve: Some(curve) }
    });
    let floor = Some(FloorLine { loss: 1.79, label: "true floor".to_owned() });
    let labels = ("tokens (billions)".to_owned(), "loss (nats per token)".to_owned());
    Figure {
        x_label: labels.0,
        y_label: labels.1,
        series: series.collect(),
        floor,
        residuals: true,
        width,
        ..Figure::default()
    }
    .chart()
}

fn many(width: Width) -> Chart {
    let series = (0..24).map(|i| Series {
        name: format!("architecture {i} with tied embeddings and a long name"),
        points: (0..5)
            .map(|k| SeriesPoint {
                x: 1e18 * 10f64.powi(k),
                y: 3.0 - 0.3 * f64::from(k) + 0.02 * f64::from(i),
                y_se: None,
            })
            .collect(),
        curve: None,
    });
    let title =
        "A title that is much too long for one line of a column and says in many words what is seen here".to_owned();
    Figure {
        title,
        x_label: "FLOPs".to_owned(),
        y_label: "loss".to_owned(),
        series: series.collect(),
        width,
        ..Figure::default()
    }
    .chart()
}

fn reducible(width: Width) -> Chart {
    let series = LOSSES.iter().take(4).map(|(name, losses, p)| ReducibleSeries {
        name: (*name).to_owned(),
        points: FLOPS.iter().copied().zip(*losses).collect(),
        floor: p[2],
        floor_interval: Some(Span::new(p[2] - 0.13, p[2] + if *name == "Transformer++ (SP)" { 0.8 } else { 0.1 })),
        curve: logarithmic(5e18, 2e22, 100).into_iter().map(|x| (x, p[0] * x.powf(-p[1]))).collect(),
        legend: format!("b = {}, C = {}", p[1], p[2]),
    });
    let (x_label, y_label) = ("training compute (FLOPs)".to_owned(), "reducible loss L − C (nats)".to_owned());
    Reducible { title: String::new(), x_label, y_label, series: series.collect(), width }.chart()
}

fn profiles(width: Width) -> Chart {
    let curves = LOSSES.iter().enumerate().map(|(i, (name, _, p))| ProfileCurve {
        name: (*name).to_owned(),
        samples: (0..=400)
            .map(|k| f64::from(k) * 0.004)
            .map(|c| (c, ((c - p[2]) / (0.05 + 0.03 * i as f64)).powi(2)))
            .collect(),
        optimum: Some(p[2]),
        legend: format!("{:.3} to {:.3}", p[2] - 0.1, p[2] + 0.1),
    });
    ProfileCurves {
        title: "Profiles of the irreducible loss".to_owned(),
        x_label: "irreducible loss C (nats)".to_owned(),
        y_label: "deviance".to_owned(),
        cut: 3.84,
        cut_label: "95 %".to_owned(),
        curves: curves.collect(),
        width,
    }
    .chart()
}

fn rows() -> Vec<ForestRow> {
    let row = |group: &str, label: &str, estimate: f64, lo: Option<f64>, hi: Option<f64>, look: usize| ForestRow {
        label: label.to_owned(),
        group: Some(group.to_owned()),
        estimate,
        lo,
        hi,
        text: match (lo, hi) {
            (Some(lo), Some(hi)) => format!("{estimate:.3} [{lo:.2}, {hi:.2}]").replace('-', "−"),
            (None, Some(hi)) => format!("{estimate:.3} [< {hi:.2}]").replace('-', "−"),
            _ => format!("{estimate:.3}"),
        },
        look: Look(look),
    };
    vec![
        row("μP++", "SambaY", -0.057, Some(-0.13), Some(0.02), 0),
        row("μP++", "Samba+YOCO", -0.035, Some(-0.11), Some(0.04), 1),
        row("SP", "Transformer++", 0.47, None, Some(0.81), 2),
        row("SP", "TransformerLS with differential attention", 0.02, Some(-9.0), Some(11.0), 3),
    ]
}

fn forests(width: Width) -> Chart {
    let difference = ForestPanel {
        title: Some("Difference of floors".to_owned()),
        x: Axis::linear("ΔC to Transformer++ (nats)"),
        rows: rows(),
        reference: Some((0.0, "no difference".to_owned())),
    };
    let row = |label: &str, m: f64, hi: Option<f64>| ForestRow {
        label: label.to_owned(),
        estimate: m,
        lo: Some(m / 1.3),
        hi,
        text: format!("{m:.2}×"),
        ..ForestRow::default()
    };
    let multiplier = ForestPanel {
        title: Some("Compute for equal loss".to_owned()),
        x: Axis::log("compute multiplier"),
        rows: vec![row("SambaY", 0.62, Some(0.8)), row("Samba+YOCO", 0.66, Some(0.9)), row("SP", 1.7, None)],
        reference: Some((1.0, "equal".to_owned())),
    };
    forest("Architectures compared", width, vec![difference, multiplier])
}

pub(super) fn grid(width: Width) -> Chart {
    let loss = |x: usize, y: usize| {
        2.9 + 0.09 * (x as f64 - 3.2).powi(2) + 0.05 * (y as f64 - 1.4).powi(2) + 0.02 * x as f64 * y as f64
    };
    SettingGrid {
        title: "Learning rate and batch size".to_owned(),
        x_label: "learning rate".to_owned(),
        x: (0..8).map(|i| 1e-4 * 2f64.powi(i)).collect(),
        y_label: "batch size (tokens)".to_owned(),
        y: (0..5).map(|i| 131_072.0 * 2f64.powi(i)).collect(),
        values: (0..5)
            .map(|y| (0..8).map(|x| (x + y < 10 && (x, y) != (1, 3)).then(|| loss(x, y))).collect())
            .collect(),
        value_label: "loss (nats)".to_owned(),
        decimals: 3,
        range: None,
        best: Best::Least,
        width,
    }
    .chart()
}

fn shares(width: Width) -> Chart {
    let share = |x: usize, y: usize| (1.1 - 0.15 * x as f64 * (1.0 - 0.1 * y as f64)).clamp(0.0, 1.0);
    SettingGrid {
        title: "Needles in a haystack".to_owned(),
        x_label: "length (tokens)".to_owned(),
        x: (0..6).map(|i| 1024.0 * 2f64.powi(i)).collect(),
        y_label: "depth (0 beginning, 1 end)".to_owned(),
        y: (0..=10).map(|tenth| f64::from(tenth) / 10.0).collect(),
        values: (0..=10).map(|y| (0..6).map(|x| ((x, y) != (5, 0)).then(|| share(x, y))).collect()).collect(),
        value_label: "share of right answers".to_owned(),
        decimals: 2,
        range: Some((0.0, 1.0)),
        best: Best::Unmarked,
        width,
    }
    .chart()
}

fn evaluation(width: Width) -> Chart {
    const WINDOWS: [f64; 6] = [64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0];
    let table = [
        ("SambaY", [0.75, 0.851562, 0.921875, 0.84375, 0.8125, 0.804688]),
        ("SambaY+DA", [0.804688, 0.585938, 0.820312, 0.960938, 0.65625, 0.601562]),
        ("Samba+YOCO", [0.664062, 0.492188, 0.679688, 0.664062, 0.828125, 0.671875]),
        ("TransformerLS", [0.273438, 0.53125, 0.601562, 0.304688, 0.359375, 0.039062]),
        ("SWA+YOCO", [0.132812, 0.375, 0.304688, 0.132812, 0.164062, 0.085938]),
    ];
    let panel = |title: &str, x: Axis, xs: &[f64]| EvaluationPanel {
        title: Some(title.to_owned()),
        x,
        y: Axis::linear("accuracy").within(0.0, 1.0),
        series: table
            .iter()
            .map(|(name, shares)| EvaluationSeries {
                name: (*name).to_owned(),
                points: xs
                    .iter()
                    .zip(shares)
                    .map(|(x, p)| {
                        let half = 1.96 * f64::sqrt(p * (1.0 - p) / 128.0);
                        DataPoint::with_bar(*x, *p, Span::new((p - half).max(0.0), (p + half).min(1.0)))
                    })
                    .collect(),
            })
            .collect(),
        references: vec![
            (0.609375, "Transformer++".to_owned()),
            (0.6, "another at nearly the same place".to_owned()),
            (0.02, "chance".to_owned()),
        ],
    };
    let lengths = WINDOWS.map(|window| 128.0 * window);
    let named = Ticks::Named(lengths.iter().map(|length| (*length, format!("{}K", length / 1024.0))).collect());
    Evaluation {
        title: "Phonebook retrieval at 32K".to_owned(),
        panels: vec![
            panel(
                "(a) by window",
                Axis::log("sliding window (tokens)").with_ticks(Ticks::Values(WINDOWS.to_vec())),
                &WINDOWS,
            ),
            panel("(b) by length", Axis::log("context length (tokens)").with_ticks(named), &lengths),
            panel(
                "(c) by depth of the needle",
                Axis::linear("depth of the needle (share)"),
                &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            ),
        ],
        note: "Bars: 95 % intervals of 128 prompts.".to_owned(),
        width,
    }
    .chart()
}

fn loss_curves(width: Width) -> Chart {
    let runs = (0..12).map(|r| RunCurve {
        name: format!("depth {}, learning rate {}e-4", 8 + 4 * (r / 3), 1 << (r % 3)),
        points: (1..20_000)
            .map(|i| {
                let x = 2.1e6 * i as f64;
                (x, 2.1 + 0.05 * r as f64 + 60.0 * (i as f64 + 20.0).powf(-0.6) + 0.04 * noise(i * (r + 3)))
            })
            .collect(),
    });
    LossCurves {
        title: "Training losses".to_owned(),
        x: Axis::log("tokens"),
        y: Axis::linear("training loss (nats per token)").within(1.9, 6.0),
        runs: runs.collect(),
        width,
    }
    .chart()
}

fn coverage(width: Width) -> Chart {
    let series = [("profile, F", 0.945), ("profile, likelihood ratio", 0.9), ("Wald", 0.85), ("bootstrap", 0.8)];
    let series = series.iter().enumerate().map(|(s, (name, base))| EvaluationSeries {
        name: (*name).to_owned(),
        points: [4.0, 5.0, 6.0, 8.0, 10.0, 12.0]
            .iter()
            .map(|n| {
                let p = 0.95 - (0.95 - base) * 4.0 / n + 0.004 * noise(s + *n as usize);
                DataPoint::with_bar(*n, p, Span::new(p - 0.012, p + 0.011))
            })
            .collect(),
    });
    let (title, x_label) = ("Coverage of intervals of C".to_owned(), "points in a fit".to_owned());
    Coverage { title, x_label, nominal: 0.95, series: series.collect(), width }.chart()
}

/// Cramped: axes over extreme ranges, colliding references, notes.
fn extremes(width: Width) -> Chart {
    let panel = |x: Axis, y: Axis, points: &[(f64, f64)]| XyPanel {
        title: Some("A heading of a panel that needs more than one line in a narrow cell".to_owned()),
        points: vec![PointSet {
            name: "all".to_owned(),
            points: points.iter().map(|(x, y)| DataPoint::new(*x, *y)).collect(),
            ..PointSet::default()
        }],
        references: (0..4)
            .map(|i| Reference {
                value: points[0].1 * (1.0 + 1e-6 * f64::from(i)),
                label: format!("reference {i}"),
                ..Reference::default()
            })
            .chain((0..3).map(|i| Reference {
                value: points[0].0 * (1.0 + 1e-6 * f64::from(i)),
                label: format!("place {i}"),
                direction: Direction::Vertical,
            }))
            .collect(),
        notes: points.iter().map(|(x, y)| Note { x: *x, y: *y, text: "a note".to_owned(), look: None }).collect(),
        x,
        y,
        ..XyPanel::default()
    };
    let panels = vec![
        panel(Axis::log("x from 1e-3 to 1e26"), Axis::log("y over 40 decades"), &[(1e-3, 1e-20), (1e26, 1e20)]),
        panel(Axis::linear("across zero"), Axis::linear("a tiny range"), &[(-0.3, 1.8272), (0.7, 1.8279)]),
        panel(Axis::log("below a decade"), Axis::linear("negative"), &[(3e25, -7.0), (8e25, -2e-4)]),
        panel(Axis::linear("large"), Axis::log("below a decade"), &[(1e9, 1.8272), (1e9 + 2.0, 1.8279)]),
        panel(Axis::linear("one point"), Axis::log("one point"), &[(123_456.0, 1e-3)]),
        panel(Axis::linear("huge"), Axis::linear("huge"), &[(-1e26, 0.0), (1e26, 3e21)]),
    ];
    Chart {
        title: "Ranges".to_owned(),
        width,
        panels: panels.into_iter().map(Into::into).collect(),
        columns: 3,
        ..Chart::default()
    }
}

fn charts(width: Width) -> Vec<(&'static str, Chart)> {
    vec![
        ("loss_against_x", scaling(width, false)),
        ("loss_with_residuals", scaling(width, true)),
        ("floors", floors(width)),
        ("many_series", many(width)),
        ("reducible", reducible(width)),
        ("profiles", profiles(width)),
        ("isoflop", laws::isoflop(width)),
        ("allocation", laws::allocation(width)),
        ("surface", laws::surface(width)),
        ("forest", forests(width)),
        ("lr_batch", grid(width)),
        ("needles", shares(width)),
        ("evaluation", evaluation(width)),
        ("loss_curves", loss_curves(width)),
        ("curve_fits", laws::curve_fits(width)),
        ("coverage", coverage(width)),
        ("latency", super::figures::latency::sample(width)),
        ("extremes", extremes(width)),
    ]
}

pub(super) fn all() -> Vec<(String, Chart)> {
    let named =
        |width| charts(width).into_iter().map(move |(name, chart)| (format!("{name}_{width:?}").to_lowercase(), chart));
    named(Width::Column).chain(named(Width::Full)).collect()
}
