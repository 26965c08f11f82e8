//! How long work takes, measured, beside the least that it can take.

use super::super::axis::Axis;
use super::super::chart::Chart;
use super::super::legend::{Key, LegendEntry};
use super::super::style::{Look, Stroke, Width};
use super::super::xy::{DataPoint, Line, Note, PointSet, XyPanel};

/// The times of one series in one panel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencySeries {
    /// Its name in the legend; equal names in several panels are one entry and look alike.
    pub name: String,
    /// Behind the name in the legend, such as an exponent; may be empty.
    pub detail: String,
    /// In the order in which they are joined: filled markers on a solid line.
    pub measured: Vec<(f64, f64)>,
    /// The least that they could be, in the same order: hollow markers on a thin dotted line; may be empty.
    pub floor: Vec<(f64, f64)>,
}

/// One panel of times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyPanel {
    /// Heading.
    pub title: Option<String>,
    /// What is varied.
    pub x: Axis,
    /// How long it took.
    pub y: Axis,
    /// Series.
    pub series: Vec<LatencySeries>,
    /// Words beside points, such as how many sequences there were at once, in the colours of their series.
    pub notes: Vec<Note>,
}

/// Panels of times side by side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// Heading; may be empty.
    pub title: String,
    /// Panels.
    pub panels: Vec<LatencyPanel>,
    /// What numbers and hollow markers are; may be empty.
    pub note: String,
    /// Width on paper.
    pub width: Width,
}

impl Latency {
    /// The chart: up to three panels in a row on the full width, of four two, one in a column.
    pub fn chart(&self) -> Chart {
        let legend = self.legend();
        let panels: Vec<_> = self.panels.iter().map(|panel| drawn(panel, &legend).into()).collect();
        Chart {
            title: self.title.clone(),
            width: self.width,
            columns: match (self.width, panels.len()) {
                (Width::Full, 4) => 2,
                (Width::Full, count) => count.clamp(1, 3),
                (Width::Column, _) => 1,
            },
            panels,
            legend,
            caption_note: (!self.note.is_empty()).then(|| self.note.clone()),
        }
    }

    /// One entry for each name, with what all panels have to say about it.
    fn legend(&self) -> Vec<LegendEntry> {
        let mut legend: Vec<LegendEntry> = Vec::new();
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            let known = legend.iter_mut().find(|entry| entry.name == series.name);
            match known {
                Some(entry) if entry.detail.is_empty() => entry.detail.clone_from(&series.detail),
                Some(entry) if series.detail.is_empty() || entry.detail.contains(&series.detail) => {}
                Some(entry) => entry.detail = format!("{}, {}", entry.detail, series.detail),
                None => {
                    let entry = LegendEntry::new(&series.name, Look(legend.len()), Key::both(Stroke::Solid));
                    legend.push(LegendEntry { detail: series.detail.clone(), ..entry });
                }
            }
        }
        legend
    }
}

/// A panel whose series look as in the legend. Floors come first, so that they lie below what was measured.
fn drawn(panel: &LatencyPanel, legend: &[LegendEntry]) -> XyPanel {
    let look = |series: &LatencySeries| {
        legend.iter().find(|entry| entry.name == series.name).map_or(Look::default(), |entry| entry.look)
    };
    let set = |series: &LatencySeries, points: &[(f64, f64)], hollow: bool| PointSet {
        name: series.name.clone(),
        look: look(series),
        points: points.iter().map(|(x, y)| DataPoint::new(*x, *y)).collect(),
        joined: hollow.then_some(Stroke::Dotted),
        hollow,
    };
    let floors = panel.series.iter().map(|series| set(series, &series.floor, true));
    let measured = panel.series.iter().map(|series| set(series, &series.measured, false));
    let line = |series: &LatencySeries| Line {
        look: look(series),
        points: series.measured.clone(),
        stroke: Stroke::Solid,
        ..Line::default()
    };
    let note = |note: &Note| {
        let of = panel.series.iter().find(|series| series.measured.contains(&(note.x, note.y)));
        Note { look: of.map(look), ..note.clone() }
    };
    XyPanel {
        title: panel.title.clone(),
        x: panel.x.clone(),
        y: panel.y.clone(),
        lines: panel.series.iter().map(line).collect(),
        points: floors.chain(measured).collect(),
        notes: panel.notes.iter().map(note).collect(),
        ..XyPanel::default()
    }
}

#[cfg(test)]
use super::super::axis::Ticks;

