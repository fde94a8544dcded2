//! Models and data sets by name: fetched once, checked, and kept in a folder.
//!
//! | argument | meaning |
//! |---|---|
//! | an existing path | that path; nothing is fetched |
//! | `owner/name`, such as `openai-community/gpt2` | the model of that name on the Hugging Face Hub |
//! | `squad`, `squad-train` | SQuAD v1.1, development or training set |
//! | `squad2`, `squad2-train` | SQuAD v2.0, development or training set |
//!
//! | environment variable | meaning |
//! |---|---|
//! | `SWITCHABLE_QUANT_CACHE` | the folder for what is fetched; else `$XDG_CACHE_HOME/switchable-quant`, else `~/.cache/switchable-quant` |
//! | `HF_ENDPOINT` | the address of the Hub or of a mirror; else `https://huggingface.co` |
//! | `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | as elsewhere |
//!
//! Every file is written under a temporary name and gets its own only after its checksum is right:
//! for the Hub the one that the server announces (the SHA-256 of a large file, the git blob SHA-1
//! of a small one), for SQuAD the size and SHA-256 in this crate. A model comes from one commit,
//! the one that `main` meant when its `config.json` was asked for. A model or data set that is
//! complete in the folder is used without a network; remove its folder to fetch it anew. Files of
//! a download that was cut short are kept, so that the next one fetches only the others.
//!
//! ```no_run
//! use switchable_quant::hub::{Hub, log_to_stderr};
//!
//! let hub = Hub::from_env()?;
//! let folder = hub.model("openai-community/gpt2", &mut log_to_stderr)?;
//! let questions = hub.data("squad", &mut log_to_stderr)?;
//! # let _ = (folder, questions);
//! # Ok::<(), switchable_quant::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::hub::checksum::Checksum;
use crate::hub::download::Client;
use crate::hub::plain_name::is_plain_name;
use crate::hub::squad::SquadFile;

mod checksum;
mod download;
mod download_event;
mod plain_name;
mod squad;

pub use download_event::{DownloadEvent, log_to_stderr};

#[cfg(test)]
mod tests;

const HUB: &str = "https://huggingface.co";
const SQUAD: &str = "https://rajpurkar.github.io/SQuAD-explorer/dataset";

/// The list of a model's files, written when all of them are there.
const RECEIPT: &str = "download.json";
/// Folders of version 1 lack the files that name special tokens.
const RECEIPT_VERSION: u32 = 2;
/// What says which tokens are added to a tokenizer, and which are special.
const TOKENIZER_NOTES: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// Finds models and data sets, on disk or on the network.
#[derive(Debug, Clone)]
pub struct Hub {
    cache: PathBuf,
    models: String,
    squad: String,
}

impl Hub {
    /// A finder with the folder and addresses that the environment gives.
    ///
    /// # Errors
    ///
    /// [`Error::CacheFolder`] if the environment names no folder and the user has no home.
    pub fn from_env() -> Result<Self> {
        let hub = Self::new(cache_folder()?);
        Ok(match std::env::var("HF_ENDPOINT") {
            Ok(address) if !address.is_empty() => hub.with_hub_address(address),
            _ => hub,
        })
    }

