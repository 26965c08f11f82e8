//! Files of `torch.save` that PyTorch wrote, and pickles that nobody would.

use super::ExchangeError;
use super::pickle::{Pickle, Value};
use super::stored::StoredTensors;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch").join(name)
}

/// The tensors of a file, without the names of wrappers.
fn opened(path: &Path) -> StoredTensors {
    let mut tensors = StoredTensors::open(path).expect("readable");
    tensors.unwrap_names();
    tensors
}

/// That two files have the same tensors under the same names, bit for bit.
fn assert_same(ours: &StoredTensors, theirs: &StoredTensors) {
    assert_eq!(ours.names().collect::<Vec<_>>(), theirs.names().collect::<Vec<_>>());
    for name in theirs.names() {
        let (shape, expected) = (&ours.get(name).expect("named").shape, &theirs.get(name).expect("named").shape);
        assert_eq!(shape, expected, "{name}");
        assert_eq!(ours.element(name).expect("known"), theirs.element(name).expect("known"), "{name}");
        let whole = |tensors: &StoredTensors| tensors.rows(name, 0..shape[0]).expect("readable");
        assert!(whole(ours) == whole(theirs), "{name}");
    }
}

#[test]
fn tensors_are_those_of_the_same_model_in_safetensors() {
    let plain = opened(&data("plain.safetensors"));
    for name in ["plain.pth", "protocol_5.pt", "views.bin"] {
        assert_same(&opened(&data(name)), &plain);
    }
    let mut checkpoint = opened(&data("checkpoint.ckpt"));
    checkpoint.join("lm_head.weight", "transformer.wte.weight").expect("one storage under two names");
    assert_same(&checkpoint, &opened(&data("checkpoint.safetensors")));
}

#[test]
fn a_wrapper_is_taken_off_where_every_name_has_it() {
    let names = |file: &str| StoredTensors::open(&data(file)).expect("readable").names().cloned().collect::<Vec<_>>();
    assert!(names("views.bin").iter().all(|name| name.starts_with("module.")));
    assert!(names("checkpoint.ckpt").iter().all(|name| name.starts_with("_orig_mod.")));
    let mut tensors = StoredTensors::open(&data("views.bin")).expect("readable");
    tensors.only_under("module.transformer.");
    let before: Vec<String> = tensors.names().cloned().collect();
    tensors.unwrap_names();
    assert!(tensors.names().eq(&before));
}

#[test]
fn a_folder_of_pytorch_shards_is_opened_by_its_index() {
    let folder = tempfile::tempdir().expect("made");
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(data("plain.pth"), at("pytorch_model.bin")).expect("copied");
    let plain = opened(&data("plain.safetensors"));
    assert_same(&opened(folder.path()), &plain);
    std::fs::rename(at("pytorch_model.bin"), at("pytorch_model-00001-of-00001.bin")).expect("renamed");
    let places: serde_json::Map<String, serde_json::Value> =
        plain.names().map(|name| (name.clone(), "pytorch_model-00001-of-00001.bin".into())).collect();
    let index = serde_json::json!({ "weight_map": places }).to_string();
    std::fs::write(at("pytorch_model.bin.index.json"), index).expect("written");
    assert_same(&opened(folder.path()), &plain);
}

#[test]
fn what_cannot_be_read_says_why() {
    let error = |name: &str| StoredTensors::open(&data(name)).expect_err("refused").to_string();
    for (name, problem) in [
        ("transposed.pth", "'transformer.h.3.mlp.w3.weight' is not contiguous; save tensor.contiguous() in its place"),
        ("legacy.pth", "written as before PyTorch 1.6; load it and save it again with torch.save of a newer one"),
        ("deflated.pth", "is compressed; save it again with torch.save, or pack it with zip -0"),
        ("big_endian.pth", "its numbers are big-endian; save it again on a little-endian machine"),
        ("module.pth", "no state dict, neither by itself nor under one of model, state_dict, model_state_dict, module"),
    ] {
        let said = error(name);
        assert!(said.contains(&format!("{name}: ")) && said.contains(problem), "{said}");
        assert_eq!(said.lines().count(), 1);
    }
    for (name, dtype) in [("double.pth", "Double"), ("float8.pth", "float8_e4m3fn")] {
        let tensors = StoredTensors::open(&data(name)).expect("readable");
        let said = tensors.element("transformer.h.3.mlp.w3.weight").expect_err("refused").to_string();
        assert!(said.ends_with(&format!("has dtype {dtype}; known: F32, BF16, F16")), "{said}");
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let whole = std::fs::read(data("small.pth")).expect("there");
    let folder = tempfile::tempdir().expect("made");
    let path = folder.path().join("cut.pth");
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).expect("written");
        let said = StoredTensors::open(&path).expect_err("refused").to_string();
        assert!(said.contains("cut.pth: truncated"), "{length}: {said}");
    }
}

