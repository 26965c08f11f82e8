//! Tensors in files of others: what there is, and rows of it read where they lie.

use super::{ExchangeError, safetensors_file, torch_file};
use crate::files::ReadError;
use half::{bf16, f16};
use safetensors::Dtype;
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
/// The same of a model that PyTorch saved.
const TORCH_SINGLE: &str = "pytorch_model.bin";
const TORCH_INDEX: &str = "pytorch_model.bin.index.json";
/// What compilation and data parallelism put before every name.
const WRAPPERS: [&str; 2] = ["_orig_mod.", "module."];

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

/// What kind of numbers a tensor has.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Numbers {
    Known(Element),
    /// One that no parameter has, by its name; never read.
    Other(String),
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Place of its file among those that are open.
    pub(super) file: usize,
    pub(super) numbers: Numbers,
    pub(super) shape: Vec<usize>,
    /// First byte in its file.
    pub(super) start: u64,
}

/// What one file holds.
pub(super) struct Contents {
    pub(super) tensors: BTreeMap<String, Stored>,
    pub(super) metadata: HashMap<String, String>,
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
    /// The tensors at `path`: a file, an index of shards, or a folder with one of the two under its usual name.
    pub(super) fn open(path: &Path) -> Result<Self, ExchangeError> {
        if path.is_dir() {
            let usual = [INDEX, SINGLE, TORCH_INDEX, TORCH_SINGLE].map(|name| path.join(name));
            let named = usual.into_iter().find(|file| file.exists());
            let missing = || {
                let problem = format!("it holds neither {SINGLE} nor {TORCH_SINGLE}, nor an index of either's shards");
                ExchangeError::content(path, problem)
            };
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

    /// Adds the tensors of a file, which says itself of which kind it is.
    fn add_file(&mut self, path: &Path) -> Result<(), ExchangeError> {
        let file = File::open(path).map_err(ReadError::of(path))?;
        let read = if torch_file::wrote(path, &file)? { torch_file::read } else { safetensors_file::read };
        let contents = read(path, &file, self.files.len())?;
        for (name, stored) in contents.tensors {
            if self.tensors.contains_key(&name) {
                return Err(ExchangeError::content(path, format!("'{name}' is in another shard, too")));
            }
            self.tensors.insert(name, stored);
        }
        self.metadata = contents.metadata;
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

    /// Takes off what wrappers of the model put before every name.
    pub(super) fn unwrap_names(&mut self) {
        let wrapper = |tensors: &Self| {
            let on_all = |prefix: &&str| tensors.names().all(|name| name.starts_with(prefix));
            WRAPPERS.into_iter().find(on_all).filter(|_| !tensors.tensors.is_empty())
        };
        while let Some(prefix) = wrapper(self) {
            self.only_under(prefix);
        }
    }

    /// Leaves one of two names of a tied matrix. Where both are there, they must be equal.
    pub(super) fn join(&mut self, kept: &str, other: &str) -> Result<(), ExchangeError> {
        let Some(second) = self.tensors.remove(other) else { return Ok(()) };
        match self.tensors.get(kept) {
            None => drop(self.tensors.insert(kept.to_owned(), second)),
            Some(first) if self.equal(first, &second, self.element(kept)?)? => {}
            Some(_) => {
                let problem = format!("'{kept}' and '{other}' differ where model.tie_embeddings says they are one");
                return Err(ExchangeError::content(&self.path, problem));
            }
        }
        Ok(())
    }

    /// Whether two tensors, the first of which is stored as `element`, are the same.
    fn equal(&self, first: &Stored, second: &Stored, element: Element) -> Result<bool, ExchangeError> {
        if first.shape != second.shape || first.numbers != second.numbers {
            return Ok(false);
        }
        for row in 0..first.shape.first().copied().unwrap_or(0) {
            if self.bytes(first, element, row..row + 1)? != self.bytes(second, element, row..row + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How the numbers of a tensor are stored.
    pub(super) fn element(&self, name: &str) -> Result<Element, ExchangeError> {
        let stored = &self.tensors[name];
        match &stored.numbers {
            Numbers::Known(element) => Ok(*element),
            Numbers::Other(dtype) => Err(ExchangeError::Dtype {
                path: self.files[stored.file].0.clone(),
                tensor: name.to_owned(),
                dtype: dtype.clone(),
            }),
        }
    }

    /// The bytes of some rows: the first axis.
    pub(super) fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<u8>, ExchangeError> {
        self.bytes(&self.tensors[name], self.element(name)?, rows)
    }

    fn bytes(&self, stored: &Stored, element: Element, rows: Range<usize>) -> Result<Vec<u8>, ExchangeError> {
        let row_bytes = stored.shape.iter().skip(1).product::<usize>() * element.bytes();
        let (path, file) = &self.files[stored.file];
        let mut bytes = vec![0; rows.len() * row_bytes];
        let at = stored.start + (rows.start * row_bytes) as u64;
        file.read_exact_at(&mut bytes, at).map_err(ReadError::of(path))?;
        Ok(bytes)
    }
}
