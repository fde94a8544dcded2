//! From the bytes of a tile to one code a byte, in plain Rust.
//!
//! ```text
//! quad_i = ⋁ over planes p:  ((vector_(i·p/8) >> p·(i mod 8/p)) & (2^p − 1)) << bits below p
//! ```

use crate::packed::tiles::{
    layout::{PLANE_WIDTHS, QUADS, VECTOR},
    quads::Quads,
    ratios::{Ratios, scaled_code},
    source::{cut_code, is_nested, is_scaled, source_bits, tile_bytes, with_source},
};

/// Widens consecutive tiles to consecutive quads, compiled for the instructions of its caller.
#[inline(always)]
pub(crate) fn widen(source: u8, ratios: &Ratios, tiles: &[u8], quads: &mut [Quads]) {
    with_source!(source, widen_tiles(ratios, tiles, quads));
}

#[inline(always)]
fn widen_tiles<const SOURCE: u8>(ratios: &Ratios, tiles: &[u8], quads: &mut [Quads]) {
    for (tile, quads) in tiles.chunks_exact(tile_bytes(SOURCE)).zip(quads) {
        widen_tile::<SOURCE>(ratios, tile, quads);
    }
}

#[inline(always)]
fn widen_tile<const SOURCE: u8>(ratios: &Ratios, tile: &[u8], quads: &mut Quads) {
    let (vectors, _) = tile.as_chunks::<VECTOR>();
    let (quads, _) = quads.0.as_chunks_mut::<VECTOR>();
    if is_scaled(SOURCE) {
        for (vector, quad) in vectors.iter().zip(quads) {
            let ((pairs, _), (codes, _)) = (vector.as_chunks::<2>(), quad.as_chunks_mut());
            for ((codes, pair), &ratio) in codes.iter_mut().zip(pairs).zip(&ratios.0) {
                *codes = pair.map(|code| scaled_code(source_bits(SOURCE), code, ratio));
            }
        }
        return;
    }
    if is_nested(SOURCE) {
        for (vector, quad) in vectors.iter().zip(quads) {
            for (byte, code) in vector.iter().zip(quad) {
                *code = cut_code(source_bits(SOURCE), *byte);
            }
        }
        return;
    }
    let mut above = 0;
    for width in PLANE_WIDTHS {
        if SOURCE & width == 0 {
            continue;
        }
        let below = SOURCE - above - width;
        let mask = (0xff >> (8 - width)) as u8;
        let per_byte = 8 / width as usize;
        for i in 0..QUADS {
            let vector = &vectors[above as usize + i / per_byte];
            let shift = width * (i % per_byte) as u8;
            for (byte, code) in vector.iter().zip(&mut quads[i]) {
                let bits = ((byte >> shift) & mask) << below;
                *code = if above == 0 { bits } else { *code | bits };
            }
        }
        above += width;
    }
}
