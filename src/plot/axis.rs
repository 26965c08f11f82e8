//! Axes: from values to pixels, round ticks, their labels, and titles.

use plotters::prelude::DrawingBackend;

use super::PlotError;
use super::canvas::{Align, Canvas};
use super::geometry::Rect;
use super::style::{INK, LABEL};
use super::text::{widest, wrapped};

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally long.
    #[default]
    Linear,
    /// Equal ratios are equally long; values are positive.
    Log,
}

/// Where an axis has ticks. Those that would collide are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Ticks {
    /// Round values, as many as fit.
    #[default]
    Auto,
    /// These values, written as plain numbers where they are shorter than ten million.
    Values(Vec<f64>),
    /// These values with these labels.
    Named(Vec<(f64, String)>),
}

/// What is asked of an axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// The quantity with its unit; may be empty.
    pub label: String,
    /// Spread of the values.
    pub scale: Scale,
    /// First and last value; from the content, with some room, if absent.
    pub range: Option<(f64, f64)>,
    /// Ticks.
    pub ticks: Ticks,
}

impl Axis {
    /// A linear axis whose range follows from the content.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// A logarithmic axis whose range follows from the content.
    pub fn log(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Log, ..Self::default() }
    }

    /// The axis on which `values` are spread more evenly: a logarithmic one for powers of two, for instance. Its ticks
    /// are at these values, unless there are many.
    pub fn over(label: impl Into<String>, values: &[f64]) -> Self {
        /// Values that may be ticks.
        const TICKS: usize = 8;
        let mut levels = values.to_vec();
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        let logs: Vec<f64> = levels.iter().map(|value| value.ln()).collect();
        let positive = levels.first().is_some_and(|least| *least > 0.0);
        let axis =
            if positive && unevenness(&logs) < unevenness(&levels) { Self::log(label) } else { Self::linear(label) };
        let few = levels.len() <= TICKS && levels.iter().all(|value| value.abs() < 1e6);
        Self { ticks: if few { Ticks::Values(levels) } else { Ticks::Auto }, ..axis }
    }

    /// The same axis from `lo` to `hi`.
    pub fn within(mut self, lo: f64, hi: f64) -> Self {
        self.range = Some((lo, hi));
        self
    }

    /// The same axis with other ticks.
    pub fn with_ticks(mut self, ticks: Ticks) -> Self {
        self.ticks = ticks;
        self
    }

    /// Its title, for a horizontal axis.
    pub(super) fn title(&self) -> Title<'_> {
        Title(&self.label)
    }

    /// Whether a value has a place on such an axis, inside its range or not.
    pub(super) fn takes(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }
}

/// What stands below the ticks of a horizontal axis, on two lines if one is too short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Title<'a>(pub &'a str);

impl Title<'_> {
    fn lines(self, width: f64) -> Vec<String> {
        wrapped(self.0, " ", LABEL, width, 2)
    }

    /// Height in a cell of that width.
    pub(super) fn height(self, width: f64) -> f64 {
        1.35 * LABEL * self.lines(width).len() as f64
    }

    /// Draws it at the bottom of a cell, centred below `middle` as far as the cell allows.
    pub(super) fn draw<B: DrawingBackend>(
        self,
        canvas: &mut Canvas<B>,
        cell: &Rect,
        middle: f64,
    ) -> Result<(), PlotError> {
        let lines = self.lines(cell.width());
        let half = widest(lines.iter().map(String::as_str), LABEL) / 2.0;
        let x = middle.clamp(cell.left + half, (cell.right - half).max(cell.left + half));
        for (i, line) in lines.iter().rev().enumerate() {
            let y = cell.bottom - (0.28 + 1.35 * i as f64) * LABEL;
            canvas.text(line, (x, y), LABEL, Align::Centre, INK)?;
        }
        Ok(())
    }
}

