//! What the codes of a format stand for, in units of their scale.
//!
//! ```text
//! uniform   nearest(r) = clamp(⌊r⌉ + z, low, high)             value(q) = q − z
//! table     nearest(r) = number of middles below r              value(q) = entry q
//! ```
//!
//! `r = x / s`, and `⌊·⌉` rounds half to even. A middle stands halfway between two entries; a value on one
//! goes to the lower entry.

/// The lowest and the highest integer level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LevelRange {
    /// The lowest level.
    pub low: i32,
    /// The highest level.
    pub high: i32,
}

impl LevelRange {
    /// The number of levels.
    pub const fn count(self) -> usize {
        (self.high - self.low + 1) as usize
    }
}

/// The largest scale under which a level that is `reach` levels from 0 stands for a finite number: `MAX / reach`,
/// which rounding may have raised, and a bit less.
#[inline(always)]
#[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
pub(crate) fn largest_scale(reach: f32) -> f32 {
    f32::MAX / reach * (1.0 - f32::EPSILON / 2.0)
}

/// Scale and zero point of a range that holds 0; without zero points the range is that of the larger end.
///
/// The scale is 1 for a range of nothing, and never so large that a level stands for infinity.
#[inline(always)]
#[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
pub(crate) fn params_of_range([low, high]: [f32; 2], highest: f32, has_zero_point: bool) -> (f32, f32) {
    let one_where_zero = |scale: f32| if scale == 0.0 { 1.0 } else { scale };
    if has_zero_point {
        // Divided before subtracted: `high − low` may overflow where the scale does not.
        let scale = one_where_zero(high / highest - low / highest);
        let zero_point = (-low / scale).round_ties_even().clamp(0.0, highest);
        (scale.min(largest_scale(zero_point.max(highest - zero_point))), zero_point)
    } else {
        let scale = one_where_zero(high.max(-low) / highest);
        (scale.min(largest_scale(highest)), 0.0)
    }
}

/// What the codes of a format stand for, in units of their scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CodeBook {
    /// Integers, evenly spaced.
    Uniform(LevelRange),
    /// Entries of a table.
    Table(&'static Table),
}

impl CodeBook {
    /// The lowest and the highest level: integers, or positions in the table.
    pub const fn levels(self) -> LevelRange {
        match self {
            Self::Uniform(levels) => levels,
            Self::Table(_) => LevelRange { low: 0, high: Table::ENTRIES as i32 - 1 },
        }
    }

    /// What the largest magnitude of the values that share a scale is laid on.
    pub(crate) fn highest(self) -> f32 {
        match self {
            Self::Uniform(levels) => levels.high as f32,
            Self::Table(table) => table.entries[Table::ENTRIES - 1],
        }
    }

    /// The level nearest to a value over its scale, whose zero point is `zero`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
    pub(crate) fn nearest(self, ratio: f32, zero: f32) -> f32 {
        match self {
            Self::Uniform(LevelRange { low, high }) => (ratio.round_ties_even() + zero).clamp(low as f32, high as f32),
            Self::Table(table) => f32::from(table.nearest(ratio)),
        }
    }

    /// What a level stands for.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "plain Rust is compiled anew for each instruction set of its callers")]
    pub(crate) fn value(self, level: f32, zero: f32) -> f32 {
        match self {
            Self::Uniform(_) => level - zero,
            Self::Table(table) => table.entries[level as usize],
        }
    }
}

/// The 16 numbers that codes of 4 bits stand for, in rising order. The last is the largest magnitude, and
/// one of them is 0.
#[derive(Debug, PartialEq)]
pub struct Table {
    pub(crate) entries: [f32; Self::ENTRIES],
    /// The numbers halfway between neighbouring entries.
    pub(crate) middles: [f32; Self::ENTRIES - 1],
    /// The position of 0.
    pub(crate) zero: u8,
}

impl Table {
    pub(crate) const ENTRIES: usize = 16;

    /// A table of entries in rising order, one of which is 0.
    pub(crate) const fn new(entries: [f32; Self::ENTRIES]) -> Self {
        let mut middles = [0.0; Self::ENTRIES - 1];
        let (mut index, mut zero) = (0, 0);
        while index < Self::ENTRIES - 1 {
            assert!(entries[index] < entries[index + 1], "entries rise");
            middles[index] = f32::midpoint(entries[index], entries[index + 1]);
            if entries[index] == 0.0 {
                zero = index as u8;
            }
            index += 1;
        }
        assert!(entries[zero as usize] == 0.0, "one entry is 0");
        Self { entries, middles, zero }
    }

    /// The entries in rising order.
    pub const fn entries(&self) -> &[f32; Self::ENTRIES] {
        &self.entries
    }

    /// The position of the entry nearest to a number; 0 for NaN.
    pub(crate) fn nearest(&self, ratio: f32) -> u8 {
        self.middles.iter().map(|middle| u8::from(ratio > *middle)).sum()
    }
}
