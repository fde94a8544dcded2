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
//! A width of 2 to 7 bits may have scales of its own instead, such as the steps that were learned for it:
//!
//! ```text
//! q_b = clamp(⌊q_8 · r⌉, ±(2^(b−1) − 1))          r = s_8 / s_b,   value q_b · s_b
//! ```
//!
//! with `r` and the rounding in the fixed point of `tiles/ratios`, so that all targets give the same levels.
//! Then `|q_b · s_b − w| ≤ s_b / 2 + s_8 / 2` inside of both ranges, up to what fixed point leaves.
//!
//! Asymmetric weights are refused: a zero point that is not a multiple of `2^(8−b)` has no level
//! at the lower width, and rounding it would move every weight of its group, 0 first of all.
//!
//! Source: Nair et al., *Matryoshka Quantization*, arXiv:2502.06786, which trains for such slices
//! and rounds half up; here trained or untrained weights are rounded half to even.

use std::collections::BTreeMap;

use crate::{
    error::{Error, Result},
    packed::{
        own_scales::OwnScales,
        packed_spec::PackedSpec,
        packed_tensor::{PackedTensor, assert_len, pack},
        packed_view::PackedView,
        product::options::Product,
        scales::{ScaleFormat, Scales},
        storage::Bytes,
        tiles::{
            ratios::{are_apart, least_divisor},
            source::cut_code,
        },
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
    own_scales: BTreeMap<BitWidth, OwnScales>,
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
        Ok(Self { tensor, own_scales: BTreeMap::new() })
    }

    /// The same weights with scales of its own for a width, in place of any that were there. Scales that the
    /// format does not hold are f32, whatever was asked for.
    ///
    /// # Shapes
    ///
    /// - `scales`: [`PackedSpec::scale_shape`] of the 8-bit weights, row-major, or one for all of them
    ///
    /// # Errors
    ///
    /// [`Error::PackedBits`] unless `bits` is 2 to 7, [`Error::PackedScale`] for a scale that is not positive
    /// and finite, and [`Error::NestedScale`] for one that is not more than half of that of 8 bits, or a quarter at
    /// 7 bits: the levels would span less than an eighth of the range of the codes.
    ///
    /// # Panics
    ///
    /// If `scales` has another length than its shape.
    ///
    /// ```
    /// use quant_kernels::{
    ///     BitWidth, Granularity, Format, NestedTensor, PackedSpec, PackedTensor, ScaleFormat,
    /// };
    ///
    /// let spec = PackedSpec {
    ///     shape: [3, 1],
    ///     bits: BitWidth::B8,
    ///     format: Format::Symmetric,
    ///     granularity: Granularity::PerChannel,
    ///     scale_format: ScaleFormat::F32,
    /// };
    /// let packed = PackedTensor::from_weights(spec, &[127.0, -24.0, 9.0], &[1.0], &[])?;
    /// let nested = NestedTensor::new(packed)?.with_scales(BitWidth::B4, ScaleFormat::F32, &[20.0])?;
    /// assert_eq!(nested.dequantize(BitWidth::B4)?, [120.0, -20.0, 0.0]);
    /// # Ok::<(), quant_kernels::Error>(())
    /// ```
    pub fn with_scales(self, bits: BitWidth, format: ScaleFormat, scales: &[f32]) -> Result<Self> {
        let [rows, columns] = self.tensor.spec.scale_shape()?;
        let repeated;
        let scales = if let [scale] = scales {
            repeated = vec![*scale; rows * columns];
            &repeated
        } else {
            assert_len("scales", scales.len(), [rows, columns]);
            scales
        };
        self.with_stored_scales(bits, Scales::store(format.that_holds(scales), scales)?)
    }

    /// [`with_scales`](Self::with_scales) with scales that are stored already, in the shape of those of 8 bits.
    pub(crate) fn with_stored_scales(mut self, bits: BitWidth, scales: Scales) -> Result<Self> {
        if !(2..8).contains(&bits.bits()) {
            return Err(Error::PackedBits { bits });
        }
        let pairs = self.tensor.scales().into_iter().zip(scales.to_vec()).enumerate();
        for (index, (eight, got)) in pairs {
            if !are_apart(bits.bits(), eight, got) {
                return Err(Error::NestedScale { bits, index, got, above: eight / least_divisor(bits.bits()) });
            }
        }
        self.own_scales.insert(bits, OwnScales::new(bits, scales));
        Ok(self)
    }

    /// The widths that have scales of their own, in rising order.
    pub fn own_widths(&self) -> impl Iterator<Item = BitWidth> {
        self.own_scales.keys().copied()
    }

    /// The scales at `bits`, row-major in the shape of those of 8 bits, and their format.
    ///
    /// # Errors
    ///
    /// [`Error::PackedBits`] unless `bits` is 2 to 8.
    pub fn scales(&self, bits: BitWidth) -> Result<(Vec<f32>, ScaleFormat)> {
        if let Some(own) = self.own_scales.get(&bits) {
            return Ok((own.scales.to_vec(), own.scales.format()));
        }
        let factor = self.at(bits)?.scale_factor;
        let scales = self.tensor.scales().iter().map(|scale| scale * factor).collect();
        Ok((scales, self.tensor.spec.scale_format))
    }

    /// The bytes that all widths hold together.
    pub fn bytes(&self) -> usize {
        self.tensor.bytes() + self.own_scales.values().map(|own| own.scales.as_bytes().len()).sum::<usize>()
    }

    pub(crate) fn own_scales(&self) -> impl Iterator<Item = &OwnScales> {
        self.own_scales.values()
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
        if let Some(own) = self.own_scales.get(&bits) {
            return Ok(own.slice(source));
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
        Ok(match self.own_scales.get(&bits) {
            Some(own) => PackedView::scaled(&self.tensor, own),
            None => PackedView::cut(&self.tensor, bits),
        })
    }
}
