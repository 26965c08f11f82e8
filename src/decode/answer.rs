//! Questions put to a model: batches of prompts, greedy tokens, text that ends where its score is certain.

use super::{Generator, GrowingText};
use crate::bridge::BridgeError;
use crate::data::{DataError, Tokenizer};
use crate::tasks::Question;

/// Why questions have no answers.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Data(#[from] DataError),
}

/// The answer to one question as it grows.
struct Answer<'a> {
    text: GrowingText<'a>,
    ended: bool,
}

impl Answer<'_> {
    fn take(&mut self, token: i64, question: &Question) -> Result<(), DataError> {
        self.ended = self.ended || self.text.push(token)? || question.is_answered(self.text.text());
        Ok(())
    }

    fn finish(self) -> Result<String, DataError> {
        if self.ended { Ok(self.text.into_text()) } else { self.text.finish() }
    }
}

/// The scores of `questions`, as many at a time as `generator` has sequences, whose capacity must hold every prompt and
/// its answer; `progress` is told how many are done.
pub fn scores(
    generator: &mut Generator,
    questions: &[Question],
    tokenizer: &Tokenizer,
    mut progress: impl FnMut(usize),
) -> Result<Vec<f64>, AnswerError> {
    let mut scores = Vec::with_capacity(questions.len());
    for batch in questions.chunks(generator.sequences()) {
        // The last batch is filled up with its first question.
        let ids = |question: &Question| question.prompt.iter().map(|&id| i64::from(id)).collect::<Vec<_>>();
        let mut prompts: Vec<Vec<i64>> = batch.iter().map(ids).collect();
        prompts.resize_with(generator.sequences(), || ids(&batch[0]));
        generator.read(&prompts);
        let mut answers: Vec<Answer> =
            batch.iter().map(|_| Answer { text: GrowingText::new(tokenizer), ended: false }).collect();
        let most = batch.iter().map(|question| question.most_new_tokens).max().unwrap_or(0);
        for step in 0..most {
            let tokens = generator.tokens_since(step);
            for ((answer, question), tokens) in answers.iter_mut().zip(batch).zip(&tokens) {
                if step < question.most_new_tokens {
                    answer.take(tokens[0], question)?;
                }
            }
            if step + 1 == most || answers.iter().all(|answer| answer.ended) {
                break;
            }
            generator.step()?;
        }
        for (answer, question) in answers.into_iter().zip(batch) {
            scores.push(question.score(&answer.finish()?));
        }
        progress(scores.len());
    }
    Ok(scores)
}
