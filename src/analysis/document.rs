//! A fit as JSON: what `fit --json` prints for each group, and what studies keep.

use super::{Certificate, Fit, FitError, IntervalMethod, Objective, Spread};
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the layout.
pub const SCHEMA: u32 = 1;

/// One group's fit, or why there is none. `null` in an interval is an end that the data leave open.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the keys")]
pub struct FitEntry {
    pub group: Option<String>,
    pub form: &'static str,
    pub loss: String,
    pub interval_method: String,
    pub n: usize,
    pub status: &'static str,
    /// Summed over the points.
    pub objective: Option<f64>,
    pub params: BTreeMap<&'static str, f64>,
    pub se: BTreeMap<&'static str, Option<f64>>,
    pub interval: BTreeMap<&'static str, [Option<f64>; 2]>,
    pub r2: Option<f64>,
    pub residual_sd: Option<f64>,
    pub residuals: Option<SpreadEntry>,
    pub kappa: Option<f64>,
    pub leave_one_out_c: Option<[f64; 2]>,
    /// Points without which there is no fit.
    pub leave_one_out_without_fit: Option<usize>,
    pub aicc: Option<f64>,
    pub bounds: Vec<String>,
    pub certificate: Option<CertificateEntry>,
    pub predictions: Vec<PredictionEntry>,
    /// Rows set aside, by status.
    pub excluded: BTreeMap<String, usize>,
    /// Why there is no fit.
    pub reason: Option<String>,
}

/// [`Certificate`] with keys.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the keys")]
pub struct CertificateEntry {
    pub gradient: f64,
    pub decrement: f64,
    pub smallest_curvature: f64,
    pub condition: Option<f64>,
    pub starts: usize,
    pub reached: usize,
}

/// [`Spread`] with keys.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the keys")]
pub struct SpreadEntry {
    pub robust_sd: f64,
    pub sd: f64,
    pub kurtosis: Option<f64>,
    pub inside: Option<f64>,
}

/// A loss that the law gives.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the keys")]
pub struct PredictionEntry {
    pub at: Vec<f64>,
    pub loss: f64,
    pub interval: Option<[Option<f64>; 2]>,
}

impl From<&Certificate> for CertificateEntry {
    fn from(of: &Certificate) -> Self {
        Self {
            gradient: of.gradient,
            decrement: of.decrement,
            smallest_curvature: of.smallest_curvature,
            condition: Some(of.condition).filter(|value| value.is_finite()),
            starts: of.starts,
            reached: of.reached,
        }
    }
}

impl From<&Spread> for SpreadEntry {
    fn from(of: &Spread) -> Self {
        Self {
            robust_sd: of.robust_sd,
            sd: of.sd,
            kurtosis: Some(of.kurtosis).filter(|value| value.is_finite()),
            inside: of.inside,
        }
    }
}

impl FitEntry {
    /// The entry of a group of `n` points.
    pub fn new(
        group: Option<String>,
        form: &'static str,
        (objective, interval): (Objective, IntervalMethod),
        n: usize,
        excluded: BTreeMap<String, usize>,
        outcome: &Result<Fit, FitError>,
    ) -> Self {
        let fit = outcome.as_ref().ok();
        let left_out = fit.and_then(|fit| fit.left_out);
        let estimates = fit.map_or(&[][..], |fit| &fit.estimates);
        let predictions = fit.map_or(&[][..], |fit| &fit.predictions);
        Self {
            group,
            form,
            loss: objective.name(),
            interval_method: interval.name(),
            n,
            status: fit.map_or("no_fit", |fit| fit.status.name()),
            objective: fit.map(|fit| fit.objective),
            params: estimates.iter().map(|e| (e.name, e.value)).collect(),
            se: estimates.iter().map(|e| (e.name, e.se)).collect(),
            interval: estimates.iter().filter_map(|e| Some((e.name, e.interval.map(|i| [i.lo, i.hi])?))).collect(),
            r2: fit.map(|fit| fit.r2),
            residual_sd: fit.map(|fit| fit.residual_sd),
            residuals: fit.map(|fit| SpreadEntry::from(&fit.spread)),
            kappa: fit.and_then(|fit| fit.kappa),
            leave_one_out_c: left_out.map(|range| [range.least, range.most]),
            leave_one_out_without_fit: left_out.map(|range| range.without_fit),
            aicc: fit.and_then(|fit| fit.aicc),
            bounds: fit.map_or_else(Vec::new, |fit| fit.bounds.clone()),
            certificate: fit.map(|fit| CertificateEntry::from(&fit.certificate)),
            predictions: predictions
                .iter()
                .map(|p| PredictionEntry {
                    at: p.inputs.clone(),
                    loss: p.loss,
                    interval: p.interval.map(|i| [i.lo, i.hi]),
                })
                .collect(),
            excluded,
            reason: outcome.as_ref().err().map(FitError::to_string),
        }
    }
}
