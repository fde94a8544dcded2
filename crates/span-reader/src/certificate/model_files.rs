//! Every file of a model, by its content.
//!
//! ```text
//! hash      = BLAKE3(name ‖ hash of the file, by name)
//! tokenizer = the same of the files of the tokenizer
//! ```
//!
//! Not among them are what a certificate writes itself (`certificate.json`, `README.md`), what is hidden (names
//! that start with a dot) and, beside an original, folders other than `adapters`: questions and results may lie there, and
//! nothing is loaded from them. Any other file that is added counts as much as one that is changed: it may be what is loaded.

use std::collections::BTreeMap;
use std::path::Path;

use content_identity::{ContentHash, Hasher};
use serde::{Deserialize, Serialize};

use crate::certificate::file_names::{CERTIFICATE, MADE_FROM, MODEL_CARD};
use crate::embedded_folder::EmbeddedFolder;
use crate::error::{Error, Result};

/// What certificates write into the folder that they are of.
const WRITTEN: [&str; 2] = [CERTIFICATE, MODEL_CARD];

/// Ends of the names of a tokenizer's files.
const TOKENIZER: [&str; 7] =
    ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokens.json", "tokens_map.json", ONE_FILE];

/// What a model that is one file is called here, its tokenizer included.
const ONE_FILE: &str = "model.gguf";

/// The folder of the adapters beside a model.
const ADAPTERS: &str = "adapters";

/// Folders in folders, beyond which there is a circle of links.
const DEPTH: usize = 8;

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its content.
    pub hash: ContentHash,
}

/// The files of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFiles {
    /// Of all files.
    pub hash: ContentHash,
    /// Of the files of the tokenizer.
    pub tokenizer: ContentHash,
    /// Bytes on disk of all of them; of what the model is, [`model_bytes`](Self::model_bytes).
    pub bytes: u64,
    /// Each file by its path in the folder, parts divided by `/`.
    pub files: BTreeMap<String, FileRecord>,
}