#[test]
fn values_of_a_pickle_keep_what_they_share() {
    // A list of one dict twice, the second time from the memo and after an item was added to the first.
    let pickle = Pickle::read(b"\x80\x02}q\x00X\x01\x00\x00\x00aK\x07sh\x00\x8a\x02\xfe\xff\x87.").expect("valid");
    let Value::Tuple(items) = pickle.value(pickle.root()) else { panic!("{pickle:?}") };
    assert_eq!(items[0], items[1]);
    let [(key, value)] = pickle.dict(items[0]).expect("a dict") else { panic!("{pickle:?}") };
    assert_eq!((pickle.text(*key), pickle.size(*value)), (Some("a"), Some(7)));
    assert!(matches!(pickle.value(items[2]), Value::Int(-2)));
}

#[test]
fn a_pickle_that_claims_much_takes_little() {
    for (pickle, problem) in [
        (&b"X\xff\xff\xff\xff"[..], "it ends within an instruction"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "it ends within an instruction"),
        (b"N", "it does not end as a pickle does"),
        (b"NN\x87.", "it takes more from the stack than there is"),
        (b"N(0.", "it takes more from the stack than there is"),
        (b"}(Nu.", "a key has no value"),
        (b"e.", "a mark is missing"),
        (b"h\x05.", "nothing was remembered as 5"),
        (b"KK\x01\x93.", "instruction 0x01 is not known"),
        (b"\x80\x06.", "protocol 6 is not known"),
        (b"NN\x93.", "the name of a function is no text"),
    ] {
        assert_eq!(Pickle::read(pickle).expect_err("refused"), problem);
    }
}

/// Opens an archive whose pickle is this one, reading every tensor that can be read.
fn open_with_pickle(pickle: &[u8]) -> Result<(), ExchangeError> {
    let folder = tempfile::tempdir().expect("made");
    let path = folder.path().join("made.pth");
    let mut archive = zip::ZipWriter::new(std::fs::File::create_new(&path).expect("made"));
    for (name, contents) in [("made/data.pkl", pickle), ("made/data/0", &[0; 24])] {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).expect("begun");
        archive.write_all(contents).expect("written");
    }
    archive.finish().expect("written");
    read_all(&path)
}

fn read_all(path: &Path) -> Result<(), ExchangeError> {
    let tensors = StoredTensors::open(path)?;
    for name in tensors.names() {
        let rows = tensors.get(name).expect("named").shape.first().copied().unwrap_or(0);
        tensors.rows(name, 0..rows)?;
    }
    Ok(())
}

/// The pickle in a file.
fn pickle_of(name: &str) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(data(name)).expect("there")).expect("an archive");
    let mut contents = Vec::new();
    let root = name.split('.').next().expect("a stem");
    archive.by_name(&format!("{root}/data.pkl")).expect("there").read_to_end(&mut contents).expect("readable");
    contents
}

