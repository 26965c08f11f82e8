//! AdamW over two groups of parameters, with global-norm clipping.

use crate::arch::params::ParamRole;
use crate::bridge::{BridgeError, optim};
use crate::nn::ParamStore;
use crate::scaling::ModelScaling;
use tch::{Kind, Tensor};

/// Settings that hold for a whole run.
#[derive(Clone, Copy, Debug)]
pub struct AdamWOptions {
    pub betas: (f64, f64),
    pub eps: f64,
    /// Limit of the global gradient norm.
    pub grad_clip: f64,
    /// Decoupled decay of the matrix group; the parameterisation decides about the vector group.
    pub weight_decay: f64,
}

/// Parameters with one learning rate and one decay.
struct Group {
    /// Places in the order of the parameter store.
    members: Vec<usize>,
    lr_multiplier: f64,
    weight_decay: f64,
}

/// The optimiser and its moments, in the order of the parameter store.
pub struct AdamW {
    options: AdamWOptions,
    groups: Vec<Group>,
    names: Vec<String>,
    params: Vec<Tensor>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    /// Updates taken, one fp32 scalar for each parameter.
    steps: Vec<Tensor>,
}

impl AdamW {
    /// Groups by role, as the parameterisation wants.
    pub fn new(params: &ParamStore, scaling: &ModelScaling, options: AdamWOptions) -> Self {
        let group = |matrix: bool, role: ParamRole| Group {
            members: params
                .iter()
                .enumerate()
                .filter(|(_, p)| (p.role == ParamRole::Matrix) == matrix)
                .map(|(i, _)| i)
                .collect(),
            lr_multiplier: scaling.lr_multiplier(role),
            weight_decay: scaling.weight_decay(role, options.weight_decay),
        };
        let zeros = || params.iter().map(|p| p.tensor.detach().zeros_like()).collect();
        Self {
            options,
            groups: vec![group(false, ParamRole::Vector), group(true, ParamRole::Matrix)],
            names: params.iter().map(|p| p.name.clone()).collect(),
            params: params.iter().map(|p| p.tensor.shallow_clone()).collect(),
            first: zeros(),
            second: zeros(),
            steps: params.iter().map(|p| Tensor::zeros([], (Kind::Float, p.tensor.device()))).collect(),
        }
    }

    /// Gradients of a scalar in every parameter, in store order.
    pub fn gradients(&self, loss: &Tensor) -> Vec<Tensor> {
        Tensor::run_backward(&[loss], &self.params, false, false)
    }

    /// Clips `grads` in place and returns their norm before that.
    pub fn clip(&self, grads: &[Tensor]) -> Result<f64, BridgeError> {
        let norm = optim::global_norm(grads)?;
        // As torch.nn.utils.clip_grad_norm_.
        let factor = (self.options.grad_clip / (&norm + 1e-6)).clamp_max(1.0);
        optim::scale(grads, &factor)?;
        Ok(norm.double_value(&[]))
    }

    /// One update; `lr` is that of the vector group.
    pub fn step(&mut self, grads: &[Tensor], lr: f64) -> Result<(), BridgeError> {
        for group in &self.groups {
            let pick = |all: &[Tensor]| -> Vec<Tensor> { group.members.iter().map(|&i| all[i].detach()).collect() };
            optim::fused_adamw(
                &pick(&self.params),
                &pick(grads),
                &pick(&self.first),
                &pick(&self.second),
                &pick(&self.steps),
                optim::AdamW {
                    lr: lr * group.lr_multiplier,
                    betas: self.options.betas,
                    weight_decay: group.weight_decay,
                    eps: self.options.eps,
                },
            )?;
        }
        Ok(())
    }

    /// Continues from a saved state; `None` when it is not that of these parameters.
    pub fn restore(&mut self, saved: &std::collections::HashMap<String, Tensor>) -> Option<()> {
        let state = self.state();
        if saved.len() != state.len() {
            return None;
        }
        for (name, tensor) in &state {
            let from = saved.get(name).filter(|from| from.size() == tensor.size())?;
            tch::no_grad(|| tensor.shallow_clone().copy_(from));
        }
        Some(())
    }

    /// Everything to save, under `adamw.first.NAME`, `adamw.second.NAME` and `adamw.steps.NAME`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let kinds = [("first", &self.first), ("second", &self.second), ("steps", &self.steps)];
        kinds
            .into_iter()
            .flat_map(|(kind, tensors)| {
                self.names.iter().zip(tensors).map(move |(name, t)| (format!("adamw.{kind}.{name}"), t.shallow_clone()))
            })
            .collect()
    }
}
