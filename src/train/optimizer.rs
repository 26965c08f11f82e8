//! AdamW over two groups of parameters in an arena, with global-norm clipping.

use crate::arch::params::ParamRole;
use crate::bridge::profile::phase;
use crate::bridge::{BridgeError, aten};
use crate::nn::{Arena, ParamStore};
use crate::ops::Backend;
use crate::ops::optimizer::{Arenas, DeviceState, Rates, Step};
use crate::scaling::ModelScaling;
use tch::{Device, Kind, Tensor};

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

/// Who counts steps and updates.
enum Updates {
    /// LibTorch's operations. The steps are an fp32 scalar.
    Plain { steps: Tensor, norm: f64 },
    /// Kernels of this crate, without waiting for the GPU.
    OnDevice(DeviceState),
}

/// The optimiser and its moments.
pub struct AdamW {
    options: AdamWOptions,
    /// Of vectors and embeddings, and of matrices.
    rates: [Rates; 2],
    /// As long as the arena.
    first: Tensor,
    second: Tensor,
    updates: Updates,
}

/// The memory of parameters in training.
fn arena(params: &ParamStore) -> &Arena {
    params.arena().expect("parameters in training are in an arena")
}

impl AdamW {
    /// Groups by role, as the parameterisation wants.
    ///
    /// # Panics
    /// When the parameters are not in an arena.
    pub fn new(params: &ParamStore, scaling: &ModelScaling, options: AdamWOptions, backend: Backend) -> Self {
        let values = &arena(params).values;
        let rates = |role: ParamRole| Rates {
            lr_multiplier: scaling.lr_multiplier(role),
            weight_decay: scaling.weight_decay(role, options.weight_decay),
        };
        let updates = match (backend, values.device()) {
            (Backend::Fused, device @ Device::Cuda(_)) => Updates::OnDevice(DeviceState::new(device)),
            (_, device) => Updates::Plain { steps: Tensor::zeros([], (Kind::Float, device)), norm: 0.0 },
        };
        Self {
            options,
            rates: [rates(ParamRole::Vector), rates(ParamRole::Matrix)],
            first: values.zeros_like(),
            second: values.zeros_like(),
            updates,
        }
    }

    /// Clips the gradients in the arena, updates the parameters and clears the gradients; `lr` is that of the vector
    /// group. Does not wait for a GPU.
    pub fn step(&mut self, params: &ParamStore, lr: f64) -> Result<(), BridgeError> {
        let _phase = phase("optimizer");
        let Arena { values, grads, shadow, vectors, .. } = arena(params);
        let AdamWOptions { betas, eps, grad_clip, .. } = self.options;
        let (first_moment, second_moment) = (&self.first, &self.second);
        match &mut self.updates {
            Updates::OnDevice(state) => {
                let arenas = Arenas { values, grads, first_moment, second_moment, shadow: shadow.as_ref() };
                let step = Step { betas, eps, grad_clip, first: *vectors, rates: self.rates };
                tch::no_grad(|| state.step(&arenas, &step, lr));
            }
            Updates::Plain { steps, norm } => tch::no_grad(|| {
                *norm = grads.norm().double_value(&[]);
                // As torch.nn.utils.clip_grad_norm_.
                let _ = grads.shallow_clone().g_mul_scalar_((grad_clip / (*norm + 1e-6)).min(1.0));
                let _ = steps.g_add_scalar_(1.0);
                let ranges = [(0, *vectors), (*vectors, values.numel() as i64 - vectors)];
                for (rates, (from, count)) in self.rates.iter().zip(ranges) {
                    let part = |flat: &Tensor| [flat.narrow(0, from, count)];
                    let settings =
                        aten::AdamW { lr: lr * rates.lr_multiplier, betas, weight_decay: rates.weight_decay, eps };
                    aten::fused_adamw(
                        &part(values),
                        &part(grads),
                        &part(first_moment),
                        &part(second_moment),
                        &[steps.shallow_clone()],
                        settings,
                    )?;
                }
                let _ = grads.shallow_clone().zero_();
                if let Some(shadow) = shadow {
                    shadow.shallow_clone().copy_(values);
                }
                Ok(())
            })?,
        }
        Ok(())
    }

    /// Norm of the gradients in the latest step, before clipping; waits for a GPU.
    pub fn norm(&self) -> f64 {
        match &self.updates {
            Updates::Plain { norm, .. } => *norm,
            Updates::OnDevice(state) => state.norm().double_value(&[]),
        }
    }

    /// Continues from a saved state; `None` when it is not that of these parameters.
    pub fn restore(&mut self, params: &ParamStore, saved: &std::collections::HashMap<String, Tensor>) -> Option<()> {
        let state = self.state(params);
        if saved.len() != state.len() {
            return None;
        }
        for (name, tensor) in &state {
            let from = saved.get(name).filter(|from| from.size() == tensor.size())?;
            tch::no_grad(|| tensor.shallow_clone().copy_(from));
        }
        Some(())
    }

    /// Everything to save, views under `adamw.first.NAME`, `adamw.second.NAME` and `adamw.steps`.
    pub fn state(&self, params: &ParamStore) -> Vec<(String, Tensor)> {
        let steps = match &self.updates {
            Updates::Plain { steps, .. } => steps.shallow_clone(),
            Updates::OnDevice(state) => state.steps(),
        };
        let moments = [("first", &self.first), ("second", &self.second)];
        let moments = moments
            .into_iter()
            .flat_map(|(kind, flat)| params.parts(flat).map(move |(name, t)| (format!("adamw.{kind}.{name}"), t)));
        moments.chain(std::iter::once(("adamw.steps".to_owned(), steps))).collect()
    }
}
