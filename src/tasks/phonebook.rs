//! The phonebook: a list of names and numbers, two entries of it again as examples, and a name to complete. As in *You
//! Only Cache Once* and *Decoder-Hybrid-Decoder Architecture for Efficient Reasoning with Long Generation* (arXiv
//! 2405.05254, 2507.06607), with the names of `names.rs`.

use super::draw::Draw;
use super::names::Names;
use super::{Question, Scoring};
use crate::data::{DataError, Tokenizer};
use crate::files::write_atomic_with;
use crate::units::parse_quantity;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::ops::RangeInclusive;
use std::path::Path;

/// Tokens in which the number has to come.
const MOST_NEW_TOKENS: usize = 20;
/// Entries that a phonebook has at least: two examples and the question.
const FEWEST: usize = 3;
/// Entries that a phonebook has at most.
const MOST: usize = 10_000_000;

/// Which phonebooks to ask from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phonebook {
    /// Entries of each phonebook, 3 to 10,000,000; 1850 fill 32K tokens of Llama's vocabulary.
    pub entries: usize,
    /// Independent measurements, whose spread is reported.
    pub measurements: usize,
    /// Batches of a measurement.
    pub batches: usize,
    /// Prompts of a batch.
    pub prompts: usize,
}

impl Phonebook {
    /// The published size: 4 measurements of 8 batches of 4 prompts.
    pub fn published(entries: usize) -> Self {
        Self { entries, measurements: 4, batches: 8, prompts: 4 }
    }

    /// Refuses numbers of entries that make no question.
    pub(super) fn check(&self) -> Result<(), DataError> {
        check(self.entries)
    }

    /// All questions, a measurement after another, `batches * prompts` each. They depend on the measurement, on the
    /// number of entries and on the batch, whose decimal digits after 42 are the seed.
    ///
    /// Tags: `entries`, `measurement`, `depth` (0 for the first entry, 1 for the last), `distance` (tokens from the
    /// beginning of the entry to the end of the prompt) and `namesakes` (other entries of the same name, with which
    /// nobody can know the answer).
    pub fn questions(&self, tokenizer: &Tokenizer) -> Result<Vec<Question>, DataError> {
        self.check()?;
        let names = Names::new();
        let mut questions = Vec::with_capacity(self.measurements * self.batches * self.prompts);
        for measurement in 0..self.measurements {
            for batch in 0..self.batches {
                let mut draw = Draw::new(*b"phonebk?", [seed(measurement, self.entries, batch), 0, 0]);
                for _ in 0..self.prompts {
                    let book = Book::draw(&names, self.entries, &mut draw);
                    questions.push(book.question(tokenizer, measurement)?);
                }
            }
        }
        Ok(questions)
    }
}

/// 42, then the digits of the three numbers.
fn seed(measurement: usize, entries: usize, batch: usize) -> u64 {
    [measurement, entries, batch].iter().fold(42u64, |seed, &number| {
        let digits = number.checked_ilog10().unwrap_or(0) + 1;
        seed.wrapping_mul(10u64.wrapping_pow(digits)).wrapping_add(number as u64)
    })
}

fn check(entries: usize) -> Result<(), DataError> {
    if (FEWEST..=MOST).contains(&entries) {
        return Ok(());
    }
    let expected = format!("{FEWEST} to {MOST}");
    Err(DataError::Parameter { name: "entries", value: entries.to_string(), expected })
}

/// Numbers of entries as people write them: `6`, or `3..6` for any from 3 to 6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRange(pub RangeInclusive<usize>);

impl std::str::FromStr for EntryRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let value =
                parse_quantity(text).filter(|value| (0.0..=MOST as f64).contains(value) && value.fract() == 0.0);
            value.map(|value| value as usize).ok_or_else(|| format!("'{text}': expected a number such as 6, or 3..6"))
        };
        let (low, high) = text.split_once("..").unwrap_or((text, text));
        Ok(Self(number(low)?..=number(high)?))
    }
}

impl<'de> Deserialize<'de> for EntryRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(usize),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(number..=number)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Texts that teach the task: phonebook, examples, question and answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingBooks {
    /// Documents.
    pub documents: u64,
    /// Entries of a phonebook: any number of this range with the same probability.
    pub entries: RangeInclusive<usize>,
    /// Document i is a pure function of the seed and of i, and no question's phonebook.
    pub seed: u64,
}

