//! What can go wrong, and the crate's `Result`.

use std::{io, path::PathBuf};

use crate::spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity};

/// An option of quantisation that does not exist, or does not fit the others or the tensor.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number of bits outside 1 to 16 and other than 32.
    #[error("bit-width {got} does not exist, expected 1 to 16, or 32 for full precision")]
    BitWidth {
        /// The number of bits asked for.
        got: u8,
    },
    /// A group of no elements.
    #[error("group size 0 is empty, expected at least 1")]
    GroupSize,
    /// A percentile that is not a number above 50 and up to 100.
    #[error("percentile {got} is out of range, expected more than 50 and at most 100")]
    Percentile {
        /// The percentile asked for.
        got: f64,
    },
    /// A limit of the vector instructions that names none, or a set that the processor lacks.
    #[error("{variable} is `{got}`, expected one that this processor has: {available}")]
    Instructions {
        /// The environment variable.
        variable: &'static str,
        /// What it is.
        got: String,
        /// The sets that the processor has.
        available: String,
    },
    /// A text that names none of the choices.
    #[error("{what} `{got}` is unknown, expected {expected}")]
    Text {
        /// What the text should have named.
        what: &'static str,
        /// The text.
        got: String,
        /// The texts that are understood.
        expected: &'static str,
    },
    /// The symmetric mapping has no level besides zero at 1 bit.
    #[error("the symmetric mapping needs at least 2 bits, got {bits}")]
    TooFewBits {
        /// The number of bits asked for.
        bits: BitWidth,
    },
    /// A format that has no codes of a width.
    #[error("the format {format} has no codes of {bits} bits, expected {expected}")]
    FormatBits {
        /// The format asked for.
        format: Format,
        /// The number of bits asked for.
        bits: BitWidth,
        /// The number of bits that it has.
        expected: u8,
    },
    /// Parameters were asked for at full precision, where nothing is quantised.
    #[error("{} bits are full precision, which has no quantisation parameters", BitWidth::FULL)]
    FullPrecision,
    /// The tensor has too few dimensions for the granularity.
    #[error("granularity {granularity} needs a tensor of rank 2 or more, got rank {rank}")]
    Rank {
        /// The granularity asked for.
        granularity: Granularity,
        /// The rank of the tensor.
        rank: usize,
    },
    /// A learned step cannot be kept for rows that differ from call to call.
    #[error("a learned step cannot have granularity {granularity}, expected per-tensor, per-channel or per-group")]
    LearnedStep {
        /// The granularity asked for.
        granularity: Granularity,
    },
    /// A learned step for a weight of another size.
    #[error("a learned step of shape {got:?} does not fit a {weight:?} weight, {granularity}")]
    StepShape {
        /// The shape of the step.
        got: [usize; 2],
        /// The `[d_in, d_out]` of the weight.
        weight: [usize; 2],
        /// Which values share a step.
        granularity: Granularity,
    },
    /// A learned step by which nothing can be divided.
    #[error("learned step {index} is {got}, expected a finite number other than 0")]
    StepValue {
        /// The position of the step, row-major in the shape of the steps.
        index: usize,
        /// The step.
        got: f32,
    },
    /// A width that weights cannot be packed to.
    #[error("weights cannot be packed to {bits} bits, expected 2 to 8")]
    PackedBits {
        /// The number of bits asked for.
        bits: BitWidth,
    },
    /// A granularity that packed weights cannot have.
    #[error(
        "packed weights cannot have granularity {granularity}, expected per-tensor, per-channel, or per-group of a multiple of 32 rows"
    )]
    PackedGranularity {
        /// The granularity asked for.
        granularity: Granularity,
    },
    /// A weight without a level.
    #[error("the weight at row {row}, column {column} is {got}, expected a finite number")]
    PackedWeight {
        /// The row of the weight.
        row: usize,
        /// The column of the weight.
        column: usize,
        /// The weight.
        got: f32,
    },
    /// A scale that cannot be stored.
    #[error("scale {index} is {got}, expected {expected}")]
    PackedScale {
        /// The position of the scale, row-major in the shape of the scales.
        index: usize,
        /// The scale.
        got: f32,
        /// What a scale may be.
        expected: &'static str,
    },
    /// A zero point that is not a level.
    #[error("zero point {index} is {got}, expected at most {high}")]
    PackedZeroPoint {
        /// The position of the zero point, row-major in the shape of the scales.
        index: usize,
        /// The zero point.
        got: u8,
        /// The highest level.
        high: u8,
    },
    /// A code that is not a level.
    #[error("the code at row {row}, column {column} is {got}, expected {low} to {high}")]
    PackedCode {
        /// The row of the code.
        row: usize,
        /// The column of the code.
        column: usize,
        /// The code.
        got: u8,
        /// The lowest code.
        low: u8,
        /// The highest code.
        high: u8,
    },
    /// A width that activations cannot be quantised to in a product.
    #[error("activations cannot be multiplied at {bits} bits, expected 2 to 8, or 32 for full precision")]
    ActivationBits {
        /// The number of bits asked for.
        bits: BitWidth,
    },
    /// Packed weights that cannot be cut to fewer bits.
    #[error("{format} weights of {bits} bits cannot be cut to fewer bits, expected symmetric weights of 8 bits")]
    NestedSource {
        /// The mapping of the weights.
        format: Format,
        /// The number of bits of the weights.
        bits: BitWidth,
    },
    /// A scale of a lower width that is too small beside that of the 8-bit codes that it is for.
    #[error(
        "scale {index} of {bits} bits is {got}, expected more than {above}, as the 8-bit codes have scales of their own"
    )]
    NestedScale {
        /// The width.
        bits: BitWidth,
        /// The position of the scale, row-major in the shape of the scales.
        index: usize,
        /// The scale.
        got: f32,
        /// What it has to exceed.
        above: f32,
    },
    /// A rounding or range that needs statistics of the inputs, and has none.
    #[error("{what} needs the moments of the layer's inputs, and there are none: calibrate first")]
    Uncalibrated {
        /// What needs them.
        what: &'static str,
    },
    /// Statistics of inputs that no data has.
    #[error("{what} {index} is {got}, expected {expected}")]
    Moments {
        /// The statistic.
        what: &'static str,
        /// Its position.
        index: usize,
        /// Its value.
        got: f32,
        /// What it may be.
        expected: &'static str,
    },
    /// Statistics of another number of inputs than the weight has.
    #[error("moments of {got} inputs do not fit a weight of {expected}")]
    MomentsOfInputs {
        /// The inputs of the statistics.
        got: usize,
        /// The inputs of the weight.
        expected: usize,
    },
    /// A file that could not be read or written.
    #[error("{}: {message}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The kind of the failure.
        kind: io::ErrorKind,
        /// What the system said.
        message: String,
    },
    /// A file whose frame or header is not that of a file of packed tensors.
    #[error("{}: {field} is {got}, expected {expected}", path.display())]
    FileHeader {
        /// The file.
        path: PathBuf,
        /// The part of the header.
        field: &'static str,
        /// What it holds.
        got: String,
        /// What it may hold.
        expected: String,
    },
    /// A tensor in a file that is not what its description says.
    #[error("{}: {field} of tensor `{tensor}`: got {got}, expected {expected}", path.display())]
    FileTensor {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
        /// The part of the tensor.
        field: &'static str,
        /// What it holds.
        got: String,
        /// What it may hold.
        expected: String,
    },
    /// A tensor that is not in a file.
    #[error("{}: there is no tensor `{tensor}`", path.display())]
    FileTensorMissing {
        /// The file.
        path: PathBuf,
        /// The name of the tensor.
        tensor: String,
    },
}

impl From<whole_files::Error> for Error {
    fn from(whole_files::Error { path, source }: whole_files::Error) -> Self {
        Self::Io { path, kind: source.kind(), message: source.to_string() }
    }
}

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = core::result::Result<T, E>;
