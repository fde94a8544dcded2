//! Rotations of signs and a Hadamard matrix.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::paley::hadamard_matrix;
use crate::{cpu::rotation::RowRotation, spec::rotation::Rotation};

/// The rotation of rows of a width by signs and a Hadamard matrix.
///
/// ```text
/// x·R = (x ∘ s)·K,    K = 1 ⊗ H_n ⊗ H_p / √(n·p),    width = blocks · n · p
/// ```
///
/// `p` is a power of two, `H_p` Sylvester's matrix of that order and `H_n` one of Paley's. Widths `2^k·m` with `m` odd
/// have one block and `n = 2^j·m`, the least there is of at most 256: 192 = 12 · 16, 768 = 12 · 64, 576 = 36 · 16.
/// Where there is none, each of `m` blocks of `p = 2^k` values is rotated by itself. The signs are those of a
/// seed and of the width.
///
/// A row costs `width · (n + log2 p)` additions: 8 % of what a product with a square matrix costs at 192, 2 % at 768.
///
/// ```
/// use quant_kernels::{HadamardTransform, Rotation};
///
/// let transform = HadamardTransform::of(Rotation::Hadamard(0), 4).unwrap();
/// let rotated = transform.rotated(&[0.0, 2.0, 0.0, 0.0]);
/// assert!(rotated.iter().all(|value| value.abs() == 1.0));
/// assert_eq!(transform.rotated_back(&rotated), [0.0, 2.0, 0.0, 0.0]);
/// assert!(HadamardTransform::of(Rotation::None, 4).is_none());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct HadamardTransform {
    /// `s`, `[width]`.
    signs: Vec<f32>,
    /// `H_n / √(n·p)`, `[n, n]`.
    mixing: Vec<f32>,
    /// Its transpose.
    unmixing: Vec<f32>,
    /// `n`.
    order: usize,
    /// `p`.
    power: usize,
}

/// Those that were made. There are as many as a model has widths of inputs.
static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// By width and seed.
type Known = HashMap<(usize, u16), Arc<HadamardTransform>>;

impl HadamardTransform {
    /// The rotation of rows of `width` values, `None` where they stay as they are. It is made once in a process.
    pub fn of(rotation: Rotation, width: usize) -> Option<Arc<Self>> {
        let Rotation::Hadamard(seed) = rotation else { return None };
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let made = known.get_or_insert_default().entry((width, seed));
        Some(Arc::clone(made.or_insert_with(|| Arc::new(Self::new(width, seed)))))
    }

    fn new(width: usize, seed: u16) -> Self {
        let (order, power, matrix) = factors(width);
        let scale = 1.0 / ((order * power) as f64).sqrt();
        let mixing: Vec<f32> = matrix.iter().map(|entry| (f64::from(*entry) * scale) as f32).collect();
        let unmixing = (0..order * order).map(|index| mixing[index % order * order + index / order]).collect();
        let signs =
            (0..width as u64).map(|index| sign((u64::from(seed) << 48) ^ ((width as u64) << 24) ^ index)).collect();
        Self { signs, mixing, unmixing, order, power }
    }

    /// The number of values in a row.
    pub fn width(&self) -> usize {
        self.signs.len()
    }

    /// `n` and `p` of the matrices that a block of a row is multiplied by.
    pub fn orders(&self) -> [usize; 2] {
        [self.order, self.power]
    }

    /// The additions that the rotation of a row takes, `width · (n + log2 p)`.
    pub fn additions(&self) -> usize {
        self.width() * (self.order + self.power.ilog2() as usize)
    }

    /// `s`, `[width]`.
    pub(crate) fn signs(&self) -> &[f32] {
        &self.signs
    }

    /// `H_n / √(n·p)`, row-major.
    pub(crate) fn mixing(&self) -> &[f32] {
        &self.mixing
    }

    /// How rows are rotated, there or back.
    pub(crate) fn rows(&self, direction: Direction) -> RowRotation<'_> {
        let Self { signs, mixing, unmixing, order, power } = self;
        let (order, power) = (*order, *power);
        match direction {
            Direction::There => RowRotation { first: Some(signs), mixing, last: None, order, power },
            Direction::Back => RowRotation { first: None, mixing: unmixing, last: Some(signs), order, power },
        }
    }

    /// `x·R` of each row.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[.., width]`, row-major
    ///
    /// # Panics
    ///
    /// If the values are no whole rows.
    pub fn rotated(&self, x: &[f32]) -> Vec<f32> {
        self.rows(Direction::There).of(x)
    }

    /// `x·Rᵀ` of each row, which takes [`rotated`](Self::rotated) back.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[.., width]`, row-major
    ///
    /// # Panics
    ///
    /// If the values are no whole rows.
    pub fn rotated_back(&self, x: &[f32]) -> Vec<f32> {
        self.rows(Direction::Back).of(x)
    }
}

/// Which way rows are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `x·R`.
    There,
    /// `x·Rᵀ`.
    Back,
}

impl Direction {
    /// The other one.
    pub fn reversed(self) -> Self {
        match self {
            Self::There => Self::Back,
            Self::Back => Self::There,
        }
    }
}

/// The largest matrix that is applied entry by entry. Beyond it mixing all of a row would cost as much as a product.
const LARGEST_ORDER: usize = 256;

/// `n`, `p` and `H_n` of a width.
fn factors(width: usize) -> (usize, usize, Vec<f32>) {
    if width == 0 {
        return (1, 1, vec![1.0]);
    }
    let twos = width.trailing_zeros();
    let odd = width >> twos;
    let orders = (0..=twos).map(|twos_of_order| odd << twos_of_order).take_while(|order| *order <= LARGEST_ORDER);
    let mixed = orders.into_iter().find_map(|order| {
        let matrix = hadamard_matrix(order)?;
        Some((order, width / order, matrix))
    });
    mixed.unwrap_or_else(|| (1, 1 << twos, vec![1.0]))
}

/// A sign by the `SplitMix64` hash of a number.
fn sign(number: u64) -> f32 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    if (hash ^ (hash >> 31)) & 1 == 0 { 1.0 } else { -1.0 }
}

#[cfg(test)]
mod tests;
