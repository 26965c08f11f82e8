//! How much worse a fit gets when its floor is held at another value.

use super::super::axis::Axis;
use super::super::chart::Chart;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Stroke, Width};
use super::super::xy::{Direction, Line, Reference, XyPanel};

/// The profile of one fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfileCurve {
    /// Its name in the legend.
    pub name: String,
    /// Value of the parameter and of the criterion, by rising parameter.
    pub samples: Vec<(f64, f64)>,
    /// The fitted value of the parameter.
    pub optimum: Option<f64>,
    /// Numbers for the legend, such as the interval; may be empty.
    pub legend: String,
}

/// Profiles of several fits on one axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfileCurves {
    /// Heading; may be empty.
    pub title: String,
    /// The parameter with its unit, such as "irreducible loss C (nats)".
    pub x_label: String,
    /// The criterion: deviance, F, or a ratio of sums of squares.
    pub y_label: String,
    /// Value of the criterion below which the parameter is in its interval.
    pub cut: f64,
    /// What the cut is, such as "95 %".
    pub cut_label: String,
    /// In the order of the legend.
    pub curves: Vec<ProfileCurve>,
    /// Width on paper.
    pub width: Width,
}

impl ProfileCurves {
    /// The chart: what is far above the cut is left out, so that the crossings are seen.
    pub fn chart(&self) -> Chart {
        let least =
            self.curves.iter().flat_map(|curve| &curve.samples).map(|sample| sample.1).fold(f64::INFINITY, f64::min);
        let mut y = Axis::linear(&self.y_label);
        if least.is_finite() && self.cut > least {
            y.range = Some((least - 0.06 * (self.cut - least), least + 2.4 * (self.cut - least)));
        }
        let top = y.range.map_or(f64::INFINITY, |range| range.1);
        let mut panel = XyPanel { x: Axis::linear(&self.x_label), y, ..XyPanel::default() };
        let mut legend = Vec::new();
        for (i, curve) in self.curves.iter().enumerate() {
            let look = Look(i);
            // One sample on each side of what is shown, so that lines go on to the edge.
            let shown = |k: usize| curve.samples[k.saturating_sub(1)..(k + 2).min(curve.samples.len())].iter();
            let near = (0..curve.samples.len()).filter(|k| shown(*k).any(|sample| sample.1 <= top));
            let points: Vec<(f64, f64)> = near.map(|k| curve.samples[k]).collect();
            panel.lines.push(Line { look, points, stroke: Stroke::Own, ..Line::default() });
            if let Some(optimum) = curve.optimum {
                panel.rug.push((look, optimum));
            }
            legend.push(LegendEntry {
                name: curve.name.clone(),
                detail: curve.legend.clone(),
                look,
                key: Key::line(Stroke::Own),
            });
        }
        panel.references.push(Reference {
            value: self.cut,
            label: self.cut_label.clone(),
            direction: Direction::Horizontal,
        });
        let note = (!panel.rug.is_empty()).then(|| "Triangles on the axis: fitted values.".to_owned());
        Chart::single(&self.title, self.width, panel, legend, note)
    }
}
