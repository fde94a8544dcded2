//! A scale that is trained: learned step size quantisation (LSQ, Esser et al., arXiv:1902.08153).
//!
//! ```text
//! y = round(clamp(x / s, −Q, Q)) · s                     Q = 2^(b−1) − 1
//!
//! ∂y/∂x = 1                         if −Q < x/s < Q, else 0
//! ∂y/∂s = round(x/s) − x/s          if −Q < x/s < Q, else ±Q
//!
//! gradient of s multiplied by 1/√(N·Q)        s at the start: 2·mean|x| / √Q
//! ```
//!
//! `N` is the number of values that share a step. Forward and backward are one operation each of a
//! [`QuantBackend`]. The paper's signed range includes −2^(b−1); this
//! one is restricted, as [`Format::Symmetric`] is.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorPrimitive, backend::Backend},
};

use crate::{
    backends::{
        plain::{
            blocks::{reduce_blocks, sum_of},
            precision::widened,
            ranges::mark_of_non_finite,
        },
        quant_backend::QuantBackend,
    },
    error::{Error, Result},
    spec::{
        bit_width::BitWidth,
        formats::{code_book::largest_scale, format::Format},
        granularity::Granularity,
        step_quantizer::StepQuantizer,
    },
};

/// A quantiser whose step (scale) is a parameter that an optimizer trains.
///
/// ```
/// use burn::{backend::{Autodiff, Flex}, tensor::Tensor};
/// use quant_kernels::{BitWidth, Granularity, LearnedStep};
///
/// let weight = Tensor::<Autodiff<Flex>, 2>::from_floats(
///     [[0.9, -0.3], [-0.5, 0.1]],
///     &Default::default(),
/// );
/// let step = LearnedStep::new(&weight, BitWidth::B4, Granularity::PerChannel)?;
/// let loss = (step.forward(weight.clone()) - weight).square().sum();
/// let gradient = step.step.grad(&loss.backward()).unwrap();
/// assert_eq!(gradient.dims(), [1, 2]);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct LearnedStep<B: Backend> {
    /// The steps, `[1, 1]` per tensor, `[1, d_out]` per channel, `[groups, d_out]` per group.
    pub step: Param<Tensor<B, 2>>,
    bits: BitWidth,
    granularity: Granularity,
}

impl<B: Backend> LearnedStep<B> {
    /// Steps that start from the values of `x`, in f32 for values of 16 bits. Where those are all 0, the step starts
    /// at 1; where one is no finite number, it is NaN.
    ///
    /// # Shapes
    ///
    /// - `x` `[d_in, d_out]`
    ///
    /// # Errors
    ///
    /// [`Error::FullPrecision`] and [`Error::TooFewBits`] as [`Format::levels`] gives them, and
    /// [`Error::LearnedStep`] per token, whose rows change from call to call.
    pub fn new(x: &Tensor<B, 2>, bits: BitWidth, granularity: Granularity) -> Result<Self> {
        let levels = Format::Symmetric.levels(bits)?;
        if granularity == Granularity::PerToken {
            return Err(Error::LearnedStep { granularity });
        }
        let shape = granularity.param_shape(x.dims())?;
        let x = widened(x.clone().set_require_grad(false));
        let step = if x.shape().num_elements() == 0 {
            Tensor::ones(shape, (&x.device(), x.dtype()))
        } else {
            let initial = |block: Tensor<B, 3>| {
                let values = block.dims()[1] as f32;
                let step = sum_of(block.clone().abs()) * (2.0 / (values * (levels.high as f32).sqrt()));
                let zero = step.clone().equal_elem(0.0);
                // The sum of huge values may be infinite.
                let step = step.mask_fill(zero, 1.0).clamp_max(largest_scale(levels.high as f32));
                [step + mark_of_non_finite(&block)]
            };
            let [step] = reduce_blocks(x, granularity, shape, initial);
            step
        };
        Ok(Self { step: Param::from_tensor(step), bits, granularity })
    }

