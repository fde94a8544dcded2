//! AVX2 and FMA.
#![allow(unsafe_code, reason = "functions compiled for vector instructions")]

pub(crate) mod decode;
pub(crate) mod float;
pub(crate) mod integer;
pub(crate) mod widen;

use crate::{
    cpu::instruction_set::InstructionSet,
    packed::{
        target::{KernelShape, Target, fields::row_factors},
        tiles::{
            columns::{PackedStrip, Panel, SegmentParams},
            layout::TILE_ROWS,
            params::Params,
            quads::Quads,
            rows::{FloatRows, IntegerRows},
            strip::Strip,
            sums::Sums,
        },
    },
};

/// The sizes of the integer kernels.
pub(crate) const INTEGERS: KernelShape = KernelShape { rows: 4, strips: 1, streamed: 4, stream_rows: 4 };

/// AVX2 and FMA, which the processor has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// `None` where the processor lacks them.
    pub(crate) fn detect() -> Option<Self> {
        InstructionSet::Avx2.is_available().then_some(Self(()))
    }
}

// SAFETY of all blocks: a value of the type is proof that the processor has the instructions.
impl Target for Avx2 {
    const FLOATS: KernelShape = KernelShape { rows: 6, strips: 1, streamed: 8, stream_rows: 4 };
    const INTEGERS: KernelShape = INTEGERS;

    #[inline]
    fn compiled<R>(self, work: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma")]
        fn compiled<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        // SAFETY: see above.
        unsafe { compiled(work) }
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
        unsafe { integer::block(bits, panel, rows, params, sums) }
    }

    #[inline]
    fn integer_stream(self, strip: PackedStrip<'_>, rows: IntegerRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
        // SAFETY: see above.
        unsafe { integer::stream(strip, rows, params, sums) }
    }

    fn widened_activations(bits: u8) -> bool {
        integer::quads_in_16_bits(bits) == 0
    }
}
