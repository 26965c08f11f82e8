//! YOCO (arXiv 2405.05254): the upper half reads the keys and values of one full-attention layer.
//!
//! `swayoco` has sliding-window attention below it, with rotary positions everywhere, the cross queries included;
//! `sambayoco` has Samba below it and no positions.

use super::{
    ArchError, Architecture, AttentionForm, LayerSpec, MixerSpec, ModelShape, Published, ShapeDefaults, attention_nope,
    cross_nope, hybrid_layers, mamba_or_window,
};

#[derive(Debug)]
pub(super) struct SwaYoco;
#[derive(Debug)]
pub(super) struct SambaYoco;

impl Architecture for SwaYoco {
    fn name(&self) -> &'static str {
        "swayoco"
    }
    fn summary(&self) -> &'static str {
        "YOCO with a sliding-window self-decoder, RoPE"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults::family(130, Some(128))
    }
    fn formula(&self) -> (f64, f64) {
        (12.0, 288.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        let attention =
            |window| LayerSpec::new(MixerSpec::Attention { window, rope: true, form: AttentionForm::Softmax });
        let kv_layer = shape.depth / 2 + 1;
        Ok(hybrid_layers(
            shape.depth,
            |_| attention(shape.window),
            attention(None).publishing(Published::KeyValues),
            |_| LayerSpec::new(MixerSpec::CrossAttention { kv_layer, rope: true, form: AttentionForm::Softmax }),
        ))
    }
}

impl Architecture for SambaYoco {
    fn name(&self) -> &'static str {
        "sambayoco"
    }
    fn summary(&self) -> &'static str {
        "YOCO with a Samba self-decoder, no positions"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults::family(126, Some(128))
    }
    fn formula(&self) -> (f64, f64) {
        (13.5, 208.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        let form = AttentionForm::Softmax;
        Ok(hybrid_layers(
            shape.depth,
            |i| mamba_or_window(i, shape.window, form),
            LayerSpec::new(attention_nope(None, form)).publishing(Published::KeyValues),
            |_| cross_nope(shape.depth, form),
        ))
    }
}
