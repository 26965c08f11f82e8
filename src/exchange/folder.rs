//! A model whose values lie in files: which one a path means, and its parameters.

use super::describe::{self, Description};
use super::layout::{Layout, StoredSpec};
use super::stored::{Element, StoredTensors};
use super::{ExchangeError, Origin, infer};
use crate::arch::ModelConfig;
use crate::arch::params::{ParamSpec, parameters};
use crate::config::{ConfigError, ExperimentConfig, ModelSection, RunConfig, ScalingRule, ScalingSection, load};
use crate::data::CorpusInfo;
use crate::files::ReadError;
use crate::runs::RunFolder;
use crate::scaling::ModelScaling;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Names that an error shows of all that do not fit.
const SHOWN: usize = 3;
/// Before the optimiser's tensors in a run's checkpoint.
const OPTIMIZER: &str = "adamw.";
/// A tokenizer, in a model folder and in a corpus.
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// A model and where its values lie.
#[derive(Debug)]
pub struct ModelFolder {
    /// The file, or the index of the files, that holds the values.
    pub path: PathBuf,
    /// The model.
    pub model: ModelConfig,
    /// The rule that it was trained under: it scales logits, branches and attention.
    pub scaling: ModelScaling,
    /// Tokens of a row that it was trained on, where that is known.
    pub context: Option<usize>,
    /// The `tokenizer.json` of its text, where there is one. There is none for text read as bytes.
    pub tokenizer: Option<PathBuf>,
    /// The id that ends a document, where that is known.
    pub eos_id: Option<u64>,
    /// The run that it comes from, where that is known.
    pub origin: Option<Origin>,
    /// What is wrong with newer checkpoints of the run.
    pub passed_over: Vec<String>,
    params: Vec<ParamSpec>,
    tensors: StoredTensors,
    /// For each parameter, its rows in order.
    pieces: Vec<Vec<Piece>>,
}

/// Where rows of a parameter lie.
#[derive(Debug)]
struct Piece {
    tensor: String,
    /// First row in the stored tensor.
    at: usize,
    /// Rows of the parameter.
    rows: Range<usize>,
}

/// One parameter of a model that is open.
#[derive(Clone, Copy, Debug)]
pub struct Param<'a> {
    folder: &'a ModelFolder,
    index: usize,
}

impl<'a> Param<'a> {
    /// Its name, shape and role.
    pub fn spec(&self) -> &'a ParamSpec {
        &self.folder.params[self.index]
    }

    /// How its numbers are stored: as fp32 where its pieces differ.
    pub fn element(&self) -> Result<Element, ExchangeError> {
        let pieces = &self.folder.pieces[self.index];
        let mut elements = pieces.iter().map(|piece| self.folder.tensors.element(&piece.tensor));
        let first = elements.next().expect("a parameter has rows")?;
        elements.try_fold(first, |all, next| Ok(if all == next? { all } else { Element::F32 }))
    }

    /// Its values as they are stored: row-major, little-endian, of [`Param::element`].
    pub fn bytes(&self) -> Result<Vec<u8>, ExchangeError> {
        self.rows(0..self.spec().shape[0], self.element()?)
    }

    /// Its values, row-major.
    pub fn values(&self) -> Result<Vec<f32>, ExchangeError> {
        Ok(Element::F32.decode(&self.rows(0..self.spec().shape[0], Element::F32)?))
    }

    /// The bytes of some rows, as `element`.
    pub(super) fn rows(&self, wanted: Range<usize>, element: Element) -> Result<Vec<u8>, ExchangeError> {
        let tensors = &self.folder.tensors;
        let mut out = Vec::new();
        for piece in &self.folder.pieces[self.index] {
            let (start, end) = (piece.rows.start.max(wanted.start), piece.rows.end.min(wanted.end));
            if start < end {
                let at = piece.at + start - piece.rows.start;
                let bytes = tensors.rows(&piece.tensor, at..at + end - start)?;
                out.append(&mut tensors.element(&piece.tensor)?.convert(bytes, element));
            }
        }
        Ok(out)
    }
}

