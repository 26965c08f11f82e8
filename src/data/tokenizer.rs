//! From text to ids and back: bytes, a `tokenizer.json`, or a byte-level BPE trained on a sample of the corpus itself.

use super::DataError;
use super::info::{CorpusInfo, CorpusKind, folder_of};
use std::path::{Path, PathBuf};
use tokenizers::AddedToken;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};

/// The end-of-document token of vocabularies that are trained here.
const END_OF_TEXT: &str = "<|endoftext|>";
/// What tokenizers in circulation call it, in the order they are tried.
const KNOWN_ENDS: [&str; 7] = [END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<|eos|>", "[SEP]"];
/// Text that a vocabulary is trained on, at most.
pub(super) const SAMPLE_BYTES: u64 = 64 << 20;
/// Bytes and the end of document.
const SMALLEST_VOCABULARY: u64 = 257;
/// The end of document of bytes.
const END_OF_BYTES: u32 = 256;

/// Which tokenizer a corpus is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// Ids 0 to 255 are bytes, 256 ends a document.
    Bytes,
    /// A Hugging Face `tokenizer.json`.
    File(PathBuf),
    /// A byte-level BPE of this many ids, trained on at most 64 MiB of the input.
    Train(u64),
}

impl std::str::FromStr for TokenizerChoice {
    type Err = String;

    /// `bytes`, `train:VOCAB` or the path of a `tokenizer.json`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("train:") {
            _ if text == "bytes" => Ok(Self::Bytes),
            None => Ok(Self::File(PathBuf::from(text))),
            Some(size) => match crate::units::parse_quantity(size) {
                Some(v) if v.fract() == 0.0 && (SMALLEST_VOCABULARY as f64..=1e6).contains(&v) => {
                    Ok(Self::Train(v as u64))
                }
                _ => Err(format!(
                    "a vocabulary of {size}: expected a whole number from {SMALLEST_VOCABULARY} to 1000000"
                )),
            },
        }
    }
}

/// A tokenizer ready for use.
#[derive(Debug)]
pub struct Tokenizer {
    /// None for bytes.
    engine: Option<tokenizers::Tokenizer>,
    vocab_size: u64,
    eos: u32,
}

impl Tokenizer {
    /// Ids 0 to 255 are bytes, 256 ends a document.
    pub fn bytes() -> Self {
        Self { engine: None, vocab_size: SMALLEST_VOCABULARY, eos: END_OF_BYTES }
    }

    /// The `tokenizer.json` at `path`; `eos` names the token that ends a document, else the usual names are tried.
    pub fn from_file(path: &Path, eos: Option<&str>) -> Result<Self, DataError> {
        let json = std::fs::read(path).map_err(DataError::read(path))?;
        Self::from_json(&path.display().to_string(), &json, eos)
    }

    /// The tokenizer that the corpus of a data path such as `data/mine/validation` was made with. A synthetic corpus,
    /// and shards without a `corpus.json`, have none: an error.
    pub fn beside(path: &Path) -> Result<Self, DataError> {
        let folder = folder_of(path);
        let refuse = |reason: &str| DataError::Corpus { path: folder.to_owned(), reason: reason.to_owned() };
        let info = CorpusInfo::in_folder(folder)?
            .ok_or_else(|| refuse("no corpus.json, so its tokenizer is not known; hint: name a tokenizer.json"))?;
        match (info.kind, &info.tokenizer) {
            (CorpusKind::Synthetic, _) => Err(refuse("its tokens are no text, so it has no tokenizer")),
            (CorpusKind::Text, None) => Ok(Self::bytes()),
            (CorpusKind::Text, Some(name)) => {
                let path = folder.join(name);
                let json = std::fs::read(&path).map_err(DataError::read(&path))?;
                Self::with_end(&path.display().to_string(), &json, |_| Ok(info.eos_id as u32))
            }
        }
    }

    /// The id that ends a document.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Ids lie below this.
    pub fn vocab_size(&self) -> u64 {
        self.vocab_size
    }

    /// As [`Tokenizer::from_file`], of a file's content; `name` is for errors.
    pub(super) fn from_json(name: &str, json: &[u8], eos: Option<&str>) -> Result<Self, DataError> {
        Self::with_end(name, json, |engine| {
            let found = match eos {
                Some(eos) => engine.token_to_id(eos),
                None => KNOWN_ENDS.iter().find_map(|end| engine.token_to_id(end)),
            };
            found.ok_or_else(|| match eos {
                Some(eos) => format!("it has no token {eos:?}"),
                None => format!("it has none of {KNOWN_ENDS:?}; hint: name its end-of-document token with --eos"),
            })
        })
    }

