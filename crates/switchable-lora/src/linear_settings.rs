//! The settings of a layer that do not change from call to call.

use serde::{Deserialize, Serialize};

use quant_kernels::spec::{
    gradient_rule::GradientRule, quant_spec::QuantSpec, rotation::Rotation, rounding_method::RoundingMethod,
};

use crate::{placement::Placement, quantisation_settings::QuantisationSettings};

/// Whether the base weight is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BasePolicy {
    /// It gets no gradient, and its quantised forms are kept.
    #[default]
    Frozen,
    /// It gets the straight-through gradient, and is quantised in each training step.
    Trainable,
}

/// How a quantised weight is held and multiplied while no gradients are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Execution {
    /// As floats that were rounded to the levels of their width: the same bits on every backend.
    #[default]
    FakeQuantized,
    /// As codes of 2 to 8 bits, multiplied as they are: less memory, and faster. Sums are rounded in
    /// another order. It needs activations that are quantised as [`QuantSpec::PER_TOKEN`] says, or not at
    /// all; where a width, a granularity or a weight cannot be packed, the layer computes as with
    /// `FakeQuantized`. Where adapters are merged, the codes are of the merged weight.
    Packed,
}

/// The numbers that products are computed in where both factors are floats, or the weights are codes and activations floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// 32 bits.
    #[default]
    F32,
    /// Factors are rounded to bf16, to the nearest, and sums are of f32. Codes are exact in bf16, so that with packed weights
    /// activations alone are rounded; so are gradients of outputs on the way back. It is for weights that are not trained
    /// and have no adapter merged into their floats, with activations that are not quantised, on a backend that
    /// [multiplies in bf16](quant_kernels::backends::quant_backend::QuantBackend::multiplies_bf16); all else is as with `F32`.
    Bf16,
}

/// The settings of a layer that do not change from call to call.
///
/// | setting | default |
/// |---|---|
/// | `weight` | symmetric, per tensor, min-max |
/// | `activation` | symmetric, per token, min-max |
/// | `placement` | residual |
/// | `base` | frozen |
/// | `gradient` | identity |
/// | `rounding` | nearest |
/// | `rotation` | none |
/// | `execution` | fake-quantised |
/// | `compute` | f32 |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearSettings {
    /// How weights are quantised.
    pub weight: QuantSpec,
    /// How activations are quantised. Their range is found anew in each call.
    pub activation: QuantSpec,
    /// Where the adapter is added.
    pub placement: Placement,
    /// Whether the base weight is trained.
    pub base: BasePolicy,
    /// What quantisation does to gradients.
    pub gradient: GradientRule,
    /// How weights are rounded where no learned step does.
    pub rounding: RoundingMethod,
    /// How inputs and weights are rotated before either is quantised. A layer of which neither is takes no notice.
    pub rotation: Rotation,
    /// How quantised weights are held and multiplied.
    pub execution: Execution,
    /// The numbers of products.
    pub compute: Compute,
}

impl Default for LinearSettings {
    fn default() -> Self {
        let QuantisationSettings { weight, activation, placement, rounding, rotation } =
            QuantisationSettings::default();
        Self {
            weight,
            activation,
            placement,
            base: BasePolicy::default(),
            gradient: GradientRule::default(),
            rounding,
            rotation,
            execution: Execution::default(),
            compute: Compute::default(),
        }
    }
}

impl LinearSettings {
    /// Those of the settings that decide what an adapter repairs.
    pub const fn quantisation(&self) -> QuantisationSettings {
        let Self { weight, activation, placement, rounding, rotation, .. } = *self;
        QuantisationSettings { weight, activation, placement, rounding, rotation }
    }

    /// The same with other quantisers, another placement, rounding and rotation.
    pub const fn with_quantisation(self, quantisation: QuantisationSettings) -> Self {
        let QuantisationSettings { weight, activation, placement, rounding, rotation } = quantisation;
        Self { weight, activation, placement, rounding, rotation, ..self }
    }
}
