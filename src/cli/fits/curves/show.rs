//! What `lossfloor curves` shows: tables, JSON, predicted curves, a figure.

use super::super::sheet::{Format, Sheet};
use super::{Judged, Role, Study};
use crate::analysis::display;
use crate::analysis::document::{CertificateEntry, SCHEMA, SpreadEntry};
use crate::analysis::learning_curve::Scores;
use crate::cli::output;
use crate::plot::figures::{CurveFitRun, CurveFits};
use crate::plot::{Chart, Width};
use anyhow::Context;
use serde_json::{Map, Value, json};

/// Why there are no standard errors, wherever they are missed.
const NO_ERRORS: &str = "no standard errors: neighbouring losses of one curve are not independent";

impl Judged {
    /// The measured loss at each logged step, where it counts.
    fn measured(&self) -> Vec<(usize, f64)> {
        let curve = self.log.curve.as_ref();
        curve.map_or_else(Vec::new, |curve| curve.steps().iter().copied().zip(curve.losses().iter().copied()).collect())
    }

    fn measured_at(&self, step: usize) -> Option<f64> {
        let curve = self.log.curve.as_ref()?;
        curve.steps().binary_search(&step).ok().map(|at| curve.losses()[at])
    }

    /// The last logged step with the loss by the law.
    fn last(&self) -> Option<(usize, f64)> {
        Some((*self.log.steps.last()?, *self.predicted.last()?))
    }
}

fn scores(of: Option<&Scores>) -> Value {
    of.map_or(Value::Null, |s| {
        json!({
            "r2": s.r2, "rmse": s.rmse, "mae": s.mae, "mean_relative": s.mean_relative,
            "worst_relative": s.worst_relative,
        })
    })
}

