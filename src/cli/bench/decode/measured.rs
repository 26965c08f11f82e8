//! What `bench decode` measured: in memory, and in the JSON documents that it prints.

use crate::cli::usage;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What one batch of one model did.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Row {
    /// ARCH:DEPTH.
    pub model: String,
    /// Sequences at once.
    pub batch: usize,
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens generated for each sequence.
    pub new: usize,
    /// Reading the prompts and choosing the first tokens, seconds.
    pub first_token_s: f64,
    /// Of the steps after it, all sequences together; `None` where there were too few steps to time.
    pub tokens_per_s: Option<f64>,
    /// Mean milliseconds of a step.
    pub step_ms: Option<f64>,
    /// Bytes that a step reads and writes at least, mean over the steps.
    pub step_bytes: Option<f64>,
    /// Highest memory of tensors, GiB; `None` on a CPU.
    pub peak_gib: Option<f64>,
    /// The same as estimated: weights, what is kept of sequences, activations of a prompt's part.
    pub expected_gib: f64,
}

impl Row {
    /// The least milliseconds of a step: its bytes at the speed of a copy, TB/s.
    pub(super) fn floor_ms(&self, copy_tbps: Option<f64>) -> Option<f64> {
        copy_tbps.zip(self.step_bytes).map(|(copy, bytes)| bytes / copy / 1e9)
    }

    /// Seconds from the start of reading to the last token; `None` where no steps were timed.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.step_ms.map(|step| self.first_token_s + self.steps() * step / 1e3)
    }

    /// The least seconds of all steps; reading the prompts does not count.
    pub(super) fn floor_s(&self, copy_tbps: Option<f64>) -> Option<f64> {
        self.floor_ms(copy_tbps).map(|step| self.steps() * step / 1e3)
    }

    /// The first token comes from reading the prompt, each of the others from a step.
    fn steps(&self) -> f64 {
        self.new as f64 - 1.0
    }
}

/// Rows measured on one device.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub device: String,
    /// Bytes that a large copy reads and writes, TB/s; `None` on a CPU.
    pub copy_tbps: Option<f64>,
    pub rows: Vec<Row>,
}

/// What is needed of a document.
#[derive(Deserialize)]
struct Document {
    device: String,
    ceilings: CopySpeed,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct CopySpeed {
    copy_tbps: Option<f64>,
}

impl Measured {
    /// Reads a document that `bench decode --json` printed.
    ///
    /// # Errors
    /// One line that names the file: it cannot be read, is no such document, or has no rows.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display();
        let text = std::fs::read_to_string(file).map_err(|error| usage(format!("cannot read {name}: {error}")))?;
        let document: Document = serde_json::from_str(&text).map_err(|error| {
            usage(format!(
                "{name}: not a document of bench decode: {error}; hint: lossfloor bench decode --json > FILE"
            ))
        })?;
        if document.rows.is_empty() {
            return Err(usage(format!("{name}: it has no rows")));
        }
        Ok(Self { device: document.device, copy_tbps: document.ceilings.copy_tbps, rows: document.rows })
    }
}

#[cfg(test)]
pub(super) fn row(model: &str, batch: usize, prompt: usize, new: usize, first_token_s: f64, step_ms: f64) -> Row {
    let steps = new > 5;
    Row {
        model: model.to_owned(),
        batch,
        prompt,
        new,
        first_token_s,
        tokens_per_s: steps.then_some(1e3 * batch as f64 / step_ms),
        step_ms: steps.then_some(step_ms),
        step_bytes: steps.then_some(0.5e9 * step_ms),
        peak_gib: None,
        expected_gib: 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_bytes_at_the_speed_of_a_copy() {
        // 2 ms a step; half a gigabyte for each of them at 1 TB/s takes 1 ms.
        let one = row("sambay:16", 4, 2000, 1001, 0.25, 2.0);
        assert_eq!((one.floor_ms(Some(1.0)), one.floor_ms(None)), (Some(1.0), None));
        assert_eq!((one.seconds(), one.floor_s(Some(1.0))), (Some(2.25), Some(1.0)));
        let read = row("sambay:16", 4, 2000, 1, 0.25, 2.0);
        assert_eq!((read.seconds(), read.floor_s(Some(1.0))), (None, None));
    }

    #[test]
    fn what_is_no_document_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.json");
        let refused = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Measured::read(&file).unwrap_err().to_string()
        };
        let empty = r#"{"device": "cpu", "ceilings": {}, "rows": []}"#;
        assert!(refused(empty).ends_with("a.json: it has no rows"));
        let of_train = r#"{"device": "cpu", "ceilings": {}, "rows": [{"model": "sambay:8:8", "step_ms": 1.0}]}"#;
        for text in ["", "{", "[]", of_train] {
            let said = refused(text);
            assert!(said.contains("a.json: not a document of bench decode: ") && !said.contains('\n'), "{said}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(Measured::read(&file).unwrap_err().to_string().starts_with("cannot read "));
    }
}
