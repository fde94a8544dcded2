//! A quantiser with its bits: what kernels are given.

use crate::{
    error::{Error, Result},
    spec::{
        bit_width::BitWidth,
        formats::code_book::{CodeBook, LevelRange},
        gradient_rule::GradientRule,
        quant_spec::QuantSpec,
        range_estimator::RangeEstimator,
    },
};

/// Options of a quantiser together with its bits, checked to fit each other.
///
/// ```
/// use quant_kernels::{BitWidth, GradientRule, QuantSpec, spec::quantizer::Quantizer};
///
/// let quantizer = Quantizer::new(BitWidth::B4, QuantSpec::default(), GradientRule::Identity)?;
/// assert_eq!((quantizer.levels().low, quantizer.levels().high), (-7, 7));
/// assert!(Quantizer::new(BitWidth::FULL, QuantSpec::default(), GradientRule::Identity).is_err());
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quantizer {
    bits: BitWidth,
    spec: QuantSpec,
    gradient: GradientRule,
    levels: LevelRange,
}

impl Quantizer {
    /// Checks the options against each other.
    ///
    /// # Errors
    ///
    /// [`Error::FullPrecision`] at [`BitWidth::FULL`] and [`Error::TooFewBits`] for 1 symmetric bit,
    /// [`Error::Uncalibrated`] for a range that goes by inputs: [`Calibrated`](crate::Calibrated) finds those.
    pub fn new(bits: BitWidth, spec: QuantSpec, gradient: GradientRule) -> Result<Self> {
        let levels = spec.format.levels(bits)?;
        if spec.range == RangeEstimator::Importance {
            return Err(Error::Uncalibrated { what: "range `importance`" });
        }
        Ok(Self { bits, spec, gradient, levels })
    }

    /// The number of bits.
    pub fn bits(self) -> BitWidth {
        self.bits
    }

    /// Granularity, mapping and range estimator.
    pub fn spec(self) -> QuantSpec {
        self.spec
    }

    /// What happens to the gradient.
    pub fn gradient(self) -> GradientRule {
        self.gradient
    }

    /// What the levels stand for.
    pub fn code_book(self) -> CodeBook {
        match self.spec.format.code_book(self.bits) {
            Ok(book) => book,
            Err(error) => unreachable!("the width was checked when the quantiser was made: {error}"),
        }
    }

    /// The lowest and the highest level.
    pub fn levels(self) -> LevelRange {
        self.levels
    }
}