impl ModelFiles {
    /// The files of a folder and of the folders in it, or a model that is one file, whatever its name.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub fn of_folder(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut files = BTreeMap::new();
        if dir.is_file() {
            let bytes = std::fs::metadata(dir).map_err(|error| Error::io(dir, error))?.len();
            files.insert(ONE_FILE.to_owned(), FileRecord { bytes, hash: ContentHash::of_file(dir)? });
        } else {
            collect(dir, "", &mut files)?;
        }
        Ok(Self::of_files(files))
    }

    /// The files of a model as others have it: [`of_folder`](Self::of_folder) without the folders that are none of adapters.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub fn of_original(dir: impl AsRef<Path>) -> Result<Self> {
        let mut files = Self::of_folder(dir)?.files;
        files.retain(|name, _| name.split_once('/').is_none_or(|(folder, _)| folder == ADAPTERS));
        Ok(Self::of_files(files))
    }

    /// The files of a model that is part of the program.
    pub fn embedded(folder: &EmbeddedFolder) -> Self {
        let record = |bytes: &[u8]| FileRecord { bytes: bytes.len() as u64, hash: ContentHash::of_bytes(bytes) };
        let mut files = BTreeMap::from([
            ("config.json".to_owned(), record(folder.config.as_bytes())),
            ("model.safetensors".to_owned(), record(folder.weights)),
            ("tokenizer.json".to_owned(), record(folder.tokenizer)),
        ]);
        for adapter in folder.adapters {
            // Its own folder, as beside a model on disk.
            let width = adapter.name.rsplit('/').next().unwrap_or(adapter.name);
            for (name, bytes) in [
                ("adapter_config.json", adapter.config),
                ("adapter_model.safetensors", adapter.weights),
                ("switchable_quant.json", adapter.trained_for),
            ] {
                files.insert(format!("adapters/{width}/{name}"), record(bytes));
            }
        }
        Self::of_files(files)
    }

    /// Bytes on disk of what the model is: all files but the record of the questions that made it, which nothing reads that
    /// runs it.
    pub fn model_bytes(&self) -> u64 {
        self.bytes - self.files.get(MADE_FROM).map_or(0, |record| record.bytes)
    }

    /// The same without a file.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.files.remove(name);
        Self::of_files(self.files)
    }

    fn of_files(files: BTreeMap<String, FileRecord>) -> Self {
        let hash = |is_in: &dyn Fn(&str) -> bool| {
            let mut hasher = Hasher::default();
            for (name, file) in files.iter().filter(|(name, _)| is_in(name)) {
                hasher.bytes(name, file.hash.to_string().as_bytes());
            }
            hasher.finish()
        };
        let of_tokenizer = |name: &str| !name.contains('/') && TOKENIZER.iter().any(|end| name.ends_with(end));
        Self {
            hash: hash(&|_| true),
            tokenizer: hash(&of_tokenizer),
            bytes: files.values().map(|file| file.bytes).sum(),
            files,
        }
    }

    /// The first file in which the files at hand differ from these, the ones that a certificate names.
    ///
    /// # Errors
    ///
    /// [`Error::OtherFile`], which names it and says how it differs; `field` is what the certificate calls these
    /// files.
    pub fn check(&self, at_hand: &Self, field: &str) -> Result<()> {
        let other = |name: &str, got: String, expected: String| {
            Err(Error::OtherFile { file: name.to_owned(), field: format!("{field}.files"), got, expected })
        };
        let whole = Self::of_files(self.files.clone());
        for (part, said, counted) in [("hash", self.hash, whole.hash), ("tokenizer", self.tokenizer, whole.tokenizer)] {
            if said != counted {
                let field = format!("{field}.{part}");
                return Err(Error::CertificateDiffers { field, was: said.to_string(), is: counted.to_string() });
            }
        }
        for (name, file) in &self.files {
            match at_hand.files.get(name) {
                None => return other(name, "missing".into(), format!("its content {:.12}", file.hash)),
                Some(found) if found != file => {
                    let expected = format!("{:.12} ({} bytes)", file.hash, file.bytes);
                    return other(name, format!("of content {:.12} ({} bytes)", found.hash, found.bytes), expected);
                }
                Some(_) => {}
            }
        }
        match at_hand.files.keys().find(|name| !self.files.contains_key(*name)) {
            Some(name) => other(name, "there".into(), "no such file".into()),
            None => Ok(()),
        }
    }
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, FileRecord>) -> Result<()> {
    if prefix.matches('/').count() > DEPTH {
        let circle = std::io::Error::other(format!("more than {DEPTH} folders in folders, expected those of a model"));
        return Err(Error::io(dir, circle));
    }
    for entry in std::fs::read_dir(dir).map_err(|error| Error::io(dir, error))? {
        let path = entry.map_err(|error| Error::io(dir, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || (prefix.is_empty() && WRITTEN.contains(&name.as_str())) {
            continue;
        }
        let name = format!("{prefix}{name}");
        // Through links: a folder of the Hub's cache is made of them.
        let metadata = std::fs::metadata(&path).map_err(|error| Error::io(&path, error))?;
        if !metadata.is_dir() && !metadata.is_file() {
            let special = std::io::Error::other("neither a file nor a folder, expected the files of a model");
            return Err(Error::io(path, special));
        }
        if metadata.is_dir() {
            collect(&path, &format!("{name}/"), files)?;
        } else {
            files.insert(name, FileRecord { bytes: metadata.len(), hash: ContentHash::of_file(&path)? });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "packed.safetensors", "tokenizer.json", "adapters/bits-4/adapter_config.json"] {
            whole_files::write(dir.path().join(name), name.as_bytes()).unwrap();
        }
        dir
    }

    #[test]
    fn a_file_that_changed_is_missing_or_was_added_is_named() {
        let (first, second) = (folder(), folder());
        let before = ModelFiles::of_folder(first.path()).unwrap();
        assert_eq!(ModelFiles::of_folder(second.path()).unwrap(), before);
        assert_eq!(before.files.len(), 4);
        // What certificates write, and what is hidden.
        for name in ["certificate.json", "README.md", ".gitattributes"] {
            std::fs::write(second.path().join(name), name).unwrap();
        }
        // Questions and results beside an original.
        for name in ["squad/held-out.json", "runs/a/report.md"] {
            let path = second.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        assert_eq!(ModelFiles::of_original(second.path()).unwrap(), before);
        // In an artefact every file counts.
        assert_eq!(ModelFiles::of_folder(second.path()).unwrap().files.len(), before.files.len() + 2);

        let refused = |dir: &Path| {
            let found = ModelFiles::of_folder(dir).unwrap();
            assert_ne!(found.hash, before.hash);
            before.check(&found, "artefact").unwrap_err().to_string()
        };
        let third = folder();
        std::fs::write(third.path().join("packed.safetensors"), "packed.safetensorz").unwrap();
        let message = refused(third.path());
        assert!(
            message.starts_with("packed.safetensors is of content") && message.contains("artefact.files"),
            "{message}"
        );
        let fourth = folder();
        std::fs::remove_file(fourth.path().join("adapters/bits-4/adapter_config.json")).unwrap();
        assert!(refused(fourth.path()).starts_with("adapters/bits-4/adapter_config.json is missing"));
        std::fs::write(first.path().join("model.safetensors"), "floats").unwrap();
        assert!(refused(first.path()).starts_with("model.safetensors is there, expected no such file"));
    }

    #[test]
    fn the_hash_of_the_tokenizer_is_of_its_files_alone() {
        let dir = folder();
        let before = ModelFiles::of_folder(dir.path()).unwrap();
        let other = folder();
        std::fs::write(other.path().join("config.json"), "{}").unwrap();
        assert_eq!(ModelFiles::of_folder(other.path()).unwrap().tokenizer, before.tokenizer);
        std::fs::write(other.path().join("tokenizer.json"), "{}").unwrap();
        assert_ne!(ModelFiles::of_folder(other.path()).unwrap().tokenizer, before.tokenizer);
    }

    #[test]
    fn hashes_that_do_not_go_with_the_files_of_a_certificate_are_refused() {
        let dir = folder();
        let files = ModelFiles::of_folder(dir.path()).unwrap();
        let lying = ModelFiles { hash: files.tokenizer, ..files.clone() };
        let message = lying.check(&files, "original").unwrap_err().to_string();
        assert!(message.contains("original.hash"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_circle_of_links_is_refused() {
        let dir = folder();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("self")).unwrap();
        assert!(ModelFiles::of_folder(dir.path()).unwrap_err().to_string().contains("folders in folders"));
    }
}
