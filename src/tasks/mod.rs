//! Tasks that tell how a model uses a long context, without tensors: what to ask ([`Question`]), how an answer is
//! scored, and what many answers say ([`Summary`]). [`measurement`] has the settings of each task and the file that
//! results are kept in. `docs/evaluation.md` has the constructions.
//!
//! A decoder takes prompts and hands back the text it generated; [`recall`] instead takes the losses of validation
//! tokens.

mod draw;
pub mod measurement;
mod names;
pub mod needle;
pub mod phonebook;
pub mod recall;
mod tag;
mod words;

pub use tag::Tag;

use crate::binomial;
use std::collections::BTreeMap;

/// How generated text becomes a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// 1 where the text before the first newline, trimmed, is the first expected answer; else 0.
    FirstLine,
    /// The share of the expected answers that occur anywhere in the text, in upper or lower case.
    Occurrences,
}

/// One prompt, and what it should be answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The prompt's ids; nothing is to be put before it.
    pub prompt: Vec<u32>,
    /// Every answer that counts.
    pub expected: Vec<String>,
    /// Tokens to generate at most; [`Question::is_answered`] and the token that ends a document end it earlier.
    pub most_new_tokens: usize,
    /// How the answer is scored.
    pub scoring: Scoring,
    /// What results are grouped by, such as `entries`, `depth` (0 is the beginning) and `distance` (tokens).
    pub tags: BTreeMap<&'static str, f64>,
}

impl Question {
    /// Whether more text cannot change the score.
    pub fn is_answered(&self, generated: &str) -> bool {
        match self.scoring {
            Scoring::FirstLine => generated.contains('\n'),
            Scoring::Occurrences => self.score(generated) == 1.0,
        }
    }

    /// The score of generated text, without the prompt: 0 to 1.
    pub fn score(&self, generated: &str) -> f64 {
        match self.scoring {
            Scoring::FirstLine => {
                let line = generated.split('\n').next().unwrap_or_default().trim();
                f64::from(self.expected.first().is_some_and(|answer| answer == line))
            }
            Scoring::Occurrences => {
                let text = generated.to_lowercase();
                let found = self.expected.iter().filter(|answer| text.contains(&answer.to_lowercase())).count();
                found as f64 / self.expected.len() as f64
            }
        }
    }
}

/// What the scores of one cell say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mean score, over all questions.
    pub value: f64,
    /// Lower end of Wilson's interval at 95 %; scores between 0 and 1 make it wider than it need be.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Questions.
    pub n: usize,
    /// Population standard deviation of the measurements' means; 0 for a single one.
    pub sd: f64,
}

impl Summary {
    /// The summary of measurements, each the scores of its questions; `None` without any score.
    pub fn of(measurements: &[Vec<f64>]) -> Option<Self> {
        let n: usize = measurements.iter().map(Vec::len).sum();
        if n == 0 {
            return None;
        }
        let value = measurements.iter().flatten().sum::<f64>() / n as f64;
        let means: Vec<f64> = measurements
            .iter()
            .filter(|scores| !scores.is_empty())
            .map(|scores| scores.iter().sum::<f64>() / scores.len() as f64)
            .collect();
        let centre = means.iter().sum::<f64>() / means.len() as f64;
        let variance = means.iter().map(|mean| (mean - centre).powi(2)).sum::<f64>() / means.len() as f64;
        let (low, high) = binomial::wilson(value, n as f64);
        Some(Self { value, low, high, n, sd: variance.sqrt() })
    }
}

/// Scores of the questions with one combination of tags.
struct Cell {
    key: Vec<f64>,
    measurements: BTreeMap<u64, Vec<f64>>,
}

