//! What answers are counted by.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A property of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tag {
    /// Entries of a phonebook.
    Entries,
    /// Tokens of prompt and answer.
    Length,
    /// Where the answer lies: 0 is the beginning, 1 the end; in tenths.
    Depth,
    /// Tokens from where the answer lies to the end of the prompt; in ranges from a power of two to the next.
    Distance,
}

impl Tag {
    /// Its name among the tags of a question, and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Length => "length",
            Self::Depth => "depth",
            Self::Distance => "distance",
        }
    }

    /// The cell that a value belongs to: the nearest tenth of a depth, the beginning of a range of distances.
    pub(super) fn cell(self, value: f64) -> f64 {
        match self {
            Self::Entries | Self::Length => value,
            Self::Depth => (10.0 * value).round() / 10.0,
            Self::Distance => f64::from(value.max(1.0).log2().floor() as i32).exp2(),
        }
    }

    /// A cell as columns of a row: `from` and `below` for a range of distances.
    pub(super) fn columns(self, cell: f64) -> Vec<(&'static str, Value)> {
        match self {
            Self::Entries | Self::Length => vec![(self.name(), json!(cell as u64))],
            Self::Depth => vec![(self.name(), json!(cell))],
            Self::Distance => vec![("from", json!(cell as u64)), ("below", json!(2 * cell as u64))],
        }
    }
}

impl std::str::FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Entries, Self::Length, Self::Depth, Self::Distance];
        let known = || all.map(Self::name).join(", ");
        all.into_iter().find(|tag| tag.name() == text).ok_or_else(|| format!("'{text}' is none of {}", known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_tenths_and_powers_of_two() {
        assert_eq!([0.0, 0.04, 0.06, 0.36, 1.0].map(|depth| Tag::Depth.cell(depth)), [0.0, 0.0, 0.1, 0.4, 1.0]);
        assert_eq!([1.0, 2.0, 63.0, 64.0, 1e6].map(|d| Tag::Distance.cell(d)), [1.0, 2.0, 32.0, 64.0, 524_288.0]);
        assert_eq!(Tag::Distance.columns(64.0), [("from", json!(64)), ("below", json!(128))]);
        assert_eq!("depth".parse(), Ok(Tag::Depth));
        assert!("tokens".parse::<Tag>().is_err());
    }
}