impl Study<'_> {
    fn form_parameters(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.fit.law.form.parameters().iter().copied().zip(self.fit.law.parameters.iter().copied())
    }

    fn is_held(&self, name: &str) -> bool {
        self.args.hold.iter().flatten().any(|(held, _)| held == name)
    }

    fn slack(&self, name: &str) -> Option<f64> {
        self.fit.slack.iter().find(|(of, share)| *of == name && share.is_finite()).map(|(_, share)| *share)
    }

    /// Scores of the runs of a role, averaged.
    fn mean(&self, role: Role) -> Option<Scores> {
        let of: Vec<Scores> = self.runs.iter().filter(|run| run.role == role).filter_map(|run| run.scores).collect();
        (!of.is_empty()).then(|| Scores::mean(&of))
    }

    /// One row for each parameter.
    pub(super) fn parameters(&self) -> Sheet {
        let mut sheet = Sheet::new(&["form", "n", "status", "parameter", "value", "may_move", "low", "high"]);
        for (at, (name, value)) in self.form_parameters().enumerate() {
            let range = self.moved.as_ref().map(|moved| moved[at]);
            sheet.rows.push(vec![
                json!(self.fit.law.form.name()),
                json!(self.fit.n),
                json!(self.fit.status.name()),
                json!(name),
                json!(value),
                json!(self.slack(name)),
                json!(range.map(|(low, _)| low)),
                json!(range.map(|(_, high)| high)),
            ]);
        }
        sheet
    }

    fn curves(&self) -> Sheet {
        let mut sheet = Sheet::new(&["curve", "role", "n", "mean %", "worst %", "unseen %", "step", "loss", "law"]);
        for run in &self.runs {
            let percent = |share: Option<f64>| json!(share.map(|share| 100.0 * share));
            let unseen = run.unseen.as_ref().and_then(|scores| scores.as_ref().ok());
            let last = run.last();
            sheet.rows.push(vec![
                json!(run.log.name),
                json!(run.role.name()),
                json!(run.measured().len()),
                percent(run.scores.map(|s| s.mean_relative)),
                percent(run.scores.map(|s| s.worst_relative)),
                percent(unseen.map(|s| s.mean_relative)),
                json!(last.map(|(step, _)| step)),
                json!(last.and_then(|(step, _)| run.measured_at(step))),
                json!(last.map(|(_, loss)| loss)),
            ]);
        }
        sheet
    }

    /// Everything for a terminal.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        output::print(&format!("{}   {}", self.fit.law.form.formula(), self.args.loss.name()))?;
        let mut parameters = self.parameters().keep(|_, name| !["form", "n", "status"].contains(&name));
        for row in &mut parameters.rows {
            if let Some(name) = row[0].as_str().filter(|name| self.is_held(name)) {
                row[0] = json!(format!("{name} (held)"));
            }
        }
        // What is read as a loss or a parameter has more digits than what says how sure it is.
        let digits = |name: &str| if ["value", "low", "high", "loss", "law"].contains(&name) { 5 } else { 2 };
        let parameters = parameters.renamed(&[("may_move", "may move by")]).rounded(digits, &["low", "high"]);
        parameters.write(Format::Table, Map::new())?;
        output::print("")?;
        self.curves().rounded(digits, &["unseen %", "loss"]).write(Format::Table, Map::new())?;
        output::print("")?;
        output::print(&self.notes().join("\n"))
    }

    fn notes(&self) -> Vec<String> {
        let fit = &self.fit;
        let certificate = &fit.certificate;
        let mut out = vec![format!(
            "optimum: {}, |gradient| {:.0e}, condition {:.0e}; {} of {} independent starts agree",
            fit.status.name(),
            certificate.gradient,
            certificate.condition,
            certificate.reached,
            certificate.starts
        )];
        if !fit.bounds.is_empty() {
            out.push(format!("the optimum lies on a bound: {}", fit.bounds.join(", ")));
        }
        for (role, what) in
            [(Role::Fitted, "in sample"), (Role::HeldOut, "held-out schedules"), (Role::Predicted, "--predict")]
        {
            if let Some(mean) = self.mean(role) {
                out.push(format!(
                    "{what}: mean error {:.3} %, worst {:.3} %, RMSE {:.5}, R2 {:.5} (means over curves)",
                    100.0 * mean.mean_relative,
                    100.0 * mean.worst_relative,
                    mean.rmse,
                    mean.r2
                ));
            }
        }
        for run in &self.runs {
            if let Some(Err(error)) = &run.unseen {
                out.push(format!("without {}: no fit: {error}", run.log.name));
            }
        }
        let other: Vec<String> = fit
            .slack
            .iter()
            .filter(|(name, _)| !fit.law.form.parameters().contains(name))
            .map(|(name, share)| format!("{name} {}", display::significant(*share, 2)))
            .collect();
        let other = if other.is_empty() { String::new() } else { format!(" (and {})", other.join(", ")) };
        out.push(format!(
            "{NO_ERRORS}. 'may move by': share by which a parameter may change when the others follow, until the \
             objective has risen by a hundredth{other}; of the order of 1, the curves do not determine it"
        ));
        if self.moved.is_some() {
            out.push("low, high, unseen %: fits that lack one curve each".to_owned());
        }
        out
    }

    /// The document of `curves --json`.
    pub(super) fn document(&self) -> Value {
        let fit = &self.fit;
        let parameters = || self.form_parameters().enumerate();
        let moved = |at: usize| self.moved.as_ref().map(|moved| [moved[at].0, moved[at].1]);
        let errors = |role: Role| scores(self.mean(role).as_ref());
        json!({
            "schema": SCHEMA,
            "form": fit.law.form.name(), "formula": fit.law.form.formula(), "source": fit.law.form.source(),
            "loss": self.args.loss.name(), "n": fit.n, "status": fit.status.name(), "objective": fit.objective,
            "params": parameters().map(|(_, (name, value))| (name.to_owned(), json!(value))).collect::<Map<_, _>>(),
            "se": parameters().map(|(_, (name, _))| (name.to_owned(), Value::Null)).collect::<Map<_, _>>(),
            "se_reason": NO_ERRORS,
            "may_move": fit.slack.iter().map(|(name, share)| ((*name).to_owned(), json!(share))).collect::<Map<_, _>>(),
            "leave_one_out": self.moved.as_ref().map(|_| {
                parameters().map(|(at, (name, _))| (name.to_owned(), json!(moved(at)))).collect::<Map<_, _>>()
            }),
            "held": self.args.hold.iter().flatten().map(|(name, v)| (name.clone(), json!(v))).collect::<Map<_, _>>(),
            "bounds": fit.bounds,
            "certificate": CertificateEntry::from(&fit.certificate),
            "residuals": SpreadEntry::from(&fit.spread),
            "errors": {
                "fitted": errors(Role::Fitted), "held_out": errors(Role::HeldOut), "predicted": errors(Role::Predicted),
            },
            "curves": self.runs.iter().map(entry).collect::<Vec<_>>(),
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    /// The curves that were not fitted, as a table.
    pub(super) fn predictions(&self) -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["curve", "step", "lr", "loss", "predicted"])?;
        for run in self.runs.iter().filter(|run| run.role != Role::Fitted) {
            for (step, predicted) in run.log.steps.iter().zip(&run.predicted) {
                let measured = run.measured_at(*step).map_or(String::new(), |loss| loss.to_string());
                let numbers = [run.log.schedule.rate(*step).to_string(), measured, predicted.to_string()];
                writer.write_record([run.log.name.clone(), step.to_string()].into_iter().chain(numbers))?;
            }
        }
        String::from_utf8(writer.into_inner()?).context("a table of text")
    }

    /// Losses, errors and schedules.
    pub(super) fn chart(&self, width: Width) -> Chart {
        let place = |(step, value): (usize, f64)| (step as f64, value);
        let run = |run: &Judged| {
            let measured = run.measured();
            let from = if run.role == Role::Predicted { 0 } else { measured.first().map_or(0, |(step, _)| *step) };
            let law = run.log.steps.iter().copied().zip(run.predicted.iter().copied());
            let residual = |(step, loss): (usize, f64)| Some((step, run.measured_at(step).map(|y| y - loss)?));
            CurveFitRun {
                name: run.log.name.clone(),
                detail: run
                    .scores
                    .map_or(String::new(), |s| format!("{} %", display::significant(100.0 * s.mean_relative, 2))),
                residuals: law.clone().filter_map(residual).map(place).collect(),
                law: law.filter(|(step, _)| *step >= from.max(run.log.schedule.first_peak())).map(place).collect(),
                measured: measured.into_iter().map(place).collect(),
                rates: run.log.steps.iter().map(|step| (*step as f64, run.log.schedule.rate(*step))).collect(),
                fitted: run.role == Role::Fitted,
            }
        };
        let figure = CurveFits {
            title: String::new(),
            y_label: self.args.y.clone(),
            runs: self.runs.iter().map(run).collect(),
            width,
        };
        figure.chart()
    }
}

/// One run in JSON; the losses by the law only where they are what was asked for.
fn entry(run: &Judged) -> Value {
    let unseen = run.unseen.as_ref().map(|scores_or| match scores_or {
        Ok(found) => scores(Some(found)),
        Err(error) => json!({ "reason": error.to_string() }),
    });
    let last = run.last();
    let predicted = (run.role != Role::Fitted).then(|| json!({ "step": run.log.steps, "loss": run.predicted }));
    json!({
        "curve": run.log.name, "role": run.role.name(), "n": run.measured().len(), "left_out": run.log.early,
        "steps": run.log.schedule.steps(), "peak_lr": run.log.schedule.peak(),
        "error": scores(run.scores.as_ref()), "unseen_error": unseen,
        "last": last.map(|(step, loss)| json!({ "step": step, "loss": run.measured_at(step), "law": loss })),
        "predicted": predicted,
    })
}
