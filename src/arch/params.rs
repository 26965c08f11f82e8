//! Every parameter of a model: its name (that of the reference's state dict), shape, role and initial distribution.
//!
//! This list is the only place where parameters are enumerated: counting sums it, the model is built from it, the
//! optimiser groups by its roles and a checkpoint is checked against it.

use super::{
    AttentionBias, AttentionForm, MAMBA_D_CONV, MAMBA_D_STATE, MAMBA_EXPAND, MixerSpec, ModelConfig, NormKind,
    mamba_dt_rank,
};

/// What a parameter is to the optimiser and to a count by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamRole {
    /// Token embedding (also the readout when tied).
    Embedding,
    /// Output projection to the vocabulary.
    Readout,
    /// Hidden weight matrices.
    Matrix,
    /// Gains, biases, convolution weights, state-space constants, λ vectors.
    Vector,
}

/// How a parameter starts; `scaling` turns it into numbers for a parameterisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InitKind {
    Embedding,
    Readout,
    /// Weight of a linear layer with this fan-in.
    Linear {
        fan_in: usize,
    },
    /// As `Linear`, for a projection whose output is added to the residual stream.
    ResidualOutput {
        fan_in: usize,
    },
    /// Weight of Mamba's step-size projection, of this rank.
    StepSizeWeight {
        rank: usize,
    },
    /// Bias of Mamba's step-size projection: softplus⁻¹ of a log-uniform step size in [0.001, 0.1].
    StepSizeBias,
    /// log(1), …, log(state) in every channel.
    StateDecay,
    /// Uniform within ±1/√taps.
    Convolution {
        taps: usize,
    },
    /// λ vectors of differential attention, N(0, 0.1²).
    Lambda,
    Ones,
    Zeros,
}

/// One parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    pub name: String,
    pub shape: Vec<usize>,
    pub role: ParamRole,
    pub init: InitKind,
    /// The block that it belongs to, if any.
    pub block: Option<usize>,
}