    fn with_end(
        name: &str,
        json: &[u8],
        end: impl FnOnce(&tokenizers::Tokenizer) -> Result<u32, String>,
    ) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::Tokenizer { name: name.to_owned(), reason };
        let engine =
            tokenizers::Tokenizer::from_bytes(json).map_err(|e| refuse(format!("not a tokenizer.json: {e}")))?;
        let eos = end(&engine).map_err(refuse)?;
        Self::with(engine, eos).map_err(refuse)
    }

    /// Trains a byte-level BPE of at most `vocab_size` ids.
    pub(super) fn train(vocab_size: u64, sample: Vec<String>) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::Tokenizer { name: format!("train:{vocab_size}"), reason };
        let mut engine = tokenizers::Tokenizer::new(BPE::default());
        engine.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        engine.with_decoder(Some(ByteLevel::default()));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab_size as usize)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .build();
        engine
            .train(&mut TrainerWrapper::BpeTrainer(trainer), sample.into_iter())
            .map_err(|e| refuse(e.to_string()))?;
        let eos = engine.token_to_id(END_OF_TEXT).ok_or_else(|| refuse("it lost its end token".to_owned()))?;
        Self::with(engine, eos).map_err(refuse)
    }

    fn with(mut engine: tokenizers::Tokenizer, eos: u32) -> Result<Self, String> {
        // A document that spells out a special token must not end there.
        engine.set_encode_special_tokens(true);
        // Cutting and padding are for batches of sentences.
        engine.with_padding(None);
        engine.with_truncation(None).map_err(|e| e.to_string())?;
        let largest = engine.get_vocab(true).into_values().max().ok_or("it has no tokens")?;
        Ok(Self { engine: Some(engine), vocab_size: u64::from(largest) + 1, eos })
    }

    /// The ids of a text, without EOS and without special tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let Some(engine) = &self.engine else { return Ok(text.bytes().map(u32::from).collect()) };
        let encoding = engine.encode_fast(text, false).map_err(|e| failure(format!("cannot encode a text: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of one document and its EOS.
    pub(super) fn encode_document(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let mut ids = self.encode(text)?;
        ids.push(self.eos);
        Ok(ids)
    }

    /// The text of ids; special tokens have none, and bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        match &self.engine {
            None => {
                let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Some(engine) => engine.decode(ids, true).map_err(|e| failure(format!("cannot decode: {e}"))),
        }
    }

    /// Decodes ids one after another.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, ids: Vec::new(), shown: 0 }
    }

    /// The `tokenizer.json` to keep with the corpus; none for bytes.
    pub(super) fn json(&self) -> Result<Option<String>, DataError> {
        self.engine.as_ref().map(|engine| engine.to_string(true).map_err(|e| failure(e.to_string()))).transpose()
    }
}

fn failure(reason: String) -> DataError {
    DataError::Tokenizer { name: "tokenizer.json".to_owned(), reason }
}

/// Text that arrives id by id: a piece is handed out once no later id can change it. All pieces together, with that of
/// [`TextStream::finish`], are the text of all ids.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The ids last handed out, since how a piece begins may depend on them, and those held back.
    ids: Vec<u32>,
    /// How many of `ids` were handed out.
    shown: usize,
}