    /// A finder that keeps what it fetches in `cache`, made when needed.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self { cache: cache.into(), models: HUB.to_owned(), squad: SQUAD.to_owned() }
    }

    /// The same with another address for models, such as that of a mirror.
    pub fn with_hub_address(self, address: impl Into<String>) -> Self {
        Self { models: without_slash(address.into()), ..self }
    }

    /// The same with another address for the folder of SQuAD's files. Their checksums stay.
    pub fn with_squad_address(self, address: impl Into<String>) -> Self {
        Self { squad: without_slash(address.into()), ..self }
    }

    /// The folder for what is fetched.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The folder of a model, for a `--model` argument: an existing folder, or a name on the Hub.
    ///
    /// Fetches `config.json`, the tokenizer (`tokenizer.json`, `vocab.json`, `merges.txt`,
    /// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`: those that there are) and the weights (`model.safetensors`, or the shards of its index).
    ///
    /// # Errors
    ///
    /// - [`Error::ModelArgument`]: neither a folder nor such a name
    /// - [`Error::Offline`], [`Error::Status`], [`Error::Redirect`]: no answer, or not the file
    /// - [`Error::NoChecksum`], [`Error::Incomplete`], [`Error::Checksum`]: not the file whole
    /// - [`Error::ShardIndex`], [`Error::NoTokenizer`]: the model lacks something
    /// - [`Error::Io`]: the folder cannot be written
    pub fn model(&self, argument: &str, report: &mut dyn FnMut(&DownloadEvent<'_>)) -> Result<PathBuf> {
        if Path::new(argument).is_dir() {
            return Ok(PathBuf::from(argument));
        }
        let (owner, name) = repository(argument).ok_or_else(|| Error::ModelArgument { got: argument.to_owned() })?;
        let folder = self.cache.join("models").join(format!("{owner}--{name}"));
        if Receipt::read(&folder).is_some_and(|receipt| receipt.is_complete(&folder)) {
            report(&DownloadEvent::Cached { path: &folder });
            return Ok(folder);
        }
        let mut download = ModelDownload {
            client: Client::new(&self.models),
            address: format!("{}/{argument}/resolve", self.models),
            folder,
            receipt: Receipt::new(argument),
            report,
        };
        download.run()?;
        Ok(download.folder)
    }

    /// A SQuAD file, for a `--data` argument: an existing file, or `squad`, `squad-train`,
    /// `squad2` or `squad2-train`.
    ///
    /// # Errors
    ///
    /// [`Error::DataArgument`] for any other text; else those of [`model`](Self::model).
    pub fn data(&self, argument: &str, report: &mut dyn FnMut(&DownloadEvent<'_>)) -> Result<PathBuf> {
        if Path::new(argument).is_file() {
            return Ok(PathBuf::from(argument));
        }
        let file = SquadFile::named(argument).ok_or_else(|| Error::DataArgument { got: argument.to_owned() })?;
        self.squad_file(file, report)
    }

    fn squad_file(&self, file: &SquadFile, report: &mut dyn FnMut(&DownloadEvent<'_>)) -> Result<PathBuf> {
        let path = self.cache.join("squad").join(file.name);
        let expected = Checksum::Sha256(file.sha256.to_owned());
        if path.is_file() && expected.matches(&path)? {
            report(&DownloadEvent::Cached { path: &path });
            return Ok(path);
        }
        let reply = Client::new(&self.squad).get(&format!("{}/{}", self.squad, file.name))?;
        if let Some(got) = reply.bytes.filter(|got| *got != file.bytes) {
            return Err(Error::Length { url: reply.url, got, expected: file.bytes });
        }
        reply.save(&path, &expected, report)?;
        Ok(path)
    }
}

/// A model on its way into its folder.
struct ModelDownload<'a> {
    client: Client,
    /// Up to and without the revision.
    address: String,
    folder: PathBuf,
    receipt: Receipt,
    report: &'a mut dyn FnMut(&DownloadEvent<'_>),
}