/// Throughput of arXiv:2507.06607 (figure 4b, queries/s and s at 1 to 16 at once), latency of generation (figure 9), and
/// prompts read on an H200. The floors are made up.
#[cfg(test)]
pub(in crate::plot) fn sample(width: Width) -> Chart {
    const BATCHES: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 16.0];
    let throughput: [(&str, [f64; 5]); 5] = [
        ("Phi4-mini-Reasoning (Transformer)", [734.0, 900.0, 973.0, 1402.0, 2603.0]),
        ("Samba+YOCO+DA", [424.0, 507.0, 654.0, 940.0, 1529.0]),
        ("Samba+YOCO", [307.0, 357.0, 432.0, 589.0, 1036.0]),
        ("Phi4-mini-Flash-Reasoning (SambaY+DA)", [368.0, 420.0, 504.0, 666.0, 1001.0]),
        ("SambaY", [292.0, 332.0, 373.0, 472.0, 740.0]),
    ];
    let generation = [
        ("Phi4-mini-Reasoning (Transformer)", [25.0, 45.0, 115.0, 297.0, 886.0]),
        ("Phi4-mini-Flash-Reasoning (SambaY+DA)", [23.0, 39.0, 84.0, 198.0, 355.0]),
    ];
    let reading = [
        ("Phi4-mini-Reasoning (Transformer)", [0.037, 0.1, 0.296, 0.974, 3.445], "1.70"),
        ("SambaY", [0.02, 0.042, 0.083, 0.167, 0.334], "1.00"),
    ];
    let series = |name: &str, measured: Vec<(f64, f64)>, floor: Vec<(f64, f64)>, detail: String| LatencySeries {
        name: name.to_owned(),
        detail,
        measured,
        floor,
    };
    let at_once = |seconds: [f64; 5], share: f64| -> Vec<(f64, f64)> {
        BATCHES.iter().zip(seconds).map(|(batch, s)| (batch / (share * s), share * s)).collect()
    };
    let by = |first: f64, seconds: [f64; 5], share: f64| -> Vec<(f64, f64)> {
        seconds.iter().enumerate().map(|(i, s)| (first * f64::from(1 << i), share * s)).collect()
    };
    let number = |(batch, s): (&f64, f64)| Note { x: batch / s, y: s, text: batch.to_string(), look: None };
    let panels = vec![
        LatencyPanel {
            title: Some("(a) 32,000 new tokens after 2,000".to_owned()),
            x: Axis::log("throughput (sequences/s)"),
            y: Axis::log("latency of a sequence (s)"),
            series: throughput
                .iter()
                .map(|(name, s)| series(name, at_once(*s, 1.0), at_once(*s, 0.6), String::new()))
                .collect(),
            notes: [0, 4].iter().flat_map(|i| BATCHES.iter().zip(throughput[*i].1).map(number)).collect(),
        },
        LatencyPanel {
            title: Some("(b) 1 sequence, prompts of 2,000".to_owned()),
            x: Axis::log("tokens generated")
                .with_ticks(Ticks::Values((1..6).map(|i| 1e3 * f64::from(1 << i)).collect())),
            y: Axis::log("time (s)"),
            series: generation
                .iter()
                .map(|(name, s)| series(name, by(2e3, *s, 1.0), by(2e3, *s, 0.5), String::new()))
                .collect(),
            notes: Vec::new(),
        },
        LatencyPanel {
            title: Some("(c) reading one prompt".to_owned()),
            x: Axis::log("length of a prompt (tokens)")
                .with_ticks(Ticks::Values((13..18).map(|e| f64::from(1 << e)).collect())),
            y: Axis::log("time to the first token (s)"),
            series: reading
                .iter()
                .map(|(name, s, exponent)| {
                    let detail = format!("first token ∝ length^{exponent} from 16,384 on");
                    series(name, by(8192.0, *s, 1.0), Vec::new(), detail)
                })
                .collect(),
            notes: Vec::new(),
        },
    ];
    let note = "Numbers: sequences at once. Hollow, dotted: the floor of the steps, their bytes at the speed of a copy \
                (4.2 TB/s), prompts not counted.";
    Latency { title: "Decoding".to_owned(), panels, note: note.to_owned(), width }.chart()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_entry_that_says_what_all_panels_say() {
        let series = |name: &str, detail: &str| LatencySeries {
            name: name.to_owned(),
            detail: detail.to_owned(),
            measured: vec![(1.0, 2.0)],
            floor: vec![(1.0, 1.0)],
        };
        let panel = |series: Vec<LatencySeries>| LatencyPanel { series, ..LatencyPanel::default() };
        let chart = Latency {
            panels: vec![
                panel(vec![series("a", ""), series("b", "one")]),
                panel(vec![series("b", "two"), series("a", "three")]),
                panel(vec![series("b", "two"), series("c", "")]),
            ],
            ..Latency::default()
        }
        .chart();
        let said: Vec<_> = chart.legend.iter().map(|entry| (entry.name.as_str(), entry.detail.as_str())).collect();
        assert_eq!(said, [("a", "three"), ("b", "one, two"), ("c", "")]);
        let super::super::super::chart::Panel::Xy(second) = &chart.panels[1] else { panic!("{chart:?}") };
        // Floors below what was measured, each in the look of its entry.
        let sets: Vec<_> = second.points.iter().map(|set| (set.name.as_str(), set.look.0, set.hollow)).collect();
        assert_eq!(sets, [("b", 1, true), ("a", 0, true), ("b", 1, false), ("a", 0, false)]);
    }
}
