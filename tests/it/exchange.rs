//! Checkpoints in and out: every architecture and layout, files of others, and what bad ones say.

use super::{cramped, program, text};
use lossfloor::arch::params::{InitKind, parameters};
use lossfloor::arch::{ARCHITECTURES, AttentionBias, ModelConfig, ModelShape, lookup};
use lossfloor::config::{ModelSection, ScalingRule, ScalingSection};
use lossfloor::exchange::{Element, Layout, ModelFolder, StateDict, WriteOptions, open, open_state_dict, write};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Values by name, with their shapes.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Numbers that differ between tensors and rows, none of them exact in bf16.
fn numbers(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let value = |i: usize| (seed.wrapping_add(i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7 - 0.7;
    (0..count).map(value).collect()
}

fn small(architecture: &str, tied: bool) -> ModelConfig {
    let architecture = lookup(architecture).unwrap();
    let depth = architecture.defaults().fixed_depth.unwrap_or(8);
    let published = ModelShape::published(architecture, depth);
    let shape = ModelShape {
        d_model: 16,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 4,
        d_mlp: 20,
        window: published.window.map(|_| 8),
        vocab_size: 24,
        tie_embeddings: tied,
        ..published
    };
    ModelConfig::new(architecture, shape).unwrap()
}

fn values_of(model: &ModelConfig) -> Tensors {
    let with_values = |p: lossfloor::arch::params::ParamSpec| {
        let values = numbers(&p.name, p.numel() as usize);
        (p.name, (p.shape, values))
    };
    parameters(model).into_iter().map(with_values).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn write_file(path: &Path, tensors: &Tensors, metadata: &[(&str, &str)]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes: Vec<_> = tensors.iter().map(|(name, (shape, values))| (name, shape, bytes_of(values))).collect();
    let views = bytes.iter().map(|(name, shape, b)| (*name, TensorView::new(Dtype::F32, (*shape).clone(), b).unwrap()));
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    std::fs::write(path, serialize(views, Some(metadata)).unwrap()).unwrap();
}

/// The fp32 tensors of a file.
fn read_file(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let decoded = file.iter().filter(|(_, view)| view.dtype() == Dtype::F32);
    decoded
        .map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        })
        .collect()
}

/// A run's folder with a checkpoint at each of `steps`, moments included.
fn run_folder(folder: &Path, model: &ModelConfig, rule: &str, steps: &[u64]) -> PathBuf {
    let run = folder.join(format!("runs/{}", model.architecture));
    let mut values = values_of(model);
    values.insert("adamw.exp_avg.transformer.wte.weight".to_owned(), (vec![2], vec![0.1, 0.2]));
    for step in steps {
        let position = format!(r#"{{"run_id":"0123456789ab","step":{step},"wall_s":1.0,"recent_losses":[]}}"#);
        let path = run.join(format!("checkpoint/step-{step:08}.safetensors"));
        write_file(&path, &values, &[("position", position.as_str())]);
    }
    let config = json!({
        "model": ModelSection::of(model, Some(64)),
        "data": { "train": "nowhere/train", "val": "nowhere/validation" },
        "scaling": { "rule": rule, "d0": 4, "lr": 0.01, "batch_tokens": 2048 },
        "train": { "tokens": 4096 },
    });
    std::fs::write(run.join("config.yaml"), config.to_string()).unwrap();
    run
}

/// What a file in bf16 holds of a value, by arithmetic on its bits.
fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

fn opened(folder: &ModelFolder) -> Tensors {
    let value = |p: lossfloor::exchange::Param| (p.spec().name.clone(), (p.spec().shape.clone(), p.values().unwrap()));
    folder.params().map(value).collect()
}

fn options(layout: Layout, element: Option<Element>, shard_bytes: Option<u64>) -> WriteOptions {
    WriteOptions { layout, element, shard_bytes }
}

#[test]
fn every_architecture_goes_out_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: String| folder.path().join(name);
    for (index, architecture) in ARCHITECTURES.iter().enumerate() {
        let name = architecture.name();
        let model = small(name, index % 2 == 0);
        let rule = if name == "phi4miniflash" { "sp" } else { "mup++" };
        let run = open(&run_folder(folder.path(), &model, rule, &[3])).unwrap();
        let truth = values_of(&model);
        assert_eq!((&run.model, run.context, run.origin.as_ref().unwrap().step), (&model, Some(64), 3), "{name}");
        assert_eq!(opened(&run), truth, "{name}");
        let usual = Layout::usual(&run.model, &run.scaling);
        assert_eq!(usual == Layout::HuggingFace, name == "phi4miniflash");
        for layout in [usual, Layout::Separate, Layout::Fused] {
            for (element, shards) in [(None, None), (None, Some(20_000)), (Some(Element::Bf16), None)] {
                let tag = format!("{name}-{}-{}-{}", layout.name(), element.is_some(), shards.is_some());
                let out = path(format!("out-{tag}"));
                if out.exists() {
                    continue;
                }
                let written = write(&run, &out, options(layout, element, shards)).unwrap();
                assert_eq!(written.files.len() > 1, shards.is_some(), "{tag}");
                let exported = open(&out).unwrap();
                let back = path(format!("back-{tag}"));
                write(&exported, &back, options(Layout::Separate, None, None)).unwrap();
                let back = open(&back).unwrap();
                assert_eq!((&back.model, &back.scaling), (&run.model, &run.scaling), "{tag}");
                assert_eq!((&back.context, &back.origin), (&run.context, &run.origin), "{tag}");
                let mut expected = truth.clone();
                let exact =
                    |kind: InitKind| element.is_none() || matches!(kind, InitKind::StateDecay | InitKind::Lambda);
                for param in parameters(&model).iter().filter(|param| !exact(param.init)) {
                    let (_, values) = expected.get_mut(&param.name).unwrap();
                    values.iter_mut().for_each(|value| *value = rounded(*value));
                }
                assert_eq!(opened(&back), expected, "{tag}");
                let element = element.unwrap_or(Element::F32);
                assert_eq!(back.param("transformer.ln_f.weight").unwrap().element().unwrap(), element, "{tag}");
            }
        }
    }
}

#[test]
fn a_fused_matrix_has_its_groups_one_below_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let model = small("sambay", true);
    let run = open(&run_folder(folder.path(), &model, "mup++", &[1])).unwrap();
    let out = folder.path().join("fused");
    write(&run, &out, options(Layout::Fused, None, None)).unwrap();
    let (fused, ours) = (read_file(&out.join("model.safetensors")), values_of(&model));
    let layer = |tensors: &Tensors, name: &str| tensors[&format!("transformer.h.{name}.weight")].clone();
    let (shape, got) = layer(&fused, "1.attn.attn");
    assert_eq!(shape, [32, 16]);
    let [q, k, v] = ["q", "k", "v"].map(|letter| layer(&ours, &format!("1.attn.{letter}_proj")).1);
    let mut expected = Vec::new();
    for row in 0..32 {
        // A group has two query heads, keys and values, of four rows each.
        let (group, slot, channel) = (row / 16, row % 16 / 4, row % 4);
        let (part, from) = match slot {
            0 | 1 => (&q, (2 * group + slot) * 4 + channel),
            2 => (&k, group * 4 + channel),
            _ => (&v, group * 4 + channel),
        };
        expected.extend_from_slice(&part[from * 16..(from + 1) * 16]);
    }
    assert_eq!(got, expected);
    // Cross-attention has queries alone, in their order; a tied matrix has one name.
    assert_eq!(layer(&fused, "7.attn.attn"), layer(&ours, "7.attn.q_proj"));
    assert!(fused.contains_key("lm_head.weight") && !fused.contains_key("transformer.wte.weight"));
    assert!(!fused.keys().any(|name| name.contains("q_proj") || name.starts_with("adamw")));
}

