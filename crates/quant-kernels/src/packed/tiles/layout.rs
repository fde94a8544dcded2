//! Where the bits of a code stand.
//!
//! ```text
//! matrix  [d_in, d_out]  padded to [32·K, 16·N]
//! tile    (k, n) = rows 32k..32k+32, columns 16n..16n+16,  at byte 64·b·(n·K + k),  64·b bytes long
//! plane   one for each set bit p of b among 8, 4, 2, 1, in falling order: p vectors of 64 bytes
//! vector  v of a plane of width p: bits p·i .. p·(i+1) of byte 4c + j hold the plane's bits of the
//!         code at row 4·(v·8/p + i) + j, column c,                        i = 0..8/p, j = 0..4, c = 0..16
//! ```
//!
//! The first plane holds the highest bits of each code and the last the lowest: at 3 bits the plane
//! of width 2 is `u >> 1` and that of width 1 is `u & 1`.
//!
//! Four consecutive rows of a tile are a *quad*: 64 bytes, one code each, in which the four codes
//! of a column are neighbours. This is the operand that the dot products of bytes want (VNNI's
//! `vpdpbusd`), and a vector shifted right by `p·i` and masked is one, or its share of one.

/// The rows of a tile.
pub(crate) const TILE_ROWS: usize = 32;
/// The columns of a tile.
pub(crate) const TILE_COLUMNS: usize = 16;
/// The bytes of a vector, and of a quad.
pub(crate) const VECTOR: usize = 64;
/// The quads of a tile.
pub(crate) const QUADS: usize = TILE_ROWS / 4;
/// The codes of a tile.
pub(crate) const TILE_CODES: usize = TILE_ROWS * TILE_COLUMNS;

/// The widths that planes have, in the order in which a tile holds them.
pub(crate) const PLANE_WIDTHS: [u8; 4] = [8, 4, 2, 1];

/// The number of tiles along each side of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiling {
    /// Tiles along the rows, K.
    pub(crate) rows: usize,
    /// Tiles along the columns, N.
    pub(crate) columns: usize,
}

impl Tiling {
    pub(crate) const fn of([d_in, d_out]: [usize; 2]) -> Self {
        Self { rows: d_in.div_ceil(TILE_ROWS), columns: d_out.div_ceil(TILE_COLUMNS) }
    }

    /// The bytes of all tiles at `bits`, or `None` if their number overflows.
    pub(crate) const fn bytes(self, bits: u8) -> Option<usize> {
        match self.rows.checked_mul(self.columns) {
            Some(tiles) => tiles.checked_mul(VECTOR * bits as usize),
            None => None,
        }
    }
}

/// The planes of a code of `bits` bits, as (width, bits of the code below the plane, offset of the
/// plane in the tile in bytes).
pub(crate) fn planes(bits: u8) -> impl Iterator<Item = (u8, u8, usize)> {
    let mut above = 0;
    PLANE_WIDTHS.into_iter().filter(move |width| bits & width != 0).map(move |width| {
        let offset = VECTOR * usize::from(above);
        above += width;
        (width, bits - above, offset)
    })
}

/// Writes the codes of one tile, row-major `[32, 16]`, to its bytes, which must be 0.
pub(crate) fn pack_tile(bits: u8, codes: &[u8; TILE_CODES], tile: &mut [u8]) {
    debug_assert_eq!(tile.len(), VECTOR * usize::from(bits));
    for (width, below, offset) in planes(bits) {
        let mask = (u16::from(u8::MAX) >> (8 - width)) as u8;
        let per_byte = usize::from(8 / width);
        for (row, codes) in codes.chunks_exact(TILE_COLUMNS).enumerate() {
            let (quad, j) = (row / 4, row % 4);
            let vector = offset + VECTOR * (quad / per_byte);
            let shift = width * (quad % per_byte) as u8;
            for (column, code) in codes.iter().enumerate() {
                tile[vector + 4 * column + j] |= ((code >> below) & mask) << shift;
            }
        }
    }
}

/// The code at a row and a column of a tile.
pub(crate) fn code_in_tile(bits: u8, tile: &[u8], row: usize, column: usize) -> u8 {
    let (quad, j) = (row / 4, row % 4);
    planes(bits).fold(0, |code, (width, below, offset)| {
        let mask = (u16::from(u8::MAX) >> (8 - width)) as u8;
        let per_byte = usize::from(8 / width);
        let byte = tile[offset + VECTOR * (quad / per_byte) + 4 * column + j];
        code | ((byte >> (width * (quad % per_byte) as u8)) & mask) << below
    })
}
