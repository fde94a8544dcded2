//! How values are quantised by learned steps.

use crate::spec::{bit_width::BitWidth, formats::code_book::LevelRange, granularity::Granularity};

/// How values are quantised by learned steps, as backends are told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepQuantizer {
    granularity: Granularity,
    levels: LevelRange,
    gradient_scale: f64,
}

impl StepQuantizer {
    /// The quantiser of a step of `bits` that `values` values share.
    pub(crate) fn new(bits: BitWidth, granularity: Granularity, values: usize) -> Self {
        let highest = (1 << (bits.bits() - 1)) - 1;
        Self {
            granularity,
            levels: LevelRange { low: -highest, high: highest },
            gradient_scale: (values as f64 * f64::from(highest)).sqrt().recip(),
        }
    }

    /// Which values share a step; not per token.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The levels, −Q to Q.
    pub fn levels(&self) -> LevelRange {
        self.levels
    }

    /// What the gradient of a step is multiplied by, `1/√(N·Q)`.
    pub fn gradient_scale(&self) -> f64 {
        self.gradient_scale
    }
}
