//! Names and sizes against those of the published file.

use super::layout::{Layout, StoredSpec};
use super::stored::Element;
use super::write::element_in;
use crate::arch::params::parameters;
use crate::arch::{ModelConfig, ModelShape, lookup};

fn phi4miniflash() -> ModelConfig {
    let architecture = lookup("phi4miniflash").expect("known");
    let shape = ModelShape { tie_embeddings: true, ..ModelShape::published(architecture, 32) };
    ModelConfig::new(architecture, shape).expect("valid")
}

fn numbers_of(spec: &StoredSpec) -> usize {
    spec.shape.iter().product()
}

/// `total_size` in the index of microsoft/Phi-4-mini-flash-reasoning.
#[test]
fn the_hugging_face_layout_has_the_published_size() {
    let model = phi4miniflash();
    let params = parameters(&model);
    let specs = Layout::HuggingFace.tensors(&model, &params);
    let bytes = |spec| -> usize { numbers_of(spec) * element_in(Element::Bf16, spec, &params).bytes() };
    assert_eq!(specs.iter().map(bytes).sum::<usize>(), 7_706_608_640);
}

/// The tensors of one layer of each kind, as that index lists them.
#[test]
fn the_hugging_face_layout_has_the_published_names() {
    let model = phi4miniflash();
    let specs = Layout::HuggingFace.tensors(&model, &parameters(&model));
    let under = |prefix: &str| {
        let mut names: Vec<&str> = specs.iter().filter_map(|spec| spec.name.strip_prefix(prefix)).collect();
        names.sort_unstable();
        names.join(" ")
    };
    let norms = "input_layernorm.bias input_layernorm.weight mlp.fc1.weight mlp.fc2.weight \
                 post_attention_layernorm.bias post_attention_layernorm.weight";
    let attention = "attn.Wqkv.bias attn.Wqkv.weight attn.inner_cross_attn.lambda_k1 attn.inner_cross_attn.lambda_k2 \
                     attn.inner_cross_attn.lambda_q1 attn.inner_cross_attn.lambda_q2 \
                     attn.inner_cross_attn.subln.weight attn.out_proj.bias attn.out_proj.weight";
    let mamba = "attn.A_log attn.D attn.conv1d.bias attn.conv1d.weight attn.dt_proj.bias attn.dt_proj.weight \
                 attn.in_proj.weight attn.out_proj.weight attn.x_proj.weight";
    for layer in [0, 16] {
        assert_eq!(under(&format!("model.layers.{layer}.")), format!("{mamba} {norms}"));
    }
    for layer in [1, 17, 19] {
        assert_eq!(under(&format!("model.layers.{layer}.")), format!("{attention} {norms}"));
    }
    assert_eq!(under("model.layers.18."), format!("attn.in_proj.weight attn.out_proj.weight {norms}"));
    let outside: Vec<&str> =
        specs.iter().map(|spec| spec.name.as_str()).filter(|name| !name.contains(".layers.")).collect();
    assert_eq!(outside, ["model.embed_tokens.weight", "model.final_layernorm.weight", "model.final_layernorm.bias"]);
}

#[test]
fn numbers_are_rounded_to_the_nearest_even() {
    let to_bf16 = |value: f32| Element::F32.convert(value.to_le_bytes().to_vec(), Element::Bf16);
    // 1 + 2^-8 lies between 1 and 1 + 2^-7; 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    assert_eq!(Element::Bf16.decode(&to_bf16(1.003_906_3)), [1.0]);
    assert_eq!(Element::Bf16.decode(&to_bf16(1.011_718_8)), [1.015_625]);
    assert_eq!(Element::F16.decode(&Element::Bf16.convert(to_bf16(-0.375), Element::F16)), [-0.375]);
}