/// The scores of questions, one [`Summary`] for each combination of cells of the tags `by`, in rising order. Questions that
/// lack one of the tags are left out. Measurements are told apart by the tag `measurement`.
pub fn summaries(scored: &[(Question, f64)], by: &[Tag]) -> Vec<(Vec<f64>, Summary)> {
    let mut cells: Vec<Cell> = Vec::new();
    for (question, score) in scored {
        let cell = |tag: &Tag| Some(tag.cell(*question.tags.get(tag.name())?));
        let Some(key) = by.iter().map(cell).collect::<Option<Vec<f64>>>() else {
            continue;
        };
        let at = cells.iter().position(|cell| cell.key == key).unwrap_or_else(|| {
            cells.push(Cell { key, measurements: BTreeMap::new() });
            cells.len() - 1
        });
        let measurement = question.tags.get("measurement").map_or(0, |&number| number as u64);
        cells[at].measurements.entry(measurement).or_default().push(*score);
    }
    cells.sort_by(|a, b| a.key.partial_cmp(&b.key).unwrap_or(std::cmp::Ordering::Equal));
    let summary = |cell: Cell| {
        let scores: Vec<Vec<f64>> = cell.measurements.into_values().collect();
        Summary::of(&scores).map(|summary| (cell.key, summary))
    };
    cells.into_iter().filter_map(summary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(scoring: Scoring, expected: &[&str]) -> Question {
        Question {
            prompt: Vec::new(),
            expected: expected.iter().map(|&answer| answer.to_owned()).collect(),
            most_new_tokens: 20,
            scoring,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn a_first_line_is_right_or_wrong() {
        let question = question(Scoring::FirstLine, &["6123456789"]);
        for right in [" 6123456789\nAnn Lee: 7", "6123456789", "  6123456789 \r\n", " 6123456789"] {
            assert_eq!(question.score(right), 1.0, "{right:?}");
        }
        for wrong in
            ["", "\n6123456789", " 6123456788\n", " 61234567890\n", " 612345678\n", "is 6123456789", "6123 456789"]
        {
            assert_eq!(question.score(wrong), 0.0, "{wrong:?}");
        }
        assert!(question.is_answered(" 6\n") && !question.is_answered(" 6123456789"));
    }

    #[test]
    fn occurrences_are_counted_in_any_case() {
        let question = question(Scoring::Occurrences, &["Ab12", "7654321"]);
        assert_eq!(question.score("aB12 and\n7654321."), 1.0);
        assert_eq!(question.score("7654321, 7654321"), 0.5);
        assert_eq!(question.score("765432 1"), 0.0);
        assert!(question.is_answered("ab12 7654321") && !question.is_answered("7654321\n"));
    }

    #[test]
    fn summaries_are_by_tags_and_measurements() {
        let scored = |depth: f64, measurement: f64, score: f64| {
            let tags = BTreeMap::from([("depth", depth), ("measurement", measurement)]);
            (Question { tags, ..question(Scoring::FirstLine, &["1"]) }, score)
        };
        let all = [scored(0.5, 0.0, 1.0), scored(0.5, 1.0, 0.0), scored(0.0, 0.0, 1.0), scored(0.5, 1.0, 0.0)];
        let rows = summaries(&all, &[Tag::Depth]);
        let seen: Vec<(f64, f64, usize, f64)> = rows.iter().map(|(cell, s)| (cell[0], s.value, s.n, s.sd)).collect();
        assert_eq!(seen, [(0.0, 1.0, 1, 0.0), (0.5, 1.0 / 3.0, 3, 0.5)]);
        assert_eq!(summaries(&all, &[])[0].1.n, 4);
        assert!(summaries(&all, &[Tag::Length]).is_empty());
    }

    #[test]
    fn a_summary_has_the_spread_of_measurements() {
        let summary = Summary::of(&[vec![1.0, 1.0], vec![0.0, 1.0]]).unwrap();
        assert_eq!((summary.value, summary.n, summary.sd), (0.75, 4, 0.25));
        assert!(summary.low < 0.75 && summary.high > 0.75);
        assert_eq!(Summary::of(&[vec![1.0]]).unwrap().sd, 0.0);
        assert_eq!(Summary::of(&[Vec::new()]), None);
    }
}
