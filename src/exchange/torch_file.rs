//! What a file of PyTorch's `torch.save` holds.
//!
//! Such a file is a ZIP archive: `NAME/data.pkl` is a pickle of what was saved, in which a tensor names its storage,
//! and `NAME/data/KEY` is a storage, not compressed. So a tensor lies in the file as it lies in memory.

use super::ExchangeError;
use super::pickle::{Id, Pickle, Value};
use super::stored::{Contents, Element, Numbers, Stored};
use crate::files::ReadError;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

/// How an archive begins.
const ARCHIVE: [u8; 4] = *b"PK\x03\x04";
/// How files before PyTorch 1.6 begin: a pickle of a number.
const LEGACY: [u8; 10] = *b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 ";
/// The pickle in an archive.
const PICKLE: &str = "data.pkl";
/// Bytes of a pickle at most; one of a thousand tensors has some 200,000.
const PICKLE_BYTES: u64 = 1 << 24;
/// Axes that a tensor of PyTorch can have.
const MOST_AXES: usize = 64;
/// Keys under which programs save a state dict beside other things; the first that is there is taken.
const STATE_DICTS: [&str; 4] = ["model", "state_dict", "model_state_dict", "module"];

/// Whether `torch.save` wrote a file, by how it begins. One of before PyTorch 1.6 is refused.
pub(super) fn wrote(path: &Path, file: &File) -> Result<bool, ExchangeError> {
    let mut start = [0; LEGACY.len()];
    let read = file.read_at(&mut start, 0).map_err(ReadError::of(path))?;
    if start == LEGACY {
        let problem = "written as before PyTorch 1.6; load it and save it again with torch.save of a newer one";
        return Err(ExchangeError::content(path, problem));
    }
    Ok(start[..read].starts_with(&ARCHIVE))
}

/// The state dict in `file`, which is the one at place `index`.
pub(super) fn read(path: &Path, file: &File, index: usize) -> Result<Contents, ExchangeError> {
    let refuse = |problem: String| ExchangeError::content(path, problem);
    let mut archive = Archive::open(path, file)?;
    if archive.text("byteorder")?.is_some_and(|order| order.trim_ascii() != b"little") {
        return Err(refuse("its numbers are big-endian; save it again on a little-endian machine".to_owned()));
    }
    let pickle = archive.text(PICKLE)?.ok_or_else(|| refuse(format!("an archive without {PICKLE}")))?;
    let pickle = Pickle::read(&pickle).map_err(|problem| refuse(format!("{PICKLE} is damaged: {problem}")))?;
    let dict = state_dict(&pickle).ok_or_else(|| {
        let keys = STATE_DICTS.join(", ");
        refuse(format!("no state dict, neither by itself nor under one of {keys}; save model.state_dict()"))
    })?;
    let mut tensors = BTreeMap::new();
    for (key, value) in dict {
        if let (Some(name), Some(view)) = (pickle.text(*key), View::of(&pickle, *value)) {
            let start = archive.start(name, &view)?;
            let stored = Stored { file: index, numbers: view.numbers, shape: view.shape, start };
            tensors.insert(name.to_owned(), stored);
        }
    }
    Ok(Contents { tensors, metadata: HashMap::new() })
}

/// The entries of the state dict in a pickle.
fn state_dict<'p>(pickle: &'p Pickle) -> Option<&'p [(Id, Id)]> {
    let root = pickle.dict(pickle.root())?;
    let under = |name: &&str| {
        let (_, value) = root.iter().rfind(|(key, _)| pickle.text(*key) == Some(*name))?;
        pickle.dict(*value)
    };
    let has_tensors = |dict: &&[(Id, Id)]| dict.iter().any(|(_, value)| View::of(pickle, *value).is_some());
    STATE_DICTS.iter().filter_map(under).chain([root]).find(has_tensors)
}

/// A tensor as a pickle has it: a view of a storage.
struct View<'p> {
    /// What names the storage.
    key: &'p str,
    numbers: Numbers,
    /// First number in the storage.
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'p> View<'p> {
    /// The view that `value` is; nothing where it is something else.
    fn of(pickle: &Pickle<'p>, value: Id) -> Option<Self> {
        let (mut function, mut arguments) = call(pickle, value)?;
        match function {
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                (function, arguments) = call(pickle, *arguments.first()?)?;
            }
            // A tensor with attributes of its own.
            ("torch._tensor", "_rebuild_from_type_v2") => {
                let [inner, _, its_arguments, ..] = arguments else { return None };
                (function, arguments) = (pickle.global(*inner)?, pickle.tuple(*its_arguments)?);
            }
            _ => {}
        }
        // The third form names the kind of numbers beside a storage of bytes.
        let dtype = match function {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => None,
            ("torch._utils", "_rebuild_tensor_v3") => Some(pickle.global(*arguments.get(6)?)?.1),
            _ => return None,
        };
        let [storage, offset, shape, strides, ..] = arguments else { return None };
        let Value::Persistent(storage) = pickle.value(*storage) else { return None };
        let [_, class, key, ..] = pickle.tuple(*storage)? else { return None };
        let numbers = match dtype {
            Some(name) => Numbers::Other(name.to_owned()),
            None => numbers(pickle.global(*class)?.1),
        };
        let sizes = |tuple: Id| {
            let sizes = pickle.tuple(tuple).filter(|sizes| sizes.len() <= MOST_AXES)?;
            sizes.iter().map(|size| pickle.size(*size)).collect::<Option<Vec<_>>>()
        };
        let (shape, strides) = (sizes(*shape)?, sizes(*strides)?);
        Some(Self { key: pickle.text(*key)?, numbers, offset: pickle.size(*offset)?, shape, strides })
    }

    /// Whether its numbers lie one behind the other, row by row.
    fn is_contiguous(&self) -> bool {
        let mut expected = Some(1usize);
        let axes = self.shape.iter().zip(&self.strides).rev();
        let fits = axes.filter(|(size, _)| **size != 1).all(|(size, stride)| {
            let fits = expected == Some(*stride);
            expected = stride.checked_mul(*size);
            fits
        });
        self.strides.len() == self.shape.len() && (fits || self.shape.contains(&0))
    }

    /// Its bytes within its storage; nothing where that is no number.
    fn bytes(&self) -> Option<Range<u64>> {
        let width = match self.numbers {
            Numbers::Known(element) => element.bytes(),
            Numbers::Other(_) => 0,
        };
        let count = self.shape.iter().try_fold(width, |count, size| count.checked_mul(*size))?;
        let start = self.offset.checked_mul(width)?;
        Some(start as u64..start.checked_add(count)? as u64)
    }
}

