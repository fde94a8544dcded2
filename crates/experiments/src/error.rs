//! What can go wrong in training, evaluation and search.

use std::path::PathBuf;

use content_identity::Difference;
use squad_data::CharSpan;

use crate::robustness::protected_example::Place;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of experiments.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file is not what it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// An option is out of its range.
    #[error("`{field}` is {got}, expected {expected}")]
    Option {
        /// The option.
        field: &'static str,
        /// Its value.
        got: String,
        /// What is accepted.
        expected: String,
    },
    /// There is nothing to train or evaluate on.
    #[error("{what} holds no question")]
    NoQuestions {
        /// The data set.
        what: String,
    },
    /// A text is too short to train or measure on.
    #[error("the text has {tokens} tokens, expected at least {least}: one batch of whole windows")]
    TooLittleText {
        /// Its tokens.
        tokens: usize,
        /// Tokens that are needed.
        least: usize,
    },
    /// The tokenizer's ids exceed the model's vocabulary, or the window its positions.
    #[error("{what} is {got}, the model has room for {room}")]
    DoesNotFit {
        /// What does not fit.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The model's.
        room: usize,
    },
    /// The loss is not a number any more.
    #[error("loss is {loss} at step {step}; lower the learning rate or the precision's range")]
    Diverged {
        /// The step.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// A saved result belongs to other work.
    #[error("{path} is of other work: {difference}; name another folder for this work, or remove that one")]
    OtherRun {
        /// The file of the result.
        path: PathBuf,
        /// The first difference.
        difference: Difference,
    },
    /// A saved result is no longer what was written.
    #[error("{source}; this file is damaged: it may be removed, and is then made again")]
    Damaged {
        /// The file of the result.
        path: PathBuf,
        /// Where and what.
        source: span_reader::Error,
    },
    /// A saved result is of another version of its format.
    #[error(
        "{path} was written by {} version (format {found}, expected {expected}){}; name another folder, or remove that \
         one",
        if found < expected { "an earlier" } else { "a later" },
        if found < expected { ", which told work apart by the paths of its files and not by what is in them" } else { "" }
    )]
    OtherFormat {
        /// The file of the result.
        path: PathBuf,
        /// Its version, 0 where it has none.
        found: u32,
        /// The version of this program.
        expected: u32,
    },
    /// The item of a key is there, made from something else.
    #[error(
        "{path} is of other work or of another item (@{found}) than the item `{key}`; name another folder for this work, or \
         remove that file"
    )]
    OtherItem {
        /// The file of the result.
        path: PathBuf,
        /// The key that was asked for.
        key: String,
        /// The hash of what the file was made from.
        found: String,
    },
    /// A result is left to another process.
    #[error("what this needs is left to other processes")]
    Elsewhere,
    /// A saved state cannot be read, written or used.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An edit of a question or context is not allowed.
    #[error("question `{id}`: the edit of characters {}..{} of its {place} {reason}", chars.start, chars.end)]
    Edit {
        /// The question.
        id: String,
        /// The text.
        place: Place,
        /// The characters.
        chars: CharSpan,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The work was stopped on request; what was done is saved where the work saves.
    #[error("stopped on request")]
    Stopped,
    /// The model refused.
    #[error(transparent)]
    Model(#[from] switchable_model::error::Error),
    /// The data refused.
    #[error(transparent)]
    Data(#[from] squad_data::Error),
    /// A quantiser or bit-width refused.
    #[error(transparent)]
    Kernels(#[from] quant_kernels::Error),
    /// A plan could not be read with.
    #[error(transparent)]
    Reader(span_reader::Error),
    /// A figure cannot be drawn.
    #[error(transparent)]
    Charts(#[from] charts::Error),
    /// An adapter or plan refused.
    #[error(transparent)]
    Lora(#[from] switchable_lora::Error),
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn json(path: impl Into<PathBuf>, source: serde_json::Error) -> Self {
        Self::Json { path: path.into(), source }
    }

    pub(crate) fn option(field: &'static str, got: impl std::fmt::Display, expected: impl Into<String>) -> Self {
        Self::Option { field, got: got.to_string(), expected: expected.into() }
    }
}

impl From<whole_files::Error> for Error {
    fn from(whole_files::Error { path, source }: whole_files::Error) -> Self {
        Self::io(path, source)
    }
}

impl From<span_reader::Error> for Error {
    fn from(error: span_reader::Error) -> Self {
        match error {
            span_reader::Error::Stopped => Self::Stopped,
            span_reader::Error::Io { path, source } => Self::Io { path, source },
            span_reader::Error::Json { path, source } => Self::Json { path, source },
            error => Self::Reader(error),
        }
    }
}