/// A folder as on Hugging Face: its names, all queries before all keys before all values, two shards.
fn hugging_face(folder: &Path) -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: String, shape: &[usize]| {
        let values = numbers(&name, shape.iter().product());
        tensors.insert(name, (shape.to_vec(), values));
    };
    add("model.embed_tokens.weight".to_owned(), &[24, 16]);
    for kind in ["weight", "bias"] {
        add(format!("model.final_layernorm.{kind}"), &[16]);
    }
    for layer in 0..32 {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        for kind in ["weight", "bias"] {
            add(name(&format!("input_layernorm.{kind}")), &[16]);
            add(name(&format!("post_attention_layernorm.{kind}")), &[16]);
        }
        add(name("mlp.fc1.weight"), &[40, 16]);
        add(name("mlp.fc2.weight"), &[16, 20]);
        add(name("attn.out_proj.weight"), if layer % 2 == 0 { &[16, 32] } else { &[16, 16] });
        if layer % 2 == 1 {
            let rows = if layer < 18 { 16 + 2 * 8 } else { 16 };
            add(name("attn.Wqkv.weight"), &[rows, 16]);
            add(name("attn.Wqkv.bias"), &[rows]);
            add(name("attn.out_proj.bias"), &[16]);
            for lambda in ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"] {
                add(name(&format!("attn.inner_cross_attn.{lambda}")), &[4]);
            }
            add(name("attn.inner_cross_attn.subln.weight"), &[8]);
        } else if layer < 18 {
            add(name("attn.in_proj.weight"), &[64, 16]);
            add(name("attn.conv1d.weight"), &[32, 1, 4]);
            add(name("attn.x_proj.weight"), &[33, 32]);
            add(name("attn.dt_proj.weight"), &[32, 1]);
            add(name("attn.A_log"), &[32, 16]);
            for vector in ["conv1d.bias", "dt_proj.bias", "D"] {
                add(name(&format!("attn.{vector}")), &[32]);
            }
        } else {
            add(name("attn.in_proj.weight"), &[32, 16]);
        }
    }
    let mut places = BTreeMap::new();
    for (shard, first) in [("model-00001-of-00002.safetensors", true), ("model-00002-of-00002.safetensors", false)] {
        let here = |name: &str| (name < "model.layers.2") == first;
        let part: Tensors =
            tensors.iter().filter(|(name, _)| here(name)).map(|(n, t)| (n.clone(), t.clone())).collect();
        places.extend(part.keys().map(|name| (name.clone(), shard)));
        write_file(&folder.join(shard), &part, &[("format", "pt")]);
    }
    let index = json!({ "metadata": { "total_size": 1 }, "weight_map": places });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let config = json!({
        "architectures": ["Phi4FlashForCausalLM"], "model_type": "phi4flash", "attention_dropout": 0.0,
        "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 24, "sliding_window": 8, "tie_word_embeddings": true,
        "layer_norm_eps": 1e-5, "mb_per_layer": 2, "hidden_act": "silu", "eos_token_id": 23, "mlp_bias": false,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    tensors
}

#[test]
fn a_hugging_face_model_comes_in_and_goes_out_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = hugging_face(&folder.path().join("theirs"));
    let run = |arguments: &[&str]| {
        let output = program(folder.path(), arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let told = run(&["import", "theirs", "--out", "ours", "--json"]);
    assert_eq!((&told["architecture"], &told["parametrization"]), (&json!("phi4miniflash"), &json!("sp")));
    let ours = open(&folder.path().join("ours")).unwrap();
    assert_eq!(ours.model, small("phi4miniflash", true));
    assert_eq!((ours.eos_id, ours.tokenizer.is_some(), ours.context), (Some(23), true, None));
    let wqkv = &theirs["model.layers.17.attn.Wqkv.bias"].1;
    for (letter, rows) in [("q", 0..16), ("k", 16..24), ("v", 24..32)] {
        let param = ours.param(&format!("transformer.h.17.attn.{letter}_proj.bias")).unwrap();
        assert_eq!(param.values().unwrap(), wqkv[rows], "{letter}");
    }
    let out_proj = |i: usize| theirs[&format!("model.layers.{i}.attn.out_proj.weight")].1.clone();
    assert_eq!(ours.param("transformer.h.18.attn.gmu.out_proj.weight").unwrap().values().unwrap(), out_proj(18));
    assert_eq!(ours.param("transformer.h.19.attn.proj.weight").unwrap().values().unwrap(), out_proj(19));
    run(&["export", "ours", "--out", "again", "--json"]);
    assert_eq!(read_file(&folder.path().join("again/model.safetensors")), theirs);
    let config: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("again/config.json")).unwrap()).unwrap();
    assert_eq!((&config["model_type"], &config["sliding_window"]), (&json!("phi4flash"), &json!(8)));
    // Its own class saves a window for each layer.
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("theirs/config.json")).unwrap()).unwrap();
    config["sliding_window"] = json!([null, 8, null, 8]);
    std::fs::write(folder.path().join("theirs/config.json"), config.to_string()).unwrap();
    assert_eq!(open(&folder.path().join("theirs")).unwrap().model, ours.model);
}

