//! What one linear layer computes with in one call.

use serde::{Deserialize, Serialize};

use quant_kernels::spec::bit_width::BitWidth;

/// The widths of a layer's weights and activations, and the adapter that goes with them.
///
/// ```
/// use switchable_lora::{BitWidth, SitePrecision};
///
/// let w4a8 = SitePrecision::uniform(BitWidth::B4).with_activations(BitWidth::B8);
/// assert_eq!(w4a8.adapter, Some(BitWidth::B4));
/// assert_eq!(SitePrecision::FULL, SitePrecision::uniform(BitWidth::FULL).without_adapter());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SitePrecision {
    /// The width of the weights.
    pub weights: BitWidth,
    /// The width of the activations.
    pub activations: BitWidth,
    /// The width whose adapter is added, if any.
    pub adapter: Option<BitWidth>,
}

impl SitePrecision {
    /// Weights and activations at full precision, no adapter.
    pub const FULL: Self = Self { weights: BitWidth::FULL, activations: BitWidth::FULL, adapter: None };

    /// Weights at `bits` with the adapter of that width, activations at full precision.
    pub const fn uniform(bits: BitWidth) -> Self {
        Self { weights: bits, activations: BitWidth::FULL, adapter: Some(bits) }
    }

    /// The same with other weights. The adapter stays.
    pub const fn with_weights(self, bits: BitWidth) -> Self {
        Self { weights: bits, ..self }
    }

    /// The same with other activations.
    pub const fn with_activations(self, bits: BitWidth) -> Self {
        Self { activations: bits, ..self }
    }

    /// The same with the adapter of `bits`.
    pub const fn with_adapter(self, bits: BitWidth) -> Self {
        Self { adapter: Some(bits), ..self }
    }

    /// The same without an adapter.
    pub const fn without_adapter(self) -> Self {
        Self { adapter: None, ..self }
    }
}

impl Default for SitePrecision {
    fn default() -> Self {
        Self::FULL
    }
}
