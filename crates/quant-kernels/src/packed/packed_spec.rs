//! What packed weights are, apart from their values.

use crate::{
    error::{Error, Result},
    packed::{scales::ScaleFormat, tiles::layout::TILE_ROWS},
    spec::{
        bit_width::BitWidth,
        formats::{
            code_book::{CodeBook, LevelRange},
            format::Format,
        },
        granularity::Granularity,
    },
};

/// What packed weights are, apart from their values.
///
/// | field | may be |
/// |---|---|
/// | `shape` | `[d_in, d_out]`, any, also empty |
/// | `bits` | 2 to 8 |
/// | `format` | any |
/// | `granularity` | per tensor, per channel, per group of a multiple of 32 rows |
/// | `scale_format` | any |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackedSpec {
    /// Rows and columns: `[d_in, d_out]`.
    pub shape: [usize; 2],
    /// The bits of a code.
    pub bits: BitWidth,
    /// Which numbers codes stand for.
    pub format: Format,
    /// Which values share a scale.
    pub granularity: Granularity,
    /// The number format of the scales.
    pub scale_format: ScaleFormat,
}

impl PackedSpec {
    /// The shape of the scales, and of the zero points where there are any.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn scale_shape(&self) -> Result<[usize; 2]> {
        self.check()?;
        self.granularity.param_shape(self.shape)
    }

    /// Checks that weights can be packed like this.
    ///
    /// # Errors
    ///
    /// [`Error::PackedBits`] and [`Error::PackedGranularity`], and those of [`Format::code_book`].
    pub fn check(&self) -> Result<()> {
        if !(2..=8).contains(&self.bits.bits()) {
            return Err(Error::PackedBits { bits: self.bits });
        }
        self.code_book()?;
        match self.granularity {
            Granularity::PerTensor | Granularity::PerChannel => Ok(()),
            Granularity::PerGroup(rows) if rows.get() % TILE_ROWS == 0 => Ok(()),
            granularity => Err(Error::PackedGranularity { granularity }),
        }
    }

    /// What codes stand for.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn code_book(&self) -> Result<CodeBook> {
        self.format.code_book(self.bits)
    }

    /// The code of the value 0 where zero points are not stored, which is also that of padding.
    pub(crate) fn middle(&self) -> u8 {
        match self.code_book() {
            Ok(CodeBook::Table(table)) => table.zero,
            _ => 1 << (self.bits.bits() - 1),
        }
    }

    /// What codes are above their levels.
    pub(crate) fn code_offset(&self) -> u8 {
        if self.format == Format::Symmetric { self.middle() } else { 0 }
    }

    /// The lowest and the highest code.
    pub(crate) fn codes(&self) -> Result<[u8; 2]> {
        let LevelRange { low, high } = self.code_book()?.levels();
        let offset = i32::from(self.code_offset());
        Ok([(low + offset) as u8, (high + offset) as u8])
    }

    /// The rows that share a scale.
    pub(crate) fn rows_per_scale(&self) -> usize {
        match self.granularity {
            Granularity::PerGroup(rows) => rows.get(),
            _ => self.shape[0].max(1),
        }
    }

    /// The position of the scale of a value.
    pub(crate) fn scale_index(&self, row: usize, column: usize) -> usize {
        // Divided whatever the granularity is, by what is never 0: LLVM 22 moves a division by a `NonZero` of one variant
        // in front of the look at the variant, where it may divide by 0.
        let (rows, of_group, of_column) = match self.granularity {
            Granularity::PerGroup(rows) => (rows.get(), self.shape[1], 1),
            Granularity::PerChannel => (self.shape[0].max(1), 0, 1),
            _ => (self.shape[0].max(1), 0, 0),
        };
        row / rows * of_group + column * of_column
    }
}
