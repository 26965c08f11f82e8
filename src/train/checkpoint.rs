//! Checkpoints: parameters under their own names and the optimiser's moments beside them, in one safetensors file with
//! the position in the run as metadata. The order of data follows from the step, so nothing else is needed to go on.

use super::ranks::Ranks;
use super::{RECENT_STEPS, TrainError};
use crate::bridge::BridgeError;
use crate::files::WriteError;
use crate::runs::RunFolder;
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    pub run_id: String,
    /// Optimiser steps taken.
    pub step: u64,
    /// Seconds of training so far.
    pub wall_s: f64,
    /// Losses of the last steps, newest last.
    pub recent_losses: Vec<f64>,
}

impl Position {
    /// Gives every rank the leader's position in the run.
    pub fn share(&mut self, ranks: &Ranks, device: Device) -> Result<(), BridgeError> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let mut numbers = vec![self.step as f64, self.wall_s, self.recent_losses.len() as f64];
        numbers.extend(&self.recent_losses);
        numbers.resize(3 + RECENT_STEPS, 0.0);
        let shared = Tensor::from_slice(&numbers).to_device(device);
        ranks.copy_from_leader(&shared)?;
        let numbers = Vec::<f64>::try_from(shared.to_device(Device::Cpu)).expect("a flat tensor");
        self.step = numbers[0] as u64;
        self.wall_s = numbers[1];
        self.recent_losses = numbers[3..3 + numbers[2] as usize].to_vec();
        Ok(())
    }
}

/// A fp32 tensor that is copied to the CPU only when its turn to be written comes.
struct Streamed {
    tensor: Tensor,
    shape: Vec<usize>,
}

impl View for &Streamed {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        bytes.into()
    }
    fn data_len(&self) -> usize {
        4 * self.tensor.numel()
    }
}

/// Writes a checkpoint whole or not at all, then removes all but the newest `keep`.
pub fn save(run: &RunFolder, position: &Position, tensors: &[(String, Tensor)], keep: usize) -> Result<(), TrainError> {
    let folder = &run.checkpoints();
    let path = run.checkpoint(position.step);
    let views: Vec<(String, Streamed)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let shape = tensor.size().iter().map(|&n| n as usize).collect();
            (name.clone(), Streamed { tensor: tensor.detach().contiguous(), shape })
        })
        .collect();
    let position_text = serde_json::to_string(position).expect("a position serialises: plain fields");
    let metadata = HashMap::from([("position".to_owned(), position_text)]);
    let refused = |source| TrainError::Files(WriteError { path: path.clone(), source });
    std::fs::create_dir_all(folder).map_err(refused)?;
    remove_parts(folder);
    // The library writes to a path; the rename makes it whole or absent.
    let part = tempfile::Builder::new().prefix(".part-").tempfile_in(folder).map_err(refused)?.into_temp_path();
    safetensors::serialize_to_file(views.iter().map(|(name, view)| (name, view)), Some(metadata), &part).map_err(
        |error| {
            refused(match error {
                SafeTensorError::IoError(source) => source,
                other => std::io::Error::other(other),
            })
        },
    )?;
    std::fs::File::open(&part).and_then(|file| file.sync_all()).map_err(refused)?;
    part.persist(&path).map_err(|e| refused(e.error))?;
    let all = run.checkpoint_steps();
    for &old in &all[..all.len().saturating_sub(keep)] {
        // A file that stays costs space, no more.
        let _ = std::fs::remove_file(run.checkpoint(old));
    }
    Ok(())
}

/// Removes what a process that was killed while it wrote has left: it can be as large as a checkpoint.
fn remove_parts(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // `.part-` is ours, `.tmp` that of the library.
        if [".part-", ".tmp"].iter().any(|start| entry.file_name().to_string_lossy().starts_with(start)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A checkpoint in memory.
pub struct Checkpoint {
    pub path: PathBuf,
    pub position: Position,
    /// Parameters by name.
    pub params: HashMap<String, Tensor>,
    /// The optimiser's state by name.
    pub optimizer: HashMap<String, Tensor>,
}

/// The newest checkpoint of a run that can be read, and what is wrong with the newer ones. Where there are some and none
/// can be read, what is wrong with the newest.
pub fn latest(run: &RunFolder) -> Result<(Option<Checkpoint>, Vec<TrainError>), TrainError> {
    let mut passed_over = Vec::new();
    for step in run.checkpoint_steps().into_iter().rev() {
        match read(&run.checkpoint(step)) {
            Ok(checkpoint) => return Ok((Some(checkpoint), passed_over)),
            Err(error) => passed_over.push(error),
        }
    }
    if passed_over.is_empty() { Ok((None, passed_over)) } else { Err(passed_over.remove(0)) }
}

/// Reads a checkpoint.
pub fn read(path: &Path) -> Result<Checkpoint, TrainError> {
    let problem = |problem: String| TrainError::Checkpoint { path: path.to_owned(), problem };
    let bytes = std::fs::read(path).map_err(|e| problem(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| problem(e.to_string()))?;
    let position = header
        .metadata()
        .as_ref()
        .and_then(|metadata| serde_json::from_str(metadata.get("position")?).ok())
        .ok_or_else(|| problem("it does not say where its run stood".to_owned()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| problem(e.to_string()))?;
    let (mut params, mut optimizer) = (HashMap::new(), HashMap::new());
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(problem(format!("'{name}' has dtype {:?} where fp32 is expected", view.dtype())));
        }
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, Kind::Float).map_err(|e| problem(e.to_string()))?;
        let part = if name.starts_with("adamw.") { &mut optimizer } else { &mut params };
        part.insert(name.to_owned(), tensor);
    }
    Ok(Checkpoint { path: path.to_owned(), position, params, optimizer })
}
