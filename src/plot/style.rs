//! The one style of all figures: colours, markers, dashes, sizes of type.
//!
//! A page has 200 pixels per inch of the printed paper, whatever its width, so that a size in pixels is a size in print:
//! 25 pixels are 9 points, 20 are 7.

use plotters::style::RGBColor;
use serde::Deserialize;

/// Width of a figure on paper.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Width {
    /// One column of a two-column page: 3.4 inches, 680 pixels.
    Column,
    /// The whole width of a page: 7 inches, 1400 pixels.
    #[default]
    Full,
}

impl Width {
    /// Pixels.
    pub fn pixels(self) -> u32 {
        match self {
            Self::Column => 680,
            Self::Full => 1400,
        }
    }
}

/// Colours, or greys that differ in lightness alone.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Palette {
    /// Okabe and Ito's colours, which colour-blind readers can tell apart.
    #[default]
    #[serde(alias = "color")]
    Colour,
    /// Shades of grey.
    #[serde(alias = "gray")]
    Grey,
}

/// What a series looks like in all panels of a figure: colour, marker and dashes follow from one number. The first 56
/// looks differ in colour, marker or filling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Look(pub usize);

/// How a line is stroked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stroke {
    /// Unbroken.
    #[default]
    Solid,
    /// Short dashes: beyond the data.
    Dashed,
    /// Dots.
    Dotted,
    /// The pattern of the series' look, where lines without markers are to be told apart.
    Own,
}

/// Okabe and Ito's palette without yellow, which is too faint on white; neighbours differ in lightness, too.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
];
const GREYS: [u8; 7] = [70, 165, 0, 125, 45, 185, 100];
pub(super) const INK: RGBColor = RGBColor(30, 30, 30);
pub(super) const FADED: RGBColor = RGBColor(90, 90, 90);
const NEUTRAL: RGBColor = RGBColor(150, 150, 150);
pub(super) const GRID: RGBColor = RGBColor(228, 228, 228);
pub(super) const WHITE: RGBColor = RGBColor(255, 255, 255);

/// Sizes of type, pixels per em.
pub(super) const TITLE: f64 = 25.0;
pub(super) const LABEL: f64 = 22.0;
pub(super) const TICK: f64 = 21.0;
pub(super) const NOTE: f64 = 20.0;
/// The smallest size in print, 7 points.
pub(super) const SMALLEST: f64 = 19.5;

/// Distance of everything from the edges of the page.
pub(super) const MARGIN: f64 = 14.0;
pub(super) const CURVE: f64 = 2.8;
pub(super) const THIN: f64 = 1.8;
pub(super) const MARKER: f64 = 7.0;

/// Forms of markers.
pub(super) const SHAPES: usize = 8;

impl Look {
    /// Of lines that are no series, such as those of equal loss: grey.
    pub const NEUTRAL: Self = Self(usize::MAX);

    pub(super) fn colour(self, palette: Palette) -> RGBColor {
        if self == Self::NEUTRAL {
            return NEUTRAL;
        }
        match palette {
            Palette::Colour => COLOURS[self.0 % COLOURS.len()],
            Palette::Grey => {
                let grey = GREYS[self.0 % GREYS.len()];
                RGBColor(grey, grey, grey)
            }
        }
    }

    pub(super) fn shape(self) -> usize {
        self.0 % SHAPES
    }

    /// Lengths of dashes and gaps in turn; nothing is an unbroken line.
    pub(super) fn dashes(self, stroke: Stroke) -> &'static [f64] {
        match stroke {
            Stroke::Solid => &[],
            Stroke::Dashed => &[9.0, 6.0],
            Stroke::Dotted => &[2.5, 5.0],
            Stroke::Own => match self.0 % 6 {
                0 => &[],
                1 => &[14.0, 6.0],
                2 => &[3.0, 5.0],
                3 => &[14.0, 5.0, 3.0, 5.0],
                4 => &[26.0, 7.0],
                _ => &[14.0, 5.0, 3.0, 5.0, 3.0, 5.0],
            },
        }
    }
}

/// A colour mixed with white.
pub(super) fn tint(colour: RGBColor, share: f64) -> RGBColor {
    mix(colour, WHITE, share)
}

fn mix(a: RGBColor, b: RGBColor, share: f64) -> RGBColor {
    let one = |a: u8, b: u8| (f64::from(a) * share + f64::from(b) * (1.0 - share)).round() as u8;
    RGBColor(one(a.0, b.0), one(a.1, b.1), one(a.2, b.2))
}

/// From dark to light; lightness rises evenly, so that the ramp reads in grey as well.
const RAMP: [RGBColor; 6] = [
    RGBColor(16, 30, 84),
    RGBColor(22, 72, 128),
    RGBColor(28, 116, 142),
    RGBColor(74, 160, 138),
    RGBColor(156, 200, 130),
    RGBColor(246, 238, 168),
];

/// The colour of a share from 0 (dark) to 1 (light).
pub(super) fn ramp(share: f64, palette: Palette) -> RGBColor {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
    if palette == Palette::Grey {
        let grey = (35.0 + 210.0 * share).round() as u8;
        return RGBColor(grey, grey, grey);
    }
    let place = share * (RAMP.len() - 1) as f64;
    let below = (place.floor() as usize).min(RAMP.len() - 2);
    mix(RAMP[below + 1], RAMP[below], place - below as f64)
}

/// CIE lightness, 0 to 100.
pub(super) fn lightness(colour: RGBColor) -> f64 {
    let linear = |c: u8| match f64::from(c) / 255.0 {
        c if c <= 0.04045 => c / 12.92,
        c => ((c + 0.055) / 1.055).powf(2.4),
    };
    let y = 0.2126 * linear(colour.0) + 0.7152 * linear(colour.1) + 0.0722 * linear(colour.2);
    if y > 0.008_856 { 116.0 * y.cbrt() - 16.0 } else { 903.3 * y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_gets_lighter_all_along() {
        for palette in [Palette::Colour, Palette::Grey] {
            let light: Vec<f64> = (0..=50).map(|i| lightness(ramp(f64::from(i) / 50.0, palette))).collect();
            let steps: Vec<f64> = light.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(steps.iter().all(|step| (0.7..2.7).contains(step)), "{palette:?} {steps:?}");
        }
    }

    #[test]
    fn neighbours_differ_in_lightness_and_all_looks_in_something() {
        for palette in [Palette::Colour, Palette::Grey] {
            for i in 0..6 {
                let (a, b) = (lightness(Look(i).colour(palette)), lightness(Look(i + 1).colour(palette)));
                assert!((a - b).abs() > 6.0, "{palette:?} {i}: {a} {b}");
            }
        }
        let looks: std::collections::BTreeSet<_> = (0..56).map(|i| (i % COLOURS.len(), Look(i).shape())).collect();
        assert_eq!(looks.len(), 56);
    }
}
