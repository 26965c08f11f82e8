//! Reading documents from what a user names: files and folders, plain or `.gz` or `.zst`, text or JSON lines.
//!
//! A text file is one document; one above 16 MiB is cut at line ends into documents of about that size, so that
//! memory stays bounded. Files and folders whose name begins with a dot are passed over in folders. What is not UTF-8,
//! or holds a zero byte, is binary: passed over and counted.

use super::DataError;
use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A longer text is cut into documents of about this many bytes.
const PIECE_BYTES: usize = 16 << 20;
/// Text per byte of a compressed file, for estimates.
const COMPRESSION: u64 = 5;

/// One file to read.
#[derive(Debug)]
pub(super) struct InputFile {
    pub(super) path: PathBuf,
    /// The path below the input that named it: what identifies the file wherever the input lies.
    pub(super) name: String,
    pub(super) bytes: u64,
    compression: Compression,
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Text,
    JsonLines,
}

impl InputFile {
    /// Bytes of text inside, roughly.
    pub(super) fn text_bytes(&self) -> u64 {
        match self.compression {
            Compression::None => self.bytes,
            Compression::Gzip | Compression::Zstd => self.bytes * COMPRESSION,
        }
    }
}

/// What was read, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadCounts {
    pub(super) documents: u64,
    pub(super) binary_files: u64,
}

/// All files that `inputs` name, in an order that does not depend on the file system.
pub(super) fn discover(inputs: &[PathBuf]) -> Result<Vec<InputFile>, DataError> {
    let mut files = Vec::new();
    for input in inputs {
        let metadata = std::fs::metadata(input).map_err(DataError::read(input))?;
        if metadata.is_file() {
            let name = input.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            files.push(describe(input.clone(), name, metadata.len()));
            continue;
        }
        let hidden =
            |entry: &walkdir::DirEntry| entry.depth() > 0 && entry.file_name().to_string_lossy().starts_with('.');
        for entry in walkdir::WalkDir::new(input).sort_by_file_name().into_iter().filter_entry(|e| !hidden(e)) {
            let entry = entry.map_err(|e| DataError::read(e.path().unwrap_or(input))(e.into()))?;
            if entry.file_type().is_file() {
                let bytes = entry.metadata().map_err(|e| DataError::read(entry.path())(e.into()))?.len();
                let name = entry.path().strip_prefix(input).unwrap_or(entry.path()).to_string_lossy().into_owned();
                files.push(describe(entry.into_path(), name, bytes));
            }
        }
    }
    Ok(files)
}

fn describe(path: PathBuf, name: String, bytes: u64) -> InputFile {
    let lower = name.to_lowercase();
    let (stem, compression) = match lower.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Compression::Gzip),
        Some((stem, "zst")) => (stem, Compression::Zstd),
        _ => (lower.as_str(), Compression::None),
    };
    let json = stem.ends_with(".jsonl") || stem.ends_with(".ndjson");
    InputFile { path, name, bytes, compression, layout: if json { Layout::JsonLines } else { Layout::Text } }
}

/// Counts what passes through.
struct Counting<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

/// Calls `each` with every document and the bytes of input read so far.
pub(super) fn read_documents(
    files: &[InputFile],
    field: &str,
    mut each: impl FnMut(String, u64) -> Result<(), DataError>,
) -> Result<ReadCounts, DataError> {
    let mut counts = ReadCounts::default();
    let mut before = 0;
    for file in files {
        let count = Rc::new(Cell::new(0));
        let raw = File::open(&file.path).map_err(DataError::read(&file.path))?;
        let raw = Counting { inner: raw, count: Rc::clone(&count) };
        let plain: Box<dyn Read> = match file.compression {
            Compression::None => Box::new(raw),
            // Several gzip members one after another are one file, as gzip itself reads them.
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            Compression::Zstd => Box::new(zstd::Decoder::new(raw).map_err(DataError::read(&file.path))?),
        };
        let reader = BufReader::with_capacity(1 << 18, plain);
        let mut found = |text: String| {
            if text.is_empty() {
                return Ok(());
            }
            counts.documents += 1;
            each(text, before + count.get())
        };
        match file.layout {
            Layout::JsonLines => json_lines(&file.path, reader, field, &mut found)?,
            Layout::Text => {
                if !text_pieces(&file.path, reader, PIECE_BYTES, &mut found)? {
                    counts.binary_files += 1;
                }
            }
        }
        before += file.bytes;
    }
    Ok(counts)
}

