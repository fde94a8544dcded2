//! What decides which error an adapter repairs.
//!
//! ```text
//! residual   y = Qa(x) · Qw(W) + b + s · (x · A) · B
//! merged     y = Qa(x) · Qw(W + s · A · B) + b
//! ```
//!
//! `Qw` and `Qa` are the quantisers of weights and activations, behind the rotation if there is one. An adapter that was
//! trained under one of each, and one rounding of the weights, repairs nothing under another.

use std::fmt;

use serde::{Deserialize, Serialize};

use quant_kernels::spec::{
    quant_spec::{self, QuantSpec},
    rotation::Rotation,
    rounding_method::RoundingMethod,
};

use crate::placement::Placement;

/// The quantisers of a layer, where its adapter is added, how its weight is rounded where no learned step does, and
/// whether its inputs are rotated before.
///
/// As JSON, in the text form of `--quantizer`:
///
/// ```
/// use switchable_lora::{LinearSettings, QuantisationSettings};
///
/// let settings = LinearSettings::default().quantisation();
/// let json = r#"{"weight":"per-tensor,symmetric,min-max","activation":"per-token,symmetric,min-max","placement":"residual"}"#;
/// assert_eq!(serde_json::to_string(&settings)?, json);
/// assert_eq!(serde_json::from_str::<QuantisationSettings>(json)?, settings);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantisationSettings {
    /// How weights are quantised.
    #[serde(with = "quant_spec::text")]
    pub weight: QuantSpec,
    /// How activations are quantised.
    #[serde(with = "quant_spec::text")]
    pub activation: QuantSpec,
    /// Where the adapter is added.
    pub placement: Placement,
    /// How weights are rounded; left out where it is to the nearest level.
    #[serde(default, skip_serializing_if = "is_nearest")]
    pub rounding: RoundingMethod,
    /// How inputs and weights are rotated before they are quantised; left out where they are not.
    #[serde(default, skip_serializing_if = "is_not_rotated")]
    pub rotation: Rotation,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_nearest(method: &RoundingMethod) -> bool {
    *method == RoundingMethod::Nearest
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_not_rotated(rotation: &Rotation) -> bool {
    *rotation == Rotation::None
}

/// A field in which two settings differ, and its two values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsDifference {
    /// `weight`, `activation`, `placement`, `rounding` or `rotation`.
    pub field: &'static str,
    /// The value of the settings that were asked.
    pub got: String,
    /// The value of those that they were compared with.
    pub expected: String,
}

impl QuantisationSettings {
    /// The first field in which these settings differ from `expected`.
    ///
    /// ```
    /// use switchable_lora::{LinearSettings, Placement, QuantisationSettings};
    ///
    /// let residual = LinearSettings::default().quantisation();
    /// let merged = QuantisationSettings { placement: Placement::Merged, ..residual };
    /// let difference = merged.first_difference(&residual).unwrap();
    /// assert_eq!(difference.to_string(), "placement is merged, expected residual");
    /// assert_eq!(residual.first_difference(&residual), None);
    /// ```
    pub fn first_difference(&self, expected: &Self) -> Option<SettingsDifference> {
        let difference = |field, got: &dyn fmt::Display, expected: &dyn fmt::Display| SettingsDifference {
            field,
            got: got.to_string(),
            expected: expected.to_string(),
        };
        if self.weight != expected.weight {
            return Some(difference("weight", &self.weight, &expected.weight));
        }
        if self.activation != expected.activation {
            return Some(difference("activation", &self.activation, &expected.activation));
        }
        if self.placement != expected.placement {
            return Some(difference("placement", &self.placement, &expected.placement));
        }
        if self.rounding != expected.rounding {
            return Some(difference("rounding", &self.rounding, &expected.rounding));
        }
        (self.rotation != expected.rotation).then(|| difference("rotation", &self.rotation, &expected.rotation))
    }
}

impl Default for QuantisationSettings {
    fn default() -> Self {
        let (activation, placement) = (QuantSpec::PER_TOKEN, Placement::default());
        let (rounding, rotation) = (RoundingMethod::default(), Rotation::default());
        Self { weight: QuantSpec::default(), activation, placement, rounding, rotation }
    }
}

/// `weights per-channel,symmetric,min-max, activations per-token,symmetric,min-max, adapters residual`.
impl fmt::Display for QuantisationSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weights {}, activations {}, adapters {}", self.weight, self.activation, self.placement)?;
        if self.rounding != RoundingMethod::Nearest {
            write!(f, ", rounding {}", self.rounding)?;
        }
        if self.rotation != Rotation::None {
            write!(f, ", rotation {}", self.rotation)?;
        }
        Ok(())
    }
}

impl fmt::Display for SettingsDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, expected {}", self.field, self.got, self.expected)
    }
}
