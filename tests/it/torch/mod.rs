//! Tests that need LibTorch: on the CPU, and on a GPU where they are asked for.

mod bench;
mod decoding;
mod evaluations;
mod golden;
mod gpu;
mod gpu_decoding;
mod inference;
mod initial_values;
mod ops;
mod ranks;
mod slurm;
mod sweep_faults;
mod train;
mod zoo;

use lossfloor::arch::{Architecture, AttentionBias, ModelConfig, ModelShape};
use lossfloor::scaling::{ModelScaling, OutInitDiv, Parametrization};
use std::sync::Once;
use tch::Tensor;

/// One intra-op thread, so that tests that run side by side do not fight for cores.
fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tch::set_num_threads(1));
}

/// A small model of an architecture: 4 query and 2 key-value heads of 8, width 24, window 8, 64 tokens.
fn tiny(architecture: &dyn Architecture) -> ModelConfig {
    let depth = architecture.defaults().fixed_depth.unwrap_or(8);
    let published = ModelShape::published(architecture, depth);
    let shape = ModelShape {
        d_model: 24,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        d_mlp: 48,
        window: published.window.map(|_| 8),
        vocab_size: 64,
        ..published
    };
    assert!(shape.attention_bias == AttentionBias::None || architecture.name() == "phi4miniflash");
    ModelConfig::new(architecture, shape).expect("a valid shape")
}

fn scaling(model: &ModelConfig, parametrization: Parametrization) -> ModelScaling {
    ModelScaling {
        parametrization,
        depth: model.shape.depth,
        base_depth: 8,
        tied: model.shape.tie_embeddings,
        out_init_div: OutInitDiv::Auto,
    }
}

/// ‖a − b‖ over ‖b‖, in double precision.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(tch::Kind::Double), b.to_kind(tch::Kind::Double));
    let norm = b.norm().double_value(&[]);
    (a - b).norm().double_value(&[]) / norm.max(1e-12)
}
