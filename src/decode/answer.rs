//! Questions put to a model: batches of prompts, greedy tokens, text that ends where its score is certain.

use super::Generator;
use crate::bridge::BridgeError;
use crate::data::{DataError, TextStream, Tokenizer};
use crate::tasks::Question;

/// Why questions have no answers.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Text of one sequence as it grows.
struct Answer<'a> {
    stream: TextStream<'a>,
    text: String,
    ended: bool,
}

impl<'a> Answer<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { stream: tokenizer.stream(), text: String::new(), ended: false }
    }

    fn take(&mut self, token: i64, question: &Question, tokenizer: &Tokenizer) -> Result<(), DataError> {
        let token = token as u32;
        if self.ended || token == tokenizer.eos() {
            self.ended = true;
            return Ok(());
        }
        // Rows of a vocabulary that is padded have no text.
        if u64::from(token) < tokenizer.vocab_size() {
            self.text += &self.stream.push(token)?;
        }
        self.ended = question.is_answered(&self.text);
        Ok(())
    }

    fn finish(self) -> Result<String, DataError> {
        Ok(if self.ended { self.text } else { self.text + &self.stream.finish()? })
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
        let mut answers: Vec<Answer> = batch.iter().map(|_| Answer::new(tokenizer)).collect();
        let most = batch.iter().map(|question| question.most_new_tokens).max().unwrap_or(0);
        for step in 0..most {
            let tokens = generator.tokens_since(step);
            for ((answer, question), tokens) in answers.iter_mut().zip(batch).zip(&tokens) {
                if step < question.most_new_tokens {
                    answer.take(tokens[0], question, tokenizer)?;
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
