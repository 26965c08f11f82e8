//! SambaY with the memory taken elsewhere: from the heads of the full-attention layer (`sambayattn`, and
//! `sambayattnall` without cross-attention), or from the linear half of its MLP (`sambaymlp`).

use super::{
    ArchError, Architecture, AttentionForm, LayerSpec, MemorySource, MixerSpec, ModelShape, Published, ShapeDefaults,
    attention_nope, cross_nope, hybrid_layers, mamba_or_window,
};

const FORM: AttentionForm = AttentionForm::Softmax;

#[derive(Debug)]
pub(super) struct SambaYAttn;
#[derive(Debug)]
pub(super) struct SambaYAttnAll;
#[derive(Debug)]
pub(super) struct SambaYMlp;

/// The memory comes from layer depth/2 + 1, `d_memory` wide.
fn layers_with(
    shape: &ModelShape,
    source: MemorySource,
    d_memory: usize,
    cross_decoder: impl Fn(usize, LayerSpec) -> LayerSpec,
) -> Vec<LayerSpec> {
    let unit = MixerSpec::GatedMemoryUnit { memory_layer: shape.depth / 2 + 1, d_memory };
    hybrid_layers(
        shape.depth,
        |i| mamba_or_window(i, shape.window, FORM),
        LayerSpec::new(attention_nope(None, FORM))
            .publishing(Published::KeyValues)
            .publishing(Published::Memory(source)),
        |i| cross_decoder(i, LayerSpec::new(unit.clone())),
    )
}

impl Architecture for SambaYAttn {
    fn name(&self) -> &'static str {
        "sambayattn"
    }
    fn summary(&self) -> &'static str {
        "SambaY-A: gated memory units read the full-attention layer's heads"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults::family(126, Some(128))
    }
    fn formula(&self) -> (f64, f64) {
        (13.5, 208.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        let choose = |i, unit| if i % 2 == 0 { unit } else { cross_nope(shape.depth, FORM) };
        Ok(layers_with(shape, MemorySource::AttentionHeads, shape.attention_width(), choose))
    }
}

impl Architecture for SambaYAttnAll {
    fn name(&self) -> &'static str {
        "sambayattnall"
    }
    fn summary(&self) -> &'static str {
        "SambaY-AA: as sambayattn, gated memory units in place of all cross-attention"
    }
    fn defaults(&self) -> ShapeDefaults {
        SambaYAttn.defaults()
    }
    fn formula(&self) -> (f64, f64) {
        SambaYAttn.formula()
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        Ok(layers_with(shape, MemorySource::AttentionHeads, shape.attention_width(), |_, unit| unit))
    }
}

impl Architecture for SambaYMlp {
    fn name(&self) -> &'static str {
        "sambaymlp"
    }
    fn summary(&self) -> &'static str {
        "SambaY-MLP: gated memory units read the linear half of an MLP"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults::family(120, Some(128))
    }
    fn formula(&self) -> (f64, f64) {
        (15.5, 144.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        let choose = |i, unit| if i % 2 == 0 { unit } else { cross_nope(shape.depth, FORM) };
        Ok(layers_with(shape, MemorySource::MlpUp, shape.d_mlp, choose))
    }
}
