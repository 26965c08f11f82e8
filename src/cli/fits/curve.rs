//! The curve that `design` and `calibrate` take for true.

use super::input::ColumnArgs;
use super::{parse_form, parse_pairs, reservation};
use crate::analysis::forms::Form;
use crate::analysis::{FitOptions, IntervalMethod, Law, Noise, Objective, Sample, fit};
use crate::cli::{ExitStatus, exit, output, usage};
use std::path::PathBuf;

/// The curve that is taken for true: given, or fitted to a table.
#[derive(clap::Args, Clone, Debug)]
pub struct CurveArgs {
    /// Table of results whose fitted curve is taken for true: .csv, .jsonl or .parquet
    #[arg(required_unless_present = "params")]
    pub file: Option<PathBuf>,
    /// The law
    #[arg(long, value_parser = parse_form, default_value = "power+floor")]
    pub form: &'static dyn Form,
    /// The curve itself instead of a table: every parameter of the law, such as A=39.8,b=0.0694,C=0.585
    #[arg(long, value_name = "NAME=VALUE,...", value_parser = parse_pairs, conflicts_with = "file")]
    pub params: Vec<Vec<(String, f64)>>,
    /// Column of the scale, such as FLOPs or tokens; without a table, the scales of the design: 1e18,1e19,1e20
    #[arg(long, value_name = "COL|X,...")]
    pub x: Option<String>,
    /// Column of the parameters N
    #[arg(long, value_name = "COL", requires = "file")]
    pub n: Option<String>,
    /// Column of the training tokens D
    #[arg(long, value_name = "COL", requires = "file")]
    pub d: Option<String>,
    /// Column of the distinct training tokens
    #[arg(long, value_name = "COL", requires = "file")]
    pub u: Option<String>,
    /// Column of the loss
    #[arg(long, value_name = "COL", requires = "file", required_unless_present = "params")]
    pub y: Option<String>,
    /// Column that splits the rows into series
    #[arg(long, value_name = "COL", requires = "file")]
    pub group: Option<String>,
    /// Column that tells repetitions with different seeds apart
    #[arg(long, value_name = "COL", requires = "file")]
    pub seed: Option<String>,
    /// Rows to take, such as "depth >= 8 and architecture in [samba, sambay]"
    #[arg(long = "where", value_name = "CONDITION", requires = "file")]
    pub condition: Option<String>,
    /// What is minimised: lsq, or log-lsq, whose noise is that of the logarithm of the loss
    #[arg(long, value_name = "LOSS", default_value = "lsq")]
    pub loss: Objective,
    /// Standard deviation of one loss; of its logarithm for log-lsq. Default with a table: that of the residuals, or of
    /// repeated seeds
    #[arg(long, value_name = "SD", required_unless_present = "file", allow_negative_numbers = true)]
    pub sigma: Option<f64>,
}

/// A group of the table and its runs.
pub(super) type Named = (Option<String>, Sample);

/// A curve that is taken for true.
pub(super) struct Curve {
    /// The group of the table.
    pub group: Option<String>,
    /// The law.
    pub law: Law,
    /// The noise of one loss.
    pub sd: f64,
    /// The runs that it was fitted to.
    pub sample: Option<Sample>,
}

impl CurveArgs {
    fn columns(&self) -> anyhow::Result<ColumnArgs> {
        let y = self.y.clone().ok_or_else(|| usage("--y has to name the column of the loss"))?;
        Ok(ColumnArgs {
            x: self.x.clone(),
            n: self.n.clone(),
            d: self.d.clone(),
            u: self.u.clone(),
            y,
            group: self.group.clone(),
            weight: None,
            seed: self.seed.clone(),
            cluster: None,
            condition: self.condition.clone(),
            drop_highest: None,
        })
    }

    /// Refuses what no design can be judged by.
    fn check(&self) -> anyhow::Result<()> {
        if self.loss.is_robust() {
            return Err(usage(format!("--loss {}: only lsq and log-lsq have a noise to design for", self.loss.name())));
        }
        match self.sigma {
            Some(sd) if !(sd > 0.0 && sd.is_finite()) => {
                Err(usage(format!("--sigma {sd}: a standard deviation is a positive number")))
            }
            _ => Ok(()),
        }
    }

    /// The samples of the table, by group, with the noise of repeated seeds where there are any.
    pub(super) fn samples(&self) -> anyhow::Result<(Vec<Named>, Noise)> {
        self.check()?;
        let Some(file) = &self.file else { return Err(usage("a table of results is needed")) };
        let columns = self.columns()?;
        let source = columns.read(file, columns.inputs(self.form)?)?;
        source.say();
        let noise = match (self.sigma, &self.seed) {
            (Some(sd), _) => Noise::Known { sd, freedom: None },
            (None, None) => Noise::FromResiduals,
            (None, Some(_)) => source.seed_noise(self.loss.is_logarithmic()).unwrap_or_default(),
        };
        let groups = source.groups().into_iter().filter(|group| !group.rows.is_empty());
        Ok((groups.map(|group| (group.name.clone(), group.sample())).collect(), noise))
    }

    /// The curves, one for each group of the table, and the noise around them.
    pub(super) fn curves(&self) -> anyhow::Result<Vec<Curve>> {
        self.check()?;
        if self.file.is_none() {
            let sd = self.sigma.ok_or_else(|| usage("--sigma has to give the noise of one loss"))?;
            return Ok(vec![Curve { group: None, law: self.given()?, sd, sample: None }]);
        }
        let (samples, noise) = self.samples()?;
        let mut out = Vec::new();
        let mut reasons = Vec::new();
        for (group, sample) in samples {
            let options = FitOptions {
                objective: self.loss,
                interval: IntervalMethod::None,
                leave_one_out: false,
                noise,
                ..FitOptions::new(self.form)
            };
            let name = group.as_deref().unwrap_or("all").to_owned();
            match fit(&sample, &options) {
                Ok(fit) => {
                    if let Some(note) = reservation(&fit) {
                        output::note(&format!("{name}: the curve taken for true: {note}"));
                    }
                    let sd = match noise {
                        Noise::Known { sd, .. } => sd,
                        Noise::FromResiduals if fit.exact => 0.0,
                        Noise::FromResiduals => fit.residual_sd,
                    };
                    if sd <= 0.0 {
                        return Err(usage(format!("{name}: the curve fits without residuals; hint: --sigma SD")));
                    }
                    out.push(Curve { group, law: fit.law, sd, sample: Some(sample) });
                }
                Err(error) => reasons.push(format!("{name}: {error}")),
            }
        }
        reasons.iter().for_each(|reason| output::note(reason));
        if out.is_empty() {
            return Err(exit(ExitStatus::NoFit, "no group has a fitted curve"));
        }
        Ok(out)
    }

    /// The law of --params.
    fn given(&self) -> anyhow::Result<Law> {
        let names = self.form.parameters();
        let pairs: Vec<&(String, f64)> = self.params.iter().flatten().collect();
        let wrong = || usage(format!("--params: {} has {}, none of them negative", self.form.name(), names.join(", ")));
        if pairs.iter().any(|(name, value)| !names.contains(&&**name) || *value < 0.0) || pairs.len() != names.len() {
            return Err(wrong());
        }
        let value = |name: &&str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| *value).ok_or_else(wrong);
        Ok(Law { form: self.form, parameters: names.iter().map(value).collect::<Result<_, _>>()? })
    }
}
