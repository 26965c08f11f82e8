//! Transformer++: pre-norm attention with rotary positions and SwiGLU, in every layer (`transformer`), or with full
//! attention in every fourth layer and a sliding window in the others (`transformerls`).

use super::{ArchError, Architecture, AttentionForm, LayerSpec, MixerSpec, ModelShape, ShapeDefaults};

#[derive(Debug)]
pub(super) struct Transformer;
#[derive(Debug)]
pub(super) struct TransformerLs;

fn rotary_attention(window: Option<usize>) -> LayerSpec {
    LayerSpec::new(MixerSpec::Attention { window, rope: true, form: AttentionForm::Softmax })
}

impl Architecture for Transformer {
    fn name(&self) -> &'static str {
        "transformer"
    }
    fn summary(&self) -> &'static str {
        "Transformer++: full attention, RoPE, SwiGLU"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults::family(128, None)
    }
    fn formula(&self) -> (f64, f64) {
        (14.5, 0.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        Ok((0..shape.depth).map(|_| rotary_attention(None)).collect())
    }
}

impl Architecture for TransformerLs {
    fn name(&self) -> &'static str {
        "transformerls"
    }
    fn summary(&self) -> &'static str {
        "Transformer with a sliding window, full attention in every fourth layer"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults::family(128, Some(128))
    }
    fn formula(&self) -> (f64, f64) {
        (14.5, 0.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        Ok((0..shape.depth).map(|i| rotary_attention(if i % 4 == 3 { None } else { shape.window })).collect())
    }
}
