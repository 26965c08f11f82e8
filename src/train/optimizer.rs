//! AdamW over two groups of parameters in an arena, with global-norm clipping. With several ranks its state may be
//! sharded: each rank keeps the moments of one part of the arena, updates that part and hands it round.

use super::ranks::Ranks;
use crate::arch::params::ParamRole;
use crate::bridge::profile::phase;
use crate::bridge::{BridgeError, aten};
use crate::config::OptimizerState;
use crate::nn::{Arena, ParamStore};
use crate::ops::Backend;
use crate::ops::optimizer::{Arenas, DeviceState, Rates, Step};
use crate::scaling::ModelScaling;
use std::collections::HashMap;
use std::sync::Arc;
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

/// Who trains the same parameters, and where the moments are.
#[derive(Clone, Debug)]
pub struct Sharing {
    pub ranks: Arc<Ranks>,
    pub state: OptimizerState,
}

impl Sharing {
    /// Nobody else does.
    pub fn alone() -> Self {
        Self { ranks: Ranks::alone(), state: OptimizerState::Replicated }
    }
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
    ranks: Arc<Ranks>,
    /// Where the part of the arena begins that this rank updates, and its length.
    shard: (i64, i64),
    /// Moments of that part.
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
    pub fn new(
        params: &ParamStore,
        scaling: &ModelScaling,
        options: AdamWOptions,
        backend: Backend,
        sharing: Sharing,
    ) -> Self {
        let values = &arena(params).values;
        let length = values.numel() as i64;
        let Sharing { ranks, state } = sharing;
        let shard = match state {
            OptimizerState::Replicated => (0, length),
            OptimizerState::Sharded => ranks.shard(ranks.rank(), length),
        };
        let moment = || Tensor::zeros([shard.1], (Kind::Float, values.device()));
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
            ranks,
            shard,
            first: moment(),
            second: moment(),
            updates,
        }
    }

    /// Whether this rank has only a part of the state.
    fn is_sharded(&self, params: &ParamStore) -> bool {
        self.shard.1 < arena(params).values.numel() as i64
    }

    /// Clips the gradients in the arena, updates the parameters and clears the gradients; `lr` is that of the vector
    /// group. Does not wait for a GPU.
    pub fn step(&mut self, params: &ParamStore, lr: f64) -> Result<(), BridgeError> {
        let _phase = phase("optimizer");
        let sharded = self.is_sharded(params);
        let Arena { values, grads, shadow, vectors, .. } = arena(params);
        let AdamWOptions { betas, eps, grad_clip, .. } = self.options;
        let (start, count) = self.shard;
        let part = |flat: &Tensor| flat.narrow(0, start, count);
        // Elements of the shard that are no hidden matrices.
        let vectors = (*vectors - start).clamp(0, count);
        let (first_moment, second_moment) = (&self.first, &self.second);
        match &mut self.updates {
            Updates::OnDevice(state) => {
                let shadow = shadow.as_ref().filter(|_| !sharded).map(part);
                let arenas = Arenas {
                    values: &part(values),
                    grads: &part(grads),
                    first_moment,
                    second_moment,
                    shadow: shadow.as_ref(),
                };
                let step = Step { betas, eps, grad_clip, first: vectors, rates: self.rates };
                tch::no_grad(|| state.step(grads, &arenas, &step, lr));
            }
            Updates::Plain { steps, norm } => tch::no_grad(|| {
                *norm = grads.norm().double_value(&[]);
                // As torch.nn.utils.clip_grad_norm_.
                let _ = grads.shallow_clone().g_mul_scalar_((grad_clip / (*norm + 1e-6)).min(1.0));
                let _ = steps.g_add_scalar_(1.0);
                for (rates, (from, count)) in self.rates.iter().zip([(0, vectors), (vectors, count - vectors)]) {
                    let group = |flat: &Tensor| [flat.narrow(0, from, count)];
                    let settings =
                        aten::AdamW { lr: lr * rates.lr_multiplier, betas, weight_decay: rates.weight_decay, eps };
                    aten::fused_adamw(
                        &group(&part(values)),
                        &group(&part(grads)),
                        &group(first_moment),
                        &group(second_moment),
                        &[steps.shallow_clone()],
                        settings,
                    )?;
                }
                Ok(())
            })?,
        }
        let on_device = matches!(self.updates, Updates::OnDevice(_));
        tch::no_grad(|| {
            if sharded {
                self.ranks.gather_shards(values)?;
            }
            // The kernel on a GPU does both for the part that it updates.
            if sharded || !on_device {
                let _ = grads.shallow_clone().zero_();
                if let Some(shadow) = shadow {
                    shadow.shallow_clone().copy_(values);
                }
            }
            Ok(())
        })
    }

    /// Norm of the gradients in the latest step, before clipping; waits for a GPU.
    pub fn norm(&self) -> f64 {
        match &self.updates {
            Updates::Plain { norm, .. } => *norm,
            Updates::OnDevice(state) => state.norm().double_value(&[]),
        }
    }

    /// Continues from the state that the leader has read, if any: `None` on the other ranks. All ranks call it; the
    /// leader has checked that the state is that of these parameters with [`Self::fits`].
    pub fn restore(&mut self, params: &ParamStore, saved: Option<&HashMap<String, Tensor>>) -> Result<(), BridgeError> {
        let (start, count) = self.shard;
        for (kind, own) in [("first", &self.first), ("second", &self.second)] {
            let flat = arena(params).values.zeros_like();
            for (name, place) in params.parts(&flat) {
                if let Some(from) = saved.and_then(|saved| saved.get(&format!("adamw.{kind}.{name}"))) {
                    tch::no_grad(|| place.shallow_clone().copy_(from));
                }
            }
            self.ranks.copy_from_leader(&flat)?;
            tch::no_grad(|| own.shallow_clone().copy_(&flat.narrow(0, start, count)));
        }
        let steps = self.steps();
        if let Some(from) = saved.and_then(|saved| saved.get(STEPS)) {
            tch::no_grad(|| steps.shallow_clone().copy_(from));
        }
        self.ranks.copy_from_leader(&steps)
    }

    /// Whether a saved state is that of these parameters.
    pub fn fits(params: &ParamStore, saved: &HashMap<String, Tensor>) -> bool {
        let fits = |name: &str, size: &[i64]| saved.get(name).is_some_and(|saved| saved.size() == size);
        saved.len() == 2 * params.iter().count() + 1
            && fits(STEPS, &[])
            && params.iter().all(|p| {
                ["first", "second"].iter().all(|kind| fits(&format!("adamw.{kind}.{}", p.name), &p.tensor.size()))
            })
    }

    fn steps(&self) -> Tensor {
        match &self.updates {
            Updates::Plain { steps, .. } => steps.shallow_clone(),
            Updates::OnDevice(state) => state.steps(),
        }
    }

    /// Everything to save, under `adamw.first.NAME`, `adamw.second.NAME` and `adamw.steps`: views, or copies where the
    /// state is sharded. All ranks call it.
    pub fn state(&self, params: &ParamStore) -> Result<Vec<(String, Tensor)>, BridgeError> {
        let mut state = Vec::new();
        for (kind, own) in [("first", &self.first), ("second", &self.second)] {
            let flat = if self.is_sharded(params) {
                let flat = arena(params).values.zeros_like();
                tch::no_grad(|| flat.narrow(0, self.shard.0, self.shard.1).copy_(own));
                self.ranks.gather_shards(&flat)?;
                flat
            } else {
                own.shallow_clone()
            };
            state.extend(params.parts(&flat).map(|(name, tensor)| (format!("adamw.{kind}.{name}"), tensor)));
        }
        state.push((STEPS.to_owned(), self.steps()));
        Ok(state)
    }
}

/// The name under which the number of steps is saved.
const STEPS: &str = "adamw.steps";
