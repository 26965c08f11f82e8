//! `lossfloor data` as its users meet it, and what damaged corpora say.

use assert_cmd::Command;
use lossfloor::data::{CorpusInfo, FloorTable, PackedDataset};
use std::path::Path;

fn lossfloor(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("lossfloor").expect("the binary is built with its tests").args(args).assert()
}

fn stderr_of(assert: assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

fn synth<'a>(out: &'a str, more: &[&'a str]) -> assert_cmd::assert::Assert {
    let plain = ["data", "synth", "--out", out, "--tokens", "20K", "--validation-tokens", "5K", "--seq-len", "64"];
    lossfloor(&[&plain[..], more].concat())
}

#[test]
fn synth_prints_the_contract_and_makes_what_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quick");
    let out = out.to_str().unwrap();
    let assert = synth(out, &["--json"]).success();
    let json: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["dir", "floor_nats", "train_tokens", "validation_tokens", "vocab_size"]);
    // 5000 tokens are 20 rows of 257, rounded up.
    assert_eq!((&json["train_tokens"], &json["validation_tokens"]), (&20_000.into(), &(20 * 257).into()));
    let data = PackedDataset::open(&Path::new(out).join("validation"), 256, Some(256)).unwrap();
    assert_eq!(data.blocks(), 20);
    let info = CorpusInfo::beside(&Path::new(out).join("validation")).unwrap().unwrap();
    assert_eq!(data.fingerprint(), info.validation_fingerprint);
    let floor = FloorTable::beside(Path::new(out)).unwrap().unwrap().floor_for(64, 257).unwrap();
    assert!(floor.exact && (floor.nats - json["floor_nats"].as_f64().unwrap()).abs() < 1e-12);

    let again = stderr_of(synth(out, &[]).success());
    assert!(again.contains("already complete"), "{again}");
    let other = stderr_of(synth(out, &["--seed", "9"]).code(2));
    assert!(other.contains("seed: 0 there, 9 asked") && other.contains("hint:"), "{other}");
}

#[test]
fn phonebook_texts_are_an_input_of_pack() {
    let folder = tempfile::tempdir().unwrap();
    let (books, out) = (folder.path().join("books.jsonl"), folder.path().join("corpus"));
    let (books, out) = (books.to_str().unwrap(), out.to_str().unwrap());
    let plain = ["data", "phonebook", "--out", books, "--documents", "50"];
    let assert = lossfloor(&[&plain[..], &["--entries", "3..5", "--json"]].concat()).success();
    let json: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(json["documents"], 50);
    let packed = lossfloor(&["data", "pack", books, "--out", out, "--tokenizer", "bytes", "--json"]).success();
    let corpus: serde_json::Value = serde_json::from_slice(&packed.get_output().stdout).unwrap();
    let tokens = corpus["train_tokens"].as_u64().unwrap() + corpus["validation_tokens"].as_u64().unwrap();
    assert_eq!(tokens, json["bytes"].as_u64().unwrap() + 50, "a document is its bytes and an end");
    let few = stderr_of(lossfloor(&[&plain[..], &["--entries", "2..5"]].concat()).code(2));
    assert!(few.contains("entries = 2: expected 3"), "{few}");
    let name = ["data", "phonebook", "--out", "books.txt", "--documents", "5", "--entries", "4"];
    assert!(stderr_of(lossfloor(&name).code(2)).contains(".jsonl"));
}

#[test]
fn pack_prints_the_contract_with_no_floor() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..100).map(|i| format!("{{\"text\":\"line {i}\"}}\n")).collect();
    std::fs::write(folder.path().join("in.jsonl"), text).unwrap();
    let (input, out) = (folder.path().join("in.jsonl"), folder.path().join("out"));
    let (input, out) = (input.to_str().unwrap(), out.to_str().unwrap());
    let assert = lossfloor(&["data", "pack", input, "--out", out, "--tokenizer", "bytes", "--json"]).success();
    let json: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!((&json["vocab_size"], &json["floor_nats"]), (&257.into(), &serde_json::Value::Null));
    assert!(stderr_of(assert).contains("100 documents"));
    let missing = stderr_of(lossfloor(&["data", "pack", "no/such", "--out", out, "--tokenizer", "bytes"]).code(2));
    assert!(missing.contains("cannot read no/such"), "{missing}");
    let field = &["data", "pack", input, "--out", "x", "--tokenizer", "train:12"];
    assert!(stderr_of(lossfloor(field).code(2)).contains("257"));
}

