//! A row-major matrix that many threads write at once, and that need not be initialised.
#![expect(unsafe_code, reason = "threads write disjoint parts of one matrix")]

use std::{marker::PhantomData, mem::MaybeUninit};

use crate::packed::tiles::sums::Region;

/// The numbers of a line of the cache.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 16;

/// A matrix of which each thread writes its own rows and columns.
#[derive(Debug)]
pub(crate) struct Grid<'a> {
    values: *mut f32,
    rows: usize,
    columns: usize,
    lifetime: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: the pointer is that of a slice of plain numbers that is borrowed exclusively, and
// nothing is ever read through it.
unsafe impl Sync for Grid<'_> {}

impl<'a> Grid<'a> {
    /// A matrix of rows of `columns` values.
    pub(crate) fn new(values: &'a mut [MaybeUninit<f32>], columns: usize) -> Self {
        let rows = values.len().checked_div(columns).unwrap_or(0);
        Self { values: values.as_mut_ptr().cast(), rows, columns, lifetime: PhantomData }
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Lets the processor fetch the lines of a region that is written when its product is computed: lines that are not in
    /// the cache yet would hold up what comes after.
    #[inline(always)]
    pub(crate) fn prefetch(&self, Region { row, rows, column, columns }: Region) {
        #[cfg(target_arch = "x86_64")]
        for row in row..row + rows {
            for column in (column..column + columns).step_by(LINE) {
                use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
                let place = self.values.wrapping_add(row * self.columns + column);
                // SAFETY: nothing is read or written, whatever the address.
                unsafe { _mm_prefetch::<_MM_HINT_ET0>(place.cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (row, rows, column, columns);
    }

    /// Writes consecutive values of a row.
    ///
    /// Two threads that write the same values leave either one's: callers write disjoint parts.
    ///
    /// # Panics
    ///
    /// If the values do not lie in the matrix.
    #[inline(always)]
    pub(crate) fn write(&self, row: usize, column: usize, values: &[f32]) {
        assert!(row < self.rows && column <= self.columns && values.len() <= self.columns - column);
        // SAFETY: the values lie in the slice by the assertion. The callers of this module hand
        // out each rectangle of the matrix to one work item, so no two threads write the same place.
        unsafe {
            self.values.add(row * self.columns + column).copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
    }
}

/// A vector of `len` values that `fill` writes, all of them.
pub(crate) fn collect(len: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    fill(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the fillers of this crate cover the matrix: the tests compare every value.
    unsafe { values.set_len(len) };
    values
}

/// Values seen as values to be written.
pub(crate) fn as_uninit(values: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: the layouts are the same, and this module's writers only ever write numbers.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<f32>]) }
}