impl ModelFolder {
    /// Every parameter, in the order of [`parameters`].
    pub fn params(&self) -> impl ExactSizeIterator<Item = Param<'_>> {
        (0..self.params.len()).map(|index| Param { folder: self, index })
    }

    /// The parameter of this name.
    pub fn param(&self, name: &str) -> Option<Param<'_>> {
        self.params().find(|param| param.spec().name == name)
    }

    /// How a file has to name and arrange the parameters in `layout`.
    pub(super) fn stored(&self, layout: Layout) -> Vec<StoredSpec> {
        layout.tensors(&self.model, &self.params)
    }

    /// Name, shape and role of every parameter.
    pub(super) fn specs(&self) -> &[ParamSpec] {
        &self.params
    }

    /// The parameter at this place of the list.
    pub(super) fn at(&self, index: usize) -> Param<'_> {
        Param { folder: self, index }
    }

    /// Finds every parameter of `model` among `tensors`, which are in `layout`.
    fn new(
        model: ModelConfig,
        scaling: ModelScaling,
        layout: Layout,
        mut tensors: StoredTensors,
    ) -> Result<Self, ExchangeError> {
        if model.shape.tie_embeddings {
            let [kept, other] = layout.tied_names();
            tensors.join(kept, other)?;
        }
        let params = parameters(&model);
        let specs = layout.tensors(&model, &params);
        check(&model, &specs, &tensors)?;
        let mut pieces: Vec<Vec<Piece>> = params.iter().map(|_| Vec::new()).collect();
        for spec in specs {
            let mut at = 0;
            for block in spec.blocks {
                let height = block.rows.len();
                match block.param {
                    Some(param) => pieces[param].push(Piece { tensor: spec.name.clone(), at, rows: block.rows }),
                    None if tensors.rows(&spec.name, at..at + height)?.iter().all(|byte| *byte == 0) => {}
                    None => {
                        let problem =
                            format!("'{}' has key biases, and model.attention_bias says there are none", spec.name);
                        return Err(ExchangeError::content(&tensors.path, problem));
                    }
                }
                at += height;
            }
        }
        Ok(Self {
            path: tensors.path.clone(),
            model,
            scaling,
            context: None,
            tokenizer: None,
            eos_id: None,
            origin: None,
            passed_over: Vec::new(),
            params,
            tensors,
            pieces,
        })
    }
}

/// Refuses tensors that are not exactly those of `specs`.
fn check(model: &ModelConfig, specs: &[StoredSpec], tensors: &StoredTensors) -> Result<(), ExchangeError> {
    let path = || tensors.path.clone();
    let described = format!("{} of depth {}", model.architecture, model.shape.depth);
    let missing: Vec<&str> =
        specs.iter().map(|spec| spec.name.as_str()).filter(|name| tensors.get(name).is_none()).collect();
    let expected: std::collections::HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let unknown: Vec<&str> = tensors.names().map(String::as_str).filter(|name| !expected.contains(name)).collect();
    if !missing.is_empty() || !unknown.is_empty() {
        let problem: Vec<String> =
            [listed(&missing, "missing"), listed(&unknown, "unknown")].into_iter().flatten().collect();
        return Err(ExchangeError::Names { path: path(), model: described, problem: problem.join("; ") });
    }
    for spec in specs {
        let got = &tensors.get(&spec.name).expect("no name is missing").shape;
        if *got != spec.shape {
            return Err(ExchangeError::Shape {
                path: path(),
                tensor: spec.name.clone(),
                got: got.clone(),
                model: format!("this {}", model.architecture),
                needed: spec.shape.clone(),
            });
        }
        tensors.element(&spec.name)?;
    }
    Ok(())
}

/// `2 unknown: a, b`; nothing where there is none.
fn listed(names: &[&str], word: &str) -> Option<String> {
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| format!("{} {word}: {shown}{more}", names.len()))
}

/// Opens the model that `path` means: a model folder, the folder of a run (its newest checkpoint that can be read), or
/// a checkpoint in the folder of a run.
pub fn open(path: &Path) -> Result<ModelFolder, ExchangeError> {
    let kind = std::fs::metadata(path).map_err(ReadError::of(path))?;
    if kind.is_dir() {
        let run = RunFolder::at(path);
        return if path.join(describe::FILE_NAME).exists() {
            open_described(path)
        } else if run.config().exists() {
            open_latest(&run)
        } else {
            Err(ExchangeError::content(
                path,
                "neither a model folder (no config.json) nor that of a run (no config.yaml)",
            ))
        };
    }
    // A relative path may name the file alone.
    let absolute = std::path::absolute(path).map_err(ReadError::of(path))?;
    match absolute.parent().and_then(Path::parent).map(RunFolder::at) {
        Some(run) if run.config().exists() => open_checkpoint(&run, path),
        _ => Err(ExchangeError::content(path, "no checkpoint in the folder of a run; hint: import it with --arch")),
    }
}

fn open_described(path: &Path) -> Result<ModelFolder, ExchangeError> {
    let description = Description::read(&path.join(describe::FILE_NAME))?;
    let (model, scaling) = build(&description.model, &description.scaling)?;
    let folder = ModelFolder::new(model, scaling, description.layout, StoredTensors::open(path)?)?;
    Ok(ModelFolder {
        context: description.model.context,
        tokenizer: Some(path.join(TOKENIZER)).filter(|file| file.exists()),
        eos_id: description.eos_id,
        origin: description.run,
        ..folder
    })
}

fn build(model: &ModelSection, scaling: &ScalingSection) -> Result<(ModelConfig, ModelScaling), ExchangeError> {
    let architecture = model.architecture()?;
    let shape = model.shape(architecture, None)?;
    let scaling = scaling.model_scaling(&shape)?;
    Ok((ModelConfig::new(architecture, shape)?, scaling))
}

