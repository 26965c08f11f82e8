//! The parameters of one model: made at random or taken from a file, under the reference's names.

use super::Precision;
use crate::arch::ModelConfig;
use crate::arch::params::{ParamRole, ParamSpec, parameters};
use crate::ops::linear::{Packed, Weight, set_grad};
use crate::scaling::{InitDistribution, ModelScaling};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

/// Parameters that do not fit a model.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    #[error("no parameter '{name}', which {architecture} at depth {depth} needs; is it a checkpoint of another model?")]
    Missing { name: String, architecture: String, depth: usize },
    #[error(
        "parameter '{name}' has shape {got:?} where the model needs {want:?}; is it a checkpoint of another model?"
    )]
    Shape { name: String, got: Vec<i64>, want: Vec<i64> },
    #[error("parameter '{name}' is of no use to {architecture} at depth {depth}; is it a checkpoint of another model?")]
    Surplus { name: String, architecture: String, depth: usize },
}

/// One trainable tensor, fp32, or one that is trained no more.
#[derive(Debug)]
pub struct Parameter {
    pub name: String,
    pub role: ParamRole,
    /// The block that it belongs to, if any.
    pub block: Option<usize>,
    pub tensor: Tensor,
}

/// All parameters of a model, in the order of its forward pass.
#[derive(Debug)]
pub struct ParamStore {
    params: Vec<Parameter>,
    index: HashMap<String, usize>,
    arena: Option<Arena>,
    /// Whether they are never trained again.
    frozen: bool,
}

/// The memory of all parameters in one piece: first those that are no hidden matrices, then the matrices, each group in
/// store order. Each parameter begins on a multiple of eight elements; what lies between stays zero.
#[derive(Debug)]
pub struct Arena {
    /// fp32.
    pub values: Tensor,
    /// fp32; backward passes add to it.
    pub grads: Tensor,
    /// bf16 copy of the values, where the model computes in bf16.
    pub shadow: Option<Tensor>,
    /// Elements before the first matrix.
    pub vectors: i64,
    /// Where each parameter begins, in store order.
    offsets: Vec<i64>,
}

impl Arena {
    /// The part of a flat tensor of this arena that belongs to a parameter.
    fn part(&self, flat: &Tensor, index: usize, tensor: &Tensor) -> Tensor {
        flat.narrow(0, self.offsets[index], tensor.numel() as i64).view_as(tensor)
    }
}

impl ParamStore {
    /// Draws every parameter. Each has a stream of its own from the seed and its name, so values depend neither on the
    /// device nor on the number of threads, nor on what other parameters there are.
    pub fn init(model: &ModelConfig, scaling: &ModelScaling, seed: u64, device: Device) -> Self {
        let specs = parameters(model);
        let values: Vec<Vec<f32>> = specs.par_iter().map(|spec| draw(spec, scaling.init(spec.init), seed)).collect();
        let params = specs.into_iter().zip(values).map(|(spec, values)| {
            let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
            let tensor = Tensor::from_slice(&values).reshape(shape).to_device(device);
            Parameter { name: spec.name, role: spec.role, block: spec.block, tensor: tensor.set_requires_grad(true) }
        });
        Self::from_parameters(params.collect())
    }

    /// Takes the tensors of a file; each of the model's must be there in its shape, and no other.
    pub fn from_tensors(
        model: &ModelConfig,
        mut tensors: HashMap<String, Tensor>,
        device: Device,
    ) -> Result<Self, NnError> {
        let architecture = model.architecture.to_owned();
        let depth = model.shape.depth;
        let mut params = Vec::new();
        for spec in parameters(model) {
            let Some(tensor) = tensors.remove(&spec.name) else {
                return Err(NnError::Missing { name: spec.name, architecture, depth });
            };
            let want: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
            if tensor.size() != want {
                return Err(NnError::Shape { name: spec.name, got: tensor.size(), want });
            }
            let tensor = tensor.to_device(device).to_kind(Kind::Float).detach().copy().set_requires_grad(true);
            params.push(Parameter { name: spec.name, role: spec.role, block: spec.block, tensor });
        }
        match tensors.into_keys().min() {
            Some(name) => Err(NnError::Surplus { name, architecture, depth }),
            None => Ok(Self::from_parameters(params)),
        }
    }

    /// A store of just these.
    pub fn from_parameters(params: Vec<Parameter>) -> Self {
        let index = params.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect();
        Self { params, index, arena: None, frozen: false }
    }

