//! Values over two settings, such as losses of a search over learning rate and batch size.

use super::super::axis::{Scale, labels, superscript};
use super::super::chart::Chart;
use super::super::heatmap::{Best, HeatMapPanel};
use super::super::style::Width;

/// Values on a grid of two settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingGrid {
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
    /// For each value of y the values by x; absent where there are none, such as of runs that diverged.
    pub values: Vec<Vec<Option<f64>>>,
    /// What values are, with their unit.
    pub value_label: String,
    /// Decimals of the values in cells.
    pub decimals: usize,
    /// Values at the ends of the colours; those beyond have the colour of the end.
    pub range: Option<(f64, f64)>,
    /// Which value is framed.
    pub best: Best,
    /// Width on paper.
    pub width: Width,
}

impl SettingGrid {
    /// The chart; a note says what is framed and what is hatched.
    pub fn chart(&self) -> Chart {
        let missing = self.values.iter().flatten().any(|value| value.is_none_or(|value| !value.is_finite()));
        let panel = HeatMapPanel {
            title: None,
            x_label: self.x_label.clone(),
            y_label: self.y_label.clone(),
            columns: settings(&self.x),
            rows: settings(&self.y),
            values: self.values.clone(),
            value_label: self.value_label.clone(),
            decimals: self.decimals,
            range: self.range,
            best: self.best,
        };
        let framed = match self.best {
            Best::Unmarked => None,
            Best::Least => Some("Framed: least loss."),
            Best::Greatest => Some("Framed: greatest value."),
        };
        let notes: Vec<&str> = framed.into_iter().chain(missing.then_some("Hatched: no value.")).collect();
        let note = (!notes.is_empty()).then(|| notes.join(" "));
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