    /// Steps that are known already, such as those of a file.
    ///
    /// # Shapes
    ///
    /// - `step`: [`Granularity::param_shape`] of what will be quantised, which [`fits`](Self::fits) checks
    ///
    /// # Errors
    ///
    /// As [`LearnedStep::new`], and [`Error::StepValue`] for a step that is 0 or no finite number.
    ///
    /// ```
    /// use burn::{backend::Flex, tensor::Tensor};
    /// use quant_kernels::{BitWidth, Granularity, LearnedStep};
    ///
    /// let device = Default::default();
    /// let steps = Tensor::<Flex, 2>::from_floats([[0.5, 0.25]], &device);
    /// let step = LearnedStep::from_steps(steps, BitWidth::B3, Granularity::PerChannel)?;
    /// assert!(step.fits([7, 2]) && !step.fits([7, 3]));
    /// let y = step.forward(Tensor::<Flex, 2>::from_floats([[0.8, 0.8]], &device));
    /// assert_eq!(y.into_data().to_vec::<f32>().unwrap(), [1.0, 0.75]);
    /// # Ok::<(), quant_kernels::Error>(())
    /// ```
    pub fn from_steps(step: Tensor<B, 2>, bits: BitWidth, granularity: Granularity) -> Result<Self> {
        Format::Symmetric.levels(bits)?;
        if granularity == Granularity::PerToken {
            return Err(Error::LearnedStep { granularity });
        }
        let step = step.set_require_grad(false);
        let usable = |value: &f32| *value != 0.0 && value.is_finite();
        if let Some((index, got)) = step.to_data().iter::<f32>().enumerate().find(|(_, value)| !usable(value)) {
            return Err(Error::StepValue { index, got });
        }
        Ok(Self { step: Param::from_tensor(step), bits, granularity })
    }

    /// Whether there is one step for each block of a matrix `[d_in, d_out]`.
    pub fn fits(&self, dims: [usize; 2]) -> bool {
        self.granularity.param_shape(dims) == Ok(self.step.dims())
    }

    /// Checks that there is one step for each block of a weight `[d_in, d_out]`.
    ///
    /// # Errors
    ///
    /// [`Error::StepShape`].
    pub fn check_fits(&self, weight: [usize; 2]) -> Result<()> {
        if self.fits(weight) {
            return Ok(());
        }
        Err(Error::StepShape { got: self.step.dims(), weight, granularity: self.granularity })
    }

    /// The number of bits.
    pub fn bits(&self) -> BitWidth {
        self.bits
    }

    /// Which values share a step.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The quantised values of `x`, with gradients for `x` and for the step.
    ///
    /// A negative step quantises as its absolute value does. A step that has become 0 makes all its values NaN,
    /// so that a loss shows it. A NaN passes on, into the gradient of its step as well; an infinity is clipped.
    ///
    /// # Shapes
    ///
    /// - `x` and output: any shape per tensor, `[.., d_out]` per channel, the matrix shape of
    ///   [`LearnedStep::new`] per group
    ///
    /// # Panics
    ///
    /// If the steps do not fit the shape of `x`.
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D>
    where
        B: QuantBackend,
    {
        let dims = x.dims();
        let values = dims.iter().product::<usize>();
        if values == 0 {
            return x;
        }
        self.check_fit(dims);
        let columns = dims[D - 1];
        let primitive = |x: Tensor<B, 2>| x.into_primitive().tensor();
        let x = primitive(x.reshape([values / columns, columns]));
        let y = B::learned_step(x, primitive(self.step.val()), &self.quantizer(dims));
        Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(y)).reshape(dims)
    }

    /// What kernels are told for a tensor of shape `dims`.
    pub(crate) fn quantizer<const D: usize>(&self, dims: [usize; D]) -> StepQuantizer {
        StepQuantizer::new(self.bits, self.granularity, self.values_per_step(dims))
    }

    /// The number of values of a tensor of shape `dims` that share a step. The last, shorter group
    /// counts as a whole one.
    fn values_per_step<const D: usize>(&self, dims: [usize; D]) -> usize {
        let values = dims.iter().product::<usize>();
        match self.granularity {
            Granularity::PerTensor | Granularity::PerToken => values,
            Granularity::PerChannel => values / dims[D - 1],
            Granularity::PerGroup(size) => size.get().min(dims[D - 2]),
        }
    }

    /// # Panics
    ///
    /// If the steps do not fit a tensor of shape `dims`.
    pub(crate) fn check_fit<const D: usize>(&self, dims: [usize; D]) {
        let shape = self.step.dims();
        let fits = match self.granularity {
            Granularity::PerTensor | Granularity::PerToken => true,
            Granularity::PerChannel => D > 0 && dims[D - 1] == shape[1],
            Granularity::PerGroup(_) => {
                D == 2 && self.granularity.param_shape(dims).is_ok_and(|fit| fit[..] == shape[..])
            }
        };
        assert!(fits, "{} steps of shape {shape:?} do not fit a tensor of shape {dims:?}", self.granularity);
    }
}
