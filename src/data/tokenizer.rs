//! From text to ids: bytes, a `tokenizer.json`, or a byte-level BPE trained on a sample of the corpus itself.

use super::DataError;
use std::path::PathBuf;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, Tokenizer};

/// The end-of-document token of vocabularies that are trained here.
const END_OF_TEXT: &str = "<|endoftext|>";
/// What tokenizers in circulation call it, in the order they are tried.
const KNOWN_ENDS: [&str; 7] = [END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<|eos|>", "[SEP]"];
/// Text that a vocabulary is trained on, at most.
pub(super) const SAMPLE_BYTES: u64 = 64 << 20;
/// Bytes and the end of document.
const SMALLEST_VOCABULARY: u64 = 257;

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
pub(super) struct Encoder {
    tokenizer: Option<Tokenizer>,
    pub(super) vocab_size: u64,
    pub(super) eos: u32,
}

impl Encoder {
    pub(super) fn bytes() -> Self {
        Self { tokenizer: None, vocab_size: 257, eos: 256 }
    }

    /// Reads a `tokenizer.json`; `eos` names the token that ends a document, else the usual names are tried.
    pub(super) fn from_json(name: &str, json: &[u8], eos: Option<&str>) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::Tokenizer { name: name.to_owned(), reason };
        let tokenizer = Tokenizer::from_bytes(json).map_err(|e| refuse(format!("not a tokenizer.json: {e}")))?;
        let found = match eos {
            Some(eos) => tokenizer.token_to_id(eos),
            None => KNOWN_ENDS.iter().find_map(|end| tokenizer.token_to_id(end)),
        };
        let eos = found.ok_or_else(|| match eos {
            Some(eos) => refuse(format!("it has no token {eos:?}")),
            None => refuse(format!("it has none of {KNOWN_ENDS:?}; hint: name its end-of-document token with --eos")),
        })?;
        Self::with(tokenizer, eos).map_err(refuse)
    }

    /// Trains a byte-level BPE of at most `vocab_size` ids.
    pub(super) fn train(vocab_size: u64, sample: Vec<String>) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::Tokenizer { name: format!("train:{vocab_size}"), reason };
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab_size as usize)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .build();
        tokenizer
            .train(&mut TrainerWrapper::BpeTrainer(trainer), sample.into_iter())
            .map_err(|e| refuse(e.to_string()))?;
        let eos = tokenizer.token_to_id(END_OF_TEXT).ok_or_else(|| refuse("it lost its end token".to_owned()))?;
        Self::with(tokenizer, eos).map_err(refuse)
    }

    fn with(mut tokenizer: Tokenizer, eos: u32) -> Result<Self, String> {
        // A document that spells out a special token must not end there.
        tokenizer.set_encode_special_tokens(true);
        // Cutting and padding are for batches of sentences.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        let largest = tokenizer.get_vocab(true).into_values().max().ok_or("it has no tokens")?;
        Ok(Self { tokenizer: Some(tokenizer), vocab_size: u64::from(largest) + 1, eos })
    }

    /// The ids of one document and its EOS.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let mut ids = match &self.tokenizer {
            None => text.bytes().map(u32::from).collect(),
            Some(tokenizer) => {
                let encoding = tokenizer.encode_fast(text, false).map_err(|e| DataError::Tokenizer {
                    name: "tokenizer.json".to_owned(),
                    reason: format!("cannot encode a document: {e}"),
                })?;
                encoding.get_ids().to_vec()
            }
        };
        ids.push(self.eos);
        Ok(ids)
    }

    /// The `tokenizer.json` to keep with the corpus; none for bytes.
    pub(super) fn json(&self) -> Result<Option<String>, DataError> {
        let refuse =
            |e: tokenizers::Error| DataError::Tokenizer { name: "tokenizer.json".to_owned(), reason: e.to_string() };
        self.tokenizer.as_ref().map(|tokenizer| tokenizer.to_string(true).map_err(refuse)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trained_vocabulary_is_lossless_and_survives_its_file() {
        let sample: Vec<String> = (0..200).map(|i| format!("the cat number {i} sat on the mat\n")).collect();
        let trained = Encoder::train(300, sample).unwrap();
        assert!((257..=300).contains(&trained.vocab_size));
        let json = trained.json().unwrap().unwrap();
        let loaded = Encoder::from_json("x", json.as_bytes(), None).unwrap();
        let text = "the cat — naïve <|endoftext|>\u{1F600}";
        let ids = loaded.encode(text).unwrap();
        assert_eq!(ids, trained.encode(text).unwrap());
        assert_eq!(ids.iter().filter(|&&id| id == loaded.eos).count(), 1, "a document ends once");
        let back = loaded.tokenizer.as_ref().unwrap().decode(&ids[..ids.len() - 1], false).unwrap();
        assert_eq!(back, text);
        assert!(Encoder::from_json("x", json.as_bytes(), Some("<stop>")).unwrap_err().to_string().contains("<stop>"));
        assert!(Encoder::from_json("x", b"{}", None).unwrap_err().to_string().contains("not a tokenizer.json"));
    }

    #[test]
    fn choices_read_as_written() {
        assert_eq!("bytes".parse(), Ok(TokenizerChoice::Bytes));
        assert_eq!("train:8K".parse(), Ok(TokenizerChoice::Train(8000)));
        assert_eq!("a/tokenizer.json".parse(), Ok(TokenizerChoice::File("a/tokenizer.json".into())));
        assert!("train:100".parse::<TokenizerChoice>().unwrap_err().contains("257"));
    }
}