/// How much the gaps between rising values differ: their variance over their squared mean.
fn unevenness(values: &[f64]) -> f64 {
    let gaps: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    // Not a number for fewer than two values, and less than nothing then.
    gaps.iter().map(|gap| (gap / mean - 1.0).powi(2)).sum::<f64>() / gaps.len() as f64
}

/// The values `lo..hi` on the pixels `from..to`; either may be the larger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub scale: Scale,
    pub lo: f64,
    pub hi: f64,
    pub from: f64,
    pub to: f64,
}

impl Mapping {
    pub(super) fn pixel(&self, value: f64) -> f64 {
        // Far outside is as good as infinitely far, and can be computed with.
        const FAR: f64 = 1e5;
        let share = match self.scale {
            Scale::Linear => (value - self.lo) / (self.hi - self.lo),
            Scale::Log if value <= 0.0 => f64::NEG_INFINITY,
            Scale::Log => (value / self.lo).ln() / (self.hi / self.lo).ln(),
        };
        self.from + ((self.to - self.from) * share).clamp(-FAR, FAR)
    }

    /// The pixel of a value, or of the end of the axis that is nearest to it.
    pub(super) fn clamped(&self, value: f64) -> f64 {
        self.pixel(value).clamp(self.from.min(self.to), self.from.max(self.to))
    }

    pub(super) fn shows(&self, value: f64) -> bool {
        let slack = 1e-9 * (self.hi - self.lo);
        value >= self.lo - slack && value <= self.hi + slack
    }

    /// Ticks with labels: those asked for, thinned out, or the most numerous set of round values that `fits`.
    pub(super) fn ticks(&self, ticks: &Ticks, fits: impl Fn(&[(f64, String)]) -> bool) -> Vec<(f64, String)> {
        let asked: Vec<(f64, String)> = match ticks {
            Ticks::Auto => return self.automatic(fits),
            Ticks::Values(values) => values.iter().copied().zip(plain(values)).collect(),
            Ticks::Named(named) => named.clone(),
        };
        let shown: Vec<_> = asked.into_iter().filter(|(value, _)| self.shows(*value)).collect();
        let thinned = (1..=shown.len()).map(|every| shown.iter().step_by(every).cloned().collect::<Vec<_>>());
        thinned.into_iter().find(|set| fits(set)).unwrap_or_default()
    }

    fn automatic(&self, fits: impl Fn(&[(f64, String)]) -> bool) -> Vec<(f64, String)> {
        let sets = match self.scale {
            Scale::Linear => self.linear_sets(),
            // Within about a decade, equal steps read better than 1, 2, 5, where they do not begin far from the end.
            Scale::Log if self.hi / self.lo < 12.0 => {
                let low = self.lo * (self.hi / self.lo).powf(0.25);
                let even = self.linear_sets().into_iter().filter(|set| set[0] <= low);
                even.chain(self.digit_sets(&[&[1.0, 2.0, 3.0, 4.0, 6.0, 8.0], &[1.0, 2.0, 3.0, 5.0, 7.0]]))
                    .chain(self.decade_sets())
                    .collect()
            }
            Scale::Log => self.decade_sets(),
        };
        let labelled = sets.into_iter().map(|set| {
            let texts = labels(&set, self.scale);
            set.into_iter().zip(texts).collect::<Vec<_>>()
        });
        let distinct = |set: &[(f64, String)]| set.windows(2).all(|pair| pair[0].1 != pair[1].1);
        // Equal counts happen between families; the first reads better.
        let fitting = labelled.filter(|set| distinct(set) && fits(set));
        fitting.reduce(|best, next| if next.len() > best.len() { next } else { best }).unwrap_or_default()
    }

