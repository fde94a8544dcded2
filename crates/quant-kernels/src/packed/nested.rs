//! One 8-bit tensor that serves every width from 2 to 8.
//!
//! ```text
//! q_b = clamp(round(q_8 / 2^(8−b)), ±(2^(b−1) − 1))          s_b = s_8 · 2^(8−b)
//! ```
//!
//! Rounding is half to even. `q_b` are the highest bits of the stored level, rounded, so that no
//! float weights are needed and nothing but the 8-bit codes is resident: products cut the codes in
//! registers, or while a panel is widened. The values are those of quantising the 8-bit weights
//! anew with the scale `s_b`, which differs from quantising the float weights where the first
//! rounding moved a weight across the middle between two levels of the second.
//!
//! Asymmetric weights are refused: a zero point that is not a multiple of `2^(8−b)` has no level
//! at the lower width, and rounding it would move every weight of its group, 0 first of all.
//!
//! Source: Nair et al., *Matryoshka Quantization*, arXiv:2502.06786, which trains for such slices
//! and rounds half up; here trained or untrained weights are rounded half to even.

use crate::{
    error::{Error, Result},
    packed::{
        packed_spec::PackedSpec,
        packed_tensor::{PackedTensor, pack},
        packed_view::PackedView,
        product::options::Product,
        scales::Scales,
        storage::Bytes,
        tiles::source::cut_code,
    },
    spec::{bit_width::BitWidth, formats::format::Format},
};

/// Symmetric 8-bit weights that serve every width from 2 to 8.
///
/// ```
/// use quant_kernels::{
///     BitWidth, Granularity, Format, NestedTensor, PackedSpec, PackedTensor, Product, ScaleFormat,
/// };
///
/// let spec = PackedSpec {
///     shape: [3, 1],
///     bits: BitWidth::B8,
///     format: Format::Symmetric,
///     granularity: Granularity::PerChannel,
///     scale_format: ScaleFormat::F16,
/// };
/// let packed = PackedTensor::from_weights(spec, &[127.0, -24.0, 9.0], &[1.0], &[])?;
/// let nested = NestedTensor::new(packed)?;
/// assert_eq!(nested.slice_to(BitWidth::B4)?.dequantize(), [112.0, -32.0, 16.0]);
/// assert_eq!(nested.matmul(&[1.0, 1.0, 1.0], 1, BitWidth::B4, &Product::default())?, [96.0]);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct NestedTensor {
    tensor: PackedTensor,
}

impl NestedTensor {
    /// Takes weights that can be cut to fewer bits.
    ///
    /// # Errors
    ///
    /// [`Error::NestedSource`] unless the weights are symmetric and of 8 bits, and
    /// [`Error::PackedScale`] if a scale times 64, that of 2 bits, is not one of its format.
    pub fn new(tensor: PackedTensor) -> Result<Self> {
        let PackedSpec { bits, format, scale_format, .. } = tensor.spec;
        if bits != BitWidth::B8 || format != Format::Symmetric {
            return Err(Error::NestedSource { format, bits });
        }
        let widest: Vec<f32> = tensor.scales().iter().map(|scale| scale * 64.0).collect();
        Scales::store(scale_format, &widest)?;
        Ok(Self { tensor })
    }

    /// The 8-bit weights.
    pub fn tensor(&self) -> &PackedTensor {
        &self.tensor
    }

    /// The weights at `bits`, as a tensor of their own.
    ///
    /// # Errors
    ///
    /// [`Error::PackedBits`] unless `bits` is 2 to 8.
    pub fn slice_to(&self, bits: BitWidth) -> Result<PackedTensor> {
        let source = &self.tensor;
        let spec = PackedSpec { bits, ..source.spec };
        spec.check()?;
        if bits == BitWidth::B8 {
            return Ok(source.clone());
        }
        let codes = pack(&spec, &[], |row, column| cut_code(bits.bits(), source.code(row, column)));
        let factor = PackedView::cut(source, bits).scale_factor;
        let scales: Vec<f32> = source.scales().iter().map(|scale| scale * factor).collect();
        let scales = Scales::store(spec.scale_format, &scales)?;
        Ok(PackedTensor::of_parts(spec, codes, scales, Bytes::build(0, |_| ())))
    }

    /// The values of the weights at `bits`.
    ///
    /// # Shapes
    ///
    /// - output: `[d_in, d_out]`, row-major
    ///
    /// # Errors
    ///
    /// [`Error::PackedBits`] unless `bits` is 2 to 8.
    pub fn dequantize(&self, bits: BitWidth) -> Result<Vec<f32>> {
        Ok(self.at(bits)?.dequantize())
    }

    /// The product of activations and the weights at `bits`, bit for bit that of
    /// [`slice_to`](Self::slice_to), straight from the 8-bit codes.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, d_in]`, row-major
    /// - output: `[rows, d_out]`
    ///
    /// # Errors
    ///
    /// [`Error::PackedBits`] unless `bits` is 2 to 8.
    ///
    /// # Panics
    ///
    /// As [`PackedView::matmul`].
    pub fn matmul(&self, x: &[f32], rows: usize, bits: BitWidth, product: &Product) -> Result<Vec<f32>> {
        Ok(self.at(bits)?.matmul(x, rows, product))
    }

    /// The weights at `bits`, cut in the course of products.
    ///
    /// # Errors
    ///
    /// [`Error::PackedBits`] unless `bits` is 2 to 8.
    pub fn at(&self, bits: BitWidth) -> Result<PackedView<'_>> {
        PackedSpec { bits, ..self.tensor.spec }.check()?;
        Ok(PackedView::cut(&self.tensor, bits))
    }
}