impl TrainingBooks {
    /// The texts in order, each the prompt of a question, its answer after a space, and a newline.
    pub fn texts(&self) -> Result<impl Iterator<Item = String> + use<>, DataError> {
        check(*self.entries.start())?;
        check(*self.entries.end())?;
        let (fewest, most, seed) = (*self.entries.start(), *self.entries.end(), self.seed);
        let sizes = (most + 1).checked_sub(fewest).filter(|&sizes| sizes > 0).ok_or_else(|| DataError::Parameter {
            name: "entries",
            value: format!("{fewest} to {most}"),
            expected: "the smaller number first".to_owned(),
        })?;
        let names = Names::new();
        Ok((0..self.documents).map(move |index| {
            let mut draw = Draw::new(*b"phonebk!", [seed, index, 0]);
            let entries = fewest + draw.below(sizes);
            let book = Book::draw(&names, entries, &mut draw);
            format!("{} {}\n", book.prompt(), book.entries[book.chosen[2]].1)
        }))
    }
}

impl TrainingBooks {
    /// Writes the texts as JSON lines with the field `text`, an input of `data pack`; returns the bytes of the texts.
    /// `progress` is told how many are written.
    pub fn write(&self, path: &Path, progress: &dyn Fn(u64)) -> Result<u64, DataError> {
        const TOLD_EVERY: u64 = 1024;
        let texts = self.texts()?;
        let mut bytes = 0;
        write_atomic_with(path, |file| {
            let mut out = BufWriter::new(file);
            for (number, text) in (1..).zip(texts) {
                bytes += text.len() as u64;
                serde_json::to_writer(&mut out, &serde_json::json!({ "text": text }))?;
                out.write_all(b"\n")?;
                if number % TOLD_EVERY == 0 {
                    progress(number);
                }
            }
            out.flush()
        })?;
        Ok(bytes)
    }
}

/// One phonebook.
#[derive(Debug)]
struct Book {
    /// Names and numbers.
    entries: Vec<(String, String)>,
    /// The entries that are examples, and the one that is asked.
    chosen: Vec<usize>,
}

impl Book {
    fn draw(names: &Names, entries: usize, draw: &mut Draw) -> Self {
        let entries: Vec<(String, String)> = (0..entries).map(|_| (names.draw(draw), draw.number(6, 10))).collect();
        let chosen = draw.distinct(FEWEST, entries.len());
        Self { entries, chosen }
    }

    fn line(&self, index: usize) -> String {
        let (name, number) = &self.entries[index];
        format!("{name}: {number}")
    }

    /// The lines from entry `first` on, the examples and the question.
    fn prompt_from(&self, first: usize) -> String {
        let lines: Vec<String> = (first..self.entries.len()).map(|index| self.line(index)).collect();
        let [one, two] = [0, 1].map(|example| self.line(self.chosen[example]));
        format!("{}\n\n{one}\n{two}\n\n{}:", lines.join("\n"), self.entries[self.chosen[2]].0)
    }

    fn prompt(&self) -> String {
        self.prompt_from(0)
    }