    /// Multiples of 1, 2 and 5 times powers of ten.
    fn linear_sets(&self) -> Vec<Vec<f64>> {
        let (lo, hi) = (self.lo.min(self.hi), self.lo.max(self.hi));
        let magnitude = (hi - lo).log10().floor() as i32;
        let steps = (magnitude - 2..=magnitude + 1).rev().flat_map(|e| [5.0, 2.0, 1.0].map(|m| m * ten(e)));
        let sets = steps.map(|step| {
            let first = (lo / step - 1e-9).ceil();
            let count = ((hi / step + 1e-9).floor() - first).clamp(-1.0, 60.0) as i64;
            (0..=count).map(|k| (first + k as f64) * step).collect::<Vec<f64>>()
        });
        sets.filter(|set| !set.is_empty() && set.windows(2).all(|pair| pair[1] > pair[0])).collect()
    }

    /// 1-2-5 and 1-3 per decade, every decade, every second, third, fifth, tenth and twentieth.
    fn decade_sets(&self) -> Vec<Vec<f64>> {
        // With four decades, those alone read best, as far as they fit.
        let mut sets = self.digit_sets(&[&[1.0]]);
        if sets.first().is_none_or(|decades| decades.len() < 4) {
            sets = self.digit_sets(&[&[1.0, 2.0, 5.0], &[1.0, 3.0]]);
        }
        let (first, last) = self.decades();
        for every in [1, 2, 3, 5, 10, 20] {
            sets.push((first..=last).filter(|e| e % every == 0).map(ten).filter(|value| self.holds(*value)).collect());
        }
        sets.retain(|set| !set.is_empty());
        sets
    }

    /// For each of these, all of its digits times a power of ten on the axis.
    fn digit_sets(&self, digits: &[&[f64]]) -> Vec<Vec<f64>> {
        let (first, last) = self.decades();
        let all = |digits: &&[f64]| {
            let values = (first..=last).flat_map(|e| digits.iter().map(move |digit| digit * ten(e)));
            values.filter(|value| self.holds(*value)).collect::<Vec<f64>>()
        };
        digits.iter().map(all).filter(|set| !set.is_empty()).collect()
    }

    /// Exponents of the powers of ten about a logarithmic axis.
    fn decades(&self) -> (i32, i32) {
        (self.lo.log10().floor() as i32, self.hi.log10().ceil() as i32)
    }

    /// Whether a value is on a logarithmic axis, its ends included.
    fn holds(&self, value: f64) -> bool {
        value >= self.lo * (1.0 - 1e-9) && value <= self.hi * (1.0 + 1e-9)
    }

    /// Places of unlabelled ticks: the digits between decades, where decades are long enough to see them and the
    /// labelled ticks are decimal, too.
    pub(super) fn minor(&self, ticks: &Ticks) -> Vec<f64> {
        let decades = (self.hi / self.lo).log10();
        if *ticks != Ticks::Auto
            || self.scale == Scale::Linear
            || decades < 0.7
            || (self.to - self.from).abs() / decades < 60.0
        {
            return Vec::new();
        }
        let (first, last) = self.decades();
        let all = (first..=last).flat_map(|e| (1..=9).map(move |m| f64::from(m) * ten(e)));
        all.filter(|value| self.shows(*value) && *value >= self.lo).collect()
    }
}

/// `10^exponent`, correctly rounded where a product of powers would not be.
fn ten(exponent: i32) -> f64 {
    if exponent < 0 { 1.0 / 10f64.powi(-exponent) } else { 10f64.powi(exponent) }
}

/// Labels of the ticks of one axis: plain where they are short, with powers of ten otherwise.
pub(super) fn labels(ticks: &[f64], scale: Scale) -> Vec<String> {
    let largest = ticks.iter().map(|tick| tick.abs()).fold(0.0, f64::max);
    let smallest = ticks.iter().map(|tick| tick.abs()).filter(|tick| *tick > 0.0).fold(f64::INFINITY, f64::min);
    let short = match scale {
        Scale::Linear => largest == 0.0 || (1e-3..1e6).contains(&largest),
        Scale::Log => smallest >= 1e-3 && largest < 1e5,
    };
    let decimals: Vec<usize> = ticks.iter().map(|tick| decimals(*tick, ticks)).collect();
    if !short || decimals.iter().any(|d| *d > 9) {
        return ticks.iter().map(|tick| power_of_ten(*tick, ticks)).collect();
    }
    // Over several decades, trailing zeros would only be noise.
    let alike = scale == Scale::Linear || largest / smallest < 100.0;
    let most = decimals.iter().copied().max().unwrap_or(0);
    ticks.iter().zip(decimals).map(|(tick, own)| minus(format!("{tick:.*}", if alike { most } else { own }))).collect()
}

