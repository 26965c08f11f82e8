//! Samba (arXiv 2406.07522): Mamba and sliding-window attention in turn, rotary positions.

use super::{ArchError, Architecture, AttentionForm, LayerSpec, MixerSpec, ModelShape, ShapeDefaults};

#[derive(Debug)]
pub(super) struct Samba;

impl Architecture for Samba {
    fn name(&self) -> &'static str {
        "samba"
    }
    fn summary(&self) -> &'static str {
        "Samba: Mamba and sliding-window attention in turn, RoPE"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults::family(122, Some(2048))
    }
    fn formula(&self) -> (f64, f64) {
        (15.0, 160.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        let window = MixerSpec::Attention { window: shape.window, rope: true, form: AttentionForm::Softmax };
        Ok((0..shape.depth)
            .map(|i| LayerSpec::new(if i % 2 == 0 { MixerSpec::Mamba } else { window.clone() }))
            .collect())
    }
}