    fn question(&self, tokenizer: &Tokenizer, measurement: usize) -> Result<Question, DataError> {
        let asked = self.chosen[2];
        let (name, number) = &self.entries[asked];
        let namesakes = self.entries.iter().filter(|(other, _)| other == name).count() - 1;
        let tags = BTreeMap::from([
            ("entries", self.entries.len() as f64),
            ("measurement", measurement as f64),
            ("depth", asked as f64 / (self.entries.len() - 1) as f64),
            ("distance", tokenizer.encode(&self.prompt_from(asked))?.len() as f64),
            ("namesakes", namesakes as f64),
        ]);
        Ok(Question {
            prompt: tokenizer.encode(&self.prompt())?,
            expected: vec![number.clone()],
            most_new_tokens: MOST_NEW_TOKENS,
            scoring: Scoring::FirstLine,
            tags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SMALL: Phonebook = Phonebook { entries: 12, measurements: 2, batches: 3, prompts: 4 };

    /// The entries, the examples and the question of a prompt.
    fn parts(prompt: &str) -> (Vec<&str>, Vec<&str>, &str) {
        let parts: Vec<&str> = prompt.split("\n\n").collect();
        assert_eq!(parts.len(), 3, "{prompt}");
        (parts[0].split('\n').collect(), parts[1].split('\n').collect(), parts[2])
    }

    fn check_entry(line: &str) {
        let (name, number) = line.split_once(": ").unwrap();
        assert_eq!(name.split(' ').count(), 2, "{name}");
        assert!(name.split(' ').all(|part| part.starts_with(char::is_uppercase)), "{name}");
        assert!(number.len() == 10 && number.bytes().all(|digit| digit.is_ascii_digit()), "{number}");
        assert!(number.as_bytes()[0] >= b'6', "{number}");
    }

    #[test]
    fn a_prompt_has_the_published_structure() {
        let tokenizer = Tokenizer::bytes();
        let questions = SMALL.questions(&tokenizer).unwrap();
        assert_eq!(questions.len(), 24);
        let (mut asked_at, mut firsts) = (BTreeSet::new(), BTreeSet::new());
        for question in &questions {
            let text = tokenizer.decode(&question.prompt).unwrap();
            let (entries, examples, asked) = parts(&text);
            assert_eq!((entries.len(), examples.len()), (12, 2));
            entries.iter().for_each(|line| check_entry(line));
            let place = |line: &str| entries.iter().position(|entry| *entry == line).unwrap();
            let answer = format!("{asked} {}", question.expected[0]);
            let places = [place(examples[0]), place(examples[1]), place(&answer)];
            assert_eq!(BTreeSet::from(places).len(), 3, "{places:?}");
            assert!(asked.ends_with(':') && question.expected.len() == 1);
            assert_eq!(question.tags["depth"], places[2] as f64 / 11.0);
            let from = text.find(&answer).unwrap();
            assert_eq!(question.tags["distance"], (text.len() - from) as f64);
            assert_eq!((question.most_new_tokens, question.scoring), (20, Scoring::FirstLine));
            assert_eq!(question.score(&format!(" {}\nX", question.expected[0])), 1.0);
            asked_at.insert(places[2]);
            firsts.extend(entries.iter().map(|line| line.split_once(": ").unwrap().1.as_bytes()[0]));
        }
        assert!(asked_at.len() > 6, "{asked_at:?}");
        assert_eq!(firsts, BTreeSet::from(*b"6789"));
    }

    #[test]
    fn questions_are_the_same_every_time_and_different_everywhere() {
        let tokenizer = Tokenizer::bytes();
        let questions = SMALL.questions(&tokenizer).unwrap();
        assert_eq!(questions, SMALL.questions(&tokenizer).unwrap());
        let prompts: BTreeSet<&Vec<u32>> = questions.iter().map(|question| &question.prompt).collect();
        assert_eq!(prompts.len(), questions.len());
        // More measurements leave the first as they were.
        let more = Phonebook { measurements: 3, ..SMALL }.questions(&tokenizer).unwrap();
        assert_eq!(more[..24], questions);
        assert_eq!((seed(0, 1850, 7), seed(3, 12, 10)), (42_018_507, 4_231_210));
        // The first question of all, so that published accuracies stay comparable.
        let text = tokenizer.decode(&questions[0].prompt).unwrap();
        assert!(text.starts_with("Nancy Shermere: 6824745617\n"), "{text}");
        assert_eq!(questions[0].expected[0], "6947221980");
    }

    #[test]
    fn the_published_size_is_128_questions_and_namesakes_are_rare() {
        let book = Phonebook::published(1850);
        assert_eq!(book.measurements * book.batches * book.prompts, 128);
        let questions = Phonebook { measurements: 2, ..book }.questions(&Tokenizer::bytes()).unwrap();
        let unclear = questions.iter().filter(|question| question.tags["namesakes"] > 0.0).count();
        assert!(unclear <= 4, "{unclear} of {}", questions.len());
        assert!(Phonebook::published(2).questions(&Tokenizer::bytes()).is_err());
    }

    #[test]
    fn training_texts_end_with_the_answer() {
        let books = TrainingBooks { documents: 60, entries: 3..=6, seed: 5 };
        let texts: Vec<String> = books.texts().unwrap().collect();
        assert_eq!(texts, books.texts().unwrap().collect::<Vec<_>>());
        let mut sizes = BTreeSet::new();
        for text in &texts {
            let (entries, examples, answer) = parts(text.strip_suffix('\n').unwrap());
            assert!(entries.contains(&answer) && examples.iter().all(|example| entries.contains(example)));
            sizes.insert(entries.len());
        }
        assert_eq!(sizes, BTreeSet::from([3, 4, 5, 6]));
        let other: Vec<String> = TrainingBooks { seed: 6, ..books.clone() }.texts().unwrap().collect();
        assert_ne!(texts, other);
        assert!(TrainingBooks { entries: 2..=6, ..books.clone() }.texts().is_err());
        #[expect(clippy::reversed_empty_ranges, reason = "what a user may write")]
        let reversed = TrainingBooks { entries: 6..=4, ..books };
        assert!(reversed.texts().is_err());
    }
}