fn open_latest(run: &RunFolder) -> Result<ModelFolder, ExchangeError> {
    let mut passed_over = Vec::new();
    for step in run.checkpoint_steps().into_iter().rev() {
        match open_checkpoint(run, &run.checkpoint(step)) {
            Ok(folder) => {
                let passed_over = passed_over.iter().map(ExchangeError::to_string).collect();
                return Ok(ModelFolder { passed_over, ..folder });
            }
            Err(error) => passed_over.push(error),
        }
    }
    let none = ExchangeError::content(&run.path, "this run has no checkpoint");
    Err(passed_over.into_iter().next().unwrap_or(none))
}

fn open_checkpoint(run: &RunFolder, path: &Path) -> Result<ModelFolder, ExchangeError> {
    let written: ExperimentConfig = load::read(&run.config())?;
    // Its configuration leaves nothing to the data.
    let config = RunConfig::resolve(&written, &|_| Ok(None))?;
    let mut tensors = StoredTensors::open(path)?;
    tensors.leave_out(OPTIMIZER);
    let origin = tensors.metadata.get("position").and_then(|text| {
        let position: serde_json::Value = serde_json::from_str(text).ok()?;
        Some(Origin { run_id: position["run_id"].as_str()?.to_owned(), step: position["step"].as_u64()? })
    });
    // The same tensors under the names of a tied state dict: the matrix has one name or the other.
    let folder = ModelFolder::new(config.model, config.scaling, Layout::Separate, tensors)?;
    let corpus = CorpusInfo::beside(&config.train_data).ok().flatten();
    let tokenizer = corpus.as_ref().and_then(|info| info.tokenizer.as_ref()).map(|name| {
        let data = &config.train_data;
        if data.is_dir() { data.join(name) } else { data.with_file_name(name) }
    });
    Ok(ModelFolder {
        context: Some(config.seq_len),
        tokenizer: tokenizer.filter(|file| file.exists()),
        eos_id: corpus.map(|info| info.eos_id),
        origin,
        ..folder
    })
}

/// What a user says about tensors that nothing describes.
#[derive(Clone, Debug, Default)]
pub struct StateDict {
    /// The architecture, and what its tensors cannot tell.
    pub model: ModelSection,
    /// `rule` is wanted, and `d0` but for the standard parameterisation.
    pub scaling: ScalingSection,
    /// Before every name; other tensors are left alone.
    pub prefix: String,
}

/// Refuses tensors none of which lies in a block of the reference's model.
fn check_blocks(tensors: &StoredTensors) -> Result<(), ExchangeError> {
    const BLOCK: &str = "transformer.h.";
    if tensors.names().any(|name| name.starts_with(BLOCK)) {
        return Ok(());
    }
    let prefix = tensors.names().find_map(|name| Some(name.split_once(BLOCK)?.0));
    let names: Vec<&str> = tensors.names().map(String::as_str).collect();
    let hint = prefix.map(|prefix| format!("hint: --prefix {prefix}")).or_else(|| listed(&names, "other tensors"));
    let problem = ["no tensor's name begins with 'transformer.h.'".to_owned()].into_iter().chain(hint);
    Err(ExchangeError::content(&tensors.path, problem.collect::<Vec<_>>().join("; ")))
}

/// Opens tensors under the names of the reference's state dict, separate or fused: a file of safetensors or of
/// `torch.save`, an index of shards, or a folder with either. Without a prefix, what wrappers of the model put before
/// every name is taken off.
pub fn open_state_dict(path: &Path, said: &StateDict) -> Result<ModelFolder, ExchangeError> {
    std::fs::metadata(path).map_err(ReadError::of(path))?;
    let architecture = said.model.architecture()?;
    let wanted = |key: &str, hint: &str| ConfigError::value(key, format!("missing; its tensors do not tell {hint}"));
    match (said.scaling.rule, said.scaling.d0) {
        (None, _) => return Err(wanted("scaling.rule", "whether they were trained under sp, mup or mup++").into()),
        (Some(ScalingRule::Mup | ScalingRule::MupPlusPlus), None) => {
            return Err(wanted("scaling.d0", "the base depth, which scales the logits").into());
        }
        _ => {}
    }
    let mut tensors = StoredTensors::open(path)?;
    tensors.only_under(&said.prefix);
    if said.prefix.is_empty() {
        tensors.unwrap_names();
    }
    check_blocks(&tensors)?;
    let mut section = said.model.clone();
    infer::complete(&mut section, architecture.defaults().head_dim, &tensors);
    let fused = tensors.names().any(|name| name.contains(".attn.attn."));
    let (model, scaling) = build(&section, &said.scaling)?;
    let folder = ModelFolder::new(model, scaling, if fused { Layout::Fused } else { Layout::Separate }, tensors)?;
    let beside = if path.is_dir() { path.join(TOKENIZER) } else { path.with_file_name(TOKENIZER) };
    Ok(ModelFolder { context: section.context, tokenizer: Some(beside).filter(|file| file.exists()), ..folder })
}
