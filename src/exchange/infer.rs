//! What the tensors of a state dict say about the model that they belong to.

use super::stored::StoredTensors;
use crate::arch::{AttentionBias, NormKind};
use crate::config::ModelSection;

/// Fills what `section` leaves open with what the tensors decide. What they cannot tell (windows, the base of rotary
/// angles, and how many channels a head has) stays open, for the architecture's published values.
pub(super) fn complete(section: &mut ModelSection, head_dim: usize, tensors: &StoredTensors) {
    let axis = |name: &str, axis: usize| tensors.get(name).and_then(|stored| stored.shape.get(axis).copied());
    // The first block whose mixer has the tensor.
    let any = |suffix: &str| tensors.names().find(|name| name.ends_with(suffix)).cloned();
    let rows = |suffix: &str| any(suffix).and_then(|name| axis(&name, 0));
    let has = |suffix: &str| any(suffix).is_some();

    let blocks =
        tensors.names().filter_map(|name| name.strip_prefix("transformer.h.")?.split('.').next()?.parse().ok());
    section.depth = section.depth.or_else(|| blocks.max().map(|last: usize| last + 1));
    let embedding = ["transformer.wte.weight", "lm_head.weight"].into_iter().find(|name| tensors.get(name).is_some());
    section.vocab_size = section.vocab_size.or_else(|| axis(embedding?, 0));
    if section.aspect_ratio.is_none() {
        section.d_model = section.d_model.or_else(|| axis("transformer.ln_f.weight", 0));
    }
    section.d_mlp = section.d_mlp.or_else(|| axis(&any(".mlp.w3.weight")?, 1));
    let both = ["transformer.wte.weight", "lm_head.weight"].iter().all(|name| tensors.get(name).is_some());
    section.tie_embeddings = section.tie_embeddings.or(Some(!both));
    section.norm = section.norm.or(Some(if has(".norm_1.bias") { NormKind::Layer } else { NormKind::Rms }));
    section.attention_bias = section.attention_bias.or(Some(if has(".k_proj.bias") || has(".attn.attn.bias") {
        AttentionBias::All
    } else if has(".attn.proj.bias") {
        AttentionBias::QueryValueOutput
    } else {
        AttentionBias::None
    }));
    section.head_dim = section.head_dim.or_else(|| rows(".da.lambda_q1"));
    let head_dim = section.head_dim.unwrap_or(head_dim);
    let heads =
        |width: Option<usize>| width.filter(|width| width.is_multiple_of(head_dim)).map(|width| width / head_dim);
    let width = any(".attn.proj.weight").and_then(|name| axis(&name, 1));
    section.n_heads = section.n_heads.or_else(|| heads(width));
    // The tallest is that of a layer with keys and values of its own.
    let fused =
        tensors.names().filter(|name| name.ends_with(".attn.attn.weight")).filter_map(|name| axis(name, 0)).max();
    let kv_width = rows(".k_proj.weight").or_else(|| Some(fused?.checked_sub(width?)? / 2));
    section.n_kv_heads = section.n_kv_heads.or_else(|| heads(kv_width));
}