impl TextStream<'_> {
    /// Takes in the next id and returns the text that is now certain; empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> Result<String, DataError> {
        self.ids.push(id);
        let piece = self.held()?;
        // What a later id can still complete ends in a replacement character.
        if piece.is_empty() || piece.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(piece)
    }

    /// The text of what was held back.
    pub fn finish(self) -> Result<String, DataError> {
        self.held()
    }

    fn held(&self) -> Result<String, DataError> {
        let before = self.tokenizer.decode(&self.ids[..self.shown])?;
        let all = self.tokenizer.decode(&self.ids)?;
        Ok(all.strip_prefix(&before).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "the cat — naïve <|endoftext|>\u{1F600}\r\n\t 日本語 e\u{301}";

    fn trained() -> Tokenizer {
        let sample: Vec<String> = (0..200).map(|i| format!("the cat number {i} sat on the mat\n")).collect();
        Tokenizer::train(300, sample).unwrap()
    }

    #[test]
    fn a_trained_vocabulary_is_lossless_and_survives_its_file() {
        let trained = trained();
        assert!((257..=300).contains(&trained.vocab_size()));
        let json = trained.json().unwrap().unwrap();
        let loaded = Tokenizer::from_json("x", json.as_bytes(), None).unwrap();
        let ids = loaded.encode_document(TEXT).unwrap();
        assert_eq!(ids, trained.encode_document(TEXT).unwrap());
        assert_eq!(ids.iter().filter(|&&id| id == loaded.eos()).count(), 1, "a document ends once");
        assert_eq!(loaded.encode(TEXT).unwrap(), ids[..ids.len() - 1]);
        assert_eq!(loaded.decode(&ids).unwrap(), TEXT);
        assert!(Tokenizer::from_json("x", json.as_bytes(), Some("<stop>")).unwrap_err().to_string().contains("<stop>"));
        assert!(Tokenizer::from_json("x", b"{}", None).unwrap_err().to_string().contains("not a tokenizer.json"));
    }

    #[test]
    fn bytes_are_lossless_and_their_end_has_no_text() {
        let bytes = Tokenizer::bytes();
        let ids = bytes.encode_document(TEXT).unwrap();
        assert_eq!((ids.len(), ids.last(), bytes.vocab_size()), (TEXT.len() + 1, Some(&256), 257));
        assert_eq!(bytes.decode(&ids).unwrap(), TEXT);
        assert_eq!(bytes.decode(&[b'a'.into(), 0xC3, b'b'.into()]).unwrap(), "a\u{FFFD}b");
    }

    #[test]
    fn a_stream_hands_out_whole_characters_and_all_of_the_text() {
        for tokenizer in [Tokenizer::bytes(), trained()] {
            let (mut stream, mut text) = (tokenizer.stream(), String::new());
            for id in tokenizer.encode(TEXT).unwrap() {
                let piece = stream.push(id).unwrap();
                assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{piece:?}");
                text += &piece;
            }
            assert_eq!(text, TEXT);
            assert_eq!(stream.finish().unwrap(), "");
        }
    }

    #[test]
    fn a_stream_of_what_is_no_text_ends_with_the_text_of_all_ids() {
        let bytes = Tokenizer::bytes();
        let cases: [&[u32]; 4] =
            [&[0xE2, 0x82], &[0xFF, 0xFF, 0x61, 0xC3], &[0x61, 0xC3, 0x61, 0xA9, 0x62], &[256, 0x61, 256, 0xC3, 0xA9]];
        for ids in cases {
            let mut stream = bytes.stream();
            let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            text += &stream.finish().unwrap();
            assert_eq!(text, bytes.decode(ids).unwrap(), "{ids:?}");
        }
        let mut stream = bytes.stream();
        let pieces: Vec<String> = [0xE2, 0x82, 0xAC, 0x21].map(|id| stream.push(id).unwrap()).into();
        assert_eq!(pieces, ["", "", "€", "!"]);
    }

    #[test]
    fn a_corpus_knows_its_tokenizer() {
        use crate::data::pack::{PackSpec, pack};
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.jsonl");
        let lines: String = (0..300).map(|i| format!("{{\"text\":\"the cat {i} sat on the mat\"}}\n")).collect();
        std::fs::write(&input, lines).unwrap();
        for (name, choice) in [("bytes", TokenizerChoice::Bytes), ("bpe", TokenizerChoice::Train(290))] {
            let out = folder.path().join(name);
            let spec = PackSpec {
                inputs: vec![input.clone()],
                tokenizer: choice,
                seed: 0,
                validation_fraction: 0.1,
                field: "text".to_owned(),
                eos: None,
            };
            let info = pack(&spec, &out, &|_| {}).unwrap().info;
            let tokenizer = Tokenizer::beside(&out.join("validation")).unwrap();
            assert_eq!((u64::from(tokenizer.eos()), tokenizer.vocab_size()), (info.eos_id, info.vocab_size));
            let ids = tokenizer.encode(TEXT).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), TEXT);
            if let Some(file) = info.tokenizer {
                let same = Tokenizer::from_file(&out.join(file), None).unwrap();
                assert_eq!(same.encode(TEXT).unwrap(), ids);
            }
        }
        let none = Tokenizer::beside(folder.path()).unwrap_err().to_string();
        assert!(none.contains("corpus.json") && none.contains("hint"), "{none}");
    }

    #[test]
    fn choices_read_as_written() {
        assert_eq!("bytes".parse(), Ok(TokenizerChoice::Bytes));
        assert_eq!("train:8K".parse(), Ok(TokenizerChoice::Train(8000)));
        assert_eq!("a/tokenizer.json".parse(), Ok(TokenizerChoice::File("a/tokenizer.json".into())));
        assert!("train:100".parse::<TokenizerChoice>().unwrap_err().contains("257"));
    }
}
