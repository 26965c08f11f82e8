//! Needles in a haystack: sentences that give numbers to keys, inside a long text, and a question for some of them. The
//! sentences are those of RULER (Hsieh et al. 2024, arXiv 2404.06654); depth and length are a grid instead of chance.

use super::draw::Draw;
use super::words::Words;
use super::{Question, Scoring};
use crate::data::{DataError, Tokenizer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What RULER's simplest haystack repeats.
const FILLER: &str = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
/// Digits of a number.
const DIGITS: usize = 7;
/// Pieces of haystack from which their mean length is estimated.
const PROBE: usize = 16;
/// Keys, and values of a key, at most.
const MOST: usize = 64;

/// What the needles lie in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Haystack {
    /// Five sentences, again and again, a line each time (RULER's S-1).
    Filler,
    /// Somebody's text, sentence by sentence, from its beginning and as often as needed (S-2, with essays).
    Text(String),
    /// Needles of keys that nobody asks for (MK-2).
    Needles,
}

/// A grid of questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Needles {
    /// What the needles lie in.
    pub haystack: Haystack,
    /// Keys that have values: 1 to 64.
    pub keys: usize,
    /// Values of each key, a sentence each: 1 to 64.
    pub values: usize,
    /// Keys that are asked for; every value of these counts.
    pub asked: usize,
    /// Lengths in tokens, of prompt and answer together.
    pub lengths: Vec<usize>,
    /// Where the first value of the first key asked for lies: 0 is the beginning of the haystack, 1 its end. Other
    /// needles lie anywhere.
    pub depths: Vec<f64>,
    /// Questions of each length and depth.
    pub repeats: usize,
    /// Tokens of the answer at most.
    pub most_new_tokens: usize,
    /// Each question is a pure function of the seed, its length, and the numbers of its depth and repeat.
    pub seed: u64,
}

impl Needles {
    /// One needle in filler: one length, eleven depths, RULER's 128 tokens for the answer.
    pub fn single(length: usize) -> Self {
        Self {
            haystack: Haystack::Filler,
            keys: 1,
            values: 1,
            asked: 1,
            lengths: vec![length],
            depths: (0..=10).map(|tenth| f64::from(tenth) / 10.0).collect(),
            repeats: 1,
            most_new_tokens: 128,
            seed: 42,
        }
    }

    /// All questions, by length, then depth. Each prompt is the longest that, with the answer, fits into its length.
    ///
    /// Tags: `length`, `depth`, `needles` (sentences that give values to keys, haystack apart) and `distance` (tokens
    /// from the beginning of the needle at `depth` to the end of the prompt).
    pub fn questions(&self, tokenizer: &Tokenizer) -> Result<Vec<Question>, DataError> {
        self.check()?;
        let (words, pieces) = (Words::new(), self.pieces()?);
        let mut questions = Vec::with_capacity(self.lengths.len() * self.depths.len() * self.repeats);
        for &length in &self.lengths {
            for (at, &depth) in self.depths.iter().enumerate() {
                for repeat in 0..self.repeats {
                    let cell = (length as u64) << 32 | (at as u64) << 20 | repeat as u64;
                    let puzzle = Puzzle::draw(self, &words, &pieces, depth, [self.seed, cell]);
                    questions.push(puzzle.question(tokenizer, length, depth)?);
                }
            }
        }
        Ok(questions)
    }

    /// Refuses numbers that make no question.
    pub(super) fn check(&self) -> Result<(), DataError> {
        let refuse = |name, value: String, expected: String| Err(DataError::Parameter { name, value, expected });
        for (name, number) in [("keys", self.keys), ("values", self.values)] {
            if !(1..=MOST).contains(&number) {
                return refuse(name, number.to_string(), format!("1 to {MOST}"));
            }
        }
        if !(1..=self.keys).contains(&self.asked) {
            return refuse("asked", self.asked.to_string(), format!("1 to {}, the number of keys", self.keys));
        }
        if let Some(depth) = self.depths.iter().find(|depth| !(0.0..=1.0).contains(*depth)) {
            return refuse("depth", depth.to_string(), "0 to 1".to_owned());
        }
        Ok(())
    }

