//! Phi-4-mini-flash: SambaY with differential attention at depth 32, with LayerNorm and attention biases.

use super::sambay::scan_memory_layers;
use super::{
    ArchError, Architecture, AttentionBias, AttentionForm, LayerSpec, ModelShape, NormKind, ShapeDefaults,
    mamba_or_window,
};

#[derive(Debug)]
pub(super) struct Phi4MiniFlash;

impl Architecture for Phi4MiniFlash {
    fn name(&self) -> &'static str {
        "phi4miniflash"
    }
    fn summary(&self) -> &'static str {
        "Phi-4-mini-flash: SambaY+DA at depth 32, LayerNorm, attention biases"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults {
            heads: Some((40, 20)),
            head_dim: 64,
            vocab_size: 200_064,
            attention_bias: AttentionBias::All,
            norm: NormKind::Layer,
            fixed_depth: Some(32),
            ..ShapeDefaults::family(80, Some(512))
        }
    }
    fn formula(&self) -> (f64, f64) {
        (14.5, 144.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        let form = AttentionForm::Differential;
        Ok(scan_memory_layers(shape, form, |i| mamba_or_window(i, shape.window, form)))
    }
}
