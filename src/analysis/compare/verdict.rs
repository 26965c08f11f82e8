//! What a comparison amounts to, in one paragraph.

use super::{Comparison, NestedTest, PairTest, Paired, Shared};
use crate::analysis::forms::Form;
use crate::analysis::{ConfidenceInterval, display};

/// Below this a difference is called one.
pub const LEVEL: f64 = 0.05;

pub(super) fn paragraph(of: &Comparison, form: &dyn Form) -> String {
    let floor = form.floor_name().unwrap_or_default();
    let mut out = Vec::new();
    out.extend(floors(of, floor));
    out.extend(reversal(of, floor));
    out.extend(budgets(of));
    if out.is_empty() {
        out.push("Nothing can be said about these groups.".to_owned());
    }
    out.join(" ")
}

/// A p-value as people read it: never as zero.
pub fn p_value(value: f64) -> String {
    match value {
        _ if value < 1e-3 => format!("{value:.0e}"),
        _ if value < 0.1 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}

fn p(value: f64) -> String {
    format!("p = {}", p_value(value))
}

fn floors(of: &Comparison, floor: &str) -> Option<String> {
    let different: Vec<&PairTest> = of.pairs.iter().filter(|t| t.no_claim.is_none() && t.p_holm < LEVEL).collect();
    let common = of.tests.iter().find(|test| test.shared == Shared::Floor)?;
    let test = |t: &NestedTest| format!("F({:.0}, {:.0}) = {:.2}, {}", t.freedom.0, t.freedom.1, t.statistic, p(t.p));
    if different.is_empty() {
        let pairs: Vec<String> = of.pairs.iter().map(|t| pair(t, floor)).collect();
        let common_value = common.floors.first().map_or(String::new(), |c| format!(" {floor} = {c:.3}"));
        let rejected = if common.p < LEVEL { "is rejected" } else { "is not rejected" };
        let mut reasons: Vec<&str> = of.pairs.iter().filter_map(|t| t.no_claim.as_deref()).collect();
        reasons.dedup();
        let open = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
        return Some(format!(
            "These data do not tell the irreducible losses apart{open}: one common{common_value} {rejected} ({}); {}.",
            test(common),
            pairs.join("; ")
        ));
    }
    let claims: Vec<String> = different
        .iter()
        .map(|t| {
            let direction = if t.difference < 0.0 { "lower" } else { "higher" };
            format!("{} has a {direction} {floor} than {}: {}", t.group, t.baseline, pair(t, floor))
        })
        .collect();
    Some(format!("{}. One common {floor}: {}.", claims.join("; "), test(common)))
}

fn pair(t: &PairTest, floor: &str) -> String {
    format!(
        "{floor} of {} minus {} is {:+.3} ({}), {}",
        t.group,
        t.baseline,
        t.difference,
        display::interval(&t.interval),
        p(t.p_holm)
    )
}

/// Orders of the floors that depend on what is assumed.
fn reversal(of: &Comparison, floor: &str) -> Option<String> {
    let turned: Vec<&PairTest> = of.pairs.iter().filter(|t| t.difference * t.with_shared_shapes < 0.0).collect();
    let shared = of.tests.iter().find(|test| test.shared == Shared::Shapes && !test.floors.is_empty())?;
    if turned.is_empty() {
        return None;
    }
    let floors: Vec<String> =
        of.groups.iter().zip(&shared.floors).map(|(name, c)| format!("{c:.3} ({name})")).collect();
    let own: Vec<String> = of
        .groups
        .iter()
        .zip(&of.fits)
        .filter_map(|(name, fit)| Some(format!("{:.3} ({name})", fit.floor()?.value)))
        .collect();
    Some(format!(
        "The order of {floor} is a property of the fit, not of the data: {} when each group has its own exponent, {} with one exponent for all.",
        own.join(", "),
        floors.join(", ")
    ))
}

/// Losses at equal budget.
fn budgets(of: &Comparison) -> Option<String> {
    let sentence = |pair: &Paired| {
        let sizes = pair.points.iter().map(|p| p.difference.abs());
        let (least, most) = sizes.fold((f64::INFINITY, 0.0f64), |(a, b), d| (a.min(d), b.max(d)));
        let count = |side: fn(f64) -> bool| pair.points.iter().filter(|p| side(p.difference)).count();
        let (below, above, n) = (count(|d| d < 0.0), count(|d| d > 0.0), pair.points.len());
        let (who, than) = (&pair.group, &pair.baseline);
        let places = if n == 1 { "the one budget".to_owned() } else { format!("all {n} budgets") };
        let found = if below == n {
            format!("{who} is below {than} at {places}, by {least:.4} to {most:.4}")
        } else if above == n {
            format!("{who} is above {than} at {places}, by {least:.4} to {most:.4}")
        } else if below + above == 0 {
            format!("{who} and {than} have equal losses at {places}")
        } else {
            format!("{who} is below {than} at {below} of {n} budgets; they differ by at most {most:.4}")
        };
        match &pair.interval {
            Some(ConfidenceInterval { lo: Some(lo), hi: Some(hi) }) => {
                format!("{found} (mean {:+.4}, {lo:.4} to {hi:.4})", pair.mean)
            }
            _ => found,
        }
    };
    if of.paired.is_empty() {
        return None;
    }
    Some(format!("At equal budget, {}.", of.paired.iter().map(sentence).collect::<Vec<_>>().join("; ")))
}