impl ModelDownload<'_> {
    fn run(&mut self) -> Result<()> {
        self.required("config.json")?;
        let tokenizer = self.optional("tokenizer.json")?;
        let vocabulary = self.optional("vocab.json")?;
        let merges = self.optional("merges.txt")?;
        if !(tokenizer || vocabulary && merges) {
            return Err(Error::NoTokenizer { url: self.url("tokenizer.json") });
        }
        for file in TOKENIZER_NOTES {
            self.optional(file)?;
        }
        if !self.optional("model.safetensors")? {
            self.required("model.safetensors.index.json")?;
            for shard in shards(&self.folder.join("model.safetensors.index.json"))? {
                self.required(&shard)?;
            }
        }
        self.receipt.write(&self.folder)
    }

    fn url(&self, file: &str) -> String {
        format!("{}/{}/{file}", self.address, self.receipt.commit.as_deref().unwrap_or("main"))
    }

    /// Fetches a file; false if the model has none of this name.
    fn optional(&mut self, file: &str) -> Result<bool> {
        match self.required(file) {
            Ok(()) => Ok(true),
            Err(Error::Status { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn required(&mut self, file: &str) -> Result<()> {
        let reply = self.client.get(&self.url(file))?;
        if self.receipt.commit.is_none() {
            self.receipt.commit.clone_from(&reply.commit);
        }
        let checksum = reply.announced.clone().ok_or_else(|| Error::NoChecksum { url: reply.url.clone() })?;
        let path = self.folder.join(file);
        if path.is_file() && checksum.matches(&path)? {
            (self.report)(&DownloadEvent::Cached { path: &path });
        } else {
            reply.save(&path, &checksum, self.report)?;
        }
        let bytes = fs::metadata(&path).map_err(|source| Error::Io { path, source })?.len();
        let entry = ReceiptEntry { bytes, checksum: checksum.to_string() };
        self.receipt.files.insert(file.to_owned(), entry);
        Ok(())
    }
}

/// What a complete model folder holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipt {
    version: u32,
    repository: String,
    commit: Option<String>,
    files: BTreeMap<String, ReceiptEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptEntry {
    bytes: u64,
    checksum: String,
}

impl Receipt {
    fn new(repository: &str) -> Self {
        Self { version: RECEIPT_VERSION, repository: repository.to_owned(), commit: None, files: BTreeMap::new() }
    }

    /// An unreadable receipt is like none: the download looks at every file again.
    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join(RECEIPT)).ok()?;
        serde_json::from_str::<Self>(&text).ok().filter(|receipt| receipt.version == RECEIPT_VERSION)
    }

    fn is_complete(&self, folder: &Path) -> bool {
        let present = |(file, entry): (&String, &ReceiptEntry)| {
            fs::metadata(folder.join(file)).is_ok_and(|data| data.is_file() && data.len() == entry.bytes)
        };
        !self.files.is_empty() && self.files.iter().all(present)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(RECEIPT);
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| Error::Io { path: path.clone(), source: error.into() })?;
        Ok(whole_files::write(&path, &text)?)
    }
}

/// The files that a sharded model's index names.
fn shards(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }

    let wrong = |reason: String| Error::ShardIndex { path: index.to_owned(), reason };
    let text = fs::read(index).map_err(|source| Error::Io { path: index.to_owned(), source })?;
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
    let index: Index = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    let mut shards: Vec<String> = index.weight_map.into_values().collect();
    shards.sort_unstable();
    shards.dedup();
    if shards.is_empty() {
        return Err(wrong("field `weight_map` is empty, expected a file for every tensor".to_owned()));
    }
    match shards.iter().find(|shard| !(is_plain_name(shard) && shard.ends_with(".safetensors"))) {
        None => Ok(shards),
        Some(shard) => {
            Err(wrong(format!("field `weight_map` names `{shard}`, expected a .safetensors file of the same folder")))
        }
    }
}

/// Splits `owner/name`.
fn repository(argument: &str) -> Option<(&str, &str)> {
    let (owner, name) = argument.split_once('/')?;
    (is_plain_name(owner) && is_plain_name(name)).then_some((owner, name))
}

fn without_slash(mut address: String) -> String {
    while address.ends_with('/') {
        address.pop();
    }
    address
}

fn cache_folder() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable("SWITCHABLE_QUANT_CACHE") {
        return Ok(folder);
    }
    // The XDG specification has relative paths ignored.
    variable("XDG_CACHE_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".cache")))
        .map(|folder| folder.join("switchable-quant"))
        .ok_or(Error::CacheFolder)
}
