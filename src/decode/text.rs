//! The text of a sequence whose tokens come one by one.

use crate::data::{DataError, TextStream, Tokenizer};

/// Text so far, until the token that ends a document.
pub struct GrowingText<'a> {
    tokenizer: &'a Tokenizer,
    stream: TextStream<'a>,
    text: String,
}

impl<'a> GrowingText<'a> {
    /// No text yet.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, stream: tokenizer.stream(), text: String::new() }
    }

    /// Takes in a token; whether it ended the document, which adds no text.
    pub fn push(&mut self, token: i64) -> Result<bool, DataError> {
        let token = token as u32;
        if token == self.tokenizer.eos() {
            return Ok(true);
        }
        // Rows of a vocabulary that is padded have no text.
        if u64::from(token) < self.tokenizer.vocab_size() {
            self.text += &self.stream.push(token)?;
        }
        Ok(false)
    }

    /// What is certain: of a character that is not complete, nothing.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes off everything from byte `at` on.
    pub fn truncate(&mut self, at: usize) {
        self.text.truncate(at);
    }

    /// What is certain, as text of its own.
    pub fn into_text(self) -> String {
        self.text
    }

    /// All of it, what was held back included.
    pub fn finish(self) -> Result<String, DataError> {
        Ok(self.text + &self.stream.finish()?)
    }
}
