//! A weight as integers: what a rounding makes of it, before it is packed.
//!
//! ```text
//! u = nearest(w / s)          value(u) · s
//! ```
//!
//! Scales are rounded to their stored format first and codes are found under those, so that nothing is
//! lost on the way to packed weights.

use rayon::prelude::*;

use crate::{
    error::{Error, Result},
    packed::{
        packed_spec::PackedSpec,
        packed_tensor::{PackedTensor, assert_len, check_zero_points, pack},
        scales::{ScaleFormat, Scales},
        storage::Bytes,
        tiles::source::cut_code,
    },
    spec::{bit_width::BitWidth, formats::format::Format},
};

/// A weight `[d_in, d_out]` as integers: codes, scales and zero points.
///
/// ```
/// use quant_kernels::{BitWidth, Coded, Granularity, Format, PackedSpec, ScaleFormat};
///
/// let spec = PackedSpec {
///     shape: [2, 2],
///     bits: BitWidth::B4,
///     format: Format::Symmetric,
///     granularity: Granularity::PerChannel,
///     scale_format: ScaleFormat::F16,
/// };
/// let coded = Coded::nearest(spec, &[0.5, -7.0, 0.2, 3.4], &[0.25, 1.0], &[])?;
/// assert_eq!(coded.to_floats(), [0.5, -7.0, 0.25, 3.0]);
/// assert_eq!(coded.clone().pack().dequantize(), coded.to_floats());
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Coded {
    spec: PackedSpec,
    codes: Vec<u8>,
    scales: Scales,
    zero_points: Bytes,
}

impl Coded {
    /// Rounds weights to the nearest code: `u = clamp(round(w / s) + z)` with the scales as they are
    /// stored.
    ///
    /// # Shapes
    ///
    /// - `weights`: `[d_in, d_out]`, row-major
    /// - `scales`: [`PackedSpec::scale_shape`], row-major
    /// - `zero_points`: that of `scales` where the format has them, else none
    ///
    /// # Errors
    ///
    /// Those of [`PackedSpec::check`]; [`Error::PackedWeight`] for a NaN or an infinity;
    /// [`Error::PackedScale`] for a scale that is not positive and finite or that the format cannot
    /// hold; [`Error::PackedZeroPoint`] for one that is not a level.
    ///
    /// # Panics
    ///
    /// If a slice has another length than its shape.
    pub fn nearest(spec: PackedSpec, weights: &[f32], scales: &[f32], zero_points: &[u8]) -> Result<Self> {
        let (scales, zero_points) = store_params(&spec, scales, zero_points)?;
        assert_len("weights", weights.len(), spec.shape);
        let [_, d_out] = spec.shape;
        if let Some(at) = weights.par_iter().position_first(|weight| !weight.is_finite()) {
            return Err(Error::PackedWeight { row: at / d_out, column: at % d_out, got: weights[at] });
        }
        let (book, offset) = (spec.code_book()?, f32::from(spec.code_offset()));
        let params = scales.to_vec();
        let zeros = zero_points.as_slice();
        let mut codes = vec![0; weights.len()];
        let rows = codes.par_chunks_mut(d_out.max(1)).zip(weights.par_chunks(d_out.max(1))).with_min_len(16);
        rows.enumerate().for_each(|(row, (codes, weights))| {
            for (column, (code, weight)) in codes.iter_mut().zip(weights).enumerate() {
                let index = spec.scale_index(row, column);
                let zero = zeros.get(index).copied().map_or(0.0, f32::from);
                *code = (book.nearest(weight / params[index], zero) + offset) as u8;
            }
        });
        Ok(Self { spec, codes, scales, zero_points })
    }

    /// Takes codes that were found otherwise.
    ///
    /// # Shapes
    ///
    /// - `codes`: `[d_in, d_out]`, row-major, as [`PackedTensor`] describes them
    /// - `scales`, `zero_points`: as for [`nearest`](Self::nearest)
    ///
    /// # Errors
    ///
    /// As [`nearest`](Self::nearest), and [`Error::PackedCode`] for a code outside the levels of the
    /// format.
    ///
    /// # Panics
    ///
    /// If a slice has another length than its shape.
    pub fn from_codes(spec: PackedSpec, codes: Vec<u8>, scales: &[f32], zero_points: &[u8]) -> Result<Self> {
        let (scales, zero_points) = store_params(&spec, scales, zero_points)?;
        assert_len("codes", codes.len(), spec.shape);
        let [_, d_out] = spec.shape;
        let [low, high] = spec.codes()?;
        if let Some(at) = codes.iter().position(|code| !(low..=high).contains(code)) {
            return Err(Error::PackedCode { row: at / d_out, column: at % d_out, got: codes[at], low, high });
        }
        Ok(Self { spec, codes, scales, zero_points })
    }

