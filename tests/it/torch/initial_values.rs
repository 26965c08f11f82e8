//! First values of parameters against those that the reference drew (`tests/golden/init_stats.json`).
//!
//! The golden file is of the reference's current head; this project starts models as the paper's release did. The cells in
//! which the two differ are listed in [`difference`], each with what the release does there; everything else is compared
//! as it stands.

use lossfloor::arch::params::parameters;
use lossfloor::arch::{self, ModelConfig, ModelShape};
use lossfloor::nn::ParamStore;
use lossfloor::scaling::{InitDistribution, ModelScaling, OutInitDiv, Parametrization};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use tch::Device;

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Stats {
    count: usize,
    mean: f64,
    std: f64,
    min: f64,
    max: f64,
}

#[derive(Deserialize)]
struct Golden {
    arch: String,
    parameterization: String,
    n_layer: usize,
    n_embd: usize,
    config: GoldenConfig,
    stats: BTreeMap<String, Stats>,
}

#[derive(Deserialize)]
struct GoldenConfig {
    n_head: usize,
    n_query_groups: usize,
    head_dim: usize,
    intermediate_size: usize,
    padded_vocab_size: usize,
    tied_embed: bool,
    mup_d0: usize,
}

/// What the paper's release does where the head does something else.
#[derive(Clone, Copy, Debug)]
enum Difference {
    /// The head divides by √(2d) whatever is called `*proj.weight` when embeddings are tied; the release divides the
    /// outputs to the residual stream alone.
    NotDivided,
    /// The head overwrites the division of outputs under the standard parameterisation.
    Divided,
    /// The head draws the readout from N(0, 0.02²).
    Zero,
    /// The head sets the biases of convolutions to zero.
    Convolution,
}

fn difference(parameterization: &str, name: &str) -> Option<Difference> {
    let is = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    match parameterization {
        _ if is(&["conv1d.bias"]) => Some(Difference::Convolution),
        "mupp_tie" if is(&["attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"]) => {
            Some(Difference::NotDivided)
        }
        "mupp_tie" if is(&["in_proj.weight", "x_proj.weight", "dt_proj.weight"]) => Some(Difference::NotDivided),
        "sp" if is(&["attn.proj.weight", "out_proj.weight", "mlp.w3.weight"]) => Some(Difference::Divided),
        "mupp" if is(&["lm_head.weight"]) => Some(Difference::Zero),
        _ => None,
    }
}

fn stats(values: &[f32]) -> Stats {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
    let fold = |f: fn(f64, f64) -> f64, start: f64| values.iter().map(|&v| f64::from(v)).fold(start, f);
    Stats {
        count: values.len(),
        mean,
        std: (squares / (n - 1.0)).sqrt(),
        min: fold(f64::min, f64::INFINITY),
        max: fold(f64::max, f64::NEG_INFINITY),
    }
}

/// By how much mean, standard deviation, and each extreme of two samples of n values may differ: what a chance of 1e-5
/// allows, for each of about 700 comparisons.
///
/// Mean and standard deviation are normal, with variances 2σ²/n and, for a kurtosis of at most 3, σ²/n. The extremes of a
/// bounded distribution lie within (width / n) ln(1/p) of its ends. Those of a normal one are Gumbel with scale
/// σ/√(2 ln n), so that their difference is logistic.
fn bounds(distribution: InitDistribution, n: usize, sigma: f64) -> (f64, f64, f64) {
    const P: f64 = 1e-5;
    const Z: f64 = 4.42;
    let n = n as f64;
    let (mean, std) = (Z * sigma * (2.0 / n).sqrt(), Z * sigma / n.sqrt());
    let bounded = |width: f64| width / n * (1.0 / P).ln();
    let extremes = match distribution {
        InitDistribution::Constant(_) | InitDistribution::LogStates => return (1e-5, 1e-4, 1e-6),
        InitDistribution::Uniform { bound } => bounded(2.0 * bound),
        InitDistribution::StepSizeBias => bounded(4.66),
        InitDistribution::Normal { std } => std / (2.0 * n.ln()).sqrt() * (2.0 / P).ln(),
    };
    (mean, std, extremes)
}

fn assert_alike(what: &str, got: Stats, want: Stats, distribution: InitDistribution) {
    assert_eq!(got.count, want.count, "{what}");
    let (mean, std, extremes) = bounds(distribution, got.count, want.std);
    for (name, got, want, bound) in [
        ("mean", got.mean, want.mean, mean),
        ("std", got.std, want.std, std),
        ("min", got.min, want.min, extremes),
        ("max", got.max, want.max, extremes),
    ] {
        assert!((got - want).abs() <= bound, "{what}: {name} {got}, in the reference {want}, allowed ± {bound}");
    }
}

