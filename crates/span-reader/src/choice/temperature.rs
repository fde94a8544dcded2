//! A temperature: the number that logits are divided by before they become probabilities.
//!
//! ```text
//! p_T = softmax(z / T)
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A temperature: finite and above 0.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Temperature(pub(super) f64);

impl Temperature {
    /// The temperature that changes nothing.
    pub const ONE: Self = Self(1.0);

    /// A temperature.
    ///
    /// # Errors
    ///
    /// When it is not finite or not above 0.
    pub fn new(temperature: f64) -> Result<Self> {
        if temperature.is_finite() && temperature > 0.0 {
            return Ok(Self(temperature));
        }
        Err(Error::option("temperature", temperature, "a finite number above 0"))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Temperature {
    type Error = Error;

    fn try_from(temperature: f64) -> Result<Self> {
        Self::new(temperature)
    }
}

impl From<Temperature> for f64 {
    fn from(temperature: Temperature) -> Self {
        temperature.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperatures_out_of_range_are_refused() {
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let message = Temperature::new(wrong).unwrap_err().to_string();
            assert!(message.contains("temperature") && message.contains("above 0"), "{message}");
        }
        assert!(serde_json::from_str::<Temperature>("-2.0").is_err());
        assert_eq!(serde_json::from_str::<Temperature>("2.5").unwrap(), Temperature(2.5));
    }
}
