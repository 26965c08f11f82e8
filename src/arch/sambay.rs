//! SambaY: a Samba self-decoder whose last Mamba layer hands its scan output to gated memory units, which take turns
//! with cross-attention in the upper half. `sambayda` uses differential attention throughout; `mambay` has no window.

use super::{
    ArchError, Architecture, AttentionForm, LayerSpec, MAMBA_EXPAND, MemorySource, MixerSpec, ModelShape, Published,
    ShapeDefaults, attention_nope, cross_nope, hybrid_layers, mamba_or_window,
};

#[derive(Debug)]
pub(super) struct SambaY;
#[derive(Debug)]
pub(super) struct SambaYDa;
#[derive(Debug)]
pub(super) struct MambaY;

/// Layers with scan memory from layer depth/2; `below(i)` for i < depth/2.
pub(super) fn scan_memory_layers(
    shape: &ModelShape,
    form: AttentionForm,
    below: impl Fn(usize) -> LayerSpec,
) -> Vec<LayerSpec> {
    let half = shape.depth / 2;
    let memory = MixerSpec::GatedMemoryUnit { memory_layer: half, d_memory: MAMBA_EXPAND * shape.d_model };
    hybrid_layers(
        shape.depth,
        |i| {
            if i == half {
                LayerSpec::new(MixerSpec::Mamba).publishing(Published::Memory(MemorySource::Scan))
            } else {
                below(i)
            }
        },
        LayerSpec::new(attention_nope(None, form)).publishing(Published::KeyValues),
        |i| if i % 2 == 0 { LayerSpec::new(memory.clone()) } else { cross_nope(shape.depth, form) },
    )
}

impl Architecture for SambaY {
    fn name(&self) -> &'static str {
        "sambay"
    }
    fn summary(&self) -> &'static str {
        "SambaY: Samba self-decoder, gated memory units and cross-attention in turn"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults::family(124, Some(128))
    }
    fn formula(&self) -> (f64, f64) {
        (14.5, 144.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        let form = AttentionForm::Softmax;
        Ok(scan_memory_layers(shape, form, |i| mamba_or_window(i, shape.window, form)))
    }
}

impl Architecture for SambaYDa {
    fn name(&self) -> &'static str {
        "sambayda"
    }
    fn summary(&self) -> &'static str {
        "SambaY with differential attention"
    }
    fn defaults(&self) -> ShapeDefaults {
        SambaY.defaults()
    }
    fn formula(&self) -> (f64, f64) {
        SambaY.formula()
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        let form = AttentionForm::Differential;
        Ok(scan_memory_layers(shape, form, |i| mamba_or_window(i, shape.window, form)))
    }
}

impl Architecture for MambaY {
    fn name(&self) -> &'static str {
        "mambay"
    }
    fn summary(&self) -> &'static str {
        "SambaY with Mamba in place of the sliding window"
    }
    fn defaults(&self) -> ShapeDefaults {
        ShapeDefaults::family(120, None)
    }
    fn formula(&self) -> (f64, f64) {
        (16.0, 64.0)
    }
    fn layers(&self, shape: &ModelShape) -> Result<Vec<LayerSpec>, ArchError> {
        Ok(scan_memory_layers(shape, AttentionForm::Softmax, |_| LayerSpec::new(MixerSpec::Mamba)))
    }
}