fn check(golden: &Golden, met: &mut BTreeSet<(String, String)>) {
    let architecture = arch::lookup(&golden.arch).expect("known");
    let config = &golden.config;
    let shape = ModelShape {
        d_model: golden.n_embd,
        n_heads: config.n_head,
        n_kv_heads: config.n_query_groups,
        head_dim: config.head_dim,
        d_mlp: config.intermediate_size,
        vocab_size: config.padded_vocab_size,
        tie_embeddings: config.tied_embed,
        ..ModelShape::published(architecture, golden.n_layer)
    };
    let model = ModelConfig::new(architecture, shape).expect("a valid shape");
    let parametrization = match golden.parameterization.as_str() {
        "sp" => Parametrization::Standard,
        _ => Parametrization::MupPlusPlus,
    };
    let scaling = ModelScaling {
        parametrization,
        depth: golden.n_layer,
        base_depth: config.mup_d0,
        tied: config.tied_embed,
        out_init_div: OutInitDiv::Auto,
    };
    // Layers pooled, under the name of the golden file; a tied matrix is there called by its other name.
    let pooled_name = |name: &str| match name.strip_prefix("transformer.h.").and_then(|rest| rest.split_once('.')) {
        Some((_, rest)) => format!("transformer.h.*.{rest}"),
        None if config.tied_embed && name == "transformer.wte.weight" => "lm_head.weight".to_owned(),
        None => name.to_owned(),
    };
    let mut pooled: BTreeMap<String, (Vec<f32>, InitDistribution)> = BTreeMap::new();
    let store = ParamStore::init(&model, &scaling, 1, Device::Cpu);
    for spec in parameters(&model) {
        let values = Vec::<f32>::try_from(store.get(&spec.name).detach().reshape([-1])).expect("fp32");
        let entry = pooled.entry(pooled_name(&spec.name)).or_insert((Vec::new(), scaling.init(spec.init)));
        assert_eq!(entry.1, scaling.init(spec.init), "{}: one distribution in all layers", spec.name);
        entry.0.extend(values);
    }
    let names: Vec<&String> = pooled.keys().collect();
    assert_eq!(names, golden.stats.keys().collect::<Vec<_>>());

    let root = (2.0 * golden.n_layer as f64).sqrt();
    for (name, (values, distribution)) in &pooled {
        let what = format!("{} {} {name}", golden.arch, golden.parameterization);
        let (got, reference) = (stats(values), golden.stats[name]);
        let times = |factor: f64| Stats {
            mean: reference.mean * factor,
            std: reference.std * factor,
            min: reference.min * factor,
            max: reference.max * factor,
            ..reference
        };
        let differs = difference(&golden.parameterization, name);
        if differs.is_some() {
            met.insert((golden.parameterization.clone(), name.clone()));
        }
        let constant = |value: f64| Stats { count: reference.count, mean: value, std: 0.0, min: value, max: value };
        match differs {
            None => assert_alike(&what, got, reference, *distribution),
            Some(Difference::NotDivided) => assert_alike(&what, got, times(root), *distribution),
            Some(Difference::Divided) => assert_alike(&what, got, times(1.0 / root), *distribution),
            Some(Difference::Zero) => {
                assert_eq!(got, constant(0.0), "{what}");
                let drawn = InitDistribution::Normal { std: 0.02 };
                let (mean, std, _) = bounds(drawn, reference.count, 0.02);
                assert!(reference.mean.abs() < mean && (reference.std - 0.02).abs() < std, "{what}: the head draws it");
            }
            Some(Difference::Convolution) => {
                assert_eq!(reference, constant(0.0), "{what}: the head sets it to zero");
                let uniform = Stats { mean: 0.0, std: 0.5 / 3f64.sqrt(), min: -0.5, max: 0.5, ..reference };
                assert_alike(&what, got, uniform, InitDistribution::Uniform { bound: 0.5 });
            }
        }
    }
}

#[test]
fn first_values_are_distributed_as_the_reference_draws_them() {
    super::set_up();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/init_stats.json");
    let goldens: Vec<Golden> =
        serde_json::from_str(&std::fs::read_to_string(path).expect("in the tree")).expect("as expected");
    assert_eq!(goldens.len(), 9, "three architectures, three parameterisations");
    let mut met = BTreeSet::new();
    for golden in &goldens {
        check(golden, &mut met);
    }
    // conv1d.bias thrice, seven input projections, four outputs, the readout.
    assert_eq!(met.len(), 3 + 7 + 4 + 1, "{met:#?}");
}
