//! Tests of packing: nothing lost, order by seed, split by content.

use super::*;
use std::collections::BTreeSet;

fn quiet(_: Progress) {}

fn input(documents: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..documents).map(|i| format!("{{\"text\":\"document number {i}\"}}\n")).collect();
    std::fs::write(folder.path().join("a.jsonl"), lines).unwrap();
    std::fs::write(folder.path().join("b.bin"), [0, 159]).unwrap();
    folder
}

fn spec(input: &tempfile::TempDir) -> PackSpec {
    PackSpec {
        inputs: vec![input.path().to_owned()],
        tokenizer: TokenizerChoice::Bytes,
        seed: 1,
        validation_fraction: 0.2,
        field: "text".to_owned(),
        eos: None,
    }
}

/// The documents of one side, in their order.
fn documents(folder: &Path, split: &str) -> Vec<String> {
    let data = PackedDataset::open(&folder.join(split), 0, Some(257)).unwrap();
    let ids = data.rows(0, data.blocks() as usize).unwrap();
    ids.split_inclusive(|&id| id == 256)
        .map(|ids| String::from_utf8(ids.iter().filter(|&&id| id != 256).map(|&id| id as u8).collect()).unwrap())
        .collect()
}

#[test]
fn every_document_arrives_once_on_a_side_that_the_seed_does_not_change() {
    let input = input(500);
    let made = |seed: u64, threads: usize| {
        let out = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let packed = pool.install(|| pack(&PackSpec { seed, ..spec(&input) }, out.path(), &quiet)).unwrap();
        assert_eq!((packed.documents, packed.binary_files), (500, 1));
        let names: Vec<_> = std::fs::read_dir(out.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "nothing but shards and the description: {names:?}");
        (documents(out.path(), "train"), documents(out.path(), "validation"))
    };
    let (train, validation) = made(1, 1);
    assert_eq!(train.len() + validation.len(), 500);
    assert!((60..140).contains(&validation.len()), "{}", validation.len());
    assert_eq!(train.iter().chain(&validation).collect::<BTreeSet<_>>().len(), 500);
    assert_eq!((train.clone(), validation.clone()), made(1, 4));
    let (other_train, other_validation) = made(2, 1);
    assert_ne!(train, other_train);
    assert_eq!(validation.into_iter().collect::<BTreeSet<_>>(), other_validation.into_iter().collect());
}

#[test]
fn one_document_is_split_at_its_end() {
    let input = tempfile::tempdir().unwrap();
    std::fs::write(input.path().join("book.txt"), "0123456789".repeat(100)).unwrap();
    let out = tempfile::tempdir().unwrap();
    let info = pack(&spec(&input), out.path(), &quiet).unwrap().info;
    assert_eq!((info.train_tokens, info.validation_tokens), (801, 200));
    assert_eq!(documents(out.path(), "validation")[0].len(), 199);
}

#[test]
fn a_trained_tokenizer_lies_in_the_corpus_and_reads_back_as_a_given_one() {
    let input = input(300);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trained = PackSpec { tokenizer: TokenizerChoice::Train(300), ..spec(&input) };
    let one = pack(&trained, first.path(), &quiet).unwrap().info;
    assert_eq!(one.tokenizer.as_deref(), Some("tokenizer.json"));
    let given = TokenizerChoice::File(first.path().join("tokenizer.json"));
    let two = pack(&PackSpec { tokenizer: given, ..spec(&input) }, second.path(), &quiet).unwrap().info;
    assert_eq!(one.train_fingerprint, two.train_fingerprint);
    assert!(one.train_tokens < 300 * 20, "merges were learnt");
}

#[test]
fn a_second_call_does_nothing_and_other_input_is_refused() {
    let input = input(50);
    let out = tempfile::tempdir().unwrap();
    let first = pack(&spec(&input), out.path(), &quiet).unwrap();
    let again = pack(&spec(&input), out.path(), &|_| panic!("nothing is to be done")).unwrap();
    assert_eq!((again.info, again.documents), (first.info, 0));
    std::fs::write(input.path().join("c.txt"), "more").unwrap();
    let error = pack(&spec(&input), out.path(), &quiet).unwrap_err().to_string();
    assert!(error.contains("other parameters") && error.contains("hint:"), "{error}");
}

#[test]
fn input_without_text_is_an_error() {
    let input = tempfile::tempdir().unwrap();
    std::fs::write(input.path().join("b.bin"), [0, 159]).unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = pack(&spec(&input), out.path(), &quiet).unwrap_err().to_string();
    assert!(error.contains("no text in 1 files (1 binary)"), "{error}");
}
