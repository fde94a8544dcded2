//! What can go wrong in reading and choosing.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of reading questions under plans.
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
    /// Two programs would write their results to one folder.
    #[error("{path}: another command writes its results there; wait for it, or name another folder")]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// A JSON file is not what it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A field of a JSON file is not what it should be.
    #[error("{path}: field `{field}`: {source}")]
    JsonField {
        /// The file.
        path: PathBuf,
        /// The field, with those that it stands in.
        field: String,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A file of tensors could not be put together.
    #[error("{path}: {reason}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
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
    /// Something about one file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A folder that is no artefact is not written over.
    #[error("{path} is there and no artefact, expected the name of a new folder")]
    NoArtefact {
        /// The folder.
        path: PathBuf,
    },
    /// Something about one of several requests.
    #[error("request {index}: {source}")]
    Request {
        /// Its place, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// There is nothing to read.
    #[error("{what} holds no question")]
    NoQuestions {
        /// The data set.
        what: String,
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
    /// A measured front belongs to another model.
    #[error("the front was measured for model {front}, this is model {model}; measure it anew")]
    OtherModel {
        /// Fingerprint of the model that was measured.
        front: String,
        /// Fingerprint of the model at hand.
        model: String,
    },
    /// A file of another version.
    #[error("{path}: field `version` is of version {got}, expected {known}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u32,
        /// The one that is read.
        known: u32,
    },
    /// Paragraphs that a model was calibrated on cannot say what its rounding costs.
    #[error(
        "{seen} of {questions} questions, `{id}` the first, are about paragraphs of `{name}`, which the model was \
         calibrated on; expected paragraphs that were not: nothing is reported on these"
    )]
    SeenParagraphs {
        /// The set that they are in.
        name: String,
        /// How many.
        seen: usize,
        /// Of how many.
        questions: usize,
        /// The id of the first.
        id: String,
    },
    /// Questions that made a model or an artefact cannot say what it costs.
    #[error(
        "{seen} of {questions} questions, `{id}` the first, are in `{name}`, which was used before ({role}); expected \
         questions that were not: nothing is reported on these"
    )]
    SeenQuestions {
        /// What they were used for.
        role: String,
        /// The set that they are in.
        name: String,
        /// How many.
        seen: usize,
        /// Of how many.
        questions: usize,
        /// The id of the first.
        id: String,
    },
    /// An artefact does not say which questions made it.
    #[error(
        "{path} is missing: the artefact does not say which questions it was made from, so that none can be shown to be \
         unseen"
    )]
    NoSeenData {
        /// The file.
        path: PathBuf,
    },
    /// A file of a model is not the one that a certificate is of.
    #[error("{file} is {got}, expected {expected} by `{field}`")]
    OtherFile {
        /// Its path in the model's folder.
        file: String,
        /// The field of the certificate.
        field: String,
        /// What was found.
        got: String,
        /// What the certificate says.
        expected: String,
    },
    /// A certificate says something else than what was found.
    #[error("certificate.json: field `{field}` is {was}, found {is}")]
    CertificateDiffers {
        /// The field.
        field: String,
        /// What the certificate says.
        was: String,
        /// What was found.
        is: String,
    },
    /// A section of a model card has no end.
    #[error("{path}: `{begin}` stands without `{end}` behind it, expected both or none")]
    CardSection {
        /// The model card.
        path: PathBuf,
        /// The mark of the section's start.
        begin: &'static str,
        /// The mark of its end.
        end: &'static str,
    },
    /// The work was stopped on request.
    #[error("stopped on request")]
    Stopped,
    /// The model refused.
    #[error(transparent)]
    Model(#[from] switchable_model::error::Error),
    /// The data refused.
    #[error(transparent)]
    Data(#[from] squad_data::Error),
    /// A content could not be hashed.
    #[error(transparent)]
    Identity(#[from] content_identity::Error),
    /// A quantiser or bit-width refused.
    #[error(transparent)]
    Kernels(#[from] quant_kernels::Error),
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

    /// The error as one of a file.
    #[must_use]
    pub fn in_file(self, path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into(), source: Box::new(self) }
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
