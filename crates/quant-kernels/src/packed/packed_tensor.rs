//! Weights of 2 to 8 bits, stored as densely as that.
//!
//! ```text
//! value = (u − z) · s          u: code, 0 ..= 2^b − 1
//!
//! symmetric    u = q + 2^(b−1)   z = 2^(b−1), not stored    q in −(2^(b−1)−1) ..= 2^(b−1)−1
//! asymmetric   u = q             z stored, a byte a scale   q in 0 ..= 2^b − 1
//! ```

use rayon::prelude::*;

#[cfg(feature = "cube")]
use crate::packed::device_copies::DeviceCopies;
use crate::{
    error::{Error, Result},
    packed::{
        packed_spec::PackedSpec,
        scales::{ScaleFormat, Scales},
        storage::Bytes,
        tiles::layout::{TILE_CODES, TILE_COLUMNS, TILE_ROWS, Tiling, VECTOR, code_in_tile, pack_tile},
    },
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
};

/// A weight matrix `[d_in, d_out]` of `y = x·W`, packed at 2 to 8 bits.
///
/// ```text
/// value = (u − z) · s          u: code, 0 ..= 2^b − 1
///
/// symmetric    u = q + 2^(b−1)   z = 2^(b−1), not stored    q in −(2^(b−1)−1) ..= 2^(b−1)−1
/// asymmetric   u = q             z stored, a byte a scale   q in 0 ..= 2^b − 1
/// ```
///
/// A clone shares the bytes, which lie as `docs/FORMAT.md` describes.
///
/// ```
/// use quant_kernels::{BitWidth, Granularity, Format, PackedSpec, PackedTensor, ScaleFormat};
///
/// let spec = PackedSpec {
///     shape: [2, 2],
///     bits: BitWidth::B4,
///     format: Format::Symmetric,
///     granularity: Granularity::PerChannel,
///     scale_format: ScaleFormat::F16,
/// };
/// let packed = PackedTensor::from_weights(spec, &[0.5, -7.0, 0.2, 3.4], &[0.25, 1.0], &[])?;
/// assert_eq!(packed.dequantize(), [0.5, -7.0, 0.25, 3.0]);
/// assert_eq!(packed.level(1, 1), 3);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedTensor {
    pub(crate) spec: PackedSpec,
    pub(crate) codes: Bytes,
    pub(crate) scales: Scales,
    /// One for each scale; none where the mapping is symmetric.
    pub(crate) zero_points: Bytes,
    #[cfg(feature = "cube")]
    device_copies: DeviceCopies,
}

impl PackedTensor {
    /// Parts that fit each other.
    pub(crate) fn of_parts(spec: PackedSpec, codes: Bytes, scales: Scales, zero_points: Bytes) -> Self {
        Self {
            spec,
            codes,
            scales,
            zero_points,
            #[cfg(feature = "cube")]
            device_copies: DeviceCopies::default(),
        }
    }

    /// The copies on GPUs, which clones share.
    #[cfg(feature = "cube")]
    pub(crate) fn device_copies(&self) -> &DeviceCopies {
        &self.device_copies
    }

    /// What the weights are, apart from their values.
    pub fn spec(&self) -> PackedSpec {
        self.spec
    }

    /// Rows and columns: `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        self.spec.shape
    }

    /// The bits of a code.
    pub fn bits(&self) -> BitWidth {
        self.spec.bits
    }

    /// Which numbers codes stand for.
    pub fn format(&self) -> Format {
        self.spec.format
    }

    /// Which values share a scale.
    pub fn granularity(&self) -> Granularity {
        self.spec.granularity
    }

    /// The number format of the scales.
    pub fn scale_format(&self) -> ScaleFormat {
        self.spec.scale_format
    }

    /// The bytes that the tensor holds: codes with their padding, scales and zero points.
    pub fn bytes(&self) -> usize {
        self.codes().len() + self.scales.as_bytes().len() + self.zero_points().len()
    }

    /// The packed codes, tile after tile.
    pub fn codes(&self) -> &[u8] {
        self.codes.as_slice()
    }

    /// The scales, row-major in the shape of [`PackedSpec::scale_shape`].
    pub fn scales(&self) -> Vec<f32> {
        self.scales.to_vec()
    }

    /// The zero points, one for each scale; none where the mapping is symmetric.
    pub fn zero_points(&self) -> &[u8] {
        self.zero_points.as_slice()
    }

    /// The level at a row and a column: signed where the mapping is symmetric.
    ///
    /// # Panics
    ///
    /// If there is no such row or column.
    pub fn level(&self, row: usize, column: usize) -> i32 {
        i32::from(self.code(row, column)) - i32::from(self.spec.code_offset())
    }

    pub(crate) fn code(&self, row: usize, column: usize) -> u8 {
        let [d_in, d_out] = self.spec.shape;
        assert!(row < d_in && column < d_out, "there is no [{row}, {column}] in weights [{d_in}, {d_out}]");
        let bits = self.spec.bits.bits();
        let size = VECTOR * usize::from(bits);
        let tile = column / TILE_COLUMNS * Tiling::of(self.spec.shape).rows + row / TILE_ROWS;
        code_in_tile(bits, &self.codes()[tile * size..][..size], row % TILE_ROWS, column % TILE_COLUMNS)
    }
}

pub(crate) fn assert_len(what: &str, got: usize, [rows, columns]: [usize; 2]) {
    assert!(rows.checked_mul(columns) == Some(got), "{got} {what} do not fill a matrix of shape [{rows}, {columns}]");
}

pub(crate) fn check_zero_points(spec: &PackedSpec, zero_points: &[u8]) -> Result<()> {
    let [_, high] = spec.codes()?;
    match zero_points.iter().position(|&zero| zero > high) {
        Some(index) => Err(Error::PackedZeroPoint { index, got: zero_points[index], high }),
        None => Ok(()),
    }
}

/// Packs the codes that `code` gives for a row and a column; padding gets the code of 0.
pub(crate) fn pack(spec: &PackedSpec, zeros: &[u8], code: impl Fn(usize, usize) -> u8 + Sync) -> Bytes {
    let [d_in, d_out] = spec.shape;
    let bits = spec.bits.bits();
    let tiling = Tiling::of(spec.shape);
    let size = VECTOR * usize::from(bits);
    let len = tiling.bytes(bits).unwrap_or_else(|| panic!("weights [{d_in}, {d_out}] do not fit the address space"));
    let fill_tile = |(at, tile): (usize, &mut [u8])| {
        let [top, left] = [at % tiling.rows * TILE_ROWS, at / tiling.rows * TILE_COLUMNS];
        let mut codes = [spec.middle(); TILE_CODES];
        for (row, codes) in codes.chunks_exact_mut(TILE_COLUMNS).enumerate() {
            for (column, slot) in codes.iter_mut().enumerate() {
                let [row, column] = [top + row, left + column];
                *slot = if row < d_in && column < d_out {
                    code(row, column)
                } else if column < d_out && !zeros.is_empty() {
                    zeros[spec.scale_index(d_in - 1, column)]
                } else {
                    spec.middle()
                };
            }
        }
        pack_tile(bits, &codes, tile);
    };
    Bytes::build(len, |bytes| bytes.par_chunks_exact_mut(size).enumerate().with_min_len(16).for_each(fill_tile))
}
