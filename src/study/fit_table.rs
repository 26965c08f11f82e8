//! `fits.csv`: a row for each group of each fit, with the parameters of all their laws as columns.

use super::FitSection;
use super::outputs::Fitted;
use crate::analysis::{Fit, FitError};
use crate::report::results::{ResultsError, csv_of};

/// A parameter that some law has, and whether it is the floor of one.
struct Parameter {
    name: &'static str,
    is_floor: bool,
}

/// The parameters of all laws, each once, in the order of the fits.
fn parameters(fits: &[(&FitSection, Fitted)]) -> Vec<Parameter> {
    let mut out: Vec<Parameter> = Vec::new();
    for (section, _) in fits {
        let law = section.law();
        for name in law.parameters() {
            let is_floor = law.floor_name() == Some(*name);
            match out.iter_mut().find(|known| known.name == *name) {
                Some(known) => known.is_floor |= is_floor,
                None => out.push(Parameter { name, is_floor }),
            }
        }
    }
    out
}

/// The table. Of each parameter it has the value and its standard error, of floors the interval too.
pub(super) fn to_csv(fits: &[(&FitSection, Fitted)]) -> Result<String, ResultsError> {
    let parameters = parameters(fits);
    let columns = parameters.iter().flat_map(|Parameter { name, is_floor }| {
        let endings: &[&str] = if *is_floor { &["", "_se", "_lo", "_hi"] } else { &["", "_se"] };
        endings.iter().map(move |ending| format!("{name}{ending}"))
    });
    let header = ["fit", "group", "form", "n", "status"].map(str::to_owned).into_iter().chain(columns);
    let header: Vec<String> = header.chain(["r2", "reason"].map(str::to_owned)).collect();
    csv_of(std::iter::once(header).chain(fits.iter().map(|(section, group)| row(section, group, &parameters))))
}

fn row(section: &FitSection, group: &Fitted, parameters: &[Parameter]) -> Vec<String> {
    // As short as it can be read back from, with an exponent where it is large or small.
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:?}"));
    let fit = group.outcome.as_ref().ok();
    let mut out = vec![
        section.name.clone(),
        group.group.clone(),
        section.law().name().to_owned(),
        group.rows.len().to_string(),
        fit.map_or("no_fit", |fit| fit.status.name()).to_owned(),
    ];
    for Parameter { name, is_floor } in parameters {
        let estimate = fit.and_then(|fit: &Fit| fit.estimate(name));
        out.push(number(estimate.map(|estimate| estimate.value)));
        out.push(number(estimate.and_then(|estimate| estimate.se)));
        if *is_floor {
            let interval = estimate.and_then(|estimate| estimate.interval);
            out.push(number(interval.and_then(|interval| interval.lo)));
            out.push(number(interval.and_then(|interval| interval.hi)));
        }
    }
    out.push(number(fit.map(|fit| fit.r2)));
    out.push(group.outcome.as_ref().err().map_or_else(String::new, FitError::to_string));
    out
}
