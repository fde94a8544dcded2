//! Weights of a layer that are only there packed.
//!
//! ```text
//! fixed     codes of b bits      serve b bits
//! nested    codes of 8 bits      serve 8, 7, …, 2 bits by rounding their lower bits away
//! ```

use burn::tensor::Tensor;
use quant_kernels::{
    NestedTensor, PackedOperand, PackedSpec, PackedTensor, QuantBackend, QuantSpec, ScaleFormat, choose_params,
};

use crate::{BitWidth, Error, Result};

/// Weights of a layer that are only there packed: no float copy is resident.
#[derive(Debug, Clone)]
pub enum PackedWeights {
    /// At one width.
    Fixed(PackedTensor),
    /// At 8 bits, and from there at every lower width down to 2.
    Nested(NestedTensor),
}

impl PackedWeights {
    /// `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        self.stored().shape()
    }

    /// The codes and scales that are kept.
    pub fn stored(&self) -> &PackedTensor {
        match self {
            Self::Fixed(tensor) => tensor,
            Self::Nested(nested) => nested.tensor(),
        }
    }

    /// Resident bytes of codes, scales and zero points.
    pub fn bytes(&self) -> usize {
        self.stored().bytes()
    }

    /// The widths at which products can be computed, in rising order.
    pub fn widths(&self) -> Vec<BitWidth> {
        match self {
            Self::Fixed(tensor) => vec![tensor.bits()],
            Self::Nested(_) => {
                BitWidth::quantised().filter(|bits| (BitWidth::B2..=BitWidth::B8).contains(bits)).collect()
            }
        }
    }

    /// The weights at a width.
    ///
    /// # Errors
    ///
    /// [`Error::PackedWidth`] if the width is not one of [`widths`](Self::widths).
    pub fn at(&self, bits: BitWidth) -> Result<PackedOperand<'_>> {
        let missing = || Error::PackedWidth { bits, available: self.widths() };
        match self {
            Self::Fixed(tensor) if tensor.bits() == bits => Ok(PackedOperand::whole(tensor)),
            Self::Fixed(_) => Err(missing()),
            Self::Nested(nested) => PackedOperand::nested(nested, bits).map_err(|_| missing()),
        }
    }
}

/// Packs a weight at `bits`, its scales found as `spec` says.
///
/// # Shapes
///
/// - `weight` `[d_in, d_out]`
///
/// # Errors
///
/// [`Error::Quantisation`] if the width or the granularity cannot be packed, or the weight holds a
/// NaN, an infinity, or values whose scales do not fit the format.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use switchable_lora::{BitWidth, QuantSpec, ScaleFormat, pack_weight};
///
/// let weight = Tensor::<Flex, 2>::from_floats([[0.7, -0.3], [0.1, 0.6]], &Default::default());
/// let packed = pack_weight(&weight, BitWidth::B4, &QuantSpec::default(), ScaleFormat::F32)?;
/// assert_eq!(packed.level(0, 0), 7);
/// # Ok::<(), switchable_lora::Error>(())
/// ```
pub fn pack_weight<B: QuantBackend>(
    weight: &Tensor<B, 2>,
    bits: BitWidth,
    spec: &QuantSpec,
    scale_format: ScaleFormat,
) -> Result<PackedTensor> {
    let packed =
        PackedSpec { shape: weight.dims(), bits, mapping: spec.mapping, granularity: spec.granularity, scale_format };
    packed.check()?;
    let params = choose_params(weight, bits, spec)?;
    let floats = |tensor: Tensor<B, 2>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
    let zero_points = params.zero_point().map_or_else(Vec::new, |zero_points| {
        // A NaN, of a block that holds one, is caught with its scale or its weight.
        floats(zero_points).into_iter().map(|zero_point| zero_point as u8).collect()
    });
    Ok(PackedTensor::from_weights(packed, &floats(weight.clone()), &floats(params.scale()), &zero_points)?)
}
