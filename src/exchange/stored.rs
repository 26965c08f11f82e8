//! Tensors in safetensors files: what there is, and rows of it read where they lie.

use super::ExchangeError;
use crate::files::ReadError;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The file of a model in one piece.
pub(super) const SINGLE: &str = "model.safetensors";
/// What says in which shard a tensor lies.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Bytes of the length that stands before a header.
const LENGTH_BYTES: u64 = 8;

/// How a number is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Element {
    /// 32 bits.
    #[serde(rename = "fp32")]
    F32,
    /// The upper 16 bits of fp32.
    #[serde(rename = "bf16")]
    Bf16,
    /// IEEE half precision.
    #[serde(rename = "fp16")]
    F16,
}

impl Element {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// As Hugging Face writes it.
    pub(super) fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    fn of(dtype: Dtype) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|element| element.dtype() == dtype)
    }

    /// The numbers that `bytes` hold, exactly.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = || bytes.as_chunks::<2>().0.iter();
        match self {
            Self::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Self::Bf16 => pairs().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            Self::F16 => pairs().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        }
    }

    /// The bytes of `bytes`, which hold numbers of this kind, as numbers of another: to the nearest, ties to even.
    pub(super) fn convert(self, bytes: Vec<u8>, to: Self) -> Vec<u8> {
        if self == to {
            return bytes;
        }
        let values = self.decode(&bytes);
        match to {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        }
    }
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    file: usize,
    dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// First byte in its file.
    start: u64,
}

/// The tensors of one or more files.
#[derive(Debug)]
pub(super) struct StoredTensors {
    /// What was opened: a file or an index.
    pub(super) path: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, Stored>,
    /// What the (last) file says beside its tensors.
    pub(super) metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl StoredTensors {
    /// The tensors at `path`: a safetensors file, an index, or a folder with one of the two under its usual name.
    pub(super) fn open(path: &Path) -> Result<Self, ExchangeError> {
        if path.is_dir() {
            let named = [INDEX, SINGLE].map(|name| path.join(name)).into_iter().find(|file| file.exists());
            let missing = || ExchangeError::content(path, format!("it holds neither {SINGLE} nor {INDEX}"));
            return Self::open(&named.ok_or_else(missing)?);
        }
        if path.extension().is_some_and(|extension| extension == "json") {
            return Self::open_index(path);
        }
        let mut tensors = Self::empty(path);
        tensors.add_file(path)?;
        Ok(tensors)
    }

    fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new(), metadata: HashMap::new() }
    }

    fn open_index(path: &Path) -> Result<Self, ExchangeError> {
        let text = std::fs::read(path).map_err(ReadError::of(path))?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|e| ExchangeError::content(path, format!("not an index of shards: {e}")))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut tensors = Self::empty(path);
        for shard in index.weight_map.values().collect::<BTreeSet<_>>() {
            if Path::new(shard).file_name() != Some(shard.as_ref()) {
                return Err(ExchangeError::content(path, format!("'{shard}' is no file name")));
            }
            let file = folder.join(shard);
            if !file.exists() {
                return Err(ExchangeError::MissingShard { index: path.to_owned(), shard: shard.clone() });
            }
            tensors.add_file(&file)?;
        }
        for (name, shard) in &index.weight_map {
            let holds = |stored: &Stored| tensors.files[stored.file].0.ends_with(shard);
            if !tensors.tensors.get(name).is_some_and(holds) {
                return Err(ExchangeError::content(path, format!("'{name}' is not in {shard}")));
            }
        }
        Ok(tensors)
    }

    /// Adds the tensors of a file after checking its header against its length.
    fn add_file(&mut self, path: &Path) -> Result<(), ExchangeError> {
        let refuse = |problem: String| ExchangeError::content(path, problem);
        let file = File::open(path).map_err(ReadError::of(path))?;
        let length = file.metadata().map_err(ReadError::of(path))?.len();
        let read = |bytes: &mut [u8], at: u64| file.read_exact_at(bytes, at).map_err(ReadError::of(path));
        let mut header_bytes = [0; LENGTH_BYTES as usize];
        if length < LENGTH_BYTES {
            return Err(refuse(format!("truncated: {length} bytes are no safetensors file")));
        }
        read(&mut header_bytes, 0)?;
        let header_bytes = u64::from_le_bytes(header_bytes);
        let Some(start) = header_bytes.checked_add(LENGTH_BYTES).filter(|&end| end <= length) else {
            return Err(refuse(format!("truncated, or no safetensors file: {length} bytes end within its header")));
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
        for (name, info) in header.tensors() {
            let stored = Stored {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: start + info.data_offsets.0 as u64,
            };
            if self.tensors.insert(name.clone(), stored).is_some() {
                return Err(refuse(format!("'{name}' is in another shard, too")));
            }
        }
        self.metadata = header.metadata().clone().unwrap_or_default();
        self.files.push((path.to_owned(), file));
        Ok(())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// Drops every tensor whose name begins with `prefix`.
    pub(super) fn leave_out(&mut self, prefix: &str) {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
    }

    /// Keeps the tensors whose name begins with `prefix`, under the rest of their name.
    pub(super) fn only_under(&mut self, prefix: &str) {
        let all = std::mem::take(&mut self.tensors);
        self.tensors = all
            .into_iter()
            .filter_map(|(name, stored)| Some((name.strip_prefix(prefix)?.to_owned(), stored)))
            .collect();
    }

    /// Leaves one of two names of a tied matrix. Where both are there, they must be equal.
    pub(super) fn join(&mut self, kept: &str, other: &str) -> Result<(), ExchangeError> {
        let Some(second) = self.tensors.remove(other) else { return Ok(()) };
        match self.tensors.get(kept) {
            None => drop(self.tensors.insert(kept.to_owned(), second)),
            Some(first) if self.equal(first, &second)? => {}
            Some(_) => {
                let problem = format!("'{kept}' and '{other}' differ where model.tie_embeddings says they are one");
                return Err(ExchangeError::content(&self.path, problem));
            }
        }
        Ok(())
    }

    fn equal(&self, first: &Stored, second: &Stored) -> Result<bool, ExchangeError> {
        if first.shape != second.shape || first.dtype != second.dtype {
            return Ok(false);
        }
        for row in 0..first.shape.first().copied().unwrap_or(0) {
            if self.bytes(first, row..row + 1)? != self.bytes(second, row..row + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How the numbers of a tensor are stored.
    pub(super) fn element(&self, name: &str) -> Result<Element, ExchangeError> {
        let stored = &self.tensors[name];
        Element::of(stored.dtype).ok_or_else(|| ExchangeError::Dtype {
            path: self.files[stored.file].0.clone(),
            tensor: name.to_owned(),
            dtype: format!("{:?}", stored.dtype),
        })
    }

    /// The bytes of some rows: the first axis.
    pub(super) fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<u8>, ExchangeError> {
        self.bytes(&self.tensors[name], rows)
    }

    fn bytes(&self, stored: &Stored, rows: Range<usize>) -> Result<Vec<u8>, ExchangeError> {
        let row_bytes = stored.shape.iter().skip(1).product::<usize>() * stored.dtype.bitsize() / 8;
        let (path, file) = &self.files[stored.file];
        let mut bytes = vec![0; rows.len() * row_bytes];
        let at = stored.start + (rows.start * row_bytes) as u64;
        file.read_exact_at(&mut bytes, at).map_err(ReadError::of(path))?;
        Ok(bytes)
    }
}
