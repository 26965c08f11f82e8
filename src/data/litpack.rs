//! The `.bin` shard: 24 bytes of header, then token ids. Little-endian; written by us for every corpus, and by the
//! SlimPajama preparation of the reference implementation.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 7 | ASCII `LITPKDS` |
//! | 7 | 8 | u64 version = 1 |
//! | 15 | 1 | u8 type code: 1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 6 f32, 7 f64, 8 u16 |
//! | 16 | 8 | u64 tokens |
//! | 24 | tokens × size | token ids |
//!
//! The last shard of a corpus may be shorter than the others; its own header says so.

use super::DataError;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 7] = b"LITPKDS";
const VERSION: u64 = 1;
/// Bytes before the first token.
pub const HEADER_BYTES: usize = 24;
/// Vocabularies below this are written in 16 bits.
const U16_VOCABULARY: u64 = 65_500;

/// How a shard stores an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenType {
    U8,
    I8,
    I16,
    I32,
    I64,
    U16,
}

impl TokenType {
    fn from_code(code: u8) -> Result<Self, String> {
        Ok(match code {
            1 => Self::U8,
            2 => Self::I8,
            3 => Self::I16,
            4 => Self::I32,
            5 => Self::I64,
            8 => Self::U16,
            6 | 7 => return Err(format!("type code {code} means floating point, expected whole numbers")),
            _ => return Err(format!("unknown type code {code}, expected 1 to 5 or 8")),
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

/// One memory-mapped shard.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: memmap2::Mmap,
    token_type: TokenType,
    tokens: u64,
}

impl Shard {
    /// Maps a shard after checking its header against its length.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::NotShard { path: path.to_owned(), reason };
        let file = File::open(path).map_err(DataError::read(path))?;
        let length = file.metadata().map_err(DataError::read(path))?.len();
        if length < HEADER_BYTES as u64 {
            return Err(refuse(format!("{length} bytes are less than a header of {HEADER_BYTES}")));
        }
        #[expect(unsafe_code, reason = "the only way to map a file")]
        // SAFETY: the map is read only and shards are never changed in place: a corpus is written once, and files
        // are replaced by rename. Another program that truncates one ends this process, as with every mapped reader.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(DataError::read(path))?;
        let (token_type, tokens) = parse_header(&map, length).map_err(refuse)?;
        Ok(Self { path: path.to_owned(), map, token_type, tokens })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tokens in this shard.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The whole file, header included.
    pub(super) fn raw(&self) -> &[u8] {
        &self.map
    }

    /// Copies the ids from token `offset` on; refuses ids that are negative or not below `vocab_size`.
    ///
    /// # Panics
    /// When the range does not lie in the shard.
    pub fn read(&self, offset: u64, out: &mut [i64], vocab_size: Option<u64>) -> Result<(), DataError> {
        let size = self.token_type.bytes();
        let start = HEADER_BYTES + offset as usize * size;
        let bytes = &self.map[start..start + out.len() * size];
        match self.token_type {
            TokenType::U8 => convert::<1>(bytes, out, |b| i64::from(b[0])),
            TokenType::I8 => convert::<1>(bytes, out, |b| i64::from(i8::from_le_bytes(b))),
            TokenType::I16 => convert::<2>(bytes, out, |b| i64::from(i16::from_le_bytes(b))),
            TokenType::U16 => convert::<2>(bytes, out, |b| i64::from(u16::from_le_bytes(b))),
            TokenType::I32 => convert::<4>(bytes, out, |b| i64::from(i32::from_le_bytes(b))),
            TokenType::I64 => convert::<8>(bytes, out, i64::from_le_bytes),
        }
        let limit = vocab_size.map_or(i64::MAX, |v| i64::try_from(v).unwrap_or(i64::MAX));
        // Negative ids become huge as u64, so one comparison finds both kinds.
        match out.iter().position(|&id| id as u64 >= limit as u64) {
            None => Ok(()),
            Some(at) => Err(DataError::TokenId {
                path: self.path.clone(),
                offset: offset + at as u64,
                id: out[at],
                vocab_size: vocab_size.unwrap_or(i64::MAX as u64),
            }),
        }
    }
}

fn convert<const N: usize>(bytes: &[u8], out: &mut [i64], id: impl Fn([u8; N]) -> i64) {
    for (slot, chunk) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *slot = id(*chunk);
    }
}

fn parse_header(bytes: &[u8], length: u64) -> Result<(TokenType, u64), String> {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    if &bytes[..7] != MAGIC {
        return Err("it does not begin with LITPKDS".to_owned());
    }
    if word(7) != VERSION {
        return Err(format!("version {}, expected {VERSION}", word(7)));
    }
    let token_type = TokenType::from_code(bytes[15])?;
    let tokens = word(16);
    let expected =
        tokens.checked_mul(token_type.bytes() as u64).and_then(|content| content.checked_add(HEADER_BYTES as u64));
    match expected {
        Some(expected) if expected == length => Ok((token_type, tokens)),
        Some(expected) if expected > length => Err(format!(
            "truncated: its header promises {tokens} tokens in {expected} bytes, the file has {length}; hint: copy or make it again"
        )),
        _ => Err(format!("its header promises {tokens} tokens, which does not fit its {length} bytes")),
    }
}

/// Writes a token stream as one or more shards `{folder}/{prefix}_{counter:010}.bin`.
#[derive(Debug)]
pub struct ShardWriter {
    folder: PathBuf,
    prefix: String,
    wide: bool,
    shard_tokens: u64,
    current: Option<Part>,
    buffer: Vec<u8>,
    counter: u64,
    tokens: u64,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: BufWriter<File>,
    tokens: u64,
}

impl ShardWriter {
    /// Shards of at most `shard_tokens` tokens with ids below `vocab_size`; the folder must exist.
    pub fn new(folder: &Path, prefix: &str, vocab_size: u64, shard_tokens: u64) -> Self {
        assert!(shard_tokens > 0, "a shard holds at least one token");
        Self {
            folder: folder.to_owned(),
            prefix: prefix.to_owned(),
            wide: vocab_size >= U16_VOCABULARY,
            shard_tokens,
            current: None,
            buffer: Vec::new(),
            counter: 0,
            tokens: 0,
        }
    }

    /// Tokens written so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Appends tokens to the stream; a shard that is full is finished and the next begun.
    pub fn push(&mut self, mut ids: &[u32]) -> Result<(), DataError> {
        while !ids.is_empty() {
            let mut part = match self.current.take() {
                Some(part) => part,
                None => self.begin()?,
            };
            let fits = (self.shard_tokens - part.tokens).min(ids.len() as u64) as usize;
            let (now, later) = ids.split_at(fits);
            self.buffer.clear();
            if self.wide {
                self.buffer.extend(now.iter().flat_map(|&id| id.to_le_bytes()));
            } else {
                self.buffer.extend(now.iter().flat_map(|&id| (id as u16).to_le_bytes()));
            }
            part.file.write_all(&self.buffer).map_err(DataError::write(&part.path))?;
            part.tokens += fits as u64;
            self.tokens += fits as u64;
            ids = later;
            if part.tokens == self.shard_tokens {
                self.end(part)?;
            } else {
                self.current = Some(part);
            }
        }
        Ok(())
    }

    /// Finishes the last shard, however short, and returns the tokens of all.
    pub fn finish(mut self) -> Result<u64, DataError> {
        if let Some(part) = self.current.take() {
            self.end(part)?;
        }
        Ok(self.tokens)
    }

    fn begin(&self) -> Result<Part, DataError> {
        let path = self.folder.join(format!("{}_{:010}.bin.part", self.prefix, self.counter));
        let write = || -> std::io::Result<BufWriter<File>> {
            let mut file = BufWriter::with_capacity(1 << 18, File::create(&path)?);
            file.write_all(&header(self.wide, 0))?;
            Ok(file)
        };
        let file = write().map_err(DataError::write(&path))?;
        Ok(Part { path, file, tokens: 0 })
    }

    /// The header is written last, when the count is known: a shard that was cut short never looks whole.
    fn end(&mut self, part: Part) -> Result<(), DataError> {
        let Part { path, file, tokens } = part;
        let finish = || -> std::io::Result<()> {
            let mut file = file.into_inner().map_err(|e| e.into_error())?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header(self.wide, tokens))?;
            file.sync_all()?;
            std::fs::rename(&path, path.with_extension(""))
        };
        finish().map_err(DataError::write(&path))?;
        self.counter += 1;
        Ok(())
    }
}

fn header(wide: bool, tokens: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..7].copy_from_slice(MAGIC);
    bytes[7..15].copy_from_slice(&VERSION.to_le_bytes());
    bytes[15] = if wide { 4 } else { 8 };
    bytes[16..].copy_from_slice(&tokens.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_across_shards() {
        for vocab_size in [256, 70_000] {
            let folder = tempfile::tempdir().unwrap();
            let ids: Vec<u32> = (0..1000u32).map(|i| i * 37 % vocab_size as u32).collect();
            let mut writer = ShardWriter::new(folder.path(), "train_x", vocab_size, 300);
            ids.chunks(77).for_each(|chunk| writer.push(chunk).unwrap());
            assert_eq!(writer.finish().unwrap(), 1000);
            let mut read = Vec::new();
            for counter in 0..4 {
                let shard = Shard::open(&folder.path().join(format!("train_x_{counter:010}.bin"))).unwrap();
                let mut out = vec![0; shard.tokens() as usize];
                shard.read(0, &mut out, Some(vocab_size)).unwrap();
                read.extend(out.iter().map(|&id| id as u32));
            }
            assert_eq!(read, ids);
        }
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        let mut good = header(false, 10).to_vec();
        good.resize(HEADER_BYTES + 20, 0);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        for (bytes, reason) in [
            (Vec::new(), "0 bytes are less than a header"),
            (good[..40].to_vec(), "truncated"),
            ([good.clone(), vec![0]].concat(), "does not fit"),
            (changed(0, b'X'), "LITPKDS"),
            (changed(7, 2), "version 2"),
            (changed(15, 7), "floating point"),
            (changed(15, 9), "unknown type code 9"),
            (changed(23, 255), "does not fit"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Shard::open(&path).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("x.bin"), "{error}");
        }
    }

    #[test]
    fn ids_outside_the_vocabulary_name_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::new(folder.path(), "v", 300, 100);
        writer.push(&[1, 2, 299, 4]).unwrap();
        writer.finish().unwrap();
        let shard = Shard::open(&folder.path().join("v_0000000000.bin")).unwrap();
        let mut out = [0; 3];
        assert!(shard.read(1, &mut out, Some(300)).is_ok());
        match shard.read(1, &mut out, Some(256)) {
            Err(DataError::TokenId { offset: 2, id: 299, vocab_size: 256, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
