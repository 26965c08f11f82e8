//! Quantities as people write them: `100B`, `2^21`, `4e-4`; and as people read them.
//!
//! SI suffixes are decimal (`K` 1e3, `M` 1e6, `B` 1e9, `T` 1e12); powers of two are spelt `2^n`, because `2M` is
//! ambiguous for a batch size.

use serde::{Deserialize, Deserializer, de};

/// Parses `12`, `4e-4`, `100B`, `9.5K` or `2^21`.
pub fn parse_quantity(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Some((base, exponent)) = text.split_once('^') {
        let (base, exponent): (f64, i32) = (base.trim().parse().ok()?, exponent.trim().parse().ok()?);
        return Some(base.powi(exponent));
    }
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1e3),
        b'M' => (&text[..text.len() - 1], 1e6),
        b'B' => (&text[..text.len() - 1], 1e9),
        b'T' => (&text[..text.len() - 1], 1e12),
        _ => (text, 1.0),
    };
    let value: f64 = digits.trim().parse().ok()?;
    value.is_finite().then_some(value * factor)
}

struct QuantityVisitor;

impl de::Visitor<'_> for QuantityVisitor {
    type Value = f64;
    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a number such as 4e-4, 100B or 2^21")
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<f64, E> {
        Ok(v)
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<f64, E> {
        Ok(v as f64)
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<f64, E> {
        Ok(v as f64)
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<f64, E> {
        parse_quantity(v.trim_end().strip_suffix("tokens").unwrap_or(v))
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(v), &self))
    }
}

/// For `#[serde(deserialize_with)]` on an optional number that may be written with a suffix.
pub fn optional_quantity<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    d.deserialize_any(QuantityVisitor).map(Some)
}

/// For `#[serde(deserialize_with)]` on an optional whole number (tokens) that may be written with a suffix.
pub fn optional_count<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    let value = d.deserialize_any(QuantityVisitor)?;
    if value < 0.0 || value.fract() != 0.0 || value > 2f64.powi(63) {
        return Err(de::Error::invalid_value(de::Unexpected::Float(value), &"a whole number, zero or more"));
    }
    Ok(Some(value as u64))
}

/// For `#[serde(deserialize_with)]` on a whole number that may be written with a suffix.
pub fn count<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    Ok(optional_count(d)?.unwrap_or(0))
}

/// For `#[serde(deserialize_with)]` on whole numbers that may be written with suffixes.
pub fn counts<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Count(#[serde(deserialize_with = "count")] u64);
    Ok(Vec::<Count>::deserialize(d)?.into_iter().map(|Count(number)| number).collect())
}

/// Seconds of `15 min`, `1 h`, `30 s`.
pub fn seconds(text: &str) -> Option<f64> {
    let (number, unit) = text.trim().split_once(' ').or_else(|| {
        let split = text.find(|c: char| c.is_alphabetic())?;
        Some(text.split_at(split))
    })?;
    let factor = match unit.trim() {
        "s" | "sec" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    number.trim().parse::<f64>().ok().filter(|n| *n > 0.0).map(|n| n * factor)
}

/// `12.5B`, `980M`, `3.2K`, `17`: three significant digits.
pub fn si(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        v if v >= 1e12 => (value / 1e12, "T"),
        v if v >= 1e9 => (value / 1e9, "B"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "K"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    text + suffix
}

/// Bytes with binary suffixes: `25.8 GiB`.
pub fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{scaled:.0} B") } else { format!("{scaled:.1} {}", units[unit]) }
}

/// `3 d 04 h`, `2 h 05 min`, `3 min 20 s`, `12 s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {:02} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// `1,038,682,112`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_written() {
        for (text, value) in [("4e-4", 4e-4), ("100B", 1e11), ("2^21", 2_097_152.0), ("9.5K", 9500.0), ("17", 17.0)] {
            assert_eq!(parse_quantity(text), Some(value), "{text}");
        }
        for text in ["", "B", "2^", "1 0", "nan", "1e999", "ten"] {
            assert_eq!(parse_quantity(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_print_for_people() {
        assert_eq!(si(12.5e9), "12.5B");
        assert_eq!(si(999.9e6), "1000M");
        assert_eq!(si(17.0), "17");
        assert_eq!(grouped(1_038_682_112), "1,038,682,112");
        assert_eq!(grouped(999), "999");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(bytes(25.8 * 1024f64.powi(3)), "25.8 GiB");
    }
}
