//! How a weight becomes codes.
//!
//! ```text
//! nearest         u = clamp(round(W / s) + z)      s, z: what the quantiser finds
//! learned step    u = clamp(round(W / s))          s: a step that was trained
//! calibrated      u, s, z: chosen together, with what is known of the inputs ([`calibrated`](crate::calibrated))
//! ```
//!
//! A rounding gives the weight's values, with gradients, or its codes. A further one is a variant here and
//! a function from a weight to [`Coded`].

use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::{
    backends::quant_backend::QuantBackend,
    calibrated::codes::Calibrated,
    error::Result,
    packed::{coded::Coded, packed_spec::PackedSpec, packed_tensor::PackedTensor, scales::ScaleFormat},
    spec::{
        bit_width::BitWidth, formats::format::Format, gradient_rule::GradientRule, quant_spec::QuantSpec,
        rounding_method::RoundingMethod,
    },
    tensor::{fake_quantize::fake_quantize, learned_step::LearnedStep, params::choose_params},
};

/// How a weight becomes codes.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use quant_kernels::{BitWidth, Granularity, LearnedStep, QuantSpec, Rounding, ScaleFormat};
///
/// let weight = Tensor::<Flex, 2>::from_floats([[0.7, -0.3], [0.1, 0.6]], &Default::default());
/// let nearest = Rounding::Nearest { bits: BitWidth::B4, spec: QuantSpec::default() };
/// assert_eq!(nearest.pack(&weight, ScaleFormat::F32)?.level(0, 0), 7);
///
/// let step = Tensor::<Flex, 2>::from_floats([[0.25]], &Default::default());
/// let step = LearnedStep::from_steps(step, BitWidth::B4, Granularity::PerTensor)?;
/// let packed = Rounding::Step(&step).pack(&weight, ScaleFormat::F32)?;
/// assert_eq!(packed.dequantize(), step.forward(weight).into_data().to_vec::<f32>().unwrap());
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Rounding<'a, B: Backend> {
    /// To the nearest code under the scales that a quantiser finds.
    Nearest {
        /// The number of bits.
        bits: BitWidth,
        /// How the scales are found.
        spec: QuantSpec,
    },
    /// To the nearest code under learned steps, which become the scales.
    Step(&'a LearnedStep<B>),
    /// By a method that may know the inputs. Its values carry no gradient: it is for weights that are not trained. Those
    /// of [`RoundingMethod::Nested`] pass gradients through unchanged.
    Calibrated(Calibrated<'a>),
}

#[expect(clippy::expl_impl_clone_on_copy, reason = "a derive would want the backend to be `Copy`")]
impl<B: Backend> Clone for Rounding<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Rounding<'_, B> {}

impl<B: QuantBackend> Rounding<'_, B> {
    /// The number of bits.
    pub fn bits(self) -> BitWidth {
        match self {
            Self::Nearest { bits, .. } => bits,
            Self::Step(step) => step.bits(),
            Self::Calibrated(calibrated) => calibrated.bits,
        }
    }

    /// The values of the weight after rounding. Gradients are those of [`fake_quantize`] under the rule, or
    /// of [`LearnedStep::forward`].
    ///
    /// # Shapes
    ///
    /// - `weight` and output `[d_in, d_out]`
    ///
    /// # Errors
    ///
    /// Those of [`QuantSpec::check`].
    pub fn apply(self, weight: Tensor<B, 2>, gradient: GradientRule) -> Result<Tensor<B, 2>> {
        match self {
            Self::Nearest { bits, spec } => fake_quantize(weight, bits, &spec, gradient),
            Self::Step(step) => Ok(step.forward(weight)),
            Self::Calibrated(calibrated) if calibrated.is_coded() => {
                let values = calibrated.code(&weight, ScaleFormat::F32)?.to_floats();
                let values = Tensor::from_data(TensorData::new(values, weight.dims()), &weight.device());
                Ok(match calibrated.method {
                    // The difference is 0, and its gradient that of the weight.
                    RoundingMethod::Nested => values + (weight.clone() - weight.detach()),
                    RoundingMethod::Nearest | RoundingMethod::Hqq | RoundingMethod::Gptq => values,
                })
            }
            Self::Calibrated(calibrated) => {
                fake_quantize(weight, calibrated.bits, &calibrated.nearest_spec(), gradient)
            }
        }
    }

    /// The codes of a weight, and the scales that stand for them. Scales that f16 does not hold to its 11 bits, below
    /// 6.1e-5 or above 65504, are f32 whatever was asked for: [`PackedSpec::scale_format`] of the result says which.
    ///
    /// # Shapes
    ///
    /// - `weight` `[d_in, d_out]`
    ///
    /// # Errors
    ///
    /// Those of [`PackedSpec::check`] and [`Coded::nearest`], and [`Error::StepShape`](crate::error::Error::StepShape) if the steps are for
    /// a weight of another shape.
    pub fn code(self, weight: &Tensor<B, 2>, scale_format: ScaleFormat) -> Result<Coded> {
        let shape = weight.dims();
        let (spec, scales, zero_points) = match self {
            Self::Calibrated(calibrated) => return calibrated.code(weight, scale_format),
            Self::Nearest { bits, spec } => {
                let QuantSpec { granularity, format, .. } = spec;
                let packed = PackedSpec { shape, bits, format, granularity, scale_format };
                packed.check()?;
                let params = choose_params(weight, bits, &spec)?;
                (packed, params.scale(), params.zero_point())
            }
            Self::Step(step) => {
                step.check_fits(shape)?;
                let (bits, granularity) = (step.bits(), step.granularity());
                // A step quantises as its absolute value does.
                let spec = PackedSpec { shape, bits, format: Format::Symmetric, granularity, scale_format };
                (spec, step.step.val().abs(), None)
            }
        };
        // A NaN, of a block that holds one, is caught with its scale or its weight.
        let zero_points =
            zero_points.map_or_else(Vec::new, |zeros| floats(zeros).into_iter().map(|z| z as u8).collect());
        let scales = floats(scales);
        let spec = PackedSpec { scale_format: scale_format.that_holds(&scales), ..spec };
        Coded::nearest(spec, &floats(weight.clone()), &scales, &zero_points)
    }

    /// The scales of a weight, before they are stored, row-major in the shape of
    /// [`Granularity::param_shape`](crate::spec::granularity::Granularity::param_shape).
    ///
    /// # Shapes
    ///
    /// - `weight` `[d_in, d_out]`
    ///
    /// # Errors
    ///
    /// Those of [`QuantSpec::check`], and [`Error::StepShape`](crate::error::Error::StepShape) if the steps are for a weight of another
    /// shape.
    pub fn scales(self, weight: &Tensor<B, 2>) -> Result<Vec<f32>> {
        let scales = match self {
            Self::Nearest { bits, spec } => choose_params(weight, bits, &spec)?.scale(),
            Self::Step(step) => {
                step.check_fits(weight.dims())?;
                step.step.val().abs()
            }
            Self::Calibrated(calibrated) => return Ok(calibrated.code(weight, ScaleFormat::F32)?.scales()),
        };
        Ok(floats(scales))
    }

    /// [`code`](Self::code), packed.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn pack(self, weight: &Tensor<B, 2>, scale_format: ScaleFormat) -> Result<PackedTensor> {
        self.code(weight, scale_format).map(Coded::pack)
    }
}

fn floats<B: Backend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
