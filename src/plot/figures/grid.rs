//! A search over two settings, such as learning rate and batch size.

use super::super::axis::{Scale, labels, superscript};
use super::super::chart::Chart;
use super::super::heatmap::{Best, HeatMapPanel};
use super::super::style::Width;

/// Losses on a grid of two settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GridSearch {
    /// Heading; may be empty.
    pub title: String,
    /// The setting of the columns with its unit, such as "learning rate".
    pub x_label: String,
    /// Its values, rising.
    pub x: Vec<f64>,
    /// The setting of the rows with its unit, such as "batch size (tokens)".
    pub y_label: String,
    /// Its values, rising; the lowest row is the first.
    pub y: Vec<f64>,
    /// For each value of y the losses by x; absent where there is no run or it diverged.
    pub losses: Vec<Vec<Option<f64>>>,
    /// What values are, with their unit.
    pub value_label: String,
    /// Decimals of the losses in cells.
    pub decimals: usize,
    /// Losses at the ends of the colours; those beyond have the colour of the end.
    pub range: Option<(f64, f64)>,
    /// Width on paper.
    pub width: Width,
}

impl GridSearch {
    /// The chart, with the least loss marked.
    pub fn chart(&self) -> Chart {
        let missing = self.losses.iter().flatten().any(|loss| loss.is_none_or(|loss| !loss.is_finite()));
        let panel = HeatMapPanel {
            title: None,
            x_label: self.x_label.clone(),
            y_label: self.y_label.clone(),
            columns: settings(&self.x),
            rows: settings(&self.y),
            values: self.losses.clone(),
            value_label: self.value_label.clone(),
            decimals: self.decimals,
            range: self.range,
            best: Best::Least,
        };
        let note = if missing { "Framed: least loss. Hatched: no value." } else { "Framed: least loss." };
        Chart::single(&self.title, self.width, panel, Vec::new(), Some(note.to_owned()))
    }
}

/// Shares of successes on a grid of two settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GridOfShares {
    /// Heading; may be empty.
    pub title: String,
    /// The setting of the columns with its unit.
    pub x_label: String,
    /// Its values, rising.
    pub x: Vec<f64>,
    /// The setting of the rows with its unit.
    pub y_label: String,
    /// Its values, rising; the lowest row is the first.
    pub y: Vec<f64>,
    /// For each value of y the shares by x, 0 to 1; absent where nothing was measured.
    pub shares: Vec<Vec<Option<f64>>>,
    /// What shares are of.
    pub value_label: String,
    /// Width on paper.
    pub width: Width,
}

impl GridOfShares {
    /// The chart, colours from 0 to 1.
    pub fn chart(&self) -> Chart {
        let missing = self.shares.iter().flatten().any(Option::is_none);
        let panel = HeatMapPanel {
            title: None,
            x_label: self.x_label.clone(),
            y_label: self.y_label.clone(),
            columns: settings(&self.x),
            rows: settings(&self.y),
            values: self.shares.clone(),
            value_label: self.value_label.clone(),
            decimals: 2,
            range: Some((0.0, 1.0)),
            best: Best::Unmarked,
        };
        let note = missing.then(|| "Hatched: no value.".to_owned());
        Chart::single(&self.title, self.width, panel, Vec::new(), note)
    }
}

/// Powers of two as such, other values with as few digits as tell them apart, three if possible.
fn settings(values: &[f64]) -> Vec<String> {
    let exponent = |value: &f64| Some(value.log2()).filter(|e| e.fract() == 0.0).map(|e| e as i32);
    let powers: Option<Vec<i32>> = values.iter().map(exponent).collect();
    if let Some(powers) = powers.filter(|powers| powers.iter().any(|power| power.abs() >= 10)) {
        return powers.into_iter().map(|power| format!("2{}", superscript(power))).collect();
    }
    let short: Vec<f64> = values.iter().map(|value| format!("{value:.2e}").parse().unwrap_or(*value)).collect();
    let distinct = short.windows(2).all(|pair| pair[0] != pair[1]);
    labels(if distinct { &short } else { values }, Scale::Log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_short() {
        assert_eq!(settings(&[131_072.0, 262_144.0]), ["2¹⁷", "2¹⁸"]);
        assert_eq!(settings(&[2f64.powi(-11), 2f64.powi(-10)]), ["2⁻¹¹", "2⁻¹⁰"]);
        assert_eq!(settings(&[8.0, 16.0, 32.0]), ["8", "16", "32"]);
        assert_eq!(settings(&[4e-4, 5.6569e-4]), ["4×10⁻⁴", "5.66×10⁻⁴"]);
    }
}
