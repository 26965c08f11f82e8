//! Reading a golden file, and the distances that tolerances are stated in.

use super::VerifyError;
use crate::arch::{self, ModelConfig, ModelShape, NormKind};
use crate::scaling::{ModelScaling, OutInitDiv, Parametrization};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

pub(super) struct Golden {
    pub name: String,
    path: String,
    tensors: HashMap<String, Tensor>,
    metadata: HashMap<String, String>,
}

impl Golden {
    pub(super) fn read(path: &Path) -> Result<Self, VerifyError> {
        let shown = path.display().to_string();
        let format = |problem: String| VerifyError::Format { path: shown.clone(), problem };
        let bytes = std::fs::read(path).map_err(|source| VerifyError::Read { path: shown.clone(), source })?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| format(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| format(e.to_string()))?;
        let mut tensors = HashMap::new();
        for (name, view) in file.iter() {
            let kind = match view.dtype() {
                safetensors::Dtype::F32 => Kind::Float,
                safetensors::Dtype::I64 => Kind::Int64,
                other => return Err(format(format!("tensor '{name}' has dtype {other:?}"))),
            };
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|e| format(e.to_string()))?;
            tensors.insert(name.to_owned(), tensor);
        }
        let name = path.file_stem().map_or_else(|| shown.clone(), |s| s.to_string_lossy().into_owned());
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self { name, path: shown, tensors, metadata })
    }

    pub(super) fn problem(&self, problem: impl Into<String>) -> VerifyError {
        VerifyError::Format { path: self.path.clone(), problem: problem.into() }
    }

    pub(super) fn metadata(&self, key: &str) -> Result<&str, VerifyError> {
        self.metadata.get(key).map(String::as_str).ok_or_else(|| self.problem(format!("it has no metadata '{key}'")))
    }

    pub(super) fn json(&self, key: &str) -> Result<serde_json::Value, VerifyError> {
        serde_json::from_str(self.metadata(key)?).map_err(|e| self.problem(format!("metadata '{key}': {e}")))
    }

    pub(super) fn find(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).map(Tensor::shallow_clone)
    }

    pub(super) fn get(&self, name: &str) -> Result<Tensor, VerifyError> {
        self.find(name).ok_or_else(|| self.problem(format!("it has no tensor '{name}'")))
    }

    /// All tensors whose name starts with `prefix`, under the rest of their name.
    pub(super) fn under(&self, prefix: &str) -> HashMap<String, Tensor> {
        self.tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.shallow_clone())))
            .collect()
    }

    /// The model that the file's configuration describes.
    pub(super) fn model(&self) -> Result<(ModelConfig, ModelScaling), VerifyError> {
        let config = self.json("config")?;
        let whole = |key: &str| {
            config[key].as_u64().map(|n| n as usize).ok_or_else(|| self.problem(format!("config has no {key}")))
        };
        let architecture = arch::lookup(self.metadata("arch")?).map_err(|e| self.problem(e.to_string()))?;
        let depth = whole("n_layer")?;
        let published = ModelShape::published(architecture, depth);
        let shape = ModelShape {
            d_model: whole("n_embd")?,
            n_heads: whole("n_head")?,
            n_kv_heads: whole("n_query_groups")?,
            head_dim: whole("head_dim")?,
            d_mlp: whole("intermediate_size")?,
            window: match published.window {
                Some(_) => Some(whole("local_window")?),
                None => None,
            },
            vocab_size: whole("padded_vocab_size")?,
            tie_embeddings: config["tied_embed"].as_bool().unwrap_or(false),
            norm: NormKind::Rms,
            rope_base: whole("rope_base")? as f64,
            ..published
        };
        let tied = shape.tie_embeddings;
        let model = ModelConfig::new(architecture, shape).map_err(|e| self.problem(e.to_string()))?;
        let parametrization = match self.metadata("parameterization")? {
            "sp" => Parametrization::Standard,
            "mupp" => Parametrization::MupPlusPlus,
            other => return Err(self.problem(format!("parameterisation '{other}' is unknown"))),
        };
        let scaling =
            ModelScaling { parametrization, depth, base_depth: whole("mup_d0")?, tied, out_init_div: OutInitDiv::Auto };
        Ok((model, scaling))
    }
}

/// The tensor in double precision on the CPU.
fn plain(t: &Tensor) -> Tensor {
    t.detach().to_device(Device::Cpu).to_kind(Kind::Double)
}

/// max |a − b| over rms(b); infinite when shapes differ.
pub(super) fn max_over_rms(got: &Tensor, want: &Tensor) -> f64 {
    if got.size() != want.size() {
        return f64::INFINITY;
    }
    let (got, want) = (plain(got), plain(want));
    let rms = want.square().mean(Kind::Double).sqrt().double_value(&[]);
    (got - want).abs().max().double_value(&[]) / rms
}

/// ‖t‖, in double precision.
pub(super) fn norm(t: &Tensor) -> f64 {
    plain(t).norm().double_value(&[])
}

/// ‖a − b‖ over ‖b‖, or over `floor` where that is larger; gradients that are zero by construction are compared with 1.
/// Infinite when shapes differ.
pub(super) fn norm_ratio(got: &Tensor, want: &Tensor, floor: f64) -> f64 {
    if got.size() != want.size() {
        return f64::INFINITY;
    }
    let (got, want) = (plain(got), plain(want));
    let norm = want.norm().double_value(&[]);
    // Nothing but rounding is left of such a gradient: compare it with 1.
    let scale = if norm < 1e-5 { 1.0 } else { norm.max(floor) };
    (got - want).norm().double_value(&[]) / scale
}
