//! Losses of validation rows: by length of context, by position, and of recalled values by distance.

use super::{EvaluateError, OnProgress, Subject};
use crate::data::{CorpusInfo, FloorTable, PackedDataset, TargetReader};
use crate::tasks::measurement::{CorpusRows, Row, row};
use crate::tasks::recall::{RecallRow, RecallTally, recalls};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// The validation data that was named, else that of the run.
fn data_of(subject: &Subject, settings: &CorpusRows) -> Result<PathBuf, EvaluateError> {
    settings.data.clone().or_else(|| subject.validation.clone()).ok_or(EvaluateError::NoData)
}

/// Rows of a corpus, [n, length + 1] ids each.
fn open_data(path: &Path, length: usize, subject: &Subject) -> Result<PackedDataset, EvaluateError> {
    Ok(PackedDataset::open(path, length, Some(subject.vocab_size as u64))?)
}

/// Mean loss of the first k contexts of rows, k = 1 to 4, and by position in ranges that double.
pub(super) fn loss(
    subject: &Subject,
    settings: &CorpusRows,
    batch: usize,
    progress: OnProgress,
) -> Result<Vec<Row>, EvaluateError> {
    const CONTEXTS: usize = 4;
    let path = data_of(subject, settings)?;
    let wanted = settings.length.map(|length| length as usize);
    let context = subject.context.unwrap_or_else(|| wanted.map_or(1024, |length| length.div_ceil(CONTEXTS)));
    let length = wanted.unwrap_or(CONTEXTS * context);
    let data = open_data(&path, length, subject)?;
    let rows = settings.rows.min(data.blocks()) as usize;
    let losses = row_losses(subject, &data, [rows, length], batch, progress)?;
    let floors = FloorTable::beside(&path)?;
    let floor = |positions: usize| -> Result<Value, EvaluateError> {
        let Some(table) = &floors else { return Ok(Value::Null) };
        let floor = table.floor_of_rows(positions, length + 1, 0, rows)?;
        Ok(if floor.exact { json!(floor.nats) } else { Value::Null })
    };
    let mut out = Vec::new();
    let mut lengths: Vec<usize> = (1..=CONTEXTS).map(|k| k * context).filter(|l| *l < length).collect();
    lengths.push(length);
    for to in lengths {
        out.push(loss_row("to", 0..to, &losses, floor(to)?));
    }
    let mut from = 0;
    while from < length {
        let to = (2 * from).max(64).min(length);
        out.push(loss_row("at", from..to, &losses, Value::Null));
        from = to;
    }
    Ok(out)
}

/// Mean of some positions' losses, with 1.96 standard errors between rows on either side.
fn loss_row(kind: &str, positions: Range<usize>, losses: &[Vec<f32>], floor: Value) -> Row {
    let count = positions.len();
    let means: Vec<f64> = losses
        .iter()
        .map(|row| row[positions.clone()].iter().map(|&loss| f64::from(loss)).sum::<f64>() / count as f64)
        .collect();
    let n = means.len() as f64;
    let value = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|mean| (mean - value).powi(2)).sum::<f64>() / (n - 1.0);
    let half = 1.96 * (variance / n).sqrt();
    let end = |end: f64| if half.is_finite() { json!(end) } else { Value::Null };
    row([
        ("positions", json!(kind)),
        ("from", json!(positions.start)),
        ("below", json!(positions.end)),
        ("value", json!(value)),
        ("low", end(value - half)),
        ("high", end(value + half)),
        ("n", json!(count * losses.len())),
        ("floor", floor),
    ])
}

/// Losses of every target of rows.
fn row_losses(
    subject: &Subject,
    data: &PackedDataset,
    [rows, length]: [usize; 2],
    batch: usize,
    progress: OnProgress,
) -> Result<Vec<Vec<f32>>, EvaluateError> {
    let mut losses = Vec::with_capacity(rows);
    for first in (0..rows).step_by(batch) {
        let count = batch.min(rows - first);
        let ids = data.rows(first as u64, count)?;
        let ids = Tensor::from_slice(&ids).view([count as i64, length as i64 + 1]).to_device(subject.lm.device());
        let (inputs, targets) = (ids.narrow(1, 0, length as i64), ids.narrow(1, 1, length as i64));
        let of_rows = tch::no_grad(|| subject.lm.token_losses(&inputs, &targets));
        losses.extend(Vec::<Vec<f32>>::try_from(of_rows.to_device(Device::Cpu).to_kind(Kind::Float))?);
        progress((first + count) as u64, rows as u64);
    }
    Ok(losses)
}

/// Losses of recalled values of the synthetic corpus, by distance.
pub(super) fn recall(
    subject: &Subject,
    settings: &CorpusRows,
    progress: OnProgress,
) -> Result<Vec<Row>, EvaluateError> {
    let path = data_of(subject, settings)?;
    let Some(reader) = TargetReader::beside(&path)? else { return Err(EvaluateError::NotSynthetic(path)) };
    let of_corpus = CorpusInfo::beside(&path)?.and_then(|info| info.validation_row_tokens).map(|tokens| tokens - 1);
    let length = settings.length.or(of_corpus).ok_or(EvaluateError::NoLength)? as usize;
    let data = open_data(&path, length, subject)?;
    let rows = settings.rows.min(data.blocks());
    let mut tally = RecallTally::default();
    for index in 0..rows {
        let ids = data.rows(index, 1)?;
        let (losses, hits) = losses_and_hits(subject, &ids)?;
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        for recall in recalls(&reader.targets(&ids)?) {
            tally.add(&recall, &losses, &hits);
        }
        progress(index + 1, rows);
    }
    let without = reader.nats_without_recall();
    Ok(tally.rows().into_iter().map(|found| recall_row(&found, without)).collect())
}

/// The loss of every target of one row, and whether it was the likeliest token.
fn losses_and_hits(subject: &Subject, ids: &[i64]) -> Result<(Vec<f32>, Vec<bool>), EvaluateError> {
    let row = Tensor::from_slice(ids).unsqueeze(0).to_device(subject.lm.device());
    let length = ids.len() as i64 - 1;
    let (inputs, targets) = (row.narrow(1, 0, length), row.narrow(1, 1, length));
    tch::no_grad(|| {
        let logits = subject.lm.forward(&inputs);
        let losses = -logits.log_softmax(-1, Kind::Float).gather(2, &targets.unsqueeze(2), false).view([-1]);
        let hits = logits.argmax(-1, false).eq_tensor(&targets).view([-1]);
        Ok((Vec::try_from(losses.to_device(Device::Cpu))?, Vec::try_from(hits.to_device(Device::Cpu))?))
    })
}

/// `without` is what a value costs that is not recalled.
fn recall_row(found: &RecallRow, without: f64) -> Row {
    row([
        ("from", json!(found.from)),
        ("below", json!(found.below)),
        ("value", json!(found.value)),
        ("low", json!(found.low)),
        ("high", json!(found.high)),
        ("n", json!(found.n)),
        ("floor", json!(0.0)),
        ("without_recall", json!(without)),
        ("exact", json!(found.exact)),
        ("exact_low", json!(found.exact_interval.0)),
        ("exact_high", json!(found.exact_interval.1)),
        ("key_loss", json!(found.key_loss)),
        ("key_floor", json!(found.key_floor)),
    ])
}
