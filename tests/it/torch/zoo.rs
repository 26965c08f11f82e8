//! Every architecture of the table, small: parameters, causality, gradients, the start of training.

use super::{scaling, set_up, tiny};
use lossfloor::arch::params::parameters;
use lossfloor::arch::{ARCHITECTURES, ModelConfig};
use lossfloor::nn::{DecoderLm, ForwardOptions, ParamStore, Precision, RopeTable};
use lossfloor::ops::Backend;
use lossfloor::scaling::Parametrization;
use tch::{Device, Kind, Tensor};

const OPTIONS: ForwardOptions =
    ForwardOptions { backend: Backend::Fused, precision: Precision::Fp32, rope_table: RopeTable::Fp32 };

fn ids(time: i64) -> Tensor {
    (Tensor::arange(2 * time, (Kind::Int64, Device::Cpu)) * 37 + 11).remainder(61).reshape([2, time])
}

fn model_of(config: &ModelConfig, parametrization: Parametrization) -> (ParamStore, DecoderLm) {
    let scaling = scaling(config, parametrization);
    let params = ParamStore::init(config, &scaling, 3, Device::Cpu);
    let lm = DecoderLm::new(config, &scaling, &params, OPTIONS);
    (params, lm)
}

#[test]
fn changing_a_token_leaves_all_earlier_logits_alone() {
    set_up();
    for architecture in ARCHITECTURES {
        let (_, lm) = model_of(&tiny(*architecture), Parametrization::Standard);
        let ids = ids(40);
        let changed = ids.copy();
        let _ = changed.select(1, 29).fill_(63);
        let (before, after) = tch::no_grad(|| (lm.forward(&ids), lm.forward(&changed)));
        let difference = (&before - &after).abs().amax([0, 2].as_slice(), false);
        let past = difference.narrow(0, 0, 29).max().double_value(&[]);
        let present = difference.narrow(0, 29, 11).min().double_value(&[]);
        assert_eq!(past, 0.0, "{}", architecture.name());
        assert!(present > 0.0, "{}: a later position does not see the token", architecture.name());
    }
}

#[test]
fn every_parameter_has_a_finite_gradient() {
    set_up();
    for architecture in ARCHITECTURES {
        let config = tiny(*architecture);
        let (params, lm) = model_of(&config, Parametrization::Standard);
        let ids = ids(33);
        let loss = lm.loss(&ids.narrow(1, 0, 32), &ids.narrow(1, 1, 32), 1.0);
        let start = loss.double_value(&[]);
        assert!((start - 64f64.ln()).abs() < 0.1, "{}: loss {start} at the start", architecture.name());
        let tensors: Vec<&Tensor> = params.iter().map(|p| &p.tensor).collect();
        assert_eq!(tensors.len(), parameters(&config).len());
        let grads = Tensor::run_backward(&[loss], &tensors, false, false);
        for (param, grad) in params.iter().zip(&grads) {
            let norm = grad.norm().double_value(&[]);
            // A bias on keys shifts all scores of a query alike: its gradient is rounding.
            let zero = param.name.ends_with("k_proj.bias");
            assert!(
                norm.is_finite() && (zero || norm > 0.0),
                "{}: {} has norm {norm}",
                architecture.name(),
                param.name
            );
        }
    }
}

#[test]
fn the_first_values_follow_the_rules() {
    set_up();
    let sambay = lossfloor::arch::lookup("sambay").expect("known");
    let mut config = tiny(sambay);
    config.shape.d_model = 96;
    config.shape.d_mlp = 384;
    let scaling = scaling(&config, Parametrization::MupPlusPlus);
    let params = ParamStore::init(&config, &scaling, 1, Device::Cpu);
    let std = |name: &str| params.get(name).std(true).double_value(&[]);
    let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 0.05, "{got} for {want}");
    let uniform = |fan_in: f64| 1.0 / fan_in.sqrt() / 3f64.sqrt();
    near(std("transformer.wte.weight"), 1e-4);
    near(std("transformer.h.0.mlp.w1.weight"), uniform(96.0));
    near(std("transformer.h.0.mlp.w3.weight"), uniform(384.0));
    near(std("transformer.h.0.attn.out_proj.weight"), uniform(192.0));
    assert_eq!(std("lm_head.weight"), 0.0);
    let a_log = params.get("transformer.h.0.attn.A_log");
    assert!((a_log.double_value(&[5, 15]) - 16f64.ln()).abs() < 1e-6);
    let bias = params.get("transformer.h.0.attn.dt_proj.bias").softplus();
    assert!(bias.min().double_value(&[]) > 0.9e-3 && bias.max().double_value(&[]) < 0.11);
    // The same whatever else the model has: streams belong to names.
    let again = ParamStore::init(&config, &scaling, 1, Device::Cpu);
    assert!(again.get("lm_head.weight").equal(&params.get("lm_head.weight")));
    assert!(again.get("transformer.h.3.mlp.w1.weight").equal(&params.get("transformer.h.3.mlp.w1.weight")));
}

#[test]
fn cross_layers_read_the_published_keys_only() {
    set_up();
    let sambayoco = lossfloor::arch::lookup("sambayoco").expect("known");
    let config = tiny(sambayoco);
    let (params, lm) = model_of(&config, Parametrization::Standard);
    let ids = ids(20);
    let (before, trace) = tch::no_grad(|| lm.forward_traced(&ids));
    assert_eq!(trace.context.key_values.keys().collect::<Vec<_>>(), [&5]);
    // Changing the values of the full layer reaches the last layers through cross-attention.
    tch::no_grad(|| {
        let _ = params.get("transformer.h.5.attn.v_proj.weight").g_mul_scalar_(2.0);
        let _ = params.get("transformer.h.5.attn.proj.weight").zero_();
    });
    let after = tch::no_grad(|| lm.forward(&ids));
    assert!(!before.equal(&after));
}
