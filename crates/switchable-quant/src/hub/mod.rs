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
//! | `HF_HUB_CACHE`, `HF_HOME` | the folder for models, which the Hub's own tools share: the former, else `hub` in the latter, else `$XDG_CACHE_HOME/huggingface/hub`, else `~/.cache/huggingface/hub` |
//! | `HF_HUB_OFFLINE` | `1`: nothing is fetched |
//! | `SWITCHABLE_QUANT_CACHE` | the folder for data sets; else `$XDG_CACHE_HOME/switchable-quant`, else `~/.cache/switchable-quant` |
//! | `HF_ENDPOINT` | the address of the Hub or of a mirror; else `https://huggingface.co` |
//! | `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | as elsewhere |
//!
//! Every file is written under a temporary name and gets its own only after its checksum is right:
//! for the Hub the one that the server announces (the SHA-256 of a large file, the git blob SHA-1
//! of a small one), for SQuAD the size and SHA-256 in this crate. A model comes from one commit,
//! the one that `main` meant when its `config.json` was asked for. A model or data set that is
//! complete in the folder, whoever fetched it, is used without a network; remove its folder to fetch it anew. Files of
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

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::hub::checksum::Checksum;
use crate::hub::download::Client;
use crate::hub::model_files::{TOKENIZER_NOTES, shards};
use crate::hub::plain_name::is_plain_name;
use crate::hub::snapshot::{Missing, Snapshots};
use crate::hub::squad::SquadFile;

mod checksum;
mod download;
mod download_event;
mod model_files;
mod plain_name;
mod snapshot;
mod squad;

pub use download_event::{DownloadEvent, log_to_stderr};

#[cfg(test)]
mod tests;

const HUB: &str = "https://huggingface.co";
const SQUAD: &str = "https://rajpurkar.github.io/SQuAD-explorer/dataset";

/// Finds models and data sets, on disk or on the network.
#[derive(Debug, Clone)]
pub struct Hub {
    cache: PathBuf,
    models_cache: PathBuf,
    models: String,
    squad: String,
    offline: bool,
}

impl Hub {
    /// A finder with the folder and addresses that the environment gives.
    ///
    /// # Errors
    ///
    /// [`Error::CacheFolder`] if the environment names no folder and the user has no home.
    pub fn from_env() -> Result<Self> {
        let hub = Self::new(cache_folder()?).with_models_folder(models_folder()?).offline(is_offline());
        Ok(match std::env::var("HF_ENDPOINT") {
            Ok(address) if !address.is_empty() => hub.with_hub_address(address),
            _ => hub,
        })
    }

    /// A finder that keeps what it fetches in `cache`, made when needed; models in its folder `hub`.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        let cache = cache.into();
        let models_cache = cache.join("hub");
        Self { cache, models_cache, models: HUB.to_owned(), squad: SQUAD.to_owned(), offline: false }
    }

    /// The same with another folder for models, such as the one of other tools.
    pub fn with_models_folder(self, folder: impl Into<PathBuf>) -> Self {
        Self { models_cache: folder.into(), ..self }
    }

    /// The same, which fetches nothing where `offline` is true.
    pub fn offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    /// The same with another address for models, such as that of a mirror.
    pub fn with_hub_address(self, address: impl Into<String>) -> Self {
        Self { models: without_slash(address.into()), ..self }
    }

    /// The same with another address for the folder of SQuAD's files. Their checksums stay.
    pub fn with_squad_address(self, address: impl Into<String>) -> Self {
        Self { squad: without_slash(address.into()), ..self }
    }

    /// The folder for data sets.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The folder for models.
    pub fn models_folder(&self) -> &Path {
        &self.models_cache
    }

    /// The folder of a model, for a `--model` argument: an existing folder, or a name on the Hub.
    ///
    /// Fetches `config.json`, the tokenizer (`tokenizer.json`, `vocab.json`, `merges.txt`,
    /// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`: those that there are) and the weights (`model.safetensors`, or the shards of its index).
    ///
    /// # Errors
    ///
    /// - [`Error::ModelArgument`]: neither a folder nor such a name
    /// - [`Error::NotFetched`]: the model is not whole in the folder, and nothing may be fetched
    /// - [`Error::Offline`], [`Error::Status`], [`Error::Redirect`]: no answer, or not the file
    /// - [`Error::NoChecksum`], [`Error::Incomplete`], [`Error::Checksum`]: not the file whole
    /// - [`Error::ShardIndex`], [`Error::NoTokenizer`]: the model lacks something
    /// - [`Error::Io`]: the folder cannot be written
    pub fn model(&self, argument: &str, report: &mut dyn FnMut(&DownloadEvent<'_>)) -> Result<PathBuf> {
        if Path::new(argument).is_dir() {
            return Ok(PathBuf::from(argument));
        }
        let (owner, name) = repository(argument).ok_or_else(|| Error::ModelArgument { got: argument.to_owned() })?;
        let snapshots = Snapshots::new(&self.models_cache, owner, name);
        let found = snapshots.commit().map(|commit| (snapshots.folder(&commit), snapshots.missing(&commit)));
        match found {
            Some((folder, None)) => return Ok(cached(folder, report)),
            Some((folder, Some(Missing::Unknown(_)))) if self.offline => return Ok(cached(folder, report)),
            found if self.offline => {
                let missing = match found {
                    Some((_, Some(Missing::Needed(file)))) => file,
                    _ => "refs/main".to_owned(),
                };
                let folder = snapshots.root().to_owned();
                return Err(Error::NotFetched { what: argument.to_owned(), path: folder.join(missing) });
            }
            _ => {}
        }
        let mut download = ModelDownload {
            client: Client::new(&self.models),
            address: format!("{}/{argument}/resolve", self.models),
            snapshots,
            commit: None,
            report,
        };
        download.run()
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
        if self.offline {
            return Err(Error::NotFetched { what: file.argument.to_owned(), path });
        }
        let reply = Client::new(&self.squad).get(&format!("{}/{}", self.squad, file.name))?;
        if let Some(got) = reply.bytes.filter(|got| *got != file.bytes) {
            return Err(Error::Length { url: reply.url, got, expected: file.bytes });
        }
        reply.save(&path, &expected, report)?;
        Ok(path)
    }
}

