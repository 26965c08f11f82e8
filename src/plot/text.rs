//! Widths of texts, and texts cut and broken to fit.

use std::sync::OnceLock;

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

use super::PlotError;
use super::canvas::SCALE;

/// The SVG's font list; in the PNG the embedded subset of the first is used under the same name.
pub(super) const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
static FONT: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans-subset.ttf");
/// plotters divides a size by this to get the em of its SVG text.
pub(super) const SIZE_PER_EM: f64 = 1.24;

/// Makes the embedded font known to plotters; without it, all widths are zero.
pub(super) fn load_font() -> Result<(), PlotError> {
    static LOADED: OnceLock<bool> = OnceLock::new();
    let loaded = *LOADED.get_or_init(|| register_font(FAMILY, FontStyle::Normal, FONT).is_ok());
    if loaded { Ok(()) } else { Err(PlotError::Font) }
}

pub(super) fn font(em: f64) -> FontDesc<'static> {
    FontDesc::new(FontFamily::Name(FAMILY), em * SIZE_PER_EM * SCALE, FontStyle::Normal)
}

/// Width of `text` in pixels at `em` pixels per em.
pub(super) fn width(text: &str, em: f64) -> f64 {
    font(em).box_size(text).map_or(0.0, |(width, _)| f64::from(width) / SCALE)
}

/// The largest width of several texts.
pub(super) fn widest<'a>(texts: impl IntoIterator<Item = &'a str>, em: f64) -> f64 {
    texts.into_iter().map(|text| width(text, em)).fold(0.0, f64::max)
}

/// `text` cut so that it is at most `limit` pixels wide.
pub(super) fn fitted(text: &str, em: f64, limit: f64) -> String {
    if width(text, em) <= limit {
        return text.to_owned();
    }
    let mut chars: Vec<char> = text.chars().collect();
    while !chars.is_empty() {
        chars.pop();
        let cut = chars.iter().collect::<String>().trim_end().to_owned() + "…";
        if width(&cut, em) <= limit {
            return cut;
        }
    }
    String::new()
}

/// `text` in lines of at most `limit` pixels, broken after `separator`; what does not fit on the last line is cut.
pub(super) fn wrapped(text: &str, separator: &str, em: f64, limit: f64, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in text.split_inclusive(separator) {
        match lines.last_mut() {
            Some(line) if lines_full(line, piece, em, limit) => lines.push(piece.to_owned()),
            Some(line) => line.push_str(piece),
            None => lines.push(piece.to_owned()),
        }
    }
    if lines.len() > most {
        let rest = lines.split_off(most.max(1) - 1).concat();
        lines.push(rest);
    }
    lines.iter().map(|line| fitted(line.trim_end(), em, limit)).filter(|line| !line.is_empty()).collect()
}

fn lines_full(line: &str, piece: &str, em: f64, limit: f64) -> bool {
    width(format!("{line}{piece}").trim_end(), em) > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_broken_and_cut() {
        load_font().unwrap();
        let text = "A = 1.92, b = 0.540, C = 1.886 ± 0.015 (1.839 to 1.933)";
        let lines = wrapped(text, ", ", 20.0, 300.0, 3);
        assert_eq!(lines[0], "A = 1.92, b = 0.540,");
        assert!(lines.len() == 2 && lines[1].starts_with("C = 1.886 ± 0.015") && lines[1].ends_with('…'), "{lines:?}");
        assert_eq!(wrapped("one two three", " ", 20.0, 80.0, 2).len(), 2);
        assert!(lines.iter().all(|line| width(line, 20.0) <= 300.0));
        assert_eq!(fitted("short", 20.0, 200.0), "short");
    }
}