/// Function and arguments of a call.
fn call<'p, 'a>(pickle: &'p Pickle<'a>, value: Id) -> Option<((&'a str, &'a str), &'p [Id])> {
    let Value::Call { function, arguments } = pickle.value(value) else { return None };
    Some((pickle.global(*function)?, pickle.tuple(*arguments)?))
}

/// What a storage of this class holds.
fn numbers(class: &str) -> Numbers {
    match class {
        "FloatStorage" => Numbers::Known(Element::F32),
        "BFloat16Storage" => Numbers::Known(Element::Bf16),
        "HalfStorage" => Numbers::Known(Element::F16),
        other => Numbers::Other(other.strip_suffix("Storage").unwrap_or(other).to_owned()),
    }
}

/// The archive that a file is.
struct Archive<'a> {
    path: &'a Path,
    zip: ZipArchive<BufReader<&'a File>>,
    /// Before the name of every entry.
    root: String,
    bytes: u64,
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path, file: &'a File) -> Result<Self, ExchangeError> {
        let refuse = |problem: String| ExchangeError::content(path, problem);
        let bytes = file.metadata().map_err(ReadError::of(path))?.len();
        let zip = ZipArchive::new(BufReader::new(file))
            .map_err(|error| refuse(format!("truncated, or no archive of torch.save: {error}")))?;
        let root = |name: &str| Some(name.strip_suffix(PICKLE)?.to_owned()).filter(|root| root.ends_with('/'));
        let root = zip.file_names().find_map(|name| root(&name.ok()?)).unwrap_or_default();
        Ok(Self { path, zip, root, bytes })
    }

    fn refuse(&self, problem: impl Into<String>) -> ExchangeError {
        ExchangeError::content(self.path, problem)
    }

    /// Where the entry of this name lies; nothing where there is none.
    fn entry(&mut self, name: &str) -> Result<Option<Range<u64>>, ExchangeError> {
        let Some(place) = self.zip.index_for_name_raw(format!("{}{name}", self.root).as_bytes()) else {
            return Ok(None);
        };
        let found = self.zip.by_index_raw(place).map(|entry| lies(&entry));
        match found {
            Ok(Some(range)) if range.end <= self.bytes => Ok(Some(range)),
            Ok(Some(_)) => Err(self.refuse(format!("truncated: {name} ends behind its end"))),
            Ok(None) => {
                Err(self.refuse(format!("{name} is compressed; save it again with torch.save, or pack it with zip -0")))
            }
            Err(error) => Err(self.refuse(format!("damaged: {name}: {error}"))),
        }
    }

    /// The bytes of a small entry.
    fn text(&mut self, name: &str) -> Result<Option<Vec<u8>>, ExchangeError> {
        let Some(range) = self.entry(name)? else { return Ok(None) };
        let bytes = range.end - range.start;
        if bytes > PICKLE_BYTES {
            return Err(self.refuse(format!("{name} has {bytes} bytes; save the model's state dict alone")));
        }
        let full_name = format!("{}{name}", self.root);
        let mut contents = Vec::new();
        let read = self.zip.by_name(&full_name).and_then(|mut entry| Ok(entry.read_to_end(&mut contents)?));
        read.map_err(|error| self.refuse(format!("damaged: {name}: {error}")))?;
        Ok(Some(contents))
    }

    /// First byte of a tensor in the file.
    fn start(&mut self, name: &str, view: &View) -> Result<u64, ExchangeError> {
        if !view.is_contiguous() {
            let problem = format!("'{name}' is not contiguous; save tensor.contiguous() in its place");
            return Err(self.refuse(problem));
        }
        let storage = self.entry(&format!("data/{}", view.key))?;
        let storage = storage.ok_or_else(|| self.refuse(format!("damaged: the numbers of '{name}' are missing")))?;
        let inside = view.bytes().filter(|bytes| bytes.end <= storage.end - storage.start);
        let inside = inside.ok_or_else(|| self.refuse(format!("damaged: '{name}' ends behind its storage")))?;
        Ok(storage.start + inside.start)
    }
}

/// Where an entry's bytes lie as they are; nothing where they are compressed or encrypted.
fn lies<R: Read>(entry: &ZipFile<R>) -> Option<Range<u64>> {
    let plain = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
    let start = entry.data_start().filter(|_| plain)?;
    Some(start..start.saturating_add(entry.compressed_size()))
}
