//! What can go wrong, and the crate's `Result`.

use std::{fmt, io, path::PathBuf};

use safetensors::{Dtype, SafeTensorError};
use serde::de::DeserializeOwned;

use quant_kernels::spec::{
    bit_width::BitWidth, formats::format::Format, granularity::Granularity, quant_spec::QuantSpec, rotation::Rotation,
    rounding_method::RoundingMethod,
};

use crate::site_precision::SiteRounding;

/// A layer, plan or adapter that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A quantiser's options do not fit each other or the tensor.
    #[error(transparent)]
    Quantisation(#[from] quant_kernels::Error),
    /// Something about one site.
    #[error("site `{site}`: {source}")]
    Site {
        /// The name of the site.
        site: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// Something about one file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A text that is not the JSON it should be.
    #[error("{}", text_of_json(.0))]
    Json(#[from] serde_json::Error),
    /// A field of a JSON file that has another value than it may have.
    #[error("field `{field}`: {source}")]
    JsonField {
        /// The field, with those that it stands in.
        field: String,
        /// What is wrong with it, and where.
        source: serde_json::Error,
    },
    /// A plan written by another version of the format.
    #[error("plan version {got} is unknown, expected 1 to {expected}")]
    PlanVersion {
        /// The version found.
        got: u64,
        /// The newest version that is understood.
        expected: u64,
    },
    /// A plan of a version that cannot say what this one says.
    #[error("field `{field}` of a plan of version {version}, expected version {expected}")]
    PlanField {
        /// The field.
        field: &'static str,
        /// The version of the plan.
        version: u64,
        /// The version that has the field.
        expected: u64,
    },
    /// A plan names a site that the model does not have.
    #[error("unknown site `{site}`, expected {known}")]
    UnknownSite {
        /// The name in the plan.
        site: String,
        /// The names that there are.
        known: String,
    },
    /// A plan has a rule that no site of the model follows.
    #[error("{kind} `{name}` matches no site, expected {known}")]
    UnmatchedRule {
        /// `block` or `sub-module`.
        kind: &'static str,
        /// The name in the plan.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A plan gives bits to the keys and values of a block that the model does not have.
    #[error("kv cache of unknown block `{block}`, expected {known}")]
    UnknownBlock {
        /// The name in the plan.
        block: String,
        /// The names that there are.
        known: String,
    },
    /// The keys and values of a block cannot be kept at the bits of the plan.
    #[error("kv cache of block `{block}`: {source}")]
    KvCache {
        /// The name of the block.
        block: String,
        /// What is wrong with the bits.
        source: quant_kernels::Error,
    },
    /// An adapter was asked for at a width that the bank does not have.
    #[error("no adapter for {bits} bits, available: {}", WidthList(available))]
    MissingAdapter {
        /// The width asked for.
        bits: BitWidth,
        /// The widths of the bank.
        available: Vec<BitWidth>,
    },
    /// Packed weights were asked for at a width that they do not have.
    #[error("the weights are packed and have no form at {bits} bits, available: {}", WidthList(available))]
    PackedWidth {
        /// The width asked for.
        bits: BitWidth,
        /// The widths that the codes give.
        available: Vec<BitWidth>,
    },
    /// An embedding that is to have an adapter or a learned step.
    #[error("embeddings have no adapters and no learned steps")]
    EmbeddingAdapter,
    /// An adapter of rank 0.
    #[error("rank 0 adapts nothing, expected at least 1")]
    Rank,
    /// An adapter that is larger than any use of it could be.
    #[error("rank {got} is more than both sides of a weight of shape {weight:?} together, {}", weight[0] + weight[1])]
    RankOfWeight {
        /// The rank asked for.
        got: usize,
        /// The shape of the weight, `[d_in, d_out]`.
        weight: [usize; 2],
    },
    /// An adapter's alpha that is not a finite number above 0.
    #[error("alpha is {got}, expected a finite number above 0")]
    Alpha {
        /// The alpha asked for.
        got: f64,
    },
    /// The two factors of an adapter have different ranks.
    #[error("adapter factors of shapes {a:?} and {b:?} do not share a rank")]
    AdapterRanks {
        /// The shape of A, which should be `[d_in, rank]`.
        a: [usize; 2],
        /// The shape of B, which should be `[rank, d_out]`.
        b: [usize; 2],
    },
    /// An adapter for a layer of another size.
    #[error("adapter for a {got:?} weight does not fit a {expected:?} weight")]
    AdapterShape {
        /// The `[d_in, d_out]` that the adapter is for.
        got: [usize; 2],
        /// The `[d_in, d_out]` of the layer.
        expected: [usize; 2],
    },
    /// A learned step for a weight whose quantiser has zero points.
    #[error("a learned step needs a symmetric weight quantiser, got {format}")]
    StepFormat {
        /// The mapping of the weight's quantiser.
        format: Format,
    },
    /// A learned step whose values are shared otherwise than the weight's quantiser says.
    #[error("a learned step {got} does not fit a weight that is quantised {expected}")]
    StepGranularity {
        /// The granularity of the step.
        got: Granularity,
        /// That of the weight's quantiser.
        expected: Granularity,
    },
    /// A learned step of another width than its adapter.
    #[error("a learned step for {got} bits does not fit the adapter for {expected} bits")]
    StepWidth {
        /// The width of the step.
        got: BitWidth,
        /// The width of the adapter.
        expected: BitWidth,
    },
    /// Packed weights that were not quantised by the learned step that comes with them.
    #[error("the learned step for {bits} bits is not the scale of the packed weight, expected {expected}")]
    PackedStep {
        /// The width of the step.
        bits: BitWidth,
        /// What would fit.
        expected: &'static str,
    },
    /// A precision that rounds by a learned step where there is none.
    #[error("rounding is learned-step, and there is no adapter for {bits} bits with a learned step")]
    NoStep {
        /// The width of the weight.
        bits: BitWidth,
    },
    /// A precision that names another quantiser than packed weights were made by.
    #[error("the weights were packed by {expected}, the plan names {got}")]
    PackedQuantizer {
        /// The quantiser of the precision.
        got: QuantSpec,
        /// The quantiser of the codes.
        expected: QuantSpec,
    },
    /// A precision that rounds in another way than packed weights were rounded.
    #[error("the weights were packed by rounding `{expected}`, the plan names `{got}`")]
    PackedRounding {
        /// The rounding of the precision.
        got: RoundingMethod,
        /// The rounding of the codes.
        expected: RoundingMethod,
    },
    /// A precision that rotates in another way than packed weights were rotated.
    #[error("the weights were packed with rotation `{expected}`, the plan names `{got}`")]
    PackedRotation {
        /// The rotation of the precision.
        got: Rotation,
        /// The rotation of the codes.
        expected: Rotation,
    },
    /// An adapter that several widths share where there is none of the width's own, or the same.
    #[error(
        "the shared adapter of {bits} bits is added beside another one, expected an adapter of another width in          `adapter`; alone it is the `adapter` itself"
    )]
    SharedAlone {
        /// The width of the shared adapter.
        bits: BitWidth,
    },
    /// A rotation of an embedding.
    #[error("an embedding has rows and no inputs that could be rotated, expected rotation `none`, got `{rotation}`")]
    EmbeddingRotation {
        /// The rotation.
        rotation: Rotation,
    },
    /// A rounding of an embedding that goes by more than its values.
    #[error("an embedding is rounded to the nearest level, expected rounding `nearest`, got `{rounding}`")]
    EmbeddingRounding {
        /// The rounding.
        rounding: SiteRounding,
    },
    /// A rounding of the whole weight where the weight changes from call to call.
    #[error(
        "{what} cannot be rounded by its inputs or as a whole, expected rounding `nearest` and a range of each weight"
    )]
    CalibratedWeight {
        /// The weight.
        what: &'static str,
    },
    /// Factors for a weight of which there are only codes.
    #[error("the weight is only there as codes, expected floats: fold factors in before packing")]
    PackedScaling,
    /// Factors for a weight that a learned step rounds.
    #[error(
        "the adapter for {bits} bits has a learned step, which belongs to the weight as it was trained: fold factors \
         in before steps are learned, or leave the adapter out"
    )]
    StepScaling {
        /// The width of the adapter.
        bits: BitWidth,
    },
    /// A precision that merges an adapter into packed weights.
    #[error("placement is merged, expected residual as the weights are packed")]
    PackedPlacement,
    /// A form of the weight that would lose the learned step.
    #[error("the adapter for {bits} bits has a learned step, which {what} cannot keep")]
    MergedStep {
        /// The width of the adapter.
        bits: BitWidth,
        /// The form.
        what: &'static str,
    },
    /// An adapter that is to be merged into a weight of which there are only codes.
    #[error("{what} cannot have adapters merged into them: use residual placement, or merge one before packing")]
    MergedCodes {
        /// The codes.
        what: &'static str,
    },
    /// A field of an adapter's files that is not supported or makes no sense.
    #[error("field `{field}` is {got}, expected {expected}")]
    Field {
        /// The name of the field.
        field: &'static str,
        /// Its value.
        got: String,
        /// What is supported.
        expected: &'static str,
    },
    /// A field of an adapter's configuration that asks for something else than is computed here.
    #[error("field `{field}` is {got}, expected {expected}")]
    AdapterField {
        /// The name of the field.
        field: String,
        /// Its value.
        got: String,
        /// What is supported.
        expected: String,
    },
    /// A regular expression in an adapter's configuration that cannot be read.
    #[error("field `{field}` has `{pattern}`, expected a regular expression: {reason}")]
    Pattern {
        /// The name of the field.
        field: &'static str,
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name in an adapter's configuration that none of its modules has.
    #[error("field `{field}` has `{pattern}`, which matches no module of the adapter")]
    UnmatchedPattern {
        /// The name of the field.
        field: &'static str,
        /// The name or expression.
        pattern: String,
    },
    /// An adapter whose tensors are only there as a pickle of torch, which can run code when it is read.
    #[error(
        "{}: a pickle of torch is not read, expected adapter_model.safetensors; in the folder, convert it in Python by\n\
         import torch; from safetensors.torch import save_file\n\
         save_file({{n: t.contiguous() for n, t in torch.load(\"adapter_model.bin\", map_location=\"cpu\", \
         weights_only=True).items()}}, \"adapter_model.safetensors\", {{\"format\": \"pt\"}})",
        path.display()
    )]
    Pickled {
        /// The file.
        path: PathBuf,
    },
    /// A folder that should be that of a width.
    #[error("a folder of adapters, expected {expected}")]
    WidthFolder {
        /// What is wrong.
        expected: &'static str,
    },
    /// An adapter that was trained for something else than it is to be used for.
    #[error("the adapter was trained for another {field}: {trained}, here it is {here}")]
    TrainedFor {
        /// `bits`, or the field of the quantisation settings.
        field: &'static str,
        /// The value in training.
        trained: String,
        /// The value here.
        here: String,
    },
    /// A safetensors file that is truncated or malformed.
    #[error("invalid safetensors: {0}")]
    Safetensors(#[from] SafeTensorError),
    /// A tensor that should be there.
    #[error("tensor `{tensor}` is missing")]
    TensorMissing {
        /// The name of the tensor.
        tensor: String,
    },
    /// A tensor whose name has no meaning here.
    #[error("tensor `{tensor}` is unexpected, expected `{expected}`")]
    TensorUnexpected {
        /// The name of the tensor.
        tensor: String,
        /// The pattern that names follow.
        expected: String,
    },
    /// A tensor of the wrong shape.
    #[error("tensor `{tensor}` has shape {got:?}, expected {expected}")]
    TensorShape {
        /// The name of the tensor.
        tensor: String,
        /// Its shape.
        got: Vec<usize>,
        /// What was expected.
        expected: String,
    },
    /// A tensor of a type that is not a float of 16 or 32 bits.
    #[error("tensor `{tensor}` has dtype {got:?}, expected F32, F16 or BF16")]
    TensorDtype {
        /// The name of the tensor.
        tensor: String,
        /// Its type.
        got: Dtype,
    },
    /// A tensor that holds a NaN or an infinity.
    #[error("tensor `{tensor}` holds {got} at element {index}, expected finite numbers")]
    TensorNotFinite {
        /// The name of the tensor.
        tensor: String,
        /// The value.
        got: f32,
        /// Where it is, in row-major order.
        index: usize,
    },
    /// A tensor of learned steps that holds a zero.
    #[error("tensor `{tensor}` holds 0 at element {index}, expected steps other than 0")]
    TensorZero {
        /// The name of the tensor.
        tensor: String,
        /// Where the zero is, in row-major order.
        index: usize,
    },
    /// Nothing to save, or a file without a pair of factors.
    #[error("no adapters in it, expected a pair of factors for at least one module")]
    NoAdapters,
}

