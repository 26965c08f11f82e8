//! What a safetensors file holds, by its header.

use super::ExchangeError;
use super::stored::{Contents, Element, Numbers, Stored};
use crate::files::ReadError;
use safetensors::tensor::{Metadata, TensorInfo};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the length that stands before a header.
const LENGTH_BYTES: u64 = 8;

/// The tensors of `file`, which is the one at place `index`, after checking its header against its length.
pub(super) fn read(path: &Path, file: &File, index: usize) -> Result<Contents, ExchangeError> {
    let refuse = |problem: String| ExchangeError::content(path, problem);
    let length = file.metadata().map_err(ReadError::of(path))?.len();
    let read = |bytes: &mut [u8], at: u64| file.read_exact_at(bytes, at).map_err(ReadError::of(path));
    let mut header_bytes = [0; LENGTH_BYTES as usize];
    if length < LENGTH_BYTES {
        return Err(refuse(format!("truncated: {length} bytes are no safetensors file")));
    }
    read(&mut header_bytes, 0)?;
    let header_bytes = u64::from_le_bytes(header_bytes);
    let Some(start) = header_bytes.checked_add(LENGTH_BYTES).filter(|&end| end <= length) else {
        let no_other = "or neither a safetensors file nor an archive of torch.save";
        return Err(refuse(format!("truncated, {no_other}: {length} bytes end within its header")));
    };
    let mut header = vec![0; header_bytes as usize];
    read(&mut header, LENGTH_BYTES)?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| {
        // The list of every dtype there is says less than the one that is not among them.
        let error = error.to_string();
        refuse(format!("not a safetensors header: {}", error.split(", expected").next().unwrap_or(&error)))
    })?;
    let end = start + header.data_len() as u64;
    if length != end {
        let word = if length < end { "truncated" } else { "damaged" };
        return Err(refuse(format!("{word}: it has {length} bytes, and its header tells of {end}")));
    }
    let stored = |info: &TensorInfo| Stored {
        file: index,
        numbers: numbers(info),
        shape: info.shape.clone(),
        start: start + info.data_offsets.0 as u64,
    };
    let tensors = header.tensors().into_iter().map(|(name, info)| (name, stored(info))).collect();
    Ok(Contents { tensors, metadata: header.metadata().clone().unwrap_or_default() })
}

fn numbers(info: &TensorInfo) -> Numbers {
    let known = [Element::F32, Element::Bf16, Element::F16].into_iter().find(|element| element.dtype() == info.dtype);
    known.map_or_else(|| Numbers::Other(format!("{:?}", info.dtype)), Numbers::Known)
}
