//! What one linear layer computes with in one call.

use std::fmt;

use serde::{Deserialize, Serialize};

use quant_kernels::spec::{
    bit_width::BitWidth,
    quant_spec::{self, QuantSpec},
    rotation::Rotation,
    rounding_method::RoundingMethod,
};

use crate::{placement::Placement, quantisation_settings::QuantisationSettings};

/// How a weight is rounded to the levels of its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteRounding {
    /// To the nearest level, by the scales that the weight's quantiser finds.
    Nearest,
    /// To the nearest level, by scales of small error but for a few weights.
    Hqq,
    /// To the highest bits of the codes of 8 bits.
    Nested,
    /// One input after another, each making up for the error of those before it.
    Gptq,
    /// By the learned step of the adapter, whose width is that of the weight.
    LearnedStep,
}

impl SiteRounding {
    /// The method; `None` for a learned step.
    pub const fn method(self) -> Option<RoundingMethod> {
        match self {
            Self::Nearest => Some(RoundingMethod::Nearest),
            Self::Hqq => Some(RoundingMethod::Hqq),
            Self::Nested => Some(RoundingMethod::Nested),
            Self::Gptq => Some(RoundingMethod::Gptq),
            Self::LearnedStep => None,
        }
    }
}

impl From<RoundingMethod> for SiteRounding {
    fn from(method: RoundingMethod) -> Self {
        match method {
            RoundingMethod::Nearest => Self::Nearest,
            RoundingMethod::Hqq => Self::Hqq,
            RoundingMethod::Nested => Self::Nested,
            RoundingMethod::Gptq => Self::Gptq,
        }
    }
}

impl fmt::Display for SiteRounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Hqq => "hqq",
            Self::Nested => "nested",
            Self::Gptq => "gptq",
            Self::LearnedStep => "learned-step",
        })
    }
}

/// The widths of a layer's weights and activations, the adapter that goes with them, and how they are
/// quantised.
///
/// What is not said of quantisers, placement, rounding and rotation is as the layer's settings have it:
///
/// | field | in JSON | where it is left out |
/// |---|---|---|
/// | `quantizer` | `"per-channel,symmetric,min-max"` | [`LinearSettings::weight`](crate::LinearSettings) |
/// | `activation_quantizer` | `"per-token,symmetric,min-max"` | [`LinearSettings::activation`](crate::LinearSettings) |
/// | `placement` | `"residual"`, `"merged"` | [`LinearSettings::placement`](crate::LinearSettings) |
/// | `rounding` | `"nearest"`, `"hqq"`, `"nested"`, `"gptq"`, `"learned-step"` | the step of the adapter if it has one, else [`LinearSettings::rounding`](crate::LinearSettings) |
/// | `shared` | `32`: the adapter of that width is added too | no other adapter |
/// | `rotation` | `"none"`, `"hadamard"`, `"hadamard:7"` | [`LinearSettings::rotation`](crate::LinearSettings) |
///
/// ```
/// use switchable_lora::{BitWidth, SitePrecision};
///
/// let w4a8 = SitePrecision::uniform(BitWidth::B4).with_activations(BitWidth::B8);
/// assert_eq!(w4a8.adapter, Some(BitWidth::B4));
/// assert_eq!(SitePrecision::FULL, SitePrecision::uniform(BitWidth::FULL).without_adapter());
///
/// let per_channel = w4a8.with_quantizer("per-channel".parse()?);
/// assert_ne!(per_channel, w4a8);
/// # Ok::<(), quant_kernels::Error>(())
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
    /// The width whose adapter is added beside it: one that several widths share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<BitWidth>,
    /// How the weights are quantised.
    #[serde(default, with = "quant_spec::optional_text", skip_serializing_if = "Option::is_none")]
    pub quantizer: Option<QuantSpec>,
    /// How the activations are quantised.
    #[serde(default, with = "quant_spec::optional_text", skip_serializing_if = "Option::is_none")]
    pub activation_quantizer: Option<QuantSpec>,
    /// Where the adapter is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// How the weights are rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<SiteRounding>,
    /// How inputs and weights are rotated before they are quantised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

