//! `mod_*` files: building blocks, outputs and gradients.

use super::golden::{Golden, max_over_rms, norm, norm_ratio};
use super::{Report, Tolerances, VerifyError, VerifyOptions};
use crate::arch::NormKind;
use crate::arch::params::ParamRole;
use crate::nn::{
    DifferentialHeads, GatedMemoryUnit, Mamba, Norm, ParamStore, Parameter, RopeTable, RotaryEmbedding, SwiGlu,
};
use crate::ops::attention::{AttentionOptions, attention};
use crate::ops::causal_conv1d::{Activation, causal_conv1d};
use crate::ops::norm::Normed;
use crate::ops::rope::rotate;
use crate::ops::selective_scan::{ScanInputs, selective_scan};
use serde_json::Value;
use std::collections::HashMap;
use tch::Tensor;

/// One case of a file: its settings, its tensors as leaves that record gradients, and what they should give.
struct Case<'a> {
    golden: &'a Golden,
    name: String,
    settings: &'a Value,
    options: VerifyOptions,
    /// Tensors with a gradient in the file, by name.
    leaves: HashMap<String, Tensor>,
    params: ParamStore,
}

impl<'a> Case<'a> {
    fn new(golden: &'a Golden, settings: &'a Value, options: VerifyOptions) -> Result<Self, VerifyError> {
        let name = settings["name"].as_str().ok_or_else(|| golden.problem("a case has no name"))?.to_owned();
        let mut leaves = HashMap::new();
        let mut params = Vec::new();
        for (tensor_name, tensor) in golden.under(&format!("{name}.")) {
            if golden.find(&format!("{name}.grad.{tensor_name}")).is_none() {
                continue;
            }
            let leaf = tensor.to_device(options.device).copy().set_requires_grad(true);
            if let Some(parameter) = tensor_name.strip_prefix("param.") {
                let tensor = leaf.shallow_clone();
                params.push(Parameter { name: format!("m.{parameter}"), role: ParamRole::Matrix, block: None, tensor });
            }
            leaves.insert(tensor_name, leaf);
        }
        Ok(Self { golden, name, settings, options, leaves, params: ParamStore::from_parameters(params) })
    }

    fn input(&self, name: &str) -> Result<Tensor, VerifyError> {
        self.optional(name).ok_or_else(|| self.golden.problem(format!("{} has no '{name}'", self.name)))
    }

    fn optional(&self, name: &str) -> Option<Tensor> {
        let leaf = self.leaves.get(name).map(Tensor::shallow_clone);
        leaf.or_else(|| self.golden.find(&format!("{}.{name}", self.name)).map(|t| t.to_device(self.options.device)))
    }

    fn want(&self, name: &str) -> Result<Tensor, VerifyError> {
        self.golden.get(&format!("{}.{name}", self.name))
    }

    fn whole(&self, key: &str) -> Option<usize> {
        self.settings[key].as_u64().map(|n| n as usize)
    }

    fn attention_options(&self) -> AttentionOptions {
        AttentionOptions {
            scale: self.settings["softmax_scale"].as_f64().unwrap_or(f64::NAN),
            window: self.whole("window"),
        }
    }

    /// Compares the output, and every gradient in the file after feeding in `dy`.
    fn check(&self, y: &Tensor, tolerances: Tolerances, report: &mut Report) -> Result<(), VerifyError> {
        report.add(format!("{}: y", self.name), tolerances.distance(y, &self.want("y")?), tolerances.values);
        let (names, leaves): (Vec<&String>, Vec<&Tensor>) = self.leaves.iter().unzip();
        let dy = self.input("dy")?;
        let grads = Tensor::run_backward(&[(y * dy).sum(y.kind())], &leaves, false, false);
        let wants = names.iter().map(|name| self.want(&format!("grad.{name}"))).collect::<Result<Vec<_>, _>>()?;
        let largest = wants.iter().map(norm).fold(0.0, f64::max);
        let floor = tolerances.gradient_floor * largest;
        let (mut worst, mut where_) = (0f64, "");
        for ((name, grad), want) in names.iter().zip(&grads).zip(&wants) {
            let error = norm_ratio(grad, want, floor);
            if error > worst || error.is_nan() {
                (worst, where_) = (error, name);
            }
        }
        report.add(format!("{}: gradients (worst: {where_})", self.name), worst, tolerances.gradients);
        Ok(())
    }
}

pub(super) fn verify(
    golden: &Golden,
    options: VerifyOptions,
    tolerances: Tolerances,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let module = golden.metadata("module")?.to_owned();
    let cases = golden.json("cases")?;
    let cases = cases.as_array().ok_or_else(|| golden.problem("its cases are no list"))?;
    for settings in cases {
        let case = Case::new(golden, settings, options)?;
        match module.as_str() {
            "selective_scan" => scan(&case, tolerances, report)?,
            "causal_conv1d" => convolution(&case, tolerances, report)?,
            "diff_attention" => {
                let layer = case.whole("layer_index").ok_or_else(|| golden.problem("a case has no layer_index"))?;
                let heads = DifferentialHeads::new(&case.params, "m", layer);
                let (q, k, v) = (case.input("q")?, case.input("k")?, case.input("v")?);
                case.check(&heads.run([&q, &k, &v], case.attention_options(), options.backend), tolerances, report)?;
            }
            "sliding_window" => {
                let (q, k, v) = (case.input("q")?, case.input("k")?, case.input("v")?);
                let y = attention(&q, &k, &v, case.attention_options(), options.backend);
                case.check(&y, tolerances, report)?;
            }
            "gmu" => {
                let unit = GatedMemoryUnit::new(&case.params, "m", 0);
                case.check(&unit.run(&case.input("x")?, &case.input("memory")?, options.backend), tolerances, report)?;
            }
            "mlp" => {
                let (y, _) = SwiGlu::new(&case.params, "m").forward(&case.input("x")?, false, options.backend);
                case.check(&y, tolerances, report)?;
            }
            "rmsnorm" => {
                case.check(
                    &Norm::new(&case.params, "m", NormKind::Rms).forward(&case.input("x")?),
                    tolerances,
                    report,
                )?;
            }
            "rope" => rope(&case, tolerances, report)?,
            "mamba" => mamba(&case, tolerances, report)?,
            other => return Err(golden.problem(format!("module '{other}' is unknown"))),
        }
    }
    Ok(())
}

