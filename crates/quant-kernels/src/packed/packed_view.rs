//! Packed weights as products see them: whole, or cut to fewer bits.

use crate::{
    packed::{
        own_scales::OwnScales,
        packed_spec::PackedSpec,
        packed_tensor::PackedTensor,
        product::activations::ActivationBits,
        scales::Scales,
        tiles::{
            layout::{TILE_COLUMNS, Tiling},
            ratios::{Ratios, ratio},
            source::{NESTED, SCALED, source_bits, tile_bytes},
        },
    },
    spec::{bit_width::BitWidth, formats::code_book::CodeBook, granularity::Granularity},
};

/// Packed weights at their own width, or 8-bit ones at a lower width, to which products cut them.
///
/// ```
/// use quant_kernels::{BitWidth, Granularity, Format, NestedTensor, PackedSpec, PackedTensor, ScaleFormat};
///
/// let spec = PackedSpec {
///     shape: [3, 1],
///     bits: BitWidth::B8,
///     format: Format::Symmetric,
///     granularity: Granularity::PerChannel,
///     scale_format: ScaleFormat::F16,
/// };
/// let packed = PackedTensor::from_weights(spec, &[127.0, -24.0, 9.0], &[1.0], &[])?;
/// assert_eq!(packed.view().dequantize(), [127.0, -24.0, 9.0]);
/// let nested = NestedTensor::new(packed)?;
/// assert_eq!(nested.at(BitWidth::B4)?.dequantize(), [112.0, -32.0, 16.0]);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct PackedView<'a> {
    /// The weights that hold the codes.
    pub(crate) tensor: &'a PackedTensor,
    /// What comes out of the tiles: see [`source`](crate::packed::tiles::source).
    pub(crate) source: u8,
    /// A power of two that all scales are multiplied by.
    pub(crate) scale_factor: f32,
    /// The scales of the width, where it has its own.
    own: Option<&'a OwnScales>,
}

impl PackedTensor {
    /// The weights at their own width.
    pub fn view(&self) -> PackedView<'_> {
        PackedView::whole(self)
    }
}

impl<'a> PackedView<'a> {
    /// Weights at their own width.
    pub fn whole(tensor: &'a PackedTensor) -> Self {
        Self { tensor, source: tensor.spec.bits.bits(), scale_factor: 1.0, own: None }
    }

    /// What codes stand for.
    pub fn code_book(self) -> CodeBook {
        match self.spec().code_book() {
            Ok(book) => book,
            Err(error) => unreachable!("the format was checked when the weights were packed: {error}"),
        }
    }

    /// Whether products can be computed at these bits of activations: those of integers need codes that
    /// are evenly spaced.
    pub fn takes(self, activations: ActivationBits) -> bool {
        activations.width().is_full() || matches!(self.code_book(), CodeBook::Uniform(_))
    }

    /// `[d_in, d_out]`.
    pub fn shape(self) -> [usize; 2] {
        self.tensor.shape()
    }

    /// The weights that hold the codes, and the bits that are taken of them: of a width with scales of its own a
    /// copy at that width.
    #[cfg(feature = "cube")]
    pub(crate) fn stored(self) -> (&'a PackedTensor, u8) {
        (self.own.map_or(self.tensor, |own| own.kept_slice(self.tensor)), source_bits(self.source))
    }

    /// 8-bit symmetric codes, rounded to `bits`.
    pub(crate) fn cut(tensor: &'a PackedTensor, bits: BitWidth) -> Self {
        match bits.bits() {
            8 => Self::whole(tensor),
            bits => Self { tensor, source: NESTED + bits, scale_factor: f32::from(1u16 << (8 - bits)), own: None },
        }
    }

    /// 8-bit symmetric codes, rounded by the scales of a lower width.
    pub(crate) fn scaled(tensor: &'a PackedTensor, own: &'a OwnScales) -> Self {
        Self { tensor, source: SCALED + own.bits.bits(), scale_factor: 1.0, own: Some(own) }
    }

    pub(crate) fn spec(&self) -> &'a PackedSpec {
        &self.tensor.spec
    }

    pub(crate) fn tiling(&self) -> Tiling {
        Tiling::of(self.tensor.spec.shape)
    }

    /// The tiles `first..first + count` of a column of tiles.
    #[inline(always)]
    pub(crate) fn tiles(&self, column: usize, first: usize, count: usize) -> &'a [u8] {
        let size = tile_bytes(self.source);
        let start = (column * self.tiling().rows + first) * size;
        &self.tensor.codes.as_slice()[start..][..count * size]
    }

    /// The scales of 16 columns in the `row`-th row of scales; 0 past the last column.
    #[inline(always)]
    pub(crate) fn scales(&self, column: usize, row: usize, scales: &mut [f32; TILE_COLUMNS]) {
        self.read(self.own.map_or(&self.tensor.scales, |own| &own.scales), column, row, scales);
        for scale in scales {
            *scale *= self.scale_factor;
        }
    }

    /// The ratios of the scales of 16 columns in the `row`-th row of scales; none where codes are not cut by
    /// them.
    #[inline(always)]
    pub(crate) fn ratios(&self, column: usize, row: usize, ratios: &mut Ratios) {
        let Some(own) = self.own else { return };
        let [mut eight, mut scales] = [[0.0; TILE_COLUMNS]; 2];
        self.read(&self.tensor.scales, column, row, &mut eight);
        self.read(&own.scales, column, row, &mut scales);
        let (pairs, _) = ratios.0.as_chunks_mut::<2>();
        for ((pair, eight), own) in pairs.iter_mut().zip(eight).zip(scales) {
            *pair = [ratio(source_bits(self.source), eight, own); 2];
        }
    }

    #[inline(always)]
    fn read(&self, stored: &Scales, column: usize, row: usize, scales: &mut [f32; TILE_COLUMNS]) {
        let (index, present, stride) = self.param_range(column, row);
        if stride == 0 {
            scales.fill(stored.get(0));
        } else if present == TILE_COLUMNS {
            stored.read_16(index, scales);
        } else {
            scales.fill(0.0);
            stored.read(index, &mut scales[..present]);
        }
    }

    /// The codes of 0 of 16 columns in the `row`-th row of scales.
    #[inline(always)]
    pub(crate) fn zeros(&self, column: usize, row: usize, zeros: &mut [i32; TILE_COLUMNS]) {
        zeros.fill(1 << (source_bits(self.source) - 1));
        let stored = self.tensor.zero_points.as_slice();
        if stored.is_empty() {
            return;
        }
        let (index, present, stride) = self.param_range(column, row);
        if stride == 0 {
            zeros.fill(i32::from(stored[0]));
        } else {
            for (zero, stored) in zeros.iter_mut().zip(&stored[index..index + present]) {
                *zero = i32::from(*stored);
            }
        }
    }

    /// Where the parameters of 16 columns start, how many there are and how far apart: 0 where
    /// all share one.
    #[inline(always)]
    fn param_range(&self, column: usize, row: usize) -> (usize, usize, usize) {
        let spec = self.spec();
        let first = column * TILE_COLUMNS;
        let present = (spec.shape[1] - first).min(TILE_COLUMNS);
        match spec.granularity {
            Granularity::PerTensor => (0, 1, 0),
            _ => (row * spec.shape[1] + first, present, 1),
        }
    }
}
