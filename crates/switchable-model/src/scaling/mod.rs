//! Factors that fold into a model: another model of the same function, which is easier to quantise.
//!
//! ```text
//! producer ÷ s,   consumer: rows × s          (x / s)·(diag(s)·W) = x·W
//! ```
//!
//! | a family's row | producer | consumers |
//! |---|---|---|
//! | behind a normalisation | its gain and shift | every matrix that reads it |
//! | behind a matrix | some of its columns and of its bias | the matrix that reads them, with nothing but sums, or products with others, between the two |
//!
//! A family names its pairs ([`ModelConfig::foldable_pairs`](crate::config::ModelConfig::foldable_pairs)); dividing,
//! multiplying and choosing factors are the same for all. Of one pair after another the function stays the same at full
//! precision, to the rounding of f32; below that, levels lie elsewhere. Sources: Lin et al., *AWQ*, arXiv:2306.00978;
//! Xiao et al., *`SmoothQuant`*, arXiv:2211.10438.

pub mod choice;
pub mod fold;
pub mod pair;

pub use choice::{ChooseScaling, ChosenPair, ScalingChoice};
pub use fold::{FoldScaling, ScaledPair};
pub use pair::{FoldablePair, Producer};
