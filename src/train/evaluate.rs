//! Validation loss over fixed rows, by context length.

use super::TrainError;
use super::ranks::Ranks;
use crate::config::RunConfig;
use crate::data::{FloorTable, PackedDataset};
use crate::nn::DecoderLm;
use tch::{Device, Kind, Tensor};

/// Validation of one model.
#[derive(Clone, Debug)]
pub struct Validation {
    /// Mean cross-entropy over the first k x context positions of every row, k = 1, 2, ..; nats per token.
    pub loss_at: Vec<f64>,
    /// Standard error of the first of these, from the spread of rows.
    pub standard_error: f64,
    /// Target tokens of the first.
    pub tokens: u64,
    /// Irreducible loss of exactly these targets, where the corpus knows it.
    pub floor: Option<f64>,
}

/// The validation corpus in rows of `validation_contexts` x context tokens. Opened before training: data that cannot be
/// used must not show at the end of it.
pub fn open_validation(run: &RunConfig) -> Result<PackedDataset, TrainError> {
    let length = run.seq_len * run.validation_contexts;
    Ok(PackedDataset::open(&run.val_data, length, Some(run.model.shape.vocab_size as u64))?)
}

/// Evaluates on the first rows of the validation corpus: the same rows for every run. All ranks call it; each looks at
/// its share of the rows.
pub fn evaluate(
    lm: &DecoderLm,
    run: &RunConfig,
    dataset: &PackedDataset,
    device: Device,
    ranks: &Ranks,
) -> Result<Validation, TrainError> {
    let length = run.seq_len * run.validation_contexts;
    let rows = (run.validation_rows as u64).min(dataset.blocks()) as usize;
    let at_once = (run.exec.micro_batch / run.validation_contexts).max(1);
    let share = ranks.share(rows);
    // Zero in the rows of other ranks, so that the sum over ranks has all.
    let means = Tensor::zeros([run.validation_contexts as i64, rows as i64], (Kind::Double, device));
    for first in share.clone().step_by(at_once) {
        let count = at_once.min(share.end - first);
        let ids = dataset.rows(first as u64, count)?;
        let ids = Tensor::from_slice(&ids).reshape([count as i64, length as i64 + 1]).to_device(device);
        let losses =
            tch::no_grad(|| lm.token_losses(&ids.narrow(1, 0, length as i64), &ids.narrow(1, 1, length as i64)));
        for k in 0..run.validation_contexts {
            let mean =
                losses.narrow(1, 0, ((k + 1) * run.seq_len) as i64).mean_dim([1i64].as_slice(), false, Kind::Double);
            means.get(k as i64).narrow(0, first as i64, count as i64).copy_(&mean);
        }
    }
    ranks.sum(&means)?;
    let row_means: Vec<Vec<f64>> =
        Vec::<Vec<f64>>::try_from(means.to_device(Device::Cpu)).expect("a row for each length of context");
    let loss_at: Vec<f64> = row_means.iter().map(|means| means.iter().sum::<f64>() / rows as f64).collect();
    let variance = row_means[0].iter().map(|m| (m - loss_at[0]).powi(2)).sum::<f64>() / (rows.max(2) - 1) as f64;
    let floor = match FloorTable::beside(&run.val_data)? {
        Some(table) => {
            let floor = table.floor_of_rows(run.seq_len, length + 1, 0, rows)?;
            floor.exact.then_some(floor.nats)
        }
        None => None,
    };
    Ok(Validation {
        standard_error: (variance / rows as f64).sqrt(),
        tokens: (rows * run.seq_len) as u64,
        loss_at,
        floor,
    })
}
