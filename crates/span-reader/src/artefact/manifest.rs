//! What an artefact is, what it was made from, and all of its files by their contents.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use content_identity::ContentHash;
use switchable_model::config::kept_fields::ARTEFACT_MANIFEST;

use crate::certificate::model_files::ModelFiles;
use crate::error::{Error, Result};
use crate::running::json_file::{read_json, write_json};

/// The file.
pub const MANIFEST: &str = "artefact.json";

const CONFIG: &str = "config.json";
const FORMAT: &str = "switchable-quant.artefact";
const VERSION: u32 = 1;

/// The model that an artefact was packed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name, for messages.
    pub name: String,
    /// The hash of its contents.
    pub hash: ContentHash,
    /// That of the folder of adapters that took the place of its own, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapters: Option<ContentHash>,
    /// How factors were chosen that were folded into it before it was packed, such as `awq at 4 bits`, if any were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<String>,
}

/// What an artefact is, what it was made from, and all of its files by their contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u32,
    /// The version of the crate that wrote it.
    pub made_by: String,
    /// The model that it was packed from.
    pub source: Source,
    /// Its files, but for this one, the certificate and the model card.
    pub files: ModelFiles,
}

/// Only the version, so that a newer file is told from a damaged one.
#[derive(Deserialize)]
struct Versioned {
    format: String,
    version: u32,
}

impl Manifest {
    /// The manifest of what is in a folder.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn of_folder(dir: impl AsRef<Path>, source: Source) -> Result<Self> {
        let files = ModelFiles::of_folder(dir)?.without(MANIFEST);
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            made_by: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            source,
            files,
        })
    }

    /// Whether a folder has a manifest, as every whole artefact does.
    pub fn is_in(dir: impl AsRef<Path>) -> bool {
        dir.as_ref().join(MANIFEST).exists()
    }

    /// [`open`](Self::open) of a folder that is an artefact; `None` where it is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and where there is no manifest in a folder whose `config.json`
    /// says that it has one: a copy of an artefact that was cut short could not be told from a folder
    /// that never was one, and nothing in it would be checked.
    pub fn open_in(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let dir = dir.as_ref();
        if Self::is_in(dir) {
            return Self::open(dir).map(Some);
        }
        // A configuration that is damaged is named by those who read all of it.
        let config: Option<Value> = read_json(dir.join(CONFIG)).ok();
        match config.as_ref().and_then(|config| config.get(ARTEFACT_MANIFEST)) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => {
                let (file, field) = (MANIFEST.to_owned(), format!("{ARTEFACT_MANIFEST} of {CONFIG}"));
                let (got, expected) = ("missing".to_owned(), "the hashes of all files of an artefact".to_owned());
                Err(Error::OtherFile { file, field, got, expected }.in_file(dir))
            }
        }
    }

    /// Says in the `config.json` of a folder that it has a manifest, which is to be written next.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, or is no JSON object.
    pub(crate) fn announce(dir: &Path) -> Result<()> {
        let path = dir.join(CONFIG);
        let mut config: serde_json::Map<String, Value> = read_json(&path)?;
        config.insert(ARTEFACT_MANIFEST.to_owned(), MANIFEST.into());
        write_json(path, &config)
    }

    /// Reads the manifest of a folder, and checks every file against it.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is of a newer version, and when a file is missing, has been added, or has another
    /// content; the error names the file.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let (dir, path) = (dir.as_ref(), dir.as_ref().join(MANIFEST));
        let Versioned { format, version } = read_json(&path)?;
        if format != FORMAT {
            return Err(Error::option("format", format!("{format:?}"), format!("{FORMAT:?}")).in_file(&path));
        }
        if version != VERSION {
            return Err(
                Error::option("version", version, format!("{VERSION}, the newest that is known")).in_file(&path)
            );
        }
        let manifest: Self = read_json(&path)?;
        let counted = manifest.files.clone().without(MANIFEST);
        if counted != manifest.files {
            let (got, expected) = (manifest.files.hash, format!("{}, that of the files it lists", counted.hash));
            return Err(Error::option("files.hash", got, expected).in_file(&path));
        }
        manifest
            .files
            .check(&ModelFiles::of_folder(dir)?.without(MANIFEST), "artefact.json")
            .map_err(|error| error.in_file(dir))?;
        Ok(manifest)
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        write_json(dir.as_ref().join(MANIFEST), self)
    }
}