/// A state dict of one tensor with this rebuilding call; sizes and strides are pickles of tuples.
fn one_tensor(offset: u8, sizes: &[u8], strides: &[u8]) -> Vec<u8> {
    let mut out =
        b"}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
            .to_vec();
    out.extend(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK");
    out.push(offset);
    out.extend([sizes, strides, b"tRs."].concat());
    out
}

#[test]
fn views_stay_within_their_storage() {
    let open = |offset, sizes: &[u8], strides: &[u8]| {
        open_with_pickle(&one_tensor(offset, sizes, strides)).map_err(|error| error.to_string())
    };
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    open(0, b"K\x02K\x03\x86", b"K\x03K\x01\x86").expect("all of it");
    open(1, b"K\x01K\x05\x86", b"\x8a\x01\x7fK\x01\x86").expect("the stride of an axis of one says nothing");
    open(6, b"K\x00K\x05\x86", b"K\x00K\x00\x86").expect("nothing at its end");
    for (offset, sizes) in
        [(1, &b"K\x02K\x03\x86"[..]), (7, b"K\x00K\x03\x86"), (0, &[b"K\x02", &huge[..], b"\x86"].concat())]
    {
        let stride = &sizes[2..sizes.len() - 1];
        let said = open(offset, sizes, &[stride, b"K\x01\x86"].concat()).expect_err("refused");
        assert!(said.ends_with("damaged: 'a' ends behind its storage") || said.contains("not contiguous"), "{said}");
    }
    let axes = |count| [b"(".to_vec(), b"K\x01".repeat(count), b"t".to_vec()].concat();
    open(0, &axes(64), &axes(64)).expect("as many axes as there can be");
    assert!(open(0, &axes(65), &axes(65)).expect_err("refused").contains("no state dict"));
    let said = open(0, b"K\x06\x85", b"K\x00\x85").expect_err("refused");
    assert!(said.contains("'a' is not contiguous"), "{said}");
}

#[test]
fn calls_with_other_arguments_are_no_tensors() {
    let calls =
        ["torch._utils\n_rebuild_parameter", "torch._utils\n_rebuild_tensor_v2", "torch._utils\n_rebuild_tensor_v3"];
    for call in calls.into_iter().chain(["torch._tensor\n_rebuild_from_type_v2"]) {
        for arguments in [&b")"[..], b"N", b"N\x85", b"NNN\x87", b"(NNNNNNNNt"] {
            let pickle = [b"}X\x01\x00\x00\x00ac", call.as_bytes(), b"\n", arguments, b"Rs."].concat();
            let said = open_with_pickle(&pickle).expect_err("refused").to_string();
            assert!(said.contains("no state dict"), "{said}");
        }
    }
}

/// Instructions that are known, some with what belongs behind them.
const INSTRUCTIONS: &[&[u8]] = &[
    b"\x80\x02",
    b"(",
    b"0",
    b"1",
    b"2",
    b"q\x00",
    b"q\x01",
    b"\x94",
    b"h\x00",
    b"h\x01",
    b"N",
    b"]",
    b"G",
    b"K\x03",
    b"J\xff\xff\xff\xff",
    b"\x8a\x01\x02",
    b"X\x01\x00\x00\x00a",
    b"\x8c\x05model",
    b"B",
    b")",
    b"\x85",
    b"\x86",
    b"\x87",
    b"t",
    b"a",
    b"e",
    b"}",
    b"s",
    b"u",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch._tensor\n_rebuild_from_type_v2\n",
    b"\x93",
    b"R",
    b"\x81",
    b"\x92",
    b"b",
    b"Q",
];

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pickle::read(&bytes);
    }

    #[test]
    fn no_instructions_panic(parts in prop::collection::vec(select(INSTRUCTIONS), 0..60)) {
        let _ = Pickle::read(&[parts.concat(), b".".to_vec()].concat());
    }

    #[test]
    fn no_damage_to_a_file_panics(damage in damage()) {
        let mut bytes = std::fs::read(data("small.pth")).expect("there");
        harm(&mut bytes, &damage);
        let folder = tempfile::tempdir().expect("made");
        let path = folder.path().join("damaged.pth");
        std::fs::write(&path, bytes).expect("written");
        let _ = read_all(&path);
    }

    #[test]
    fn no_damage_to_a_pickle_panics(name in select(&["small.pth", "float8.pth", "views.bin"][..]), damage in damage()) {
        let mut pickle = pickle_of(name);
        harm(&mut pickle, &damage);
        let _ = open_with_pickle(&pickle);
    }
}

/// Places and what stands there instead.
fn damage() -> impl Strategy<Value = Vec<(Index, u8)>> {
    prop::collection::vec((any::<Index>(), any::<u8>()), 1..8)
}

fn harm(bytes: &mut [u8], damage: &[(Index, u8)]) {
    for (place, byte) in damage {
        bytes[place.index(bytes.len())] = *byte;
    }
}