/// Says that a folder is used as it is.
fn cached(folder: PathBuf, report: &mut dyn FnMut(&DownloadEvent<'_>)) -> PathBuf {
    report(&DownloadEvent::Cached { path: &folder });
    folder
}

/// A model on its way into its folder.
struct ModelDownload<'a> {
    client: Client,
    /// Up to and without the revision.
    address: String,
    snapshots: Snapshots,
    /// Known with the first file.
    commit: Option<String>,
    report: &'a mut dyn FnMut(&DownloadEvent<'_>),
}

impl ModelDownload<'_> {
    fn run(&mut self) -> Result<PathBuf> {
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
        let folder = self.snapshots.folder(self.commit());
        if !self.optional("model.safetensors")? {
            self.required("model.safetensors.index.json")?;
            for shard in shards(&folder.join("model.safetensors.index.json"))? {
                self.required(&shard)?;
            }
        }
        self.snapshots.set_commit(self.commit())?;
        Ok(folder)
    }

    /// The commit; `main` where the server names none.
    fn commit(&self) -> &str {
        self.commit.as_deref().unwrap_or("main")
    }

    fn url(&self, file: &str) -> String {
        format!("{}/{}/{file}", self.address, self.commit())
    }

    /// Fetches a file; false if the model has none of this name.
    fn optional(&mut self, file: &str) -> Result<bool> {
        match self.required(file) {
            Ok(()) => Ok(true),
            Err(Error::Status { status: 404, .. }) => {
                self.snapshots.set_absent(self.commit(), file)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn required(&mut self, file: &str) -> Result<()> {
        let reply = self.client.get(&self.url(file))?;
        if self.commit.is_none() {
            self.commit.clone_from(&reply.commit);
        }
        let checksum = reply.announced.clone().ok_or_else(|| Error::NoChecksum { url: reply.url.clone() })?;
        let path = self.snapshots.blob(checksum.digits());
        if path.is_file() && checksum.matches(&path)? {
            (self.report)(&DownloadEvent::Cached { path: &path });
        } else {
            reply.save(&path, &checksum, self.report)?;
        }
        self.snapshots.link(self.commit(), file, checksum.digits())
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

/// The value of an environment variable, unless it is empty.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder in which programs of this user keep what they can fetch again.
fn user_cache() -> Result<PathBuf> {
    // The XDG specification has relative paths ignored.
    variable("XDG_CACHE_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".cache")))
        .ok_or(Error::CacheFolder)
}

fn cache_folder() -> Result<PathBuf> {
    variable("SWITCHABLE_QUANT_CACHE").map_or_else(|| Ok(user_cache()?.join("switchable-quant")), Ok)
}

/// Where the Hub's own tools keep models.
fn models_folder() -> Result<PathBuf> {
    let in_home = || variable("HF_HOME").map(|home| home.join("hub"));
    variable("HF_HUB_CACHE").or_else(in_home).map_or_else(|| Ok(user_cache()?.join("huggingface/hub")), Ok)
}

/// Whether the environment forbids a network, in the words that `huggingface_hub` knows.
fn is_offline() -> bool {
    std::env::var("HF_HUB_OFFLINE")
        .is_ok_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str()))
}
