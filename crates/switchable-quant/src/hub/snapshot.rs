//! The folder of a model as the Hub's own tools keep it, so that what one of them has fetched is there for all.
//!
//! ```text
//! models--OWNER--NAME/
//!     refs/main                    the commit that `main` meant
//!     blobs/DIGITS                 contents under their checksums
//!     snapshots/COMMIT/FILE        links to contents, by which models are opened
//!     .no_exist/COMMIT/FILE        empty: the commit has no such file
//! ```
//!
//! Source: the documentation of `huggingface_hub`, "Understand caching".

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::hub::model_files::{TOKENIZER_NOTES, shards};
use crate::hub::plain_name::is_plain_name;

/// The folder of one model.
#[derive(Debug, Clone)]
pub(super) struct Snapshots {
    root: PathBuf,
}

/// What a snapshot lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// A file without which no model can be opened.
    Needed(String),
    /// A file that the commit may have or not: nobody has asked yet.
    Unknown(&'static str),
}

impl Snapshots {
    pub(super) fn new(cache: &Path, owner: &str, name: &str) -> Self {
        Self { root: cache.join(format!("models--{owner}--{name}")) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that was fetched last.
    pub(super) fn commit(&self) -> Option<String> {
        let commit = fs::read_to_string(self.root.join("refs/main")).ok()?.trim().to_owned();
        is_plain_name(&commit).then_some(commit)
    }

    /// Notes the commit, when its files are there.
    pub(super) fn set_commit(&self, commit: &str) -> Result<()> {
        let path = self.root.join("refs/main");
        make_folder_of(&path)?;
        Ok(whole_files::write(&path, commit.as_bytes())?)
    }

    /// The folder of a commit's files.
    pub(super) fn folder(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Where a content is.
    pub(super) fn blob(&self, digits: &str) -> PathBuf {
        self.root.join("blobs").join(digits)
    }

    /// Makes a content a file of a commit.
    pub(super) fn link(&self, commit: &str, file: &str, digits: &str) -> Result<()> {
        let path = self.folder(commit).join(file);
        make_folder_of(&path)?;
        let io = |source| Error::Io { path: path.clone(), source };
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path).map_err(io)?;
        }
        link_or_copy(&self.blob(digits), digits, &path).map_err(io)
    }

    /// Notes that a commit has no such file.
    pub(super) fn set_absent(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.absent(commit, file);
        make_folder_of(&path)?;
        fs::write(&path, "").map_err(|source| Error::Io { path, source })
    }

    fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(file)
    }

    /// What a commit's folder lacks for a model to be opened; needed files first.
    pub(super) fn missing(&self, commit: &str) -> Option<Missing> {
        let folder = self.folder(commit);
        let has = |file: &str| fs::metadata(folder.join(file)).is_ok_and(|data| data.is_file() && data.len() > 0);
        let needed = |file: &str| Some(Missing::Needed(file.to_owned()));
        if !has("config.json") {
            return needed("config.json");
        }
        if !(has("tokenizer.json") || has("vocab.json") && has("merges.txt")) {
            return needed("tokenizer.json");
        }
        if !has("model.safetensors") {
            let Ok(shards) = shards(&folder.join("model.safetensors.index.json")) else {
                return needed("model.safetensors");
            };
            if let Some(shard) = shards.into_iter().find(|shard| !has(shard)) {
                return Some(Missing::Needed(shard));
            }
        }
        let is_known = |file: &str| has(file) || self.absent(commit, file).exists();
        TOKENIZER_NOTES.into_iter().find(|file| !is_known(file)).map(Missing::Unknown)
    }
}

fn make_folder_of(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })
}

#[cfg(unix)]
fn link_or_copy(_blob: &Path, digits: &str, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(Path::new("../../blobs").join(digits), path)
}

/// Links want rights there.
#[cfg(not(unix))]
fn link_or_copy(blob: &Path, _digits: &str, path: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(drop))
}
