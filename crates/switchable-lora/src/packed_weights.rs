//! Weights of a layer that are only there packed.
//!
//! ```text
//! fixed     codes of b bits      serve b bits
//! nested    codes of 8 bits      serve 8, 7, …, 2 bits by rounding their lower bits away
//! ```

use burn::tensor::{Tensor, backend::Backend, f16};
use quant_kernels::{
    LearnedStep, Mapping, NestedTensor, PackedOperand, PackedSpec, PackedTensor, QuantBackend, QuantSpec, ScaleFormat,
    choose_params,
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

    /// Checks that the codes are those that a learned step gives, at the width of the step. Codes
    /// that have no form at that width fit any step: they refuse the width.
    ///
    /// # Errors
    ///
    /// [`Error::PackedStep`].
    pub(crate) fn check_step<B: Backend>(&self, step: &LearnedStep<B>) -> Result<()> {
        let (bits, stored) = (step.bits(), self.stored());
        if !self.widths().contains(&bits) {
            return Ok(());
        }
        let spec = stored.spec();
        let rounded = |step: f32| match spec.scale_format {
            ScaleFormat::F32 => step.abs(),
            ScaleFormat::F16 => f16::from_f32(step.abs()).to_f32(),
        };
        let same = spec.bits == bits
            && spec.mapping == Mapping::Symmetric
            && spec.granularity == step.granularity()
            && floats(step.step.val()).into_iter().map(rounded).eq(stored.scales());
        if same { Ok(()) } else { Err(Error::PackedStep { bits, expected: "codes that were packed by that step" }) }
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
    let zero_points = params.zero_point().map_or_else(Vec::new, |zero_points| {
        // A NaN, of a block that holds one, is caught with its scale or its weight.
        floats(zero_points).into_iter().map(|zero_point| zero_point as u8).collect()
    });
    Ok(PackedTensor::from_weights(packed, &floats(weight.clone()), &floats(params.scale()), &zero_points)?)
}

/// Packs a weight by a learned step, which becomes its scale: the values are those of
/// [`LearnedStep::forward`] as far as the scale format holds the step.
///
/// # Shapes
///
/// - `weight` `[d_in, d_out]`
///
/// # Errors
///
/// As [`pack_weight`], and [`Error::StepShape`] if the step is for another weight.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use switchable_lora::{BitWidth, Granularity, LearnedStep, ScaleFormat, pack_weight_by_step};
///
/// let weight = Tensor::<Flex, 2>::from_floats([[0.7, -0.3], [0.1, 0.6]], &Default::default());
/// let step = Tensor::<Flex, 2>::from_floats([[0.25]], &Default::default());
/// let step = LearnedStep::from_steps(step, BitWidth::B4, Granularity::PerTensor)?;
/// let packed = pack_weight_by_step(&weight, &step, ScaleFormat::F32)?;
/// assert_eq!(packed.dequantize(), step.forward(weight).into_data().to_vec::<f32>().unwrap());
/// # Ok::<(), switchable_lora::Error>(())
/// ```
pub fn pack_weight_by_step<B: QuantBackend>(
    weight: &Tensor<B, 2>,
    step: &LearnedStep<B>,
    scale_format: ScaleFormat,
) -> Result<PackedTensor> {
    check_step_shape(step, weight.dims())?;
    let packed = PackedSpec {
        shape: weight.dims(),
        bits: step.bits(),
        mapping: Mapping::Symmetric,
        granularity: step.granularity(),
        scale_format,
    };
    packed.check()?;
    // A step quantises as its absolute value does.
    let scales = floats(step.step.val().abs());
    Ok(PackedTensor::from_weights(packed, &floats(weight.clone()), &scales, &[])?)
}

/// Checks that a step has a value for each block of a weight.
pub(crate) fn check_step_shape<B: Backend>(step: &LearnedStep<B>, weight: [usize; 2]) -> Result<()> {
    if step.fits(weight) {
        return Ok(());
    }
    Err(Error::StepShape { got: step.step.dims(), weight, granularity: step.granularity() })
}

fn floats<B: Backend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
