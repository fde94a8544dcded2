//! Memory that a thread keeps for the panels that it widens.

use std::cell::RefCell;

use crate::packed::product::tile::PANEL_COLUMNS;
use crate::packed::{
    dequantize::Strip,
    layout::{TILE_COLUMNS, TILE_ROWS},
    view::View,
    widen::{Quads, widen},
};
use crate::{
    cpu::{instruction_set::InstructionSet, multiversion::compiled_for},
    packed::dequantize::widen_strip,
};

use crate::packed::product::segments::Segment;

/// Scales and codes of 0 of the columns of a panel, for each segment.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Params {
    pub(super) scales: [f32; PANEL_COLUMNS],
    pub(super) zeros: [i32; PANEL_COLUMNS],
}

impl Params {
    const ZERO: Self = Self { scales: [0.0; PANEL_COLUMNS], zeros: [0; PANEL_COLUMNS] };
}

/// The memory of a thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Codes of a panel, one strip of 16 columns after the other.
    pub(super) quads: Vec<Quads>,
    /// Values of a panel, one strip of 16 columns after the other.
    pub(super) values: Vec<[Strip; TILE_ROWS]>,
    pub(super) params: Vec<Params>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    /// Runs `work`, which must not run rayon tasks, with the memory of this thread.
    pub(super) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        SCRATCH.with_borrow_mut(work)
    }

    /// Reads scales and zeros of `strips` tiles of columns from `column` on.
    pub(super) fn load_params(
        &mut self,
        view: View,
        set: InstructionSet,
        segments: &[Segment],
        column: usize,
        strips: usize,
    ) {
        let params = &mut self.params;
        if params.len() < segments.len() {
            params.resize(segments.len(), Params::ZERO);
        }
        compiled_for!(set, load_params(
            view: View, segments: &[Segment], column: usize, strips: usize, params: &mut [Params],
        ));
    }

    /// Widens the codes of `strips` tiles of columns from `column` on.
    pub(super) fn widen(&mut self, view: View, set: InstructionSet, column: usize, strips: usize) {
        let rows = view.tiling().rows;
        if self.quads.len() < rows * strips {
            self.quads.resize(rows * strips, Quads::ZERO);
        }
        // Neighbouring columns of tiles are neighbours in memory.
        let tiles = view.tiles(column, 0, rows * strips);
        widen(set, view.source, tiles, &mut self.quads[..rows * strips]);
    }

    /// Dequantises `strips` tiles of columns from `column` on.
    pub(super) fn dequantize(&mut self, view: View, set: InstructionSet, column: usize, strips: usize) {
        let rows = view.tiling().rows;
        if self.values.len() < rows * strips {
            self.values.resize(rows * strips, [Strip::ZERO; TILE_ROWS]);
        }
        if rows > 0 {
            for (column, strip) in (column..).zip(self.values[..rows * strips].chunks_exact_mut(rows)) {
                widen_strip(view, set, column, 0, strip);
            }
        }
    }
}

#[inline(always)]
fn load_params(view: View, segments: &[Segment], column: usize, strips: usize, params: &mut [Params]) {
    for strip in 0..strips {
        for (segment, params) in segments.iter().zip(&mut *params) {
            let scales = &mut params.scales.as_chunks_mut::<TILE_COLUMNS>().0[strip];
            view.scales(column + strip, segment.scale_row, scales);
            let zeros = &mut params.zeros.as_chunks_mut::<TILE_COLUMNS>().0[strip];
            view.zeros(column + strip, segment.scale_row, zeros);
        }
    }
}
