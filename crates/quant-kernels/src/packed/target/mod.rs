//! What a product needs of a processor: one implementation for each set of instructions.
//!
//! A target is a folder with a type that implements [`Target`], and a row of
//! [`dispatch!`](dispatch::dispatch), the one place where targets are chosen: once for each product. Plain
//! Rust, compiled for the target's instructions, is the default of every kernel but those that stream.
//!
//! | folder | instructions | kernels of its own |
//! |---|---|---|
//! | `portable` | what the compiler makes of plain Rust | all: they are the defaults |
//! | `avx2` | AVX2, FMA | decoding, float and integer products, few rows of either from packed bytes |
//! | `avx512` | AVX-512, with or without VNNI, with or without bf16 | the same and widening, products of bf16 |
//!
//! Codes, values and sums of integers are the same bits on all of them; sums of floats agree up to
//! rounding.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod dispatch;
#[cfg(target_arch = "x86_64")]
pub(crate) mod fields;
pub(crate) mod portable;

use crate::{
    packed::tiles::{
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
    spec::formats::code_book::Table,
};

/// The sizes of the kernels of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelShape {
    /// The rows that a kernel takes at once.
    pub(crate) rows: usize,
    /// The strips of 16 columns that a kernel takes at once.
    pub(crate) strips: usize,
    /// The most rows of a product whose packed bytes are widened in registers; 0 where no kernel does.
    pub(crate) streamed: usize,
    /// The rows that such a kernel takes at once.
    pub(crate) stream_rows: usize,
}

/// A set of vector instructions with the kernels that use them. A value of it is proof that the processor
/// has them.
pub(crate) trait Target: Copy + Send + Sync {
    /// The float kernels.
    const FLOATS: KernelShape;
    /// The integer kernels.
    const INTEGERS: KernelShape;
    /// Whether there are products of bf16, of the shape of [`FLOATS`](Self::FLOATS).
    const MULTIPLIES_BF16: bool = false;

    /// Runs plain Rust as compiled for the instructions. `work` and what it calls must be
    /// `#[inline(always)]`.
    fn compiled<R>(self, work: impl FnOnce() -> R) -> R;

    /// Widens consecutive tiles, which share ratios, to consecutive quads.
    ///
    /// # Panics
    ///
    /// If `tiles` does not hold a tile for each of `quads`.
    #[inline]
    fn widen(self, source: u8, ratios: &Ratios, tiles: &[u8], quads: &mut [Quads]) {
        self.compiled(
            #[inline(always)]
            || portable::widen::widen(source, ratios, tiles, quads),
        );
    }

    /// The values of a tile: `(u − z) · s`.
    #[inline]
    fn decode(self, quads: &Quads, params: &Params, values: &mut [Strip; TILE_ROWS]) {
        self.compiled(
            #[inline(always)]
            || portable::decode::decode(quads, params, values),
        );
    }

    /// The values of a tile whose codes are positions in a table.
    #[inline]
    fn decode_table(self, table: &Table, quads: &Quads, params: &Params, values: &mut [Strip; TILE_ROWS]) {
        self.compiled(
            #[inline(always)]
            || portable::decode::decode_table(table, quads, params, values),
        );
    }

    /// Adds the products of up to [`KernelShape::rows`] rows and a decoded panel to sums.
    #[inline]
    fn float_block(self, panel: Panel<'_, Strip>, rows: FloatRows<'_>, sums: &mut Sums) {
        self.compiled(
            #[inline(always)]
            || portable::float::block(panel, rows, sums),
        );
    }

    /// The levels `u − z` of a tile in bf16, which holds them exactly.
    #[inline]
    fn pair(self, quads: &Quads, params: &Params, pairs: &mut [Pair; TILE_PAIRS]) {
        self.compiled(
            #[inline(always)]
            || portable::decode::pair(quads, params, pairs),
        );
    }

    /// Adds the products of up to [`KernelShape::rows`] rows and a panel, both in bf16, to sums.
    fn bf16_block(self, panel: Panel<'_, Pair>, rows: PairRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
        let _ = (panel, rows, params, sums);
        unreachable!("the target has no products of bf16");
    }

    /// What the values of the rows of a tile are multiplied by, powers of two, before they come to
    /// [`float_stream`](Self::float_stream).
    fn row_factors(self, source: u8) -> [f32; TILE_ROWS] {
        let _ = source;
        [1.0; TILE_ROWS]
    }

    /// Adds the products of up to [`KernelShape::stream_rows`] rows, padded to whole tiles, and a strip of
    /// packed tiles to sums.
    fn float_stream(self, strip: PackedStrip<'_>, rows: FloatRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
        let _ = (strip, rows, params, sums);
        unreachable!("the target has no kernel that streams floats");
    }

    /// Adds the products of up to [`KernelShape::rows`] rows and a widened panel of codes of `bits` bits to
    /// sums.
    #[inline]
    fn integer_block(
        self,
        bits: u8,
        panel: Panel<'_, Quads>,
        rows: IntegerRows<'_>,
        params: SegmentParams<'_>,
        sums: &mut Sums,
    ) {
        let _ = bits;
        self.compiled(
            #[inline(always)]
            || portable::integer::block(panel, rows, params, sums),
        );
    }

    /// Adds the products of up to [`KernelShape::stream_rows`] rows and a strip of packed tiles to sums.
    fn integer_stream(self, strip: PackedStrip<'_>, rows: IntegerRows<'_>, params: SegmentParams<'_>, sums: &mut Sums) {
        let _ = (strip, rows, params, sums);
        unreachable!("the target has no kernel that streams integers");
    }

    /// Whether the integer kernels want activations as numbers of 16 bits beside codes of `bits` bits: see
    /// [`IntegerRows::quads`].
    fn widened_activations(bits: u8) -> bool {
        let _ = bits;
        false
    }
}
