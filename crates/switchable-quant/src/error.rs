//! What can go wrong, and the crate's `Result`.

use std::io;
use std::path::PathBuf;

use crate::device::DeviceChoice;

/// A device that is not there, a download that failed, or an error of one of the crates below.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text that names no device.
    #[error("device `{got}` is unknown, expected auto, cpu, ndarray, cuda, cuda:N or wgpu")]
    UnknownDevice {
        /// The text.
        got: String,
    },
    /// A device whose backend this build lacks.
    #[error(
        "device `{device}` is not in this build, expected cargo feature `{feature}`: build with `--features {feature}`"
    )]
    NotBuilt {
        /// The device asked for.
        device: DeviceChoice,
        /// The cargo feature that has it.
        feature: &'static str,
    },
    /// No backend is in this build.
    #[error("no backend is in this build, expected one of the cargo features flex, ndarray, cuda or wgpu")]
    NoBackend,
    /// CUDA was asked for and its driver does not answer.
    #[error("no CUDA driver answers ({reason}), expected an NVIDIA GPU with its driver, or `--device cpu`")]
    CudaDriver {
        /// What the loader or the driver said.
        reason: String,
    },
    /// A CUDA device number that is not there.
    #[error("CUDA device {index} is not there, expected a number below {count}")]
    CudaDevice {
        /// The number asked for.
        index: usize,
        /// How many devices the driver reports.
        count: usize,
    },
    /// The CUDA driver answers and the toolkit by which burn compiles its kernels is missing.
    #[error("the CUDA toolkit lacks {missing}, expected an installation in /usr/local/cuda or where CUDA_PATH points")]
    CudaToolkit {
        /// What was not found.
        missing: &'static str,
    },
    /// wgpu was asked for and finds no adapter.
    #[error("no wgpu adapter answers, expected a GPU with a Vulkan, Metal or DirectX 12 driver, or `--device cpu`")]
    WgpuAdapter,
    /// A `--model` argument that is nothing known.
    #[error("model `{got}` is no folder and no name, expected a folder or a name such as `openai-community/gpt2`")]
    ModelArgument {
        /// The argument.
        got: String,
    },
    /// A `--data` argument that is nothing known.
    #[error("data `{got}` is no file and no name, expected a file, `squad`, `squad-train`, `squad2` or `squad2-train`")]
    DataArgument {
        /// The argument.
        got: String,
    },
    /// Something is not in the folder of what was fetched, and nothing may be fetched.
    #[error("`{what}`: {path} is not there, and HF_HUB_OFFLINE forbids to fetch it; unset it, or name a path")]
    NotFetched {
        /// The model or data set.
        what: String,
        /// The file that is missing.
        path: PathBuf,
    },
    /// There is no folder for downloads.
    #[error("no folder for downloads is known, expected SWITCHABLE_QUANT_CACHE, XDG_CACHE_HOME or HOME to be set")]
    CacheFolder,
    /// A server cannot be reached.
    #[error("{url}: no answer ({source}), expected a network, or a path instead of a name")]
    Offline {
        /// The address.
        url: String,
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A server answers without the file.
    #[error("{url}: the server answers with status {status}, expected the file")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A redirect that leads nowhere.
    #[error("{url}: the redirect cannot be followed: {reason}")]
    Redirect {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A server does not announce what the file hashes to.
    #[error(
        "{url}: the server announces no checksum, expected the header `x-linked-etag` or `etag` with a SHA-256 or git SHA-1"
    )]
    NoChecksum {
        /// The address.
        url: String,
    },
    /// A file has another length than it must have.
    #[error("{url}: the file has {got} bytes, expected {expected}")]
    Length {
        /// The address.
        url: String,
        /// The length that the server announces, in bytes.
        got: u64,
        /// The right length in bytes.
        expected: u64,
    },
    /// A connection ended within a file. Nothing was written at `path`.
    #[error("{url}: the connection ended after {got} bytes ({source}), expected {}; {} was not written", length(*.expected), path.display())]
    Incomplete {
        /// The address.
        url: String,
        /// Where the file should have gone.
        path: PathBuf,
        /// Bytes that arrived.
        got: u64,
        /// Bytes that the server announced.
        expected: Option<u64>,
        /// What failed.
        source: io::Error,
    },
    /// A file is not the one announced. Nothing was written at `path`.
    #[error("{url}: the file has checksum {got}, expected {expected}; {} was not written", path.display())]
    Checksum {
        /// The address.
        url: String,
        /// Where the file should have gone.
        path: PathBuf,
        /// The checksum of what arrived.
        got: String,
        /// The checksum announced.
        expected: String,
    },
    /// The index of a sharded model is not what it must be.
    #[error("{}: {reason}", path.display())]
    ShardIndex {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A model on the Hub has no tokenizer.
    #[error("{url}: the model has no tokenizer, expected tokenizer.json, or vocab.json and merges.txt")]
    NoTokenizer {
        /// The address of the first file looked for.
        url: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A quantiser or bit-width refused.
    #[error(transparent)]
    Kernels(#[from] quant_kernels::Error),
    /// An adapter or plan refused.
    #[error(transparent)]
    Lora(#[from] switchable_lora::Error),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] gpt2_model::Error),
    /// The data refused.
    #[error(transparent)]
    Data(#[from] squad_data::Error),
    /// Reading or choosing refused.
    #[error(transparent)]
    Reader(#[from] span_reader::Error),
    /// Training, search or a report refused.
    #[cfg(feature = "experiments")]
    #[error(transparent)]
    Experiments(#[from] experiments::Error),
}

#[cfg(feature = "hub")]
impl From<whole_files::Error> for Error {
    fn from(whole_files::Error { path, source }: whole_files::Error) -> Self {
        Self::Io { path, source }
    }
}

/// A length in bytes that may be unknown.
fn length(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "more".to_owned(), |bytes| bytes.to_string())
}

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = core::result::Result<T, E>;
