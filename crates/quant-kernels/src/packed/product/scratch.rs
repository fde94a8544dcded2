//! Memory that a thread keeps for the panels that it widens.

use std::{cell::RefCell, ops::Range};

use crate::packed::{
    dequantize::decode_strip,
    packed_view::PackedView,
    target::Target,
    tiles::{
        layout::TILE_ROWS,
        pairs::{Pair, TILE_PAIRS},
        params::Params,
        quads::Quads,
        ratios::Ratios,
        segments::Segment,
        source::is_scaled,
        strip::Strip,
        sums::{PANEL_STRIPS, Sums},
    },
};

/// The memory of a thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Codes of a panel, one strip of 16 columns after the other.
    pub(crate) quads: Vec<Quads>,
    /// Values of a panel, one strip of 16 columns after the other.
    pub(crate) values: Vec<[Strip; TILE_ROWS]>,
    /// Values of a panel in bf16, one strip of 16 columns after the other.
    pub(crate) pairs: Vec<[Pair; TILE_PAIRS]>,
    /// Scales and codes of 0 of the strips of a panel, for each segment.
    pub(crate) params: Vec<[Params; PANEL_STRIPS]>,
    /// What kernels add up.
    pub(crate) sums: Sums,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    /// Runs `work`, which must not run rayon tasks, with the memory of this thread.
    pub(crate) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        SCRATCH.with_borrow_mut(work)
    }

    /// Reads scales and codes of 0 of `strips` tiles of columns from `column` on.
    pub(crate) fn load_params<T: Target>(
        &mut self,
        target: T,
        view: PackedView,
        segments: &[Segment],
        column: usize,
        strips: usize,
    ) {
        let params = &mut self.params;
        if params.len() < segments.len() {
            params.resize(segments.len(), [Params::ZERO; PANEL_STRIPS]);
        }
        target.compiled(
            #[inline(always)]
            || load_params(view, segments, column, strips, params),
        );
    }

    /// Widens the codes of `strips` tiles of columns from `column` on, whose parameters were loaded.
    pub(crate) fn widen<T: Target>(
        &mut self,
        target: T,
        view: PackedView,
        segments: &[Segment],
        column: usize,
        strips: usize,
    ) {
        let rows = view.tiling().rows;
        if self.quads.len() < rows * strips {
            self.quads.resize(rows * strips, Quads::ZERO);
        }
        let quads = &mut self.quads[..rows * strips];
        if !is_scaled(view.source) {
            // Neighbouring columns of tiles are neighbours in memory.
            target.widen(view.source, &Ratios::NONE, view.tiles(column, 0, rows * strips), quads);
            return;
        }
        for (strip, quads) in quads.chunks_exact_mut(rows.max(1)).enumerate() {
            for (segment, params) in segments.iter().zip(&self.params) {
                let Range { start, end } = segment.tiles;
                let tiles = view.tiles(column + strip, start, end - start);
                target.widen(view.source, &params[strip].ratios, tiles, &mut quads[start..end]);
            }
        }
    }

    /// Widens the codes of `strips` tiles of columns from `column` on, whose parameters were loaded, to bf16.
    pub(crate) fn pair<T: Target>(
        &mut self,
        target: T,
        view: PackedView,
        segments: &[Segment],
        column: usize,
        strips: usize,
    ) {
        self.widen(target, view, segments, column, strips);
        let rows = view.tiling().rows;
        if self.pairs.len() < rows * strips {
            self.pairs.resize(rows * strips, [Pair::ZERO; TILE_PAIRS]);
        }
        for strip in 0..strips {
            for (segment, params) in segments.iter().zip(&self.params) {
                for tile in segment.tiles.clone().map(|tile| strip * rows + tile) {
                    target.pair(&self.quads[tile], &params[strip], &mut self.pairs[tile]);
                }
            }
        }
    }

    /// Decodes `strips` tiles of columns from `column` on.
    pub(crate) fn decode<T: Target>(&mut self, target: T, view: PackedView, column: usize, strips: usize) {
        let rows = view.tiling().rows;
        if self.values.len() < rows * strips {
            self.values.resize(rows * strips, [Strip::ZERO; TILE_ROWS]);
        }
        if rows > 0 {
            for (column, strip) in (column..).zip(self.values[..rows * strips].chunks_exact_mut(rows)) {
                decode_strip(target, view, column, 0, strip);
            }
        }
    }
}

#[inline(always)]
fn load_params(
    view: PackedView,
    segments: &[Segment],
    column: usize,
    strips: usize,
    params: &mut [[Params; PANEL_STRIPS]],
) {
    for strip in 0..strips {
        for (segment, params) in segments.iter().zip(&mut *params) {
            let params = &mut params[strip];
            view.scales(column + strip, segment.scale_row, &mut params.scales);
            view.zeros(column + strip, segment.scale_row, &mut params.zeros);
            view.ratios(column + strip, segment.scale_row, &mut params.ratios);
        }
    }
}