#[test]
fn models_of_the_reference_come_in() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let Some((architecture, rule)) = name.strip_prefix("model_").and_then(|rest| rest.rsplit_once('_')) else {
            continue;
        };
        seen += 1;
        let rule = if rule == "sp" { ScalingRule::Standard } else { ScalingRule::MupPlusPlus };
        let arch = Some(architecture.to_owned());
        let mut said = StateDict {
            model: ModelSection { arch, head_dim: Some(8), window: Some(8), ..ModelSection::default() },
            scaling: ScalingSection { rule: Some(rule), d0: Some(8), ..ScalingSection::default() },
            prefix: "param.".to_owned(),
        };
        let theirs = read_file(&path);
        let mut expected: Tensors = theirs
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor.clone())))
            .collect();
        let model = open_state_dict(&path, &said).unwrap();
        let shape = &model.model.shape;
        assert_eq!((shape.depth, shape.d_model, shape.d_mlp, shape.vocab_size), (8, 20, 36, 128), "{name}");
        if model.param("transformer.h.5.attn.k_proj.weight").is_some() {
            assert_eq!((shape.n_heads, shape.n_kv_heads), (4, 2), "{name}");
        }
        assert_eq!(opened(&model), expected, "{name}");
        // The same tensors as the paper's release arranges them.
        let folder = tempfile::tempdir().unwrap();
        write(&model, &folder.path().join("fused"), options(Layout::Fused, None, None)).unwrap();
        said.prefix = String::new();
        let fused = open_state_dict(&folder.path().join("fused/model.safetensors"), &said).unwrap();
        assert_eq!(fused.model, model.model, "{name}");
        // A tied state dict may have both names.
        said.model.tie_embeddings = Some(true);
        let both = folder.path().join("both.safetensors");
        write_file(&both, &expected, &[]);
        let error = open_state_dict(&both, &said).unwrap_err().to_string();
        assert!(error.contains("'lm_head.weight' and 'transformer.wte.weight' differ"), "{error}");
        expected.insert("lm_head.weight".to_owned(), expected["transformer.wte.weight"].clone());
        write_file(&both, &expected, &[]);
        let tied = open_state_dict(&both, &said).unwrap();
        assert_eq!(opened(&tied).len(), expected.len() - 1, "{name}");
    }
    assert_eq!(seen, 18);
}