/// Plain numbers, whatever the scale.
fn plain(values: &[f64]) -> Vec<String> {
    let written = |value: &f64| match value.abs() {
        size if size != 0.0 && !(1e-4..1e7).contains(&size) => power_of_ten(*value, values),
        _ => minus(format!("{value:.*}", decimals(*value, values).min(9))),
    };
    values.iter().map(written).collect()
}

/// A number that tells `tick` from its neighbours must be written this precisely.
fn tolerance(ticks: &[f64]) -> f64 {
    let gap = ticks.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(f64::INFINITY, f64::min);
    let size = ticks.iter().map(|tick| tick.abs()).filter(|t| *t > 0.0).fold(f64::INFINITY, f64::min);
    1e-4 * gap.min(size)
}

fn decimals(tick: f64, ticks: &[f64]) -> usize {
    let close = |d: &i32| (tick - (tick * ten(*d)).round() / ten(*d)).abs() <= tolerance(ticks);
    (0..=9).find(close).map_or(10, |d| d as usize)
}

/// With the sign that is as wide as a digit.
pub(super) fn minus(text: String) -> String {
    text.replace('-', "−")
}

fn power_of_ten(value: f64, ticks: &[f64]) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let sign = if value < 0.0 { "−" } else { "" };
    let exponent = (value.abs().log10() + 1e-9).floor() as i32;
    let mantissa = value.abs() / 10f64.powi(exponent);
    let near = |d: &usize| {
        let rounded = (mantissa * ten(*d as i32)).round() / ten(*d as i32);
        (rounded - mantissa).abs() * 10f64.powi(exponent) <= tolerance(ticks)
    };
    let digits = (0..=9).find(near).unwrap_or(9);
    let power = superscript(exponent);
    let mantissa = format!("{mantissa:.digits$}");
    if mantissa == "1" { format!("{sign}10{power}") } else { format!("{sign}{mantissa}×10{power}") }
}

/// A whole number in raised digits.
pub(super) fn superscript(number: i32) -> String {
    let raised = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        // U+2070 and U+2074..U+2079 stand in order.
        other => other.to_digit(10).and_then(|digit| char::from_u32(0x2070 + digit)).unwrap_or(other),
    };
    number.to_string().chars().map(raised).collect()
}

