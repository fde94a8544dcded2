//! What can go wrong, and the crate's `Result`.

use crate::{BitWidth, Granularity};

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
}

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = core::result::Result<T, E>;
