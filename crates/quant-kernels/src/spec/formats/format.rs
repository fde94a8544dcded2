//! The number formats.
//!
//! ```text
//! symmetric    levels −(2^(b−1)−1) ..= 2^(b−1)−1     z = 0                 s = max|x| / (2^(b−1)−1)
//! asymmetric   levels 0 ..= 2^b−1                    z = round(−min / s)   s = (max − min) / (2^b−1)
//! nf4          16 entries of a table                                       s = max|x|
//! ```

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    spec::{
        bit_width::BitWidth,
        formats::{
            code_book::{CodeBook, LevelRange},
            normal_float::NF4,
        },
        text_form::serde_as_text,
    },
};

/// Which numbers codes stand for.
///
/// Every format represents 0 exactly: the symmetric one has no zero point, the asymmetric one
/// widens its range to contain 0, and NF4 has it in its table. The symmetric range is *restricted*: it leaves out −2^(b−1), so
/// that −x is always quantised to the negative of x.
///
/// ```
/// use quant_kernels::{BitWidth, Format};
///
/// let levels = Format::Symmetric.levels(BitWidth::B4)?;
/// assert_eq!((levels.low, levels.high), (-7, 7));
/// let levels = Format::Asymmetric.levels(BitWidth::B4)?;
/// assert_eq!((levels.low, levels.high), (0, 15));
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// Levels on both sides of 0 and no zero point. Text form `symmetric`.
    #[default]
    Symmetric,
    /// Levels from 0 up and a zero point. Text form `asymmetric`.
    Asymmetric,
    /// `NormalFloat`: 16 numbers that follow the normal distribution, at 4 bits only, whose largest magnitude
    /// is the scale (QLoRA, arXiv:2305.14314). Text form `nf4`.
    Nf4,
}

impl Format {
    /// What the codes of a bit-width stand for.
    ///
    /// # Errors
    ///
    /// [`Error::FullPrecision`] at [`BitWidth::FULL`], and [`Error::TooFewBits`] for the symmetric
    /// mapping at 1 bit, whose only level would be 0, and [`Error::FormatBits`] for NF4 at other than 4 bits.
    pub const fn code_book(self, bits: BitWidth) -> Result<CodeBook> {
        if bits.is_full() {
            return Err(Error::FullPrecision);
        }
        match self {
            Self::Symmetric if bits.bits() < 2 => Err(Error::TooFewBits { bits }),
            Self::Symmetric => {
                let high = (1 << (bits.bits() - 1)) - 1;
                Ok(CodeBook::Uniform(LevelRange { low: -high, high }))
            }
            Self::Asymmetric => Ok(CodeBook::Uniform(LevelRange { low: 0, high: (1 << bits.bits()) - 1 })),
            Self::Nf4 if bits.bits() == 4 => Ok(CodeBook::Table(&NF4)),
            Self::Nf4 => Err(Error::FormatBits { format: self, bits, expected: 4 }),
        }
    }

    /// The integer levels at a bit-width.
    ///
    /// # Errors
    ///
    /// As [`code_book`](Self::code_book).
    pub fn levels(self, bits: BitWidth) -> Result<LevelRange> {
        self.code_book(bits).map(CodeBook::levels)
    }

    /// Whether each scale has a zero point beside it.
    pub const fn has_zero_points(self) -> bool {
        matches!(self, Self::Asymmetric)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symmetric => "symmetric",
            Self::Asymmetric => "asymmetric",
            Self::Nf4 => "nf4",
        })
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "symmetric" => Ok(Self::Symmetric),
            "asymmetric" => Ok(Self::Asymmetric),
            "nf4" => Ok(Self::Nf4),
            _ => Err(Error::Text {
                what: "mapping",
                got: text.to_owned(),
                expected: "`symmetric`, `asymmetric` or `nf4`",
            }),
        }
    }
}

serde_as_text!(Format);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_has_its_number_of_levels() {
        for bits in BitWidth::quantised() {
            let all = 1usize << bits.bits();
            let asymmetric = Format::Asymmetric.levels(bits).unwrap();
            assert_eq!((asymmetric.low, asymmetric.count()), (0, all));
            if bits.bits() > 1 {
                let symmetric = Format::Symmetric.levels(bits).unwrap();
                assert_eq!(symmetric.low, -symmetric.high);
                assert_eq!(symmetric.count(), all - 1);
            }
        }
    }

    #[test]
    fn one_symmetric_bit_and_full_precision_are_errors() {
        let bits = BitWidth::B1;
        assert_eq!(Format::Symmetric.levels(bits), Err(Error::TooFewBits { bits }));
        for format in [Format::Symmetric, Format::Asymmetric] {
            assert_eq!(format.levels(BitWidth::FULL), Err(Error::FullPrecision));
        }
    }

    #[test]
    fn text_forms_round_trip() {
        for format in [Format::Symmetric, Format::Asymmetric, Format::Nf4] {
            assert_eq!(format.to_string().parse::<Format>(), Ok(format));
        }
        assert!("affine".parse::<Format>().is_err());
    }
}
