//! Writing a model folder, whole or not at all.

use super::folder::TOKENIZER;
use super::layout::StoredSpec;
use super::stored::{INDEX, SINGLE};
use super::{Element, ExchangeError, Layout, ModelFolder, describe};
use crate::arch::params::{InitKind, ParamSpec};
use crate::files::{ReadError, WriteError, write_atomic};
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// How a model is written.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Names and pieces.
    pub layout: Layout,
    /// How numbers are stored; `None` for as they are. In bf16 and fp16, decay rates and λ vectors stay fp32.
    pub element: Option<Element>,
    /// Bytes of tensors in one file, but for a tensor that is larger; `None` for one file.
    pub shard_bytes: Option<u64>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The safetensors files.
    pub files: Vec<String>,
    /// Tensors in them.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A tensor on its way.
struct Outgoing {
    spec: StoredSpec,
    element: Element,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        self.spec.shape.iter().product::<usize>() * self.element.bytes()
    }
}

/// Writes `folder` as a model folder `out`, which must not exist. One tensor is in memory at a time.
pub fn write(folder: &ModelFolder, out: &Path, options: WriteOptions) -> Result<Written, ExchangeError> {
    options.layout.check(&folder.model, &folder.scaling)?;
    if out.symlink_metadata().is_ok() {
        return Err(ExchangeError::Exists { path: out.to_owned() });
    }
    let refused = |source| WriteError { path: out.to_owned(), source };
    let absolute = std::path::absolute(out).map_err(refused)?;
    let parent = absolute.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).map_err(refused)?;
    let part = tempfile::Builder::new().prefix(".part-").tempdir_in(parent).map_err(refused)?;
    let written = fill(folder, part.path(), options)?;
    let publish = || -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(part.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(part.path(), &absolute)
    };
    publish().map_err(refused)?;
    Ok(written)
}

fn fill(folder: &ModelFolder, out: &Path, options: WriteOptions) -> Result<Written, ExchangeError> {
    let tensors = outgoing(folder, options)?;
    let count = tensors.len();
    let bytes = tensors.iter().map(|tensor| tensor.bytes() as u64).sum();
    // The first is the embedding.
    let most = options.element.unwrap_or(tensors[0].element);
    let shards = shards(tensors, options.shard_bytes.unwrap_or(u64::MAX));
    let total = shards.len();
    let (mut files, mut places) = (Vec::new(), BTreeMap::new());
    for (index, shard) in shards.into_iter().enumerate() {
        let name = match total {
            1 => SINGLE.to_owned(),
            _ => format!("model-{:05}-of-{total:05}.safetensors", index + 1),
        };
        places.extend(shard.iter().map(|tensor| (tensor.spec.name.clone(), name.clone())));
        write_file(folder, &out.join(&name), &shard)?;
        files.push(name);
    }
    let text = |tree: &serde_json::Value| format!("{tree:#}\n");
    if total > 1 {
        let index = json!({ "metadata": { "total_size": bytes }, "weight_map": places });
        write_atomic(&out.join(INDEX), text(&index).as_bytes())?;
    }
    if let Some(tokenizer) = &folder.tokenizer {
        let contents = std::fs::read(tokenizer).map_err(ReadError::of(tokenizer))?;
        write_atomic(&out.join(TOKENIZER), &contents)?;
    }
    write_atomic(&out.join(describe::FILE_NAME), text(&describe::config(folder, options.layout, most)).as_bytes())?;
    Ok(Written { files, tensors: count, bytes })
}

/// Every tensor of the layout and how its numbers are stored.
fn outgoing(folder: &ModelFolder, options: WriteOptions) -> Result<Vec<Outgoing>, ExchangeError> {
    let with_element = |spec: StoredSpec| {
        let element = match options.element {
            Some(element) => element_in(element, &spec, folder.specs()),
            None => {
                let mut elements = spec.blocks.iter().filter_map(|block| block.param).map(|p| folder.at(p).element());
                let first = elements.next().expect("a tensor has rows of a parameter")?;
                elements.try_fold(first, |all, next| next.map(|next| if all == next { all } else { Element::F32 }))?
            }
        };
        Ok(Outgoing { spec, element })
    };
    folder.stored(options.layout).into_iter().map(with_element).collect()
}

/// How a tensor is stored in a file of `element`: what is exponentiated stays fp32, as in published files.
pub(super) fn element_in(element: Element, spec: &StoredSpec, params: &[ParamSpec]) -> Element {
    let exponent = |index: usize| matches!(params[index].init, InitKind::StateDecay | InitKind::Lambda);
    let wide = spec.blocks.iter().filter_map(|block| block.param).any(exponent);
    if wide { Element::F32 } else { element }
}

/// Fills shards in order up to `limit` bytes.
fn shards(tensors: Vec<Outgoing>, limit: u64) -> Vec<Vec<Outgoing>> {
    let (mut out, mut size) = (vec![Vec::new()], 0u64);
    for tensor in tensors {
        let bytes = tensor.bytes() as u64;
        if size > 0 && size + bytes > limit {
            out.push(Vec::new());
            size = 0;
        }
        size += bytes;
        out.last_mut().expect("one at least").push(tensor);
    }
    out
}

/// Writes one safetensors file, wider numbers first, so that all are aligned.
fn write_file(folder: &ModelFolder, path: &Path, shard: &[Outgoing]) -> Result<(), ExchangeError> {
    let mut ordered: Vec<&Outgoing> = shard.iter().collect();
    ordered.sort_by_key(|tensor| std::cmp::Reverse(tensor.element.bytes()));
    let mut end = 0;
    let infos = ordered.iter().map(|tensor| {
        let start = end;
        end += tensor.bytes();
        let info =
            TensorInfo { dtype: tensor.element.dtype(), shape: tensor.spec.shape.clone(), data_offsets: (start, end) };
        (tensor.spec.name.clone(), info)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(format), infos.collect()).expect("offsets follow from shapes");
    let mut header = serde_json::to_vec(&header).expect("a header has string keys");
    header.resize(header.len().next_multiple_of(8), b' ');
    let refused = |source| WriteError { path: PathBuf::from(path), source };
    let mut file = BufWriter::new(File::create_new(path).map_err(refused)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(refused)?;
    file.write_all(&header).map_err(refused)?;
    for tensor in ordered {
        let row_bytes = tensor.bytes() / tensor.spec.shape[0];
        for block in &tensor.spec.blocks {
            let rows = match block.param {
                Some(index) => folder.at(index).rows(block.rows.clone(), tensor.element)?,
                None => vec![0; block.rows.len() * row_bytes],
            };
            file.write_all(&rows).map_err(refused)?;
        }
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_all()).map_err(refused)?;
    Ok(())
}