    /// The codes of fewer bits that are the highest bits of these, as
    /// [`NestedTensor`](crate::packed::nested::NestedTensor) cuts them.
    ///
    /// # Errors
    ///
    /// [`Error::NestedSource`] unless these are symmetric and of 8 bits, [`Error::PackedBits`] unless `bits` is 2 to 8.
    pub(crate) fn cut_to(self, bits: BitWidth, scale_format: ScaleFormat) -> Result<Self> {
        let PackedSpec { bits: of, format, .. } = self.spec;
        if of != BitWidth::B8 || format != Format::Symmetric {
            return Err(Error::NestedSource { bits: of, format });
        }
        let codes = self.codes.iter().map(|&code| cut_code(bits.bits(), code)).collect();
        let factor = f32::from(1u8 << (8 - bits.bits()));
        let scales: Vec<f32> = self.scales.to_vec().into_iter().map(|scale| scale * factor).collect();
        let spec = PackedSpec { bits, scale_format: scale_format.that_holds(&scales), ..self.spec };
        spec.check()?;
        Self::from_codes(spec, codes, &scales, &[])
    }

    /// What the weights will be once they are packed.
    pub fn spec(&self) -> PackedSpec {
        self.spec
    }

    /// The codes, `[d_in, d_out]` in row-major order.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The scales as they are stored, row-major in the shape of [`PackedSpec::scale_shape`].
    pub fn scales(&self) -> Vec<f32> {
        self.scales.to_vec()
    }

    /// The zero points, one for each scale; none where the format has none.
    pub fn zero_points(&self) -> &[u8] {
        self.zero_points.as_slice()
    }

    /// The values that the codes stand for, `[d_in, d_out]` in row-major order.
    pub fn to_floats(&self) -> Vec<f32> {
        let [_, d_out] = self.spec.shape;
        let (scales, zeros) = (self.scales.to_vec(), self.zero_points.as_slice());
        let Ok(book) = self.spec.code_book() else { unreachable!("the format was checked when codes were made") };
        let offset = f32::from(self.spec.code_offset());
        let value = |(at, code): (usize, &u8)| {
            let index = self.spec.scale_index(at / d_out, at % d_out);
            let zero = zeros.get(index).copied().map_or(0.0, f32::from);
            book.value(f32::from(*code) - offset, zero) * scales[index]
        };
        self.codes.iter().enumerate().map(value).collect()
    }

    /// The weights, packed.
    pub fn pack(self) -> PackedTensor {
        let Self { spec, codes, scales, zero_points } = self;
        let [_, d_out] = spec.shape;
        let packed = pack(&spec, zero_points.as_slice(), |row, column| codes[row * d_out + column]);
        PackedTensor::of_parts(spec, packed, scales, zero_points)
    }
}

impl PackedTensor {
    /// Quantises and packs weights: `q = clamp(round(x / s) + z)` with the scales as they are
    /// stored.
    ///
    /// # Shapes
    ///
    /// - `weights`: `[d_in, d_out]`, row-major
    /// - `scales`: [`PackedSpec::scale_shape`], row-major
    /// - `zero_points`: that of `scales` where the format has them, else none
    ///
    /// # Errors
    ///
    /// Those of [`PackedSpec::check`]; [`Error::PackedWeight`] for a NaN or an infinity;
    /// [`Error::PackedScale`] for a scale that is not positive and finite or that the format cannot
    /// hold; [`Error::PackedZeroPoint`] for one that is not a level.
    ///
    /// # Panics
    ///
    /// If a slice has another length than its shape.
    pub fn from_weights(spec: PackedSpec, weights: &[f32], scales: &[f32], zero_points: &[u8]) -> Result<Self> {
        Coded::nearest(spec, weights, scales, zero_points).map(Coded::pack)
    }

    /// Packs codes.
    ///
    /// # Shapes
    ///
    /// - `codes`: `[d_in, d_out]`, row-major, as [above](Self)
    /// - `scales`, `zero_points`: as for [`from_weights`](Self::from_weights)
    ///
    /// # Errors
    ///
    /// As [`from_weights`](Self::from_weights), and [`Error::PackedCode`] for a code outside the
    /// levels of the mapping.
    ///
    /// # Panics
    ///
    /// If a slice has another length than its shape.
    pub fn from_codes(spec: PackedSpec, codes: &[u8], scales: &[f32], zero_points: &[u8]) -> Result<Self> {
        Coded::from_codes(spec, codes.to_vec(), scales, zero_points).map(Coded::pack)
    }
}

fn store_params(spec: &PackedSpec, scales: &[f32], zero_points: &[u8]) -> Result<(Scales, Bytes)> {
    let shape = spec.scale_shape()?;
    assert_len("scales", scales.len(), shape);
    if spec.format.has_zero_points() {
        assert_len("zero points", zero_points.len(), shape);
    } else {
        assert!(zero_points.is_empty(), "symmetric weights have no zero points");
    }
    check_zero_points(spec, zero_points)?;
    let stored = Bytes::build(zero_points.len(), |bytes| bytes.copy_from_slice(zero_points));
    Ok((Scales::store(spec.scale_format, scales)?, stored))
}
