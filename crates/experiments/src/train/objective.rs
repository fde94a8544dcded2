//! Weights of the losses of a question.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Weights of the losses.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Weight λ of the next-token loss; at zero it is not computed.
    pub next_token: f64,
}

impl Objective {
    pub(crate) fn check(self) -> Result<()> {
        if self.next_token >= 0.0 && self.next_token.is_finite() {
            Ok(())
        } else {
            Err(Error::option("next_token", self.next_token, "a finite weight, at least 0"))
        }
    }
}
