//! Factors that are folded into a model before it is quantised.

use clap::Args;

use switchable_quant::kernels::{BitWidth, ScalingMethod};

use crate::ending::usage;

/// The width at which errors are compared where no width is asked for.
const USUAL_BITS: BitWidth = BitWidth::B4;

/// Factors that are folded into a model before it is quantised.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ScalingArgs {
    /// Factors folded into the model before anything is quantised, by a calibration: none, awq (weights of large
    /// inputs get finer levels, for weights of few bits), smooth or smooth:ALPHA (large inputs become smaller, for
    /// activations of few bits; ALPHA is 0.5)
    #[arg(long, default_value_t = ScalingMethod::None, value_name = "METHOD")]
    pub scaling: ScalingMethod,
    /// Width of the weights that awq looks for the least error at, 2 to 8; by default the lowest that is asked for, or 4
    #[arg(long, value_name = "BITS")]
    pub scaling_bits: Option<BitWidth>,
}

impl ScalingArgs {
    /// Refuses a width that has no part, or no codes.
    ///
    /// # Errors
    ///
    /// When `--scaling-bits` is such a width.
    pub fn check(&self) -> anyhow::Result<()> {
        let Some(bits) = self.scaling_bits else { return Ok(()) };
        if self.scaling != ScalingMethod::Awq {
            return Err(usage(format!("`--scaling-bits {bits}` is for `--scaling awq`, got `{}`", self.scaling)));
        }
        if !is_coded(bits) {
            return Err(usage(format!("`--scaling-bits {bits}`, expected 2 to 8")));
        }
        Ok(())
    }

    /// The width to look at, of those that are asked for.
    pub fn bits(&self, asked: impl IntoIterator<Item = BitWidth>) -> BitWidth {
        let lowest = || asked.into_iter().filter(|&bits| is_coded(bits)).min();
        self.scaling_bits.or_else(lowest).unwrap_or(USUAL_BITS)
    }
}

fn is_coded(bits: BitWidth) -> bool {
    (BitWidth::B2..=BitWidth::B8).contains(&bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_is_the_one_said_or_the_lowest_asked_for() {
        let own = ScalingArgs { scaling: ScalingMethod::Awq, scaling_bits: Some(BitWidth::B3) };
        let none = ScalingArgs { scaling_bits: None, ..own };
        let asked = [BitWidth::FULL, BitWidth::B8, BitWidth::B2];
        assert_eq!((own.bits(asked), none.bits(asked)), (BitWidth::B3, BitWidth::B2));
        assert_eq!((none.bits([BitWidth::FULL]), none.bits([])), (BitWidth::B4, BitWidth::B4));
    }

    #[test]
    fn a_width_without_a_part_is_refused() {
        let message = |args: ScalingArgs| args.check().unwrap_err().to_string();
        let awq = ScalingArgs { scaling: ScalingMethod::Awq, scaling_bits: Some(BitWidth::FULL) };
        assert!(message(awq).contains("expected 2 to 8"));
        let none = ScalingArgs { scaling: ScalingMethod::None, scaling_bits: Some(BitWidth::B4) };
        assert!(message(none).contains("is for `--scaling awq`, got `none`"));
        assert!(ScalingArgs { scaling_bits: Some(BitWidth::B4), ..awq }.check().is_ok());
    }
}