impl SitePrecision {
    /// Weights and activations at full precision, no adapter.
    pub const FULL: Self = Self {
        weights: BitWidth::FULL,
        activations: BitWidth::FULL,
        adapter: None,
        shared: None,
        quantizer: None,
        activation_quantizer: None,
        placement: None,
        rounding: None,
        rotation: None,
    };

    /// Weights at `bits` with the adapter of that width, activations at full precision.
    pub const fn uniform(bits: BitWidth) -> Self {
        Self { weights: bits, adapter: Some(bits), ..Self::FULL }
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

    /// The same with the adapter of `bits` beside its own.
    pub const fn with_shared(self, bits: BitWidth) -> Self {
        Self { shared: Some(bits), ..self }
    }

    /// The widths whose adapters are added, its own first.
    pub fn adapters(&self) -> impl Iterator<Item = BitWidth> + use<> {
        [self.adapter, self.shared].into_iter().flatten()
    }

    /// The same without adapters, and so without a learned step.
    pub const fn without_adapter(self) -> Self {
        let rounding = match self.rounding {
            Some(SiteRounding::LearnedStep) => None,
            rounding => rounding,
        };
        Self { adapter: None, shared: None, rounding, ..self }
    }

    /// The same with weights quantised by `quantizer`.
    pub const fn with_quantizer(self, quantizer: QuantSpec) -> Self {
        Self { quantizer: Some(quantizer), ..self }
    }

    /// The same with the adapter added in another place.
    pub const fn with_placement(self, placement: Placement) -> Self {
        Self { placement: Some(placement), ..self }
    }

    /// The same with both quantisers and the placement of `settings`, and the rotation if they have one; the rounding
    /// stays.
    pub const fn with_quantisation(self, settings: QuantisationSettings) -> Self {
        let QuantisationSettings { weight, activation, placement, rotation, .. } = settings;
        let (quantizer, activation_quantizer, placement) = (Some(weight), Some(activation), Some(placement));
        let rotation = match rotation {
            Rotation::None => self.rotation,
            Rotation::Hadamard(_) => Some(rotation),
        };
        Self { quantizer, activation_quantizer, placement, rotation, ..self }
    }

    /// The same with another rounding.
    pub const fn with_rounding(self, rounding: SiteRounding) -> Self {
        Self { rounding: Some(rounding), ..self }
    }

    /// The same with another rotation.
    pub const fn with_rotation(self, rotation: Rotation) -> Self {
        Self { rotation: Some(rotation), ..self }
    }

    /// The same with no rotation where it says all but that: only what says how it rotates is rotated, whatever a layer does.
    #[must_use]
    pub const fn with_said_rotation(self) -> Self {
        match self.rotation {
            None if self.is_explicit() => self.with_rotation(Rotation::None),
            _ => self,
        }
    }

    /// Quantisers, placement, rounding and rotation: what the precision says, and else those of a layer.
    pub fn quantisation(&self, layer: QuantisationSettings) -> QuantisationSettings {
        QuantisationSettings {
            weight: self.quantizer.unwrap_or(layer.weight),
            activation: self.activation_quantizer.unwrap_or(layer.activation),
            placement: self.placement.unwrap_or(layer.placement),
            rounding: self.rounding.and_then(SiteRounding::method).unwrap_or(layer.rounding),
            rotation: self.rotation.unwrap_or(layer.rotation),
        }
    }

    /// Whether nothing is left to the settings of a layer. A precision of no rotation need not say so.
    pub const fn is_explicit(&self) -> bool {
        self.quantizer.is_some()
            && self.activation_quantizer.is_some()
            && self.placement.is_some()
            && self.rounding.is_some()
    }
}

impl Default for SitePrecision {
    fn default() -> Self {
        Self::FULL
    }
}
