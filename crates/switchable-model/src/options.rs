//! How a model is built.

use switchable_lora::{linear_settings::LinearSettings, quantized_cache::QuantizedCache};

use crate::initial::InitialWeights;

/// How a model is built: what its linear sub-modules quantise and where quantised weights are kept.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Quantisers, placement and base policy of every site; the base policy holds for embeddings,
    /// normalisations and heads too.
    pub linear: LinearSettings,
    /// Shared by all sites; holds the quantised forms of a frozen base.
    pub cache: QuantizedCache,
    /// How random weights are drawn, where there are any.
    pub initial: InitialWeights,
}