fn scan(case: &Case, tolerances: Tolerances, report: &mut Report) -> Result<(), VerifyError> {
    // The file has [b, d, t]; ours is [b, t, d].
    let turned = |name: &str| -> Result<Tensor, VerifyError> { Ok(case.input(name)?.transpose(1, 2)) };
    let (x, delta, b, c) = (turned("x")?, turned("delta")?, turned("B")?, turned("C")?);
    let z = case.optional("z").map(|z| z.transpose(1, 2));
    let (skip, bias) = (case.optional("D"), case.optional("delta_bias"));
    let out = selective_scan(
        &ScanInputs {
            x_btd: &x,
            delta_btd: &delta,
            a_dn: &case.input("A")?,
            b_btn: &b,
            c_btn: &c,
            d_d: skip.as_ref(),
            z_btd: z.as_ref(),
            delta_bias_d: bias.as_ref(),
            initial_bdn: None,
            softplus: case.settings["softplus"].as_bool().unwrap_or(false),
        },
        case.options.backend,
    );
    let last = tolerances.distance(&out.last_state_bdn, &case.want("last_state")?);
    report.add(format!("{}: last state", case.name), last, tolerances.values);
    case.check(&out.y_btd.transpose(1, 2), tolerances, report)
}

fn convolution(case: &Case, tolerances: Tolerances, report: &mut Report) -> Result<(), VerifyError> {
    let activation = match case.settings["activation"].as_str() {
        Some("silu") => Activation::Silu,
        _ => Activation::None,
    };
    let x_btd = case.input("x")?.transpose(1, 2);
    let y = causal_conv1d(&x_btd, &case.input("weight")?, &case.input("bias")?, activation, case.options.backend);
    case.check(&y.transpose(1, 2), tolerances, report)
}

fn rope(case: &Case, tolerances: Tolerances, report: &mut Report) -> Result<(), VerifyError> {
    if case.settings["scaling_factor"].is_number() {
        // YaRN tables extend the context of a trained model; no model here is trained with them.
        return Ok(());
    }
    let (cos, sin) = (case.input("cos")?, case.input("sin")?);
    let table = if case.name.contains("bf16") { RopeTable::RoundedToBf16 } else { RopeTable::Fp32 };
    let base = case.settings["base"].as_f64().unwrap_or(f64::NAN);
    let rotary = RotaryEmbedding::of(2 * cos.size()[1] as usize, base, table);
    let tables = rotary.tables(cos.size()[0], case.options.device);
    let error = max_over_rms(&tables.0, &cos).max(max_over_rms(&tables.1, &sin));
    // A cosine next to a rounding boundary may fall to either side: one unit of bf16.
    let limit = if table == RopeTable::Fp32 { tolerances.values } else { 2f64.powi(-7) };
    report.add(format!("{}: table", case.name), error, limit);
    case.check(&rotate(&case.input("x")?, &(cos, sin)), tolerances, report)
}

fn mamba(case: &Case, tolerances: Tolerances, report: &mut Report) -> Result<(), VerifyError> {
    let with_memory = case.settings["has_memory"].as_bool().unwrap_or(false);
    let mixer = Mamba::new(&case.params, "m", 0, with_memory);
    let x = case.input("x")?;
    let (y, memory) = mixer.run(&x, case.options.backend);
    // In two parts, the first of one token.
    let mut state = mixer.state(x.size()[0], x.kind());
    let parts = tch::no_grad(|| {
        [(0, 1), (1, x.size()[1] - 1)].map(|(from, count)| {
            let part = Normed::Made(x.narrow(1, from, count));
            mixer.run_on(&part, &mut state, case.options.backend).0
        })
    });
    let error = tolerances.distance(&Tensor::cat(&parts, 1), &case.want("y")?);
    report.add(format!("{}: token by token", case.name), error, tolerances.values);
    if let Some(memory) = memory {
        report.add(
            format!("{}: memory", case.name),
            tolerances.distance(&memory, &case.want("memory")?),
            tolerances.values,
        );
    }
    // The file has one input more than the next step reads.
    let last = case.want("final_conv_state")?.narrow(2, 1, state.conv_bkd.size()[1]).transpose(1, 2);
    let conv = tolerances.distance(&state.conv_bkd, &last);
    report.add(format!("{}: convolution state", case.name), conv, tolerances.values);
    let ssm = tolerances.distance(&state.ssm_bdn, &case.want("final_ssm_state")?);
    report.add(format!("{}: state-space state", case.name), ssm, tolerances.values);
    case.check(&y, tolerances, report)
}
