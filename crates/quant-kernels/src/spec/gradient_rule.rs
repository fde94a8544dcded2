//! What quantisation does to the gradient.

use serde::{Deserialize, Serialize};

/// What [`fake_quantize`](crate::tensor::fake_quantize::fake_quantize) does to the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientRule {
    /// The gradient passes unchanged.
    #[default]
    Identity,
    /// The gradient passes where the level was not clamped, and is 0 where it was. Min-max ranges
    /// clamp nothing, so this differs from `Identity` only for the other range estimators.
    Clipped,
}