#[test]
fn biases_that_keys_do_not_have_are_zeros_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut shape = small("phi4miniflash", true).shape;
    shape.attention_bias = AttentionBias::QueryValueOutput;
    let model = ModelConfig::new(lookup("phi4miniflash").unwrap(), shape).unwrap();
    let run = open(&run_folder(folder.path(), &model, "sp", &[1])).unwrap();
    let out = folder.path().join("out");
    write(&run, &out, options(Layout::HuggingFace, None, None)).unwrap();
    let mut stored = read_file(&out.join("model.safetensors"));
    let ours = values_of(&model);
    let bias = |letter: &str| ours[&format!("transformer.h.1.attn.{letter}_proj.bias")].1.clone();
    assert_eq!(stored["model.layers.1.attn.Wqkv.bias"].1, [bias("q"), vec![0.0; 8], bias("v")].concat());
    assert_eq!(opened(&open(&out).unwrap()), ours);
    stored.get_mut("model.layers.1.attn.Wqkv.bias").unwrap().1[16] = 0.5;
    write_file(&out.join("model.safetensors"), &stored, &[]);
    let error = open(&out).unwrap_err().to_string();
    assert!(error.contains("'model.layers.1.attn.Wqkv.bias' has key biases"), "{error}");
}

#[test]
fn the_newest_checkpoint_that_can_be_read_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(folder.path(), &small("samba", false), "mup++", &[4, 8, 12]);
    let newest = run.join("checkpoint/step-00000012.safetensors");
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let output = program(folder.path(), &["export", "runs/samba", "--out", "out", "--json"]).output().unwrap();
    let (told, said) = (serde_json::from_slice::<Value>(&output.stdout).unwrap(), text(&output.stderr));
    assert_eq!(told["run"], json!({ "run_id": "0123456789ab", "step": 8 }));
    assert!(said.starts_with("passed over runs/samba/checkpoint/step-00000012.safetensors: truncated"), "{said}");
    let named = open(&run.join("checkpoint/step-00000004.safetensors")).unwrap();
    assert_eq!(named.origin.unwrap().step, 4);
    let error = open(&newest).unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
}

/// Runs a command that must fail with one line, and leave `folder` as it is.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let listing = || {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = listing();
    let output = program(folder, arguments).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty() && said.lines().count() == 1, "{said}");
    assert_eq!(listing(), before);
    said.trim_end().to_owned()
}

