//! Commands that fit laws to a table of results.

pub mod calibrate;
pub mod compare;
mod curve;
pub mod curves;
pub mod design;
pub mod fit;
mod grid;
pub mod input;
pub mod isoflop;
pub mod plot;
pub mod robustness;
pub mod rollout;
mod sets;
pub mod sheet;

use crate::analysis::forms::{FORMS, Form, lookup};
use crate::analysis::{Fit, FitStatus};
use crate::cli::{ExitStatus, exit};

/// The error that ends a command one of whose fits is stuck.
fn stuck<'a>(mut fits: impl Iterator<Item = (&'a str, &'a Fit)>) -> anyhow::Result<()> {
    match fits.find(|(_, fit)| fit.status == FitStatus::Stuck) {
        Some((name, _)) => {
            Err(exit(ExitStatus::NoFit, format!("{name}: no optimum was reached; hint: try another form or loss")))
        }
        None => Ok(()),
    }
}

/// Says that an optimum lies on bounds, if it does.
fn on_a_bound(fit: &Fit) -> Option<String> {
    (!fit.bounds.is_empty()).then(|| format!("the optimum lies on a bound ({})", fit.bounds.join(", ")))
}

/// Says that an optimum lies on bounds, or that none was reached.
fn reservation(fit: &Fit) -> Option<String> {
    match fit.status {
        FitStatus::Stuck => Some("no optimum was reached".to_owned()),
        _ => on_a_bound(fit),
    }
}

/// What `--form` says of itself.
fn forms_help() -> String {
    let names: Vec<&str> = FORMS.iter().map(|form| form.name()).collect();
    format!("The law: {}", names.join(", "))
}

/// `--form`
fn parse_form(text: &str) -> Result<&'static dyn Form, String> {
    lookup(text).ok_or_else(|| unknown_form(text, FORMS.iter().map(|form| form.name())))
}

/// The forms there are, and the one that may be meant.
fn unknown_form(text: &str, names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<&str> = names.collect();
    let likeness = |name: &str| strsim::jaro_winkler(text, name);
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let hint = nearest.filter(|name| likeness(name) > 0.7);
    let hint = hint.map_or(String::new(), |name| format!("; hint: did you mean '{name}'?"));
    format!("the forms are {}{hint}", names.join(", "))
}

/// `NAME=VALUE[,NAME=VALUE...]`
fn parse_pairs(text: &str) -> Result<Vec<(String, f64)>, String> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().to_owned(), crate::units::parse_quantity(value)?))
    };
    text.split(',').map(|part| pair(part).ok_or_else(|| format!("'{part}' is not NAME=NUMBER"))).collect()
}

/// A positive number with an optional suffix.
fn parse_scale(text: &str) -> Result<f64, String> {
    crate::units::parse_quantity(text)
        .filter(|value| *value > 0.0)
        .ok_or_else(|| format!("'{text}' is not a positive number"))
}