impl ParamSpec {
    /// Number of values.
    pub fn numel(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

struct List {
    params: Vec<ParamSpec>,
    /// Of the parameters that are added.
    block: Option<usize>,
}

impl List {
    fn add(&mut self, name: String, shape: &[usize], role: ParamRole, init: InitKind) {
        self.params.push(ParamSpec { name, shape: shape.to_vec(), role, init, block: self.block });
    }

    fn vector(&mut self, name: String, shape: &[usize], init: InitKind) {
        self.add(name, shape, ParamRole::Vector, init);
    }

    /// A weight [out, in].
    fn linear(&mut self, name: String, out: usize, fan_in: usize) {
        self.add(name, &[out, fan_in], ParamRole::Matrix, InitKind::Linear { fan_in });
    }

    /// A weight [out, in] whose output is added to the residual stream.
    fn residual_output(&mut self, name: String, out: usize, fan_in: usize) {
        self.add(name, &[out, fan_in], ParamRole::Matrix, InitKind::ResidualOutput { fan_in });
    }

    fn norm(&mut self, prefix: String, kind: NormKind, width: usize) {
        self.vector(format!("{prefix}.weight"), &[width], InitKind::Ones);
        match kind {
            NormKind::Rms => {}
            NormKind::Layer => self.vector(format!("{prefix}.bias"), &[width], InitKind::Zeros),
        }
    }

    fn bias(&mut self, name: String, width: usize, present: bool) {
        if present {
            self.vector(name, &[width], InitKind::Zeros);
        }
    }
}

/// The parameters of `model`, in the order of its forward pass. A tied model has one matrix for embedding and readout,
/// named `transformer.wte.weight`.
pub fn parameters(model: &ModelConfig) -> Vec<ParamSpec> {
    let shape = &model.shape;
    let width = shape.d_model;
    let mut list = List { params: Vec::new(), block: None };
    list.add(
        "transformer.wte.weight".to_owned(),
        &[shape.vocab_size, width],
        ParamRole::Embedding,
        InitKind::Embedding,
    );
    for (index, layer) in model.layers.iter().enumerate() {
        list.block = Some(index);
        let block = format!("transformer.h.{index}");
        let attn = format!("{block}.attn");
        list.norm(format!("{block}.norm_1"), shape.norm, width);
        match &layer.mixer {
            MixerSpec::Attention { form, .. } => attention(&mut list, &attn, model, *form, KeyValues::Own),
            MixerSpec::CrossAttention { form, .. } => attention(&mut list, &attn, model, *form, KeyValues::Borrowed),
            MixerSpec::Mamba => mamba(&mut list, &attn, width),
            MixerSpec::GatedMemoryUnit { d_memory, .. } => {
                list.linear(format!("{attn}.gmu.in_proj.weight"), *d_memory, width);
                list.residual_output(format!("{attn}.gmu.out_proj.weight"), width, *d_memory);
            }
        }
        list.norm(format!("{block}.norm_2"), shape.norm, width);
        list.linear(format!("{block}.mlp.w1.weight"), 2 * shape.d_mlp, width);
        list.residual_output(format!("{block}.mlp.w3.weight"), width, shape.d_mlp);
    }
    list.norm("transformer.ln_f".to_owned(), shape.norm, width);
    if !shape.tie_embeddings {
        list.add("lm_head.weight".to_owned(), &[shape.vocab_size, width], ParamRole::Readout, InitKind::Readout);
    }
    list.params
}

enum KeyValues {
    Own,
    Borrowed,
}

fn attention(list: &mut List, attn: &str, model: &ModelConfig, form: AttentionForm, kv: KeyValues) {
    let shape = &model.shape;
    let (width, inner, kv_width) = (shape.d_model, shape.attention_width(), shape.kv_width());
    let (biased, key_biased) = match shape.attention_bias {
        AttentionBias::None => (false, false),
        AttentionBias::QueryValueOutput => (true, false),
        AttentionBias::All => (true, true),
    };
    list.linear(format!("{attn}.q_proj.weight"), inner, width);
    list.bias(format!("{attn}.q_proj.bias"), inner, biased);
    if let KeyValues::Own = kv {
        list.linear(format!("{attn}.k_proj.weight"), kv_width, width);
        list.bias(format!("{attn}.k_proj.bias"), kv_width, key_biased);
        list.linear(format!("{attn}.v_proj.weight"), kv_width, width);
        list.bias(format!("{attn}.v_proj.bias"), kv_width, biased);
    }
    match form {
        AttentionForm::Softmax => {}
        AttentionForm::Differential => {
            for lambda in ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"] {
                list.vector(format!("{attn}.da.{lambda}"), &[shape.head_dim], InitKind::Lambda);
            }
            list.vector(format!("{attn}.da.subln.weight"), &[2 * shape.head_dim], InitKind::Ones);
        }
    }
    list.residual_output(format!("{attn}.proj.weight"), width, inner);
    list.bias(format!("{attn}.proj.bias"), width, biased);
}

fn mamba(list: &mut List, attn: &str, width: usize) {
    let (inner, rank, state) = (MAMBA_EXPAND * width, mamba_dt_rank(width), MAMBA_D_STATE);
    list.linear(format!("{attn}.in_proj.weight"), 2 * inner, width);
    let convolution = InitKind::Convolution { taps: MAMBA_D_CONV };
    list.vector(format!("{attn}.conv1d.weight"), &[inner, 1, MAMBA_D_CONV], convolution);
    list.vector(format!("{attn}.conv1d.bias"), &[inner], convolution);
    list.linear(format!("{attn}.x_proj.weight"), rank + 2 * state, inner);
    list.add(format!("{attn}.dt_proj.weight"), &[inner, rank], ParamRole::Matrix, InitKind::StepSizeWeight { rank });
    list.vector(format!("{attn}.dt_proj.bias"), &[inner], InitKind::StepSizeBias);
    list.vector(format!("{attn}.A_log"), &[inner, state], InitKind::StateDecay);
    list.vector(format!("{attn}.D"), &[inner], InitKind::Ones);
    list.residual_output(format!("{attn}.out_proj.weight"), width, inner);
}

#[cfg(test)]
mod tests {
    use super::super::{ARCHITECTURES, ModelShape};
    use super::*;

    /// The reference groups by name: everything without `weight` in its lower-cased name, and whatever contains one of
    /// these, is vector-like.
    fn reference_says_vector(name: &str) -> bool {
        let name = name.to_lowercase();
        let parts = ["conv1d", "wte", "lm_head", "norm", "ln", "layernorm"];
        !name.contains("weight") || parts.iter().any(|part| name.contains(part))
    }

    #[test]
    fn roles_agree_with_the_reference_rule_on_names() {
        for architecture in ARCHITECTURES {
            let depth = architecture.defaults().fixed_depth.unwrap_or(16);
            let shape = ModelShape::published(*architecture, depth);
            let model = ModelConfig::new(*architecture, shape).expect("valid");
            for param in parameters(&model) {
                let vector = param.role != ParamRole::Matrix;
                assert_eq!(vector, reference_says_vector(&param.name), "{}", param.name);
            }
        }
    }
}
