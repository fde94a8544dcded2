//! `NormalFloat` of 4 bits.
//!
//! ```text
//! e_0 = −1,  e_7 = 0,  e_15 = 1       8 codes up to 0 and 9 from 0 on, which share the 0
//! e_i: the middle of two neighbouring quantiles of N(0, 1), divided by the largest
//! s   = max|x|
//! ```
//!
//! Each code is met equally often by weights that are normally distributed, which those of trained layers
//! nearly are.
//!
//! Source: Dettmers et al., *QLoRA*, arXiv:2305.14314, whose appendix E lists these numbers; they are those
//! of bitsandbytes as well.

use crate::spec::formats::code_book::Table;

/// The entries of NF4.
pub(crate) static NF4: Table = Table::new([
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
]);

#[cfg(test)]
#[expect(
    clippy::float_cmp,
    clippy::excessive_precision,
    clippy::unreadable_literal,
    reason = "as the source prints them"
)]
mod tests {
    use super::*;

    /// As the paper and bitsandbytes print them.
    const PRINTED: [f32; 16] = [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ];

    #[test]
    fn the_entries_are_those_of_the_paper() {
        assert_eq!(NF4.entries(), &PRINTED);
    }

    #[test]
    fn the_nearest_entry_is_chosen_and_the_lower_one_on_a_middle() {
        for (code, entry) in (0u8..).zip(NF4.entries()) {
            assert_eq!(NF4.nearest(*entry), code);
        }
        for (code, pair) in (0u8..).zip(NF4.entries().windows(2)) {
            let middle = f32::midpoint(pair[0], pair[1]);
            assert_eq!((NF4.nearest(middle), NF4.nearest(middle.next_up())), (code, code + 1));
        }
        assert_eq!((NF4.nearest(-9.0), NF4.nearest(9.0), NF4.nearest(0.0)), (0, 15, 7));
    }
}
