//! The parameters of one model: made at random or taken from a file, under the reference's names.

use crate::arch::ModelConfig;
use crate::arch::params::{ParamRole, ParamSpec, parameters};
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

/// One trainable tensor, fp32.
#[derive(Debug)]
pub struct Parameter {
    pub name: String,
    pub role: ParamRole,
    pub tensor: Tensor,
}

/// All parameters of a model, in the order of its forward pass.
#[derive(Debug)]
pub struct ParamStore {
    params: Vec<Parameter>,
    index: HashMap<String, usize>,
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
            Parameter { name: spec.name, role: spec.role, tensor: tensor.set_requires_grad(true) }
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
            params.push(Parameter { name: spec.name, role: spec.role, tensor });
        }
        match tensors.into_keys().min() {
            Some(name) => Err(NnError::Surplus { name, architecture, depth }),
            None => Ok(Self::from_parameters(params)),
        }
    }

    /// A store of just these.
    pub fn from_parameters(params: Vec<Parameter>) -> Self {
        let index = params.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect();
        Self { params, index }
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
