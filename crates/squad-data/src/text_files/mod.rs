//! Running text from files: documents, and the one stream of tokens they make.
//!
//! A file is UTF-8 text, plain (`.txt`) or, with the feature `zstd`, compressed (`.txt.zst`). A line `<|endoftext|>` ends a
//! document, as does the end of a file. Files are read as they are asked for, so the first documents
//! of a large file cost no more than themselves.
//!
//! ```
//! use squad_data::TextFiles;
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("two.txt");
//! std::fs::write(&path, "Tea is hot.\nIce is not.\n<|endoftext|>\nSnow is white.\n")?;
//! let documents: Vec<String> = TextFiles::new([path])?.documents().collect::<Result<_, _>>()?;
//! assert_eq!(documents, ["Tea is hot.\nIce is not.", "Snow is white."]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tokenizer::TextTokenizer;

/// The line that ends a document.
const END_OF_DOCUMENT: &str = "<|endoftext|>";

/// Documents that are held and tokenized at once.
const AT_ONCE: usize = 256;

/// How a file's text is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Plain,
    #[cfg(feature = "zstd")]
    Zstandard,
}

/// Text files, in the order in which they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFiles {
    files: Vec<(PathBuf, Storage)>,
}

impl TextFiles {
    /// Names the files; none of them is read.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none or a name ends in neither `.txt` nor `.txt.zst`,
    /// [`Error::Read`] if one is not there.
    pub fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Result<Self> {
        let files = paths.into_iter().map(|path| {
            let path = path.into();
            let extensions = [path.extension(), path.file_stem().and_then(|stem| Path::new(stem).extension())];
            let storage = match extensions.map(|extension| extension.and_then(OsStr::to_str)) {
                [Some("txt"), _] => Storage::Plain,
                #[cfg(feature = "zstd")]
                [Some("zst"), Some("txt")] => Storage::Zstandard,
                #[cfg(not(feature = "zstd"))]
                [Some("zst"), Some("txt")] => {
                    let expected = "a name that ends in .txt, or a build with the feature `zstd`";
                    return Err(Error::config("text file", path.display(), expected));
                }
                _ => {
                    let got = path.display();
                    return Err(Error::config("text file", got, "a name that ends in .txt or .txt.zst"));
                }
            };
            std::fs::metadata(&path).map_err(|source| Error::read(&path, source))?;
            Ok((path, storage))
        });
        let files: Vec<_> = files.collect::<Result<_>>()?;
        if files.is_empty() {
            return Err(Error::config("text files", "none", "at least one"));
        }
        Ok(Self { files })
    }

    /// The documents, one after another; blank ones are left out.
    pub fn documents(&self) -> Documents<'_> {
        Documents { waiting: self.files.iter(), open: None }
    }

    /// The tokens of the documents, `end` behind each, until there are `most` of them or no text is
    /// left.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Text`] for a file, [`Error::Tokenizer`] for a text.
    pub fn tokens(&self, tokenizer: &TextTokenizer, end: u32, most: usize) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        let mut documents = self.documents();
        while tokens.len() < most {
            let some: Vec<Result<String>> = documents.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            let encoded: Vec<Result<Vec<u32>>> =
                some.into_par_iter().map(|text| text.and_then(|text| tokenizer.encode_ids(&text))).collect();
            for ids in encoded {
                // A fault behind what was asked for is nobody's.
                if tokens.len() < most {
                    tokens.extend(ids?);
                    tokens.push(end);
                }
            }
        }
        tokens.truncate(most);
        Ok(tokens)
    }
}

/// The documents of [`TextFiles`].
pub struct Documents<'a> {
    waiting: std::slice::Iter<'a, (PathBuf, Storage)>,
    open: Option<(&'a Path, Box<dyn BufRead>)>,
}

impl std::fmt::Debug for Documents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Documents").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Documents<'_> {
    /// The next document; `None` when the last file has ended.
    fn read(&mut self) -> Result<Option<String>> {
        let mut document = String::new();
        loop {
            let Some((path, reader)) = &mut self.open else {
                let Some((path, storage)) = self.waiting.next() else { return Ok(None) };
                self.open = Some((path, open(path, *storage)?));
                continue;
            };
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line).map_err(|source| Error::read(path, source))?;
            let line = std::str::from_utf8(&line)
                .map_err(|e| Error::Text { path: path.to_path_buf(), reason: format!("not UTF-8: {e}") })?;
            let ended = read == 0 || line.trim_end() == END_OF_DOCUMENT;
            if !ended {
                document.push_str(line);
                continue;
            }
            if read == 0 {
                self.open = None;
            }
            document.truncate(document.trim_end().len());
            if !document.is_empty() {
                return Ok(Some(document));
            }
        }
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let next = self.read().transpose();
        if matches!(next, Some(Err(_))) {
            // What follows a fault in the middle of a file is not known to be whole.
            self.open = None;
            self.waiting = [].iter();
        }
        next
    }
}

fn open(path: &Path, storage: Storage) -> Result<Box<dyn BufRead>> {
    let file = BufReader::new(File::open(path).map_err(|source| Error::read(path, source))?);
    Ok(match storage {
        Storage::Plain => Box::new(file),
        #[cfg(feature = "zstd")]
        Storage::Zstandard => Box::new(BufReader::new(zstandard::Frames::new(file))),
    })
}

#[cfg(test)]
#[cfg(feature = "zstd")]
mod tests;
#[cfg(feature = "zstd")]
mod zstandard;
