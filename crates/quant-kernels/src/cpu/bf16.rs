//! Rounding to bf16: the upper half of an f32, to the nearest, to even where two are as near.
//!
//! NaN stays NaN. What is nearer to 2¹²⁸ than to the largest number becomes an infinity.

/// The bits of a number in bf16.
#[inline(always)]
pub(crate) fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // Rounding could carry the digits of a NaN away.
    let quiet = bits >> 16 | 0x40;
    (if value.is_nan() { quiet } else { rounded }) as u16
}

/// The number that bits stand for.
#[inline(always)]
pub(crate) fn of_bf16_bits(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Values rounded to bf16.
pub(crate) fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| of_bf16_bits(bf16_bits(*value))).collect()
}

/// Neighbouring values of a row together, the first in the lower half. What follows the row in `pairs` is left as it is.
#[inline(always)]
pub(crate) fn pairs_of_row(values: &[f32], pairs: &mut [u32]) {
    let halves: &mut [u16] = bytemuck::cast_slice_mut(pairs);
    for (half, value) in halves.iter_mut().zip(values) {
        *half = bf16_bits(*value);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn every_upper_half_and_every_tie_beside_it_rounds_as_the_crate_half_does() {
        for upper in 0..=u16::MAX {
            for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(u32::from(upper) << 16 | lower);
                let (got, expected) = (of_bf16_bits(bf16_bits(value)), bf16::from_f32(value).to_f32());
                assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{value:e}");
            }
        }
    }

    #[test]
    fn rows_of_odd_length_leave_the_last_half_alone() {
        let mut pairs = [u32::MAX; 3];
        pairs_of_row(&[1.0, -2.0, 0.5], &mut pairs);
        assert_eq!(pairs, [0xc000_3f80, 0xffff_3f00, u32::MAX]);
    }
}