#[test]
fn wrong_usage_names_the_value_and_what_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let vague = stderr_of(lossfloor(&["data", "synth", "--out", out, "--tokens", "some"]).code(2));
    assert!(vague.contains("2M or 2^21"), "{vague}");
    let small = stderr_of(synth(out, &["--vocab-size", "16"]).code(2));
    assert!(small.contains("vocab_size = 16: expected 32 to 65535"), "{small}");
    std::fs::write(folder.path().join("train_mine.bin"), "mine").unwrap();
    let taken = stderr_of(synth(out, &[]).code(2));
    assert!(taken.contains("train_mine.bin") && taken.contains("hint:"), "{taken}");
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..2000).map(|i| format!("{{\"text\":\"line {i}\"}}\n")).collect();
    std::fs::write(folder.path().join("in.jsonl"), lines).unwrap();
    let synth = ["data", "synth", "--out", "c", "--tokens", "20K", "--validation-tokens", "5K", "--seq-len", "64"];
    let pack = ["data", "pack", "in.jsonl", "--out", "c", "--tokenizer", "bytes"];
    for (args, file) in [(&synth[..], "c/train_synthetic_0000000000.bin.part"), (&pack[..], "c/bucket_000.spill")] {
        let output = crate::cramped(16).current_dir(folder.path()).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr, format!("error: cannot write {file}: File too large (os error 27)\n"));
        assert_eq!(std::fs::read_dir(folder.path().join("c")).unwrap().count(), 0, "nothing half written");
    }
    Command::cargo_bin("lossfloor").unwrap().current_dir(folder.path()).args(synth).assert().success();
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let message = lossfloor::data::DataError::write(Path::new("c/train.bin"))(full).to_string();
    assert!(message.starts_with("cannot write c/train.bin: the disk is full; hint: free space"), "{message}");
}

#[test]
fn the_remains_of_a_killed_attempt_are_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("c");
    synth(out.to_str().unwrap(), &[]).success();
    assert!(lossfloor::config::data_facts(&out.join("train")).unwrap().is_some());
    std::fs::remove_file(out.join("corpus.json")).unwrap();
    std::fs::write(out.join(".incomplete"), "").unwrap();
    assert_eq!(lossfloor::config::data_facts(&out.join("train")).unwrap(), None);
    synth(out.to_str().unwrap(), &[]).success();
    assert!(lossfloor::config::data_facts(&out.join("train")).unwrap().is_some());
}

#[test]
fn damaged_corpora_are_refused_by_name_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("c");
    synth(out.to_str().unwrap(), &[]).success();
    let shard = out.join("train_synthetic_0000000000.bin");
    let open = || PackedDataset::open(&out.join("train"), 64, Some(256)).map(|_| ()).unwrap_err().to_string();

    let whole = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &whole[..whole.len() - 7]).unwrap();
    let truncated = open();
    assert!(truncated.contains("truncated") && truncated.contains("train_synthetic"), "{truncated}");

    std::fs::write(&shard, b"PK\x03\x04 an archive, not tokens").unwrap();
    assert!(open().contains("LITPKDS"));

    let mut beyond = whole.clone();
    beyond[24 + 2 * 100 + 1] = 1;
    std::fs::write(&shard, &beyond).unwrap();
    assert!(open().contains("token 100 has id"));

    std::fs::remove_file(&shard).unwrap();
    assert!(open().contains("no shards at"));

    std::fs::write(out.join("validation.nll.f32"), [0; 8]).unwrap();
    assert!(FloorTable::beside(&out).unwrap_err().to_string().contains("8 bytes, expected"));
}
