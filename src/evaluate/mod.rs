//! What a model does with its context, measured: a [`Measurement`] of a [`Subject`] gives rows of results.

mod losses;
mod questions;

use crate::data::{DataError, Tokenizer};
use crate::decode::AnswerError;
use crate::nn::DecoderLm;
use crate::tasks::measurement::{Measurement, Row};
use std::path::PathBuf;

/// A model that is measured, and what it was trained on.
pub struct Subject {
    /// The model, ready on its device.
    pub lm: DecoderLm,
    /// Rows of its embedding.
    pub vocab_size: usize,
    /// Tokens of a row that it was trained on, where that is known.
    pub context: Option<usize>,
    /// The tokenizer of its text, where there is one.
    pub tokenizer: Option<Tokenizer>,
    /// Validation shards of its run, where it has one.
    pub validation: Option<PathBuf>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The settings measure nothing.
    #[error("{0}")]
    Settings(String),
    /// No data are named, and the model lies in no run's folder.
    #[error("the model lies in no run's folder; hint: name data with --data PATH")]
    NoData,
    /// Recalls are known in synthetic corpora only.
    #[error("{0} is not of a synthetic corpus, whose recalls are known")]
    NotSynthetic(PathBuf),
    /// The corpus leaves the length of rows open.
    #[error("the corpus does not say how long its rows are; hint: name the length")]
    NoLength,
    /// Questions need a tokenizer.
    #[error("the model has no tokenizer; hint: name one with --tokenizer FILE or --tokenizer bytes")]
    NoTokenizer,
    /// A prompt has a token that the model has no row for.
    #[error("a prompt: token {id} is unknown to the model, whose vocabulary has {rows}")]
    UnknownToken {
        /// The token.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model's device failed.
    #[error(transparent)]
    Bridge(#[from] crate::bridge::BridgeError),
    /// LibTorch refused an operation.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

impl From<AnswerError> for EvaluateError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Bridge(error) => error.into(),
            AnswerError::Data(error) => error.into(),
        }
    }
}

impl EvaluateError {
    /// Whether other input would help; else the machine is at fault.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Data(error) => error.is_input(),
            Self::Bridge(_) | Self::Torch(_) => false,
            _ => true,
        }
    }
}

/// Told how much is done, of how much.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, u64);

/// Measures, `batch` sequences at a time; the order of rows follows from the settings.
///
/// # Panics
/// As operations of LibTorch do, when memory is too small for instance.
pub fn evaluate(
    subject: Subject,
    measurement: &Measurement,
    batch: usize,
    progress: OnProgress,
) -> Result<Vec<Row>, EvaluateError> {
    measurement.check().map_err(EvaluateError::Settings)?;
    match measurement {
        Measurement::Loss(settings) => losses::loss(&subject, settings, batch, progress),
        Measurement::Recall(settings) => losses::recall(&subject, settings, progress),
        Measurement::Phonebook(_) | Measurement::Niah(_) => questions::questions(subject, measurement, batch, progress),
    }
}
