//! AVX-512 F, BW, DQ and VL, with or without VNNI, the dot products of bytes, and those of bf16.
#![allow(unsafe_code, reason = "functions compiled for vector instructions")]

pub(crate) mod bf16;
pub(crate) mod decode;
pub(crate) mod float;
pub(crate) mod integer;
pub(crate) mod widen;

use crate::{
    cpu::instruction_set::InstructionSet,
    packed::{
        target::{KernelShape, Target, avx2, fields::row_factors},
        tiles::{
            columns::{PackedStrip, Panel, SegmentParams},
            layout::TILE_ROWS,
            pairs::{Pair, TILE_PAIRS},
            params::Params,
            quads::Quads,
            ratios::Ratios,
            rows::{FloatRows, IntegerRows, PairRows},
            strip::Strip,
            sums::Sums,
        },
    },
};

/// AVX-512, and VNNI and products of bf16 if it says so, which the processor has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool, const BF16: bool>(());

impl<const VNNI: bool, const BF16: bool> Avx512<VNNI, BF16> {
    /// `None` where the processor lacks them.
    pub(crate) fn detect() -> Option<Self> {
        let set = match (VNNI, BF16) {
            (_, true) => InstructionSet::Avx512Bf16,
            (true, false) => InstructionSet::Avx512Vnni,
            (false, false) => InstructionSet::Avx512,
        };
        set.is_available().then_some(Self(()))
    }
}

// SAFETY of all blocks: a value of the type is proof that the processor has the instructions, AVX2 and FMA
// included.
impl<const VNNI: bool, const BF16: bool> Target for Avx512<VNNI, BF16> {
    const FLOATS: KernelShape = KernelShape { rows: 12, strips: 2, streamed: 8, stream_rows: 4 };
    const INTEGERS: KernelShape =
        if VNNI { KernelShape { rows: 12, strips: 2, streamed: 4, stream_rows: 4 } } else { avx2::INTEGERS };

    const MULTIPLIES_BF16: bool = BF16;

    #[inline]
    fn compiled<R>(self, work: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn compiled<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        // SAFETY: see above.
        unsafe { compiled(work) }
    }

    #[inline]
    fn widen(self, source: u8, ratios: &Ratios, tiles: &[u8], quads: &mut [Quads]) {
        // SAFETY: see above.
        unsafe { widen::widen(source, ratios, tiles, quads) }
    }

    #[inline]
    fn decode(self, quads: &Quads, params: &Params, values: &mut [Strip; TILE_ROWS]) {
        // SAFETY: see above.
        unsafe { decode::decode(quads, params, values) }
    }

    #[inline]
    fn float_block(self, panel: Panel<'_, Strip>, rows: FloatRows<'_>, sums: &mut Sums) {
        // SAFETY: see above.
        unsafe { float::block(panel, rows, sums) }
    }

    #[inline]
    fn pair(self, quads: &Quads, params: &Params, pairs: &mut [Pair; TILE_PAIRS]) {
        // SAFETY: see above.
        unsafe { decode::pair(quads, params, pairs) }
    }

    #[inline]
    fn bf16_block(self, panel: Panel<'_, Pair>, rows: PairRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
        assert!(BF16, "the target has no products of bf16");
        // SAFETY: see above; by the assertion, the processor has those of bf16.
        unsafe { bf16::block(panel, rows, params, sums) }
    }

    fn row_factors(self, source: u8) -> [f32; TILE_ROWS] {
        row_factors(source)
    }

    #[inline]
    fn float_stream(self, strip: PackedStrip<'_>, rows: FloatRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
        // SAFETY: see above.
        unsafe { float::stream(strip, rows, params, sums) }
    }

    #[inline]
    fn integer_block(
        self,
        bits: u8,
        panel: Panel<'_, Quads>,
        rows: IntegerRows<'_>,
        params: SegmentParams<'_>,
        sums: &mut Sums,
    ) {
        // SAFETY: see above.
        unsafe {
            if VNNI {
                integer::block(panel, rows, params, sums);
            } else {
                avx2::integer::block(bits, panel, rows, params, sums);
            }
        }
    }

    #[inline]
    fn integer_stream(self, strip: PackedStrip<'_>, rows: IntegerRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
        // SAFETY: see above.
        unsafe {
            if VNNI {
                integer::stream(strip, rows, params, sums);
            } else {
                avx2::integer::stream(strip, rows, params, sums);
            }
        }
    }

    fn widened_activations(bits: u8) -> bool {
        !VNNI && avx2::Avx2::widened_activations(bits)
    }
}