impl Error {
    /// Names the site that an error is about.
    pub(crate) fn at_site(self, site: &str) -> Self {
        Self::Site { site: site.to_owned(), source: Box::new(self) }
    }

    /// Names the file that an error is about, unless it already does.
    pub fn in_file(self, path: impl Into<PathBuf>) -> Self {
        match self {
            Self::File { .. } | Self::Io { .. } => self,
            other => Self::File { path: path.into(), source: Box::new(other) },
        }
    }

    /// Names the file or folder that the system refused.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

impl From<whole_files::Error> for Error {
    fn from(whole_files::Error { path, source }: whole_files::Error) -> Self {
        Self::Io { path, source }
    }
}

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = core::result::Result<T, E>;

fn text_of_json(error: &serde_json::Error) -> String {
    // What is JSON of something else is no invalid JSON.
    if error.is_data() { error.to_string() } else { format!("invalid json: {error}") }
}

/// Reads JSON such that an error names the field.
pub(crate) fn parse_fields<T: DeserializeOwned>(text: &str) -> Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let is_in_field = error.path().iter().next().is_some();
        let (field, source) = (error.path().to_string(), error.into_inner());
        // A list in the place of a name is no data but syntax to the parser.
        if is_in_field && !source.is_eof() { Error::JsonField { field, source } } else { Error::Json(source) }
    })?;
    json.end()?;
    Ok(parsed)
}

struct WidthList<'a>(&'a [BitWidth]);

impl fmt::Display for WidthList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else {
            return f.write_str("none");
        };
        write!(f, "{first}")?;
        rest.iter().try_for_each(|bits| write!(f, ", {bits}"))
    }
}
