//! What can go wrong with a model folder, a configuration or a request.

use std::path::{Path, PathBuf};

use quant_kernels::spec::bit_width::BitWidth;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of reading, checking, running and writing a model.
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
    /// A field of `config.json` has a value this crate cannot run.
    #[error("{path}: field `{field}` is {got}, expected {expected}")]
    Config {
        /// The file, or `<config>` when the configuration was built in code.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        got: String,
        /// What is accepted.
        expected: String,
    },
    /// A field of `config.json` is not known, or only known to be harmless at another value.
    #[error("{path}: field `{field}` is {got}, expected {expected}")]
    ConfigField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value, cut short.
        got: String,
        /// What is accepted.
        expected: String,
    },
    /// Packed weights stand beside another configuration than the one that they were packed with, as
    /// an interrupted write leaves them.
    #[error("{path}: field `{field}` is {got}, {weights} was packed with {expected}")]
    PackedConfig {
        /// The configuration.
        path: PathBuf,
        /// The packed weights.
        weights: PathBuf,
        /// The first field that differs.
        field: String,
        /// Its value.
        got: String,
        /// The value that the weights were packed with.
        expected: String,
    },
    /// The folder holds no weights that are read.
    #[error("{path}: expected `model.safetensors` or `model.safetensors.index.json`, found neither{found}")]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// What was found instead, and what to do with it; or nothing.
        found: String,
    },
    /// The folder holds weights in floats and packed ones, of which only one can be meant.
    #[error("{path}: holds `{}` and `{}`, expected one of them: remove the other", files[0], files[1])]
    TwoWeights {
        /// The folder.
        path: PathBuf,
        /// The files.
        files: [String; 2],
    },
    /// A packed folder holds no span head.
    #[error(
        "{path}: holds no span head (`qa_outputs.weight`), expected the packed folder of a model that was trained to \
         answer: train the model it was packed from, and pack that"
    )]
    NoSpanHead {
        /// The packed file.
        path: PathBuf,
    },
    /// A file holds a tensor that the configuration gives no meaning.
    #[error("{path}: tensor `{name}` is none of the model that config.json describes, expected no such tensor")]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// There is nothing to calibrate on.
    #[error("no window to calibrate on holds a token, expected at least one that does")]
    CalibrationWindows,
    /// Statistics of the inputs of other sites than the model has.
    #[error("site `{site}`: there are no moments of its inputs, expected those of this model")]
    NoMoments {
        /// The site.
        site: String,
    },
    /// A plan of a model that other factors were folded into.
    #[error("the plan is of a model with the scaling `{plan}` (`--scaling`), and this one has `{model}`")]
    PlanScaling {
        /// That of the plan.
        plan: String,
        /// That of the model.
        model: String,
    },
    /// Factors for a site whose inputs nothing can be divided by.
    #[error("no factors fold into the inputs of site `{site}`, expected one of {foldable} of a block")]
    NotFoldable {
        /// The site.
        site: String,
        /// The sub-modules that factors fold into, or what there is instead.
        foldable: String,
    },
    /// More or fewer factors than there are values to be divided.
    #[error("site `{site}`: {got} factors, expected {expected}")]
    FactorCount {
        /// The site that reads the values.
        site: String,
        /// The factors.
        got: usize,
        /// The values.
        expected: usize,
    },
    /// A factor that nothing can be divided by.
    #[error("site `{site}`: factor {index} is {got}, expected a finite number above 0")]
    Factor {
        /// The site that reads the values.
        site: String,
        /// The factor, counted from 0.
        index: usize,
        /// Its value.
        got: f32,
    },
    /// A text file is too large or no text.
    #[error("{path}: {reason}")]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A safetensors file is truncated or its header lies.
    #[error("{path}: not a valid safetensors file: {reason}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A GGUF file is of another kind, cut short, or contradicts itself.
    #[error("{path}: {place} is {got}, expected {expected}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The key of the metadata, the tensor, or the part of the header.
        place: String,
        /// What it is.
        got: String,
        /// What is accepted.
        expected: String,
    },
    /// A tensor is missing.
    #[error("{path}: tensor `{name}` is missing")]
    MissingTensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor belongs to a block that the configuration does not have.
    #[error("{path}: tensor `{name}` stands beyond the last block, `{field}` of config.json is {blocks}")]
    ExtraBlock {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The field of the configuration that counts blocks.
        field: &'static str,
        /// Blocks by the configuration.
        blocks: usize,
    },
    /// A tensor has a shape that the configuration does not give it.
    #[error("{path}: tensor `{name}` has shape {got:?}, the config gives it {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Shape in the file.
        got: Vec<usize>,
        /// Shape by the configuration.
        expected: Vec<usize>,
    },
    /// A tensor has a type that is neither a float nor one of codes with scales.
    #[error("{path}: tensor `{name}` has dtype {got}, expected F32, F16, BF16 or I8")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Type in the file.
        got: String,
    },
    /// A weight is NaN or infinite.
    #[error("{path}: tensor `{name}` holds {value} at element {index}, expected finite weights")]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Flat index of the first such element.
        index: usize,
        /// The element.
        value: f32,
    },
    /// A token id is outside the vocabulary.
    #[error("token id {id} at position {position} is outside the vocabulary of {vocab_size}")]
    TokenId {
        /// The id.
        id: u32,
        /// Where it stands.
        position: usize,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A sequence is empty or longer than the model's positions.
    #[error("sequence of {got} tokens, expected 1 to {positions}")]
    SequenceLength {
        /// Length asked for.
        got: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// A prompt of a batch cannot be continued.
    #[error("prompt {index}: {source}")]
    Prompt {
        /// The prompt, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// No token can be chosen from the scores of a model.
    #[error("a score of the token behind {tokens} tokens of sequence {sequence} is {got}, expected finite scores")]
    Scores {
        /// The sequence, counted from 0.
        sequence: usize,
        /// Tokens read before.
        tokens: usize,
        /// The score.
        got: f32,
    },
    /// An option of generation is out of its range.
    #[error("{field} is {got}, expected {expected}")]
    Option {
        /// The option.
        field: &'static str,
        /// Its value.
        got: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// A folder of adapters holds none.
    #[error("{path}: expected folders such as `bits-4`, found {found}")]
    NoAdapters {
        /// The folder.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// An adapter belongs to a site that the model does not have.
    #[error("{path}: the model has no site `{site}`")]
    UnknownSite {
        /// The adapter's folder.
        path: PathBuf,
        /// The site.
        site: String,
    },
    /// A plan whose adapters came with different span heads.
    #[error(
        "the adapters of the plan have different span heads ({heads}), expected those of one width, or a word on \
         which head answers: `base` or a number of bits"
    )]
    SeveralSpanHeads {
        /// The heads.
        heads: String,
    },
    /// The base has no span head, and no adapter of the plan brings one.
    #[error(
        "the model has no span head (`qa_outputs.weight`), and no adapter of the plan brings one: `train_bank \
         --base-steps` trains one"
    )]
    NoBaseHead,
    /// A span head was asked for that came with no adapter.
    #[error("no span head of {bits} bits, available: base{}", listed(available))]
    NoHeadOfWidth {
        /// The width.
        bits: BitWidth,
        /// Widths that have a head.
        available: Vec<BitWidth>,
    },
    /// A plan in a file does not fit.
    #[error("{path}: {source}")]
    Plan {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A plan was made for another number of blocks.
    #[error("plan of {got} blocks, the model has {blocks}")]
    PlanBlocks {
        /// Blocks of the plan.
        got: usize,
        /// Blocks of the model.
        blocks: usize,
    },
    /// A plan was made for another family of models.
    #[error("plan of a model with the sub-modules {got}, this one has {expected}")]
    PlanModules {
        /// Sub-modules of the plan.
        got: String,
        /// Sub-modules of the model.
        expected: String,
    },
    /// A packed file or tensor is not what it should be.
    #[error(transparent)]
    Packed(#[from] quant_kernels::Error),
    /// A plan or an adapter does not fit.
    #[error(transparent)]
    Lora(#[from] switchable_lora::Error),
}

fn listed(widths: &[BitWidth]) -> String {
    widths.iter().fold(String::new(), |text, bits| text + &format!(", {bits}"))
}

impl From<whole_files::Error> for Error {
    fn from(whole_files::Error { path, source }: whole_files::Error) -> Self {
        Self::io(path, source)
    }
}

impl Error {
    /// An error of the system, with the file or folder.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// The error with the name of the file that it is about, where it has none.
    #[must_use]
    pub fn in_file(self, path: impl AsRef<Path>) -> Self {
        match self {
            Self::Lora(error) => Self::Lora(error.in_file(path.as_ref())),
            plan @ (Self::SeveralSpanHeads { .. }
            | Self::NoHeadOfWidth { .. }
            | Self::PlanBlocks { .. }
            | Self::PlanModules { .. }) => Self::Plan { path: path.as_ref().into(), source: Box::new(plan) },
            other => other,
        }
    }

    /// An error in a JSON file.
    pub fn json(path: impl Into<PathBuf>, source: serde_json::Error) -> Self {
        Self::Json { path: path.into(), source }
    }
}

/// An error of a layer, with the name of its site.
pub(crate) fn at_site(site: String, source: switchable_lora::Error) -> switchable_lora::Error {
    switchable_lora::Error::Site { site, source: Box::new(source) }
}

/// An error of adapters, with the name of their file or folder.
pub(crate) fn in_file(path: &Path, source: switchable_lora::Error) -> switchable_lora::Error {
    switchable_lora::Error::File { path: path.into(), source: Box::new(source) }
}
