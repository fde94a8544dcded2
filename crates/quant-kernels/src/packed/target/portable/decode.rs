//! From the codes of a tile to its values, in plain Rust.

use crate::{
    packed::tiles::{
        layout::{TILE_COLUMNS, TILE_ROWS},
        pairs::{Pair, TILE_PAIRS},
        params::Params,
        quads::Quads,
        strip::Strip,
    },
    spec::formats::code_book::Table,
};

/// `(u − z) · s` of each code.
#[inline(always)]
pub(crate) fn decode(quads: &Quads, params: &Params, values: &mut [Strip; TILE_ROWS]) {
    let (codes, _) = quads.0.as_chunks::<4>();
    for (row, Strip(values)) in values.iter_mut().enumerate() {
        let codes = &codes[row / 4 * TILE_COLUMNS..][..TILE_COLUMNS];
        for (c, value) in values.iter_mut().enumerate() {
            *value = (i32::from(codes[c][row % 4]) - params.zeros[c]) as f32 * params.scales[c];
        }
    }
}

/// `entry(u) · s` of each code.
#[inline(always)]
pub(crate) fn decode_table(table: &Table, quads: &Quads, params: &Params, values: &mut [Strip; TILE_ROWS]) {
    let (codes, _) = quads.0.as_chunks::<4>();
    for (row, Strip(values)) in values.iter_mut().enumerate() {
        let codes = &codes[row / 4 * TILE_COLUMNS..][..TILE_COLUMNS];
        for (c, value) in values.iter_mut().enumerate() {
            *value = table.entries[usize::from(codes[c][row % 4]) % Table::ENTRIES] * params.scales[c];
        }
    }
}

/// `u − z` of each code, an integer of up to 8 bits and a sign, in bf16.
#[inline(always)]
pub(crate) fn pair(quads: &Quads, params: &Params, pairs: &mut [Pair; TILE_PAIRS]) {
    let (codes, _) = quads.0.as_chunks::<4>();
    for (at, Pair(pair)) in pairs.iter_mut().enumerate() {
        let codes = &codes[at / 2 * TILE_COLUMNS..][..TILE_COLUMNS];
        let first = at % 2 * 2;
        for (c, pair) in pair.iter_mut().enumerate() {
            let level = |code: u8| ((i32::from(code) - params.zeros[c]) as f32).to_bits();
            *pair = level(codes[c][first]) >> 16 | level(codes[c][first + 1]) & 0xffff_0000;
        }
    }
}
