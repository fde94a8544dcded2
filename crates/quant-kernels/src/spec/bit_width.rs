//! The number of bits of a quantised value.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A number of bits: 1 to 16, or 32 for full precision, which passes values through unchanged.
///
/// It serialises as a plain integer.
///
/// ```
/// use quant_kernels::BitWidth;
///
/// let bits: BitWidth = "4".parse()?;
/// assert_eq!(bits, BitWidth::B4);
/// assert!(bits < BitWidth::FULL);
/// assert_eq!(serde_json::to_string(&bits)?, "4");
/// assert!(BitWidth::new(17).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct BitWidth(u8);

impl BitWidth {
    /// 1 bit: two levels, for the asymmetric mapping only.
    pub const B1: Self = Self(1);
    /// 2 bits.
    pub const B2: Self = Self(2);
    /// 3 bits.
    pub const B3: Self = Self(3);
    /// 4 bits.
    pub const B4: Self = Self(4);
    /// 5 bits.
    pub const B5: Self = Self(5);
    /// 6 bits.
    pub const B6: Self = Self(6);
    /// 8 bits.
    pub const B8: Self = Self(8);
    /// 16 bits.
    pub const B16: Self = Self(16);
    /// 32 bits: full precision, nothing is quantised.
    pub const FULL: Self = Self(32);

    /// Checks a number of bits.
    ///
    /// # Errors
    ///
    /// [`Error::BitWidth`] unless `bits` is 1 to 16, or 32.
    pub const fn new(bits: u8) -> Result<Self> {
        match bits {
            1..=16 | 32 => Ok(Self(bits)),
            got => Err(Error::BitWidth { got }),
        }
    }

    /// The number of bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether this is [`BitWidth::FULL`].
    pub const fn is_full(self) -> bool {
        self.0 == Self::FULL.0
    }

    /// Every width at which something is quantised, from 1 to 16 bits.
    pub fn quantised() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (1..=16).map(Self)
    }
}

impl fmt::Display for BitWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BitWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-bit", self.0)
    }
}

impl FromStr for BitWidth {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bits = text.parse::<u8>().map_err(|_| Error::Text {
            what: "bit-width",
            got: text.to_owned(),
            expected: "1 to 16, or 32",
        })?;
        Self::new(bits)
    }
}

impl TryFrom<u8> for BitWidth {
    type Error = Error;

    fn try_from(bits: u8) -> Result<Self> {
        Self::new(bits)
    }
}

impl From<BitWidth> for u8 {
    fn from(width: BitWidth) -> Self {
        width.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_1_to_16_and_32_are_widths() {
        let accepted: Vec<u8> = (0..=u8::MAX).filter(|&b| BitWidth::new(b).is_ok()).collect();
        let expected: Vec<u8> = (1..=16).chain([32]).collect();
        assert_eq!(accepted, expected);
    }

    #[test]
    fn text_and_json_round_trip_and_refuse_other_numbers() {
        for bits in BitWidth::quantised().chain([BitWidth::FULL]) {
            assert_eq!(bits.to_string().parse::<BitWidth>().unwrap(), bits);
            let json = serde_json::to_string(&bits).unwrap();
            assert_eq!(json, bits.bits().to_string());
            assert_eq!(serde_json::from_str::<BitWidth>(&json).unwrap(), bits);
        }
        for text in ["0", "17", "33", "-4", "4.0", "four", ""] {
            assert!(text.parse::<BitWidth>().is_err(), "{text}");
        }
        let error = serde_json::from_str::<BitWidth>("24").unwrap_err();
        assert!(error.to_string().contains("bit-width 24"), "{error}");
    }

    #[test]
    fn widths_are_ordered_by_bits() {
        assert!(BitWidth::B2 < BitWidth::B3 && BitWidth::B16 < BitWidth::FULL);
        assert!(BitWidth::FULL.is_full() && !BitWidth::B16.is_full());
    }
}
