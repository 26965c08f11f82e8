//! Questions answered and scored.

use super::{EvaluateError, OnProgress, Subject};
use crate::decode::{Generator, Sampling, scores};
use crate::tasks::measurement::{Measurement, Row, rows_of};
use crate::tasks::{Question, summaries};

/// Answers the questions of a task, greedily, and counts them by its tags.
pub(super) fn questions(
    subject: Subject,
    measurement: &Measurement,
    batch: usize,
    progress: OnProgress,
) -> Result<Vec<Row>, EvaluateError> {
    let tokenizer = subject.tokenizer.as_ref().ok_or(EvaluateError::NoTokenizer)?;
    let questions = measurement.questions(tokenizer)?;
    let rows = subject.vocab_size;
    let unknown = questions.iter().flat_map(|question| &question.prompt).find(|id| **id as usize >= rows);
    if let Some(&id) = unknown {
        return Err(EvaluateError::UnknownToken { id, rows });
    }
    let longest = questions.iter().map(|question| question.prompt.len() + question.most_new_tokens).max();
    let Some(capacity) = longest else { return Ok(Vec::new()) };
    let total = questions.len() as u64;
    let mut generator = Generator::new(subject.lm, questions.len().min(batch), capacity, Sampling::GREEDY);
    let scores = scores(&mut generator, &questions, tokenizer, |done| progress(done as u64, total))?;
    let scored: Vec<(Question, f64)> = questions.into_iter().zip(scores).collect();
    Ok(rows_of(summaries(&scored, measurement.by()), measurement.by()))
}