/// `value` with that many significant digits.
pub(super) fn significant(value: f64, digits: i32) -> String {
    let exponent = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let decimals = |whole: i32| (digits - 1 - whole).max(0) as usize;
    match exponent {
        -4..6 => minus(format!("{value:.*}", decimals(exponent))),
        _ => minus(format!("{value:.*e}", decimals(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[(f64, f64)] = &[
        (1.79, 2.7),
        (1.8, 1.83),
        (1.8272, 1.8279),
        (0.5, 7.0),
        (9e18, 2e22),
        (80.0, 900.0),
        (1e3, 1e21),
        (1e-9, 2e-9),
        (1e-3, 1e26),
        (1e-30, 1e30),
        (3e25, 1e26),
        (1e-3, 1.2e-3),
        (0.02, 40.0),
    ];
    const LINEAR: &[(f64, f64)] = &[
        (-0.3, 0.7),
        (1.8272, 1.8279),
        (-5e-4, 3e-4),
        (0.0, 1.0),
        (-1e26, 1e26),
        (0.0, 3e21),
        (-7.0, -2.0),
        (1e9, 1e9 + 2.0),
        (0.0, 47_683.0),
        (1e-3, 2e-3),
        (-3e-9, 1e-9),
        (99.0, 101.0),
    ];

    #[test]
    fn an_axis_suits_its_values() {
        let over = |values: &[f64]| Axis::over("x", values);
        for logarithmic in [vec![32.0, 64.0, 256.0], vec![12.0, 3.0, 6.0, 6.0]] {
            assert_eq!(over(&logarithmic).scale, Scale::Log, "{logarithmic:?}");
        }
        let steps: Vec<f64> = (1..=10).map(|k| 12e6 * f64::from(k)).collect();
        for linear in [steps.clone(), vec![0.0, 0.5, 1.0], vec![3.0, 12.0], vec![5.0], Vec::new()] {
            assert_eq!(over(&linear).scale, Scale::Linear, "{linear:?}");
        }
        assert_eq!(over(&[12.0, 3.0, 6.0, 6.0]).ticks, Ticks::Values(vec![3.0, 6.0, 12.0]));
        assert_eq!(over(&steps).ticks, Ticks::Auto);
    }

    #[test]
    fn ticks_are_round_and_apart() {
        for (scale, ranges) in [(Scale::Log, LOG), (Scale::Linear, LINEAR)] {
            for &(lo, hi) in ranges {
                let map = Mapping { scale, lo, hi, from: 0.0, to: 500.0 };
                let apart = |set: &[(f64, String)]| {
                    set.windows(2).all(|pair| map.pixel(pair[1].0) - map.pixel(pair[0].0) >= 40.0)
                };
                let ticks = map.ticks(&Ticks::Auto, apart);
                assert!((3..=13).contains(&ticks.len()), "{scale:?} {lo}..{hi}: {ticks:?}");
                assert!(apart(&ticks) && ticks.iter().all(|(value, _)| map.shows(*value)), "{ticks:?}");
                assert!(ticks.windows(2).all(|pair| pair[0].1 != pair[1].1), "{ticks:?}");
                assert!(ticks.iter().all(|(_, label)| label.chars().count() <= 18), "{ticks:?}");
            }
        }
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(labels(&[1e18, 2e19, 1e-7], Scale::Log), ["10¹⁸", "2×10¹⁹", "10⁻⁷"]);
        assert_eq!(labels(&[1.8, 2.0, 2.2], Scale::Log), ["1.8", "2.0", "2.2"]);
        assert_eq!(labels(&[0.01, 1.0, 1000.0], Scale::Log), ["0.01", "1", "1000"]);
        assert_eq!(labels(&[-0.1, 0.0, 0.1], Scale::Linear), ["−0.1", "0.0", "0.1"]);
        assert_eq!(labels(&[-5e-4, 0.0, 5e-4], Scale::Linear), ["−5×10⁻⁴", "0", "5×10⁻⁴"]);
        assert_eq!(labels(&[1.8272, 1.8274], Scale::Linear), ["1.8272", "1.8274"]);
        assert_eq!(labels(&[0.0, 1e21, 1.5e21], Scale::Linear), ["0", "10²¹", "1.5×10²¹"]);
        assert_eq!(significant(1.7, 5), "1.7000");
        assert_eq!(significant(-2.5e9, 2), "−2.5e9");
    }

    #[test]
    fn given_ticks_are_thinned_out() {
        let map = Mapping { scale: Scale::Log, lo: 32.0, hi: 262_144.0, from: 0.0, to: 100.0 };
        let values = Ticks::Values((6..18).map(|e| f64::from(1 << e)).collect());
        let apart =
            |set: &[(f64, String)]| set.windows(2).all(|pair| map.pixel(pair[1].0) - map.pixel(pair[0].0) >= 30.0);
        let shown: Vec<String> = map.ticks(&values, apart).into_iter().map(|(_, label)| label).collect();
        assert_eq!(shown, ["64", "1024", "16384"]);
    }
}
