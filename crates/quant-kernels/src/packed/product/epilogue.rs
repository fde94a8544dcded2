//! What is done to a product while it is still in the cache.
//!
//! ```text
//! y = f(x·W + bias + scaling·t·B + addend)
//! ```
//!
//! `t = x·A [rows, rank]` is the first half of an adapter, which is computed outside. The second
//! half costs `rank / d_in` of the product and saves writing and reading its output `[rows, d_out]`.

use crate::{
    cpu::elementary::gelu,
    packed::{
        grid::Grid,
        target::Target,
        tiles::{
            layout::TILE_COLUMNS,
            sums::{Region, Sums},
        },
    },
};

/// A function applied to each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OutputFunction {
    /// None.
    #[default]
    Identity,
    /// GELU in its tanh form, GPT-2's `gelu_new`.
    GeluTanh,
}

/// The second half of an adapter: `scaling·t·B`.
#[derive(Debug, Clone, Copy)]
pub struct LowRankTerm<'a> {
    /// `t = x·A`, `[rows, rank]`.
    pub down: &'a [f32],
    /// `B`, `[rank, d_out]`.
    pub up: &'a [f32],
    /// The inner dimension.
    pub rank: usize,
    /// The factor of the term.
    pub scaling: f32,
}

/// What is added to a product, and the function applied to the sum. The default is nothing.
///
/// # Shapes
///
/// - `bias`: `[d_out]`
/// - `addend`: `[rows, d_out]`
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to each row.
    pub bias: Option<&'a [f32]>,
    /// An adapter, added to the product.
    pub low_rank: Option<LowRankTerm<'a>>,
    /// Added to the product.
    pub addend: Option<&'a [f32]>,
    /// Applied last.
    pub function: OutputFunction,
}

impl Epilogue<'_> {
    /// # Panics
    ///
    /// If a slice has another length than its shape.
    pub(crate) fn check(&self, rows: usize, d_out: usize) {
        let check = |what: &str, got: usize, rows: usize, columns: usize| {
            let fits = rows.checked_mul(columns) == Some(got);
            assert!(fits, "{got} values of the {what} do not fill a matrix of shape [{rows}, {columns}]");
        };
        if let Some(bias) = self.bias {
            check("bias", bias.len(), 1, d_out);
        }
        if let Some(term) = self.low_rank {
            check("adapter's inner values", term.down.len(), rows, term.rank);
            check("adapter's second factor", term.up.len(), term.rank, d_out);
        }
        if let Some(addend) = self.addend {
            check("addend", addend.len(), rows, d_out);
        }
    }

    /// Finishes sums and writes them to their region. `row_scales` are those of quantised activations,
    /// one for each row of the whole product.
    pub(crate) fn finish<T: Target>(
        &self,
        target: T,
        sums: &mut Sums,
        region: Region,
        row_scales: Option<&[f32]>,
        output: &Grid,
    ) {
        let d_out = output.columns();
        target.compiled(
            #[inline(always)]
            || finish(self, sums, region, row_scales, d_out),
        );
        for (row, values) in (region.row..region.row + region.rows).zip(&sums.0) {
            output.write(row, region.column, &values[..region.columns]);
        }
    }
}

#[inline(always)]
fn finish(epilogue: &Epilogue, sums: &mut Sums, region: Region, row_scales: Option<&[f32]>, d_out: usize) {
    let Region { row: first, rows, column, columns } = region;
    for start in (0..columns).step_by(TILE_COLUMNS) {
        let (column, width) = (column + start, TILE_COLUMNS.min(columns - start));
        let bias = epilogue.bias.map(|bias| padded(&bias[column..column + width]));
        for (row, values) in (first..first + rows).zip(&mut sums.0) {
            let values = &mut values.as_chunks_mut::<TILE_COLUMNS>().0[start / TILE_COLUMNS];
            if let Some(scales) = row_scales {
                let scale = scales[row];
                for value in &mut *values {
                    *value *= scale;
                }
            }
            if let Some(bias) = &bias {
                add(values, bias);
            }
        }
        if let Some(term) = epilogue.low_rank {
            add_low_rank(term, sums, [first, rows], [start, column, width], d_out);
        }
        for (row, values) in (first..first + rows).zip(&mut sums.0) {
            let values = &mut values.as_chunks_mut::<TILE_COLUMNS>().0[start / TILE_COLUMNS];
            if let Some(addend) = epilogue.addend {
                add(values, &padded(&addend[row * d_out + column..][..width]));
            }
            if epilogue.function == OutputFunction::GeluTanh {
                for value in values {
                    *value = gelu(*value);
                }
            }
        }
    }
}

/// Adds an adapter to a strip of columns, whose part of the second factor is read once for all rows.
#[inline(always)]
fn add_low_rank(
    LowRankTerm { down, up, rank, scaling }: LowRankTerm<'_>,
    sums: &mut Sums,
    [first, rows]: [usize; 2],
    [start, column, width]: [usize; 3],
    d_out: usize,
) {
    /// Rows of the second factor that are held at once.
    const HELD: usize = 16;
    let mut held = [[0.0; TILE_COLUMNS]; HELD];
    for inner in (0..rank).step_by(HELD) {
        let held = &mut held[..HELD.min(rank - inner)];
        for (at, held) in (inner..).zip(&mut *held) {
            *held = padded(&up[at * d_out + column..][..width]);
        }
        for (row, values) in (first..first + rows).zip(&mut sums.0) {
            let values = &mut values.as_chunks_mut::<TILE_COLUMNS>().0[start / TILE_COLUMNS];
            let mut sum = *values;
            for (down, up) in down[row * rank + inner..][..held.len()].iter().zip(&*held) {
                let factor = down * scaling;
                for (value, up) in sum.iter_mut().zip(up) {
                    *value += factor * up;
                }
            }
            *values = sum;
        }
    }
}

#[inline(always)]
fn add(values: &mut [f32; TILE_COLUMNS], terms: &[f32; TILE_COLUMNS]) {
    for (value, term) in values.iter_mut().zip(terms) {
        *value += term;
    }
}

/// Values of a part of a row, with zeros after the last.
#[inline(always)]
fn padded(values: &[f32]) -> [f32; TILE_COLUMNS] {
    if let Ok(values) = values.try_into() {
        return values;
    }
    let mut all = [0.0; TILE_COLUMNS];
    all[..values.len()].copy_from_slice(values);
    all
}