    /// The pieces that the haystack repeats; none where it is made of needles.
    fn pieces(&self) -> Result<Vec<String>, DataError> {
        match &self.haystack {
            Haystack::Filler => Ok(vec![FILLER.to_owned()]),
            Haystack::Needles => Ok(Vec::new()),
            Haystack::Text(text) => {
                let sentences = sentences(text);
                if sentences.is_empty() {
                    let expected = "text with at least one word".to_owned();
                    return Err(DataError::Parameter { name: "haystack", value: "blank text".to_owned(), expected });
                }
                Ok(sentences)
            }
        }
    }
}

/// The sentences of a text, blanks and line ends as single spaces: a word that ends in `.`, `!` or `?`, perhaps in
/// quotes or brackets, ends one.
fn sentences(text: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    for word in text.split_whitespace() {
        let sentence = sentences.last_mut().expect("there is always one");
        if !sentence.is_empty() {
            sentence.push(' ');
        }
        sentence.push_str(word);
        if word.trim_end_matches(['"', '\'', ')', ']', '”', '’']).ends_with(['.', '!', '?']) {
            sentences.push(String::new());
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

fn needle(key: &str, value: &str) -> String {
    format!("One of the special magic numbers for {key} is: {value}.")
}

/// One question before its haystack has a length.
#[derive(Debug)]
struct Puzzle<'a> {
    task: &'a Needles,
    words: &'a Words,
    pieces: &'a [String],
    /// The keys, those asked for first.
    keys: Vec<String>,
    /// Each needle, the values of a key together, and the share of the haystack before it.
    needles: Vec<(String, f64)>,
    expected: Vec<String>,
    identity: [u64; 2],
}

impl<'a> Puzzle<'a> {
    fn draw(task: &'a Needles, words: &'a Words, pieces: &'a [String], depth: f64, identity: [u64; 2]) -> Self {
        let mut draw = Draw::new(*b"needles?", [identity[0], identity[1], 0]);
        let mut keys = Vec::new();
        for _ in 0..task.keys {
            keys.push(words.draw(&keys, &mut draw));
        }
        let (mut needles, mut values) = (Vec::new(), Vec::<String>::new());
        for key in &keys {
            for _ in 0..task.values {
                let value = std::iter::repeat_with(|| draw.number(1, DIGITS)).find(|value| !values.contains(value));
                let value = value.expect("the draws never end");
                let place = if needles.is_empty() { depth } else { draw.below(1 << 20) as f64 / f64::from(1 << 20) };
                needles.push((needle(key, &value), place));
                values.push(value);
            }
        }
        values.truncate(task.asked * task.values);
        Self { task, words, pieces, keys, needles, expected: values, identity }
    }

    /// Piece `index` of the haystack.
    fn piece(&self, index: usize) -> Cow<'a, str> {
        match self.pieces.get(index % self.pieces.len().max(1)) {
            Some(piece) => Cow::Borrowed(piece),
            None => {
                let mut draw = Draw::new(*b"needles!", [self.identity[0], self.identity[1], index as u64]);
                let key = self.words.draw(&self.keys, &mut draw);
                Cow::Owned(needle(&key, &draw.number(1, DIGITS)))
            }
        }
    }

    /// The haystack of so many pieces, needles among them.
    fn context(&self, pieces: usize) -> String {
        let mut needles: Vec<(usize, &str)> = self
            .needles
            .iter()
            .map(|(needle, place)| ((place * pieces as f64).round() as usize, needle.as_str()))
            .collect();
        needles.sort_by_key(|(before, _)| *before);
        let mut needles = needles.into_iter().peekable();
        let mut parts = Vec::with_capacity(pieces + self.needles.len());
        for index in 0..=pieces {
            while let Some((_, needle)) = needles.next_if(|(before, _)| *before == index) {
                parts.push(Cow::Borrowed(needle));
            }
            if index < pieces {
                parts.push(self.piece(index));
            }
        }
        parts.join(if matches!(self.task.haystack, Haystack::Text(_)) { " " } else { "\n" })
    }

    fn prompt(&self, pieces: usize) -> String {
        let context = self.context(pieces);
        let asked = match self.keys[..self.task.asked].split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{}, and {last}", others.join(", ")),
            None => String::new(),
        };
        let ([article, be], [numbers, all]) = match self.expected.len() {
            1 => (["A", "is"], ["number", "is"]),
            _ => (["Some", "are"], ["numbers", "are all"]),
        };
        format!(
            "{article} special magic {numbers} {be} hidden within the following text. Make sure to memorize it. I will \
             quiz you about the {numbers} afterwards.\n{context}\nWhat {all} the special magic {numbers} for {asked} \
             mentioned in the provided text? The special magic {numbers} for {asked} mentioned in the provided text {be}"
        )
    }

    /// The largest number of pieces that fit into `room` tokens.
    fn fitting(&self, tokenizer: &Tokenizer, room: usize) -> Result<Option<usize>, DataError> {
        let count = |pieces| Ok::<usize, DataError>(tokenizer.encode(&self.prompt(pieces))?.len());
        let bare = count(0)?;
        if bare > room {
            return Ok(None);
        }
        let each = (count(PROBE)? as f64 - bare as f64) / PROBE as f64;
        // From the estimate, steps that double lead to one that fits and one that does not.
        let guess = ((room - bare) as f64 / each.max(0.1)) as usize;
        let (mut fits, mut exceeds, mut step) = (0, None, 1);
        let mut next = guess.max(1);
        while exceeds.is_none() || fits == 0 && exceeds.is_some_and(|exceeds| exceeds > 1) {
            if count(next)? <= room {
                fits = next;
                next += step;
            } else {
                exceeds = Some(next);
                next = next.saturating_sub(step).max(1);
            }
            step *= 2;
        }
        let mut exceeds = exceeds.unwrap_or(fits + 1);
        while exceeds - fits > 1 {
            let middle = fits + (exceeds - fits) / 2;
            if count(middle)? <= room { fits = middle } else { exceeds = middle }
        }
        Ok(Some(fits))
    }

    fn question(&self, tokenizer: &Tokenizer, length: usize, depth: f64) -> Result<Question, DataError> {
        let room = length.saturating_sub(self.task.most_new_tokens);
        let pieces = self.fitting(tokenizer, room)?.ok_or_else(|| DataError::Parameter {
            name: "length",
            value: length.to_string(),
            expected: "room for the question and its answer".to_owned(),
        })?;
        let text = self.prompt(pieces);
        let from = text.find(&self.needles[0].0).expect("the prompt holds its needles");
        let tags = BTreeMap::from([
            ("length", length as f64),
            ("depth", depth),
            ("needles", self.needles.len() as f64),
            ("distance", tokenizer.encode(&text[from..])?.len() as f64),
        ]);
        Ok(Question {
            prompt: tokenizer.encode(&text)?,
            expected: self.expected.clone(),
            most_new_tokens: self.task.most_new_tokens,
            scoring: Scoring::Occurrences,
            tags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(task: &Needles) -> Vec<(Question, String)> {
        let tokenizer = Tokenizer::bytes();
        let questions = task.questions(&tokenizer).unwrap();
        questions.into_iter().map(|q| (q.clone(), tokenizer.decode(&q.prompt).unwrap())).collect()
    }

    #[test]
    fn one_needle_lies_at_its_depth_in_a_prompt_of_the_length_asked_for() {
        let task = Needles { lengths: vec![1000, 6000], repeats: 2, ..Needles::single(0) };
        let all = texts(&task);
        assert_eq!(all.len(), 2 * 11 * 2);
        for (question, text) in &all {
            let lines: Vec<&str> = text.split('\n').collect();
            let (context, last) = (&lines[1..lines.len() - 1], lines[lines.len() - 1]);
            let at = context.iter().position(|line| *line != FILLER).unwrap();
            let key = context[at].split(' ').nth(7).unwrap();
            assert_eq!(context[at], needle(key, &question.expected[0]));
            assert_eq!(context.iter().filter(|line| **line == FILLER).count(), context.len() - 1);
            let depth = at as f64 / (context.len() - 1) as f64;
            assert!((depth - question.tags["depth"]).abs() * (context.len() - 1) as f64 <= 1.0, "{depth}");
            let number = &question.expected[0];
            assert!(number.len() == 7 && !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit()));
            assert_eq!(
                lines[0],
                "A special magic number is hidden within the following text. Make sure to memorize it. \
                 I will quiz you about the number afterwards."
            );
            let priming = format!("The special magic number for {key} mentioned in the provided text is");
            assert_eq!(
                last,
                format!("What is the special magic number for {key} mentioned in the provided text? {priming}")
            );
            let (length, used) = (question.tags["length"] as usize, question.prompt.len() + question.most_new_tokens);
            assert!(used <= length && used + FILLER.len() + 1 > length, "{used} of {length}");
            let from = text.find(context[at]).unwrap();
            assert_eq!(question.tags["distance"], (text.len() - from) as f64);
            assert_eq!(question.score(&format!(" {number}.")), 1.0);
        }
        assert_eq!(all, texts(&task));
        let other = texts(&Needles { seed: 1, ..task });
        assert!(all.iter().zip(&other).all(|(a, b)| a.0.expected != b.0.expected));
    }

    #[test]
    fn many_needles_are_all_there_and_those_asked_for_count() {
        let task = Needles { keys: 4, values: 2, asked: 3, depths: vec![0.0, 0.5], ..Needles::single(3000) };
        for (question, text) in texts(&task) {
            assert_eq!((text.matches("One of the special").count(), question.expected.len()), (8, 6));
            assert!(text.starts_with("Some special magic numbers are hidden within"));
            let asked = text.rsplit("numbers for ").next().unwrap();
            let keys: Vec<&str> =
                asked.strip_suffix(" mentioned in the provided text are").unwrap().split(", ").collect();
            assert_eq!((keys.len(), keys[2].starts_with("and ")), (3, true), "{asked}");
            for (index, number) in question.expected.iter().enumerate() {
                let key = keys[index / 2].trim_start_matches("and ");
                assert!(text.contains(&needle(key, number)), "{key} {number}");
            }
            assert_eq!(question.score(&question.expected[..3].join(" ")), 0.5);
        }
    }

    #[test]
    fn text_is_cut_into_sentences_and_repeated() {
        let text = "He said:\n  \"Go on!\" Then\tnothing. Was it 3.5 or (so?)  Yes";
        assert_eq!(sentences(text), ["He said: \"Go on!\"", "Then nothing.", "Was it 3.5 or (so?)", "Yes"]);
        let task =
            Needles { haystack: Haystack::Text(text.to_owned()), depths: vec![0.0, 1.0], ..Needles::single(2000) };
        let all = texts(&task);
        let contexts: Vec<&str> = all.iter().map(|(_, text)| text.split('\n').nth(1).unwrap()).collect();
        assert!(
            contexts[0].starts_with("One of the special") && contexts[0].contains("or (so?) Yes He said: \"Go on!\"")
        );
        let end = format!(" is: {}.", all[1].0.expected[0]);
        assert!(contexts[1].starts_with("He said:") && contexts[1].ends_with(&end));
        let blank = Needles { haystack: Haystack::Text(" \n".to_owned()), ..task };
        assert!(blank.questions(&Tokenizer::bytes()).is_err());
    }

    #[test]
    fn a_haystack_of_needles_asks_for_none_of_its_own() {
        let task = Needles { haystack: Haystack::Needles, depths: vec![0.3], ..Needles::single(4000) };
        let (question, text) = texts(&task).remove(0);
        let key = text.rsplit("number for ").next().unwrap().split(' ').next().unwrap();
        assert!(text.matches("One of the special").count() > 40);
        assert_eq!(text.matches(&format!("numbers for {key} is")).count(), 1);
        assert!(text.contains(&needle(key, &question.expected[0])));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let single = Needles::single(2000);
        let wrong = [
            Needles { keys: 0, ..single.clone() },
            Needles { values: 65, ..single.clone() },
            Needles { asked: 2, ..single.clone() },
            Needles { depths: vec![1.5], ..single.clone() },
            Needles { lengths: vec![300], ..single },
        ];
        let said: Vec<String> =
            wrong.iter().map(|task| task.questions(&Tokenizer::bytes()).unwrap_err().to_string()).collect();
        for (said, name) in said.iter().zip(["keys", "values", "asked", "depth", "length"]) {
            assert!(said.starts_with(name), "{said}");
        }
    }
}