#[test]
fn bad_input_is_one_line_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = small("sambay", true);
    let run = run_folder(folder.path(), &model, "mup++", &[1]);
    let ours = values_of(&model);
    let said = ["--arch", "sambay", "--set", "scaling.rule=sp", "--set", "model.head_dim=4", "--out", "out"];
    let import = |name: &str| refused(folder.path(), &[&["import", name][..], &said].concat());

    let mut foreign = ours.clone();
    for name in ["a", "b", "c", "d"] {
        foreign.insert(format!("foreign.{name}"), (vec![1], vec![0.0]));
    }
    foreign.remove("transformer.ln_f.weight");
    write_file(&at("foreign.safetensors"), &foreign, &[]);
    let line = import("foreign.safetensors");
    assert!(line.contains("not the tensors of sambay of depth 8: 1 missing: transformer.ln_f.weight"), "{line}");
    assert!(line.ends_with("4 unknown: foreign.a, foreign.b, foreign.c, …"), "{line}");

    let mut prefixed = Tensors::new();
    prefixed.extend(ours.iter().map(|(name, tensor)| (format!("net.{name}"), tensor.clone())));
    write_file(&at("prefixed.safetensors"), &prefixed, &[]);
    let line = import("prefixed.safetensors");
    assert!(line.ends_with("no tensor's name begins with 'transformer.h.'; hint: --prefix net."), "{line}");
    write_file(&at("llama.safetensors"), &Tensors::from([("model.norm.weight".to_owned(), (vec![1], vec![0.0]))]), &[]);
    let line = import("llama.safetensors");
    assert!(line.ends_with("'transformer.h.'; 1 other tensors: model.norm.weight"), "{line}");

    let mut bent = ours.clone();
    bent.insert("transformer.h.3.mlp.w1.weight".to_owned(), (vec![3, 2], vec![0.0; 6]));
    write_file(&at("bent.safetensors"), &bent, &[]);
    let line = import("bent.safetensors");
    assert!(
        line.ends_with("'transformer.h.3.mlp.w1.weight' has shape [3, 2] where this sambay needs [40, 16]"),
        "{line}"
    );

    write_file(&at("whole.safetensors"), &ours, &[]);
    let whole = std::fs::read(at("whole.safetensors")).unwrap();
    for cut in [4, 100, whole.len() - 1] {
        std::fs::write(at("cut.safetensors"), &whole[..cut]).unwrap();
        assert!(import("cut.safetensors").contains("cut.safetensors: truncated"));
    }
    let place = whole.windows(5).position(|window| window == b"\"F32\"").unwrap();
    let mut bytes = whole.clone();
    bytes[place..place + 5].copy_from_slice(b"\"I32\"");
    std::fs::write(at("dtype.safetensors"), &bytes).unwrap();
    let line = import("dtype.safetensors");
    assert!(line.contains("has dtype I32; known: F32, BF16, F16"), "{line}");
    bytes[place..place + 5].copy_from_slice(b"\"Q32\"");
    std::fs::write(at("dtype.safetensors"), &bytes).unwrap();
    let line = import("dtype.safetensors");
    assert!(line.ends_with("not a safetensors header: unknown variant `Q32`"), "{line}");

    std::fs::create_dir(at("sharded")).unwrap();
    let index = json!({ "weight_map": { "lm_head.weight": "model-00002-of-00002.safetensors" } });
    std::fs::write(at("sharded/model.safetensors.index.json"), index.to_string()).unwrap();
    let line = import("sharded");
    assert!(line.ends_with("index.json: its shard model-00002-of-00002.safetensors is missing"), "{line}");

    let rule = &["import", "whole.safetensors", "--arch", "sambay", "--out", "out"];
    assert!(refused(folder.path(), rule).contains("scaling.rule: missing"));
    let unsaid = refused(folder.path(), &["import", "whole.safetensors", "--out", "out"]);
    assert!(unsaid.ends_with("hint: import it with --arch"), "{unsaid}");
    let absent = refused(folder.path(), &["export", "nowhere", "--out", "out"]);
    assert!(absent.starts_with("error: cannot read nowhere"), "{absent}");
    let layout = refused(folder.path(), &["export", "runs/sambay", "--out", "out", "--layout", "hugging-face"]);
    assert!(layout.contains("cannot hold this model: it is that of phi4miniflash"), "{layout}");
    std::fs::create_dir(at("there")).unwrap();
    assert!(refused(folder.path(), &["export", "runs/sambay", "--out", "there"]).contains("there exists"));

    // A full disk is no fault of the user's, and leaves nothing either.
    let export = ["export", run.to_str().unwrap(), "--out", "full"];
    let full = cramped(16).current_dir(folder.path()).args(export).output().unwrap();
    assert_eq!((full.status.code(), at("full").exists()), (Some(1), false), "{}", text(&full.stderr));
    let left =
        |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().starts_with(".part");
    assert!(!std::fs::read_dir(folder.path()).unwrap().any(left));
}