    /// Moves the parameters into an arena with gradients and, for bf16, a copy in that dtype: what a trainer wants.
    pub fn into_arena(mut self, precision: Precision) -> Self {
        const ALIGNMENT: i64 = 8;
        let Some(first) = self.params.first() else { return self };
        let device = first.tensor.device();
        let mut offsets = vec![0; self.params.len()];
        let (mut length, mut vectors) = (0, 0);
        for matrices in [false, true] {
            vectors = length;
            for (offset, param) in offsets.iter_mut().zip(&self.params) {
                if (param.role == ParamRole::Matrix) == matrices {
                    *offset = length;
                    length += (param.tensor.numel() as i64 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
                }
            }
        }
        let zeros = || Tensor::zeros([length], (Kind::Float, device));
        let arena = Arena { values: zeros(), grads: zeros(), shadow: None, vectors, offsets };
        for (index, param) in self.params.iter_mut().enumerate() {
            let mut place = arena.part(&arena.values, index, &param.tensor).detach();
            tch::no_grad(|| place.copy_(&param.tensor));
            param.tensor = place.set_requires_grad(true);
            set_grad(&param.tensor, &arena.part(&arena.grads, index, &param.tensor));
        }
        let shadow = (precision == Precision::Bf16).then(|| arena.values.to_kind(Kind::BFloat16));
        self.arena = Some(Arena { shadow, ..arena });
        self
    }

    /// For use without training, on `device`: matrices, embedding and readout in the dtype of activations, nothing for
    /// gradients.
    pub fn freeze(mut self, precision: Precision, device: Device) -> Self {
        for param in &mut self.params {
            let kind = if param.role == ParamRole::Vector { Kind::Float } else { precision.kind() };
            param.tensor = param.tensor.detach().to_kind(kind).to_device(device);
        }
        Self { arena: None, frozen: true, ..self }
    }

    /// The memory of a store that was moved into one.
    pub fn arena(&self) -> Option<&Arena> {
        self.arena.as_ref()
    }

    /// Where in the arena the matrices of each block begin; those of a block end where the next one's begin, and the last
    /// one's with the arena.
    ///
    /// # Panics
    /// Without an arena.
    pub fn block_offsets(&self) -> Vec<i64> {
        let arena = self.arena.as_ref().expect("a store in an arena");
        let mut offsets: Vec<i64> = Vec::new();
        for (param, &offset) in self.params.iter().zip(&arena.offsets) {
            if param.role == ParamRole::Matrix && param.block == Some(offsets.len()) {
                offsets.push(offset);
            }
        }
        offsets
    }

    /// Parameters with the part of a flat tensor as long as the arena that belongs to each.
    ///
    /// # Panics
    /// Without an arena.
    pub fn parts<'a>(&'a self, flat: &'a Tensor) -> impl Iterator<Item = (&'a str, Tensor)> {
        let arena = self.arena.as_ref().expect("a store in an arena");
        self.params.iter().enumerate().map(move |(i, p)| (p.name.as_str(), arena.part(flat, i, &p.tensor)))
    }

    /// Weights [out, in] that share their input, `{name}.weight` each.
    pub fn weight(&self, names: &[String]) -> Weight {
        let places: Vec<usize> = names
            .iter()
            .map(|name| {
                let name = format!("{name}.weight");
                *self.index.get(&name).unwrap_or_else(|| panic!("the model has no parameter '{name}'"))
            })
            .collect();
        let masters: Vec<Tensor> = places.iter().map(|&i| self.params[i].tensor.shallow_clone()).collect();
        if self.frozen && masters.len() > 1 {
            return Weight::new(vec![tch::no_grad(|| Tensor::cat(&masters, 0))], None);
        }
        let packed = self.arena.as_ref().and_then(|arena| {
            let mut end = arena.offsets[places[0]];
            for (&place, master) in places.iter().zip(&masters) {
                if arena.offsets[place] != end {
                    return None;
                }
                end += master.numel() as i64;
            }
            let columns = masters[0].size()[1];
            let start = arena.offsets[places[0]];
            let whole = |flat: &Tensor| flat.narrow(0, start, end - start).view([-1, columns]);
            let shadow = arena.shadow.as_ref().map(&whole);
            Some(Packed { value: whole(&arena.values), shadow, grad: Some(whole(&arena.grads)) })
        });
        Weight::new(masters, packed)
    }

    /// A parameter that the model is known to have.
    ///
    /// # Panics
    /// When there is none of that name: the list in `arch::params` and a module disagree.
    pub fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("the model has no parameter '{name}'"))
    }

    /// A parameter that some models have.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.index.get(name).map(|&i| self.params[i].tensor.shallow_clone())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.params.iter()
    }
}

fn draw(spec: &ParamSpec, distribution: InitDistribution, seed: u64) -> Vec<f32> {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(&spec.name).finalize();
    let mut rng = ChaCha8Rng::from_seed(digest.into());
    let count = spec.numel() as usize;
    let mut unit = || rng.random::<f64>();
    match distribution {
        InitDistribution::Constant(value) => vec![value as f32; count],
        InitDistribution::Uniform { bound } => (0..count).map(|_| ((2.0 * unit() - 1.0) * bound) as f32).collect(),
        InitDistribution::Normal { std } => (0..count)
            .map(|_| {
                let z: f64 = StandardNormal.sample(&mut rng);
                (z * std) as f32
            })
            .collect(),
        InitDistribution::LogStates => {
            let states = *spec.shape.last().expect("decay rates have a state axis");
            (0..count).map(|i| ((i % states + 1) as f64).ln() as f32).collect()
        }
        InitDistribution::StepSizeBias => (0..count)
            .map(|_| {
                let (low, high) = (0.001f64.ln(), 0.1f64.ln());
                let step = (unit() * (high - low) + low).exp().max(1e-4);
                (step + (-(-step).exp_m1()).ln()) as f32
            })
            .collect(),
    }
}