fn json_lines(
    path: &Path,
    mut reader: impl BufRead,
    field: &str,
    each: &mut impl FnMut(String) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(DataError::read(path))? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let refuse =
            |reason: String| DataError::Input { path: path.to_owned(), reason: format!("line {number}: {reason}") };
        let mut value: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&line).map_err(|e| refuse(format!("expected a JSON object: {e}")))?;
        match value.remove(field) {
            Some(serde_json::Value::String(text)) => each(text)?,
            Some(other) => return Err(refuse(format!("field {field:?} is {other}, expected a string"))),
            None => {
                let keys: Vec<&String> = value.keys().collect();
                return Err(refuse(format!("no field {field:?}, it has {keys:?}; hint: name the field with --field")));
            }
        }
    }
    Ok(())
}

/// Returns whether all of it was text.
fn text_pieces(
    path: &Path,
    mut reader: impl BufRead,
    piece_bytes: usize,
    each: &mut impl FnMut(String) -> Result<(), DataError>,
) -> Result<bool, DataError> {
    let mut piece = Vec::new();
    loop {
        let room = (piece_bytes - piece.len()) as u64;
        reader.by_ref().take(room).read_to_end(&mut piece).map_err(DataError::read(path))?;
        let last = piece.len() < piece_bytes;
        // A piece without a line end is cut where a character begins.
        let cut = match piece.iter().rposition(|&b| b == b'\n') {
            _ if last => piece.len(),
            Some(at) => at + 1,
            None => piece.iter().rposition(|b| b & 0xC0 != 0x80).filter(|&at| at > 0).unwrap_or(piece.len()),
        };
        let rest = piece.split_off(cut);
        if piece.contains(&0) {
            return Ok(false);
        }
        match String::from_utf8(std::mem::replace(&mut piece, rest)) {
            Ok(text) => each(text)?,
            Err(_) => return Ok(false),
        }
        if last {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_layout_and_compression_reads() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("in/.git")).unwrap();
        std::fs::write(at("in/.git/config"), "hidden").unwrap();
        std::fs::write(at("in/a.md"), "alpha").unwrap();
        std::fs::write(at("in/b.bin"), [0u8, 1, 2]).unwrap();
        std::fs::write(at("in/c.txt"), [b'a', 0xFF]).unwrap();
        std::fs::write(at("in/d.jsonl"), "{\"text\":\"d1\"}\n\n{\"text\":\"d2\",\"x\":1}").unwrap();
        let mut gz = flate2::write::GzEncoder::new(File::create(at("in/e.NDJSON.gz")).unwrap(), Default::default());
        gz.write_all(b"{\"text\":\"e1\"}\n").unwrap();
        gz.finish().unwrap();
        std::fs::write(at("in/f.rs.zst"), zstd::encode_all(&b"fn f() {}"[..], 0).unwrap()).unwrap();
        let files = discover(&[at("in")]).unwrap();
        let mut found = Vec::new();
        let counts = read_documents(&files, "text", |text, _| {
            found.push(text);
            Ok(())
        });
        assert_eq!(counts.unwrap(), ReadCounts { documents: 5, binary_files: 2 });
        assert_eq!(found, ["alpha", "d1", "d2", "e1", "fn f() {}"]);
        let error = read_documents(&files, "body", |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains("d.jsonl: line 1: no field \"body\"") && error.contains("--field"), "{error}");
    }

    #[test]
    fn long_texts_are_cut_without_loss() {
        let lines = "first line\nsecond\nthird and longer\n";
        let unbroken = "ééééééééééééééé";
        for text in [lines, unbroken, ""] {
            let mut pieces = Vec::new();
            let mut each = |piece: String| {
                pieces.push(piece);
                Ok(())
            };
            assert!(text_pieces(Path::new("x"), text.as_bytes(), 12, &mut each).unwrap());
            assert_eq!(pieces.concat(), text);
            assert!(pieces.iter().all(|piece| piece.len() <= 12));
        }
    }
}
