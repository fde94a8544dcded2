//! Where an adapter is added.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where the adapter is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Beside the quantised weight: `x · Qw(W) + s · (x · A) · B`. The adapter itself stays at full
    /// precision, and the quantised weight can be kept.
    #[default]
    Residual,
    /// Into the weight before it is quantised: `x · Qw(W + s · A · B)`. One product at inference and
    /// no adapter at run time, but the weight is quantised anew in each call.
    Merged,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Residual => "residual",
            Self::Merged => "merged",
        })
    }
}
