//! How real values are laid on integer levels.
//!
//! ```text
//! symmetric    levels −(2^(b−1)−1) ..= 2^(b−1)−1     z = 0                 s = max|x| / (2^(b−1)−1)
//! asymmetric   levels 0 ..= 2^b−1                    z = round(−min / s)   s = (max − min) / (2^b−1)
//! ```

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    spec::{bit_width::BitWidth, text_form::serde_as_text},
};

/// How real values are laid on integer levels.
///
/// Both mappings represent 0 exactly: the symmetric one has no zero point, and the asymmetric one
/// widens its range to contain 0. The symmetric range is *restricted*: it leaves out −2^(b−1), so
/// that −x is always quantised to the negative of x.
///
/// ```
/// use quant_kernels::{BitWidth, Mapping};
///
/// let levels = Mapping::Symmetric.levels(BitWidth::B4)?;
/// assert_eq!((levels.low, levels.high), (-7, 7));
/// let levels = Mapping::Asymmetric.levels(BitWidth::B4)?;
/// assert_eq!((levels.low, levels.high), (0, 15));
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mapping {
    /// Levels on both sides of 0 and no zero point. Text form `symmetric`.
    #[default]
    Symmetric,
    /// Levels from 0 up and a zero point. Text form `asymmetric`.
    Asymmetric,
}

impl Mapping {
    /// The integer levels at a bit-width.
    ///
    /// # Errors
    ///
    /// [`Error::FullPrecision`] at [`BitWidth::FULL`], and [`Error::TooFewBits`] for the symmetric
    /// mapping at 1 bit, whose only level would be 0.
    pub const fn levels(self, bits: BitWidth) -> Result<LevelRange> {
        if bits.is_full() {
            return Err(Error::FullPrecision);
        }
        match self {
            Self::Symmetric if bits.bits() < 2 => Err(Error::TooFewBits { bits }),
            Self::Symmetric => {
                let high = (1 << (bits.bits() - 1)) - 1;
                Ok(LevelRange { low: -high, high })
            }
            Self::Asymmetric => Ok(LevelRange { low: 0, high: (1 << bits.bits()) - 1 }),
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symmetric => "symmetric",
            Self::Asymmetric => "asymmetric",
        })
    }
}

impl FromStr for Mapping {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "symmetric" => Ok(Self::Symmetric),
            "asymmetric" => Ok(Self::Asymmetric),
            _ => Err(Error::Text { what: "mapping", got: text.to_owned(), expected: "`symmetric` or `asymmetric`" }),
        }
    }
}

serde_as_text!(Mapping);

/// The lowest and the highest integer level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LevelRange {
    /// The lowest level.
    pub low: i32,
    /// The highest level.
    pub high: i32,
}

impl LevelRange {
    /// The number of levels.
    pub const fn count(self) -> usize {
        (self.high - self.low + 1) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_has_its_number_of_levels() {
        for bits in BitWidth::quantised() {
            let all = 1usize << bits.bits();
            let asymmetric = Mapping::Asymmetric.levels(bits).unwrap();
            assert_eq!((asymmetric.low, asymmetric.count()), (0, all));
            if bits.bits() > 1 {
                let symmetric = Mapping::Symmetric.levels(bits).unwrap();
                assert_eq!(symmetric.low, -symmetric.high);
                assert_eq!(symmetric.count(), all - 1);
            }
        }
    }

    #[test]
    fn one_symmetric_bit_and_full_precision_are_errors() {
        let bits = BitWidth::B1;
        assert_eq!(Mapping::Symmetric.levels(bits), Err(Error::TooFewBits { bits }));
        for mapping in [Mapping::Symmetric, Mapping::Asymmetric] {
            assert_eq!(mapping.levels(BitWidth::FULL), Err(Error::FullPrecision));
        }
    }

    #[test]
    fn text_forms_round_trip() {
        for mapping in [Mapping::Symmetric, Mapping::Asymmetric] {
            assert_eq!(mapping.to_string().parse::<Mapping>(), Ok(mapping));
        }
        assert!("affine".parse::<Mapping>().is_err());
    }
}
