//! How a layer's weight is quantised in one call.
//!
//! ```text
//! codes     u, s, z of  Rᵀ·W        values    R·Q(Rᵀ·W)        R = 1 where nothing is rotated
//! ```
//!
//! Values are those of the weight as it stands, so that whatever compares them with it, or adds an adapter, need not know
//! of the rotation; codes are multiplied by inputs that were rotated.

use std::sync::Arc;

use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    calibrated::{codes::Calibrated, input_moments::InputMoments},
    packed::{packed_tensor::PackedTensor, scales::ScaleFormat},
    rotation::hadamard::{Direction, HadamardTransform},
    spec::{
        bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec, range_estimator::RangeEstimator,
        rotation::Rotation, rounding_method::RoundingMethod,
    },
    tensor::{learned_step::LearnedStep, rotation::rotate_inputs, rounding::Rounding},
};

use crate::{
    adapter_step::{AdapterStep, StepVersion},
    error::Result,
};

/// How a layer's weight is quantised in one call: to a width, by the scales that its quantiser finds and a method,
/// or by the learned step of an adapter, as it stands or rotated.
#[derive(Debug)]
pub struct WeightRounding<'a, B: Backend> {
    pub(crate) bits: BitWidth,
    pub(crate) spec: QuantSpec,
    pub(crate) method: RoundingMethod,
    pub(crate) rotation: Rotation,
    pub(crate) moments: Option<&'a InputMoments>,
    pub(crate) step: Option<&'a AdapterStep<B>>,
}

/// What tells the quantised forms of one weight apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RoundingKey {
    pub(crate) bits: BitWidth,
    pub(crate) spec: QuantSpec,
    pub(crate) method: RoundingMethod,
    pub(crate) rotation: Rotation,
    /// The state of the learned step, if there is one.
    pub(crate) step: Option<StepVersion>,
}

#[expect(clippy::expl_impl_clone_on_copy, reason = "a derive would want the backend to be `Copy`")]
impl<B: Backend> Clone for WeightRounding<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for WeightRounding<'_, B> {}

impl<B: Backend> WeightRounding<'_, B> {
    pub(crate) fn key(self) -> RoundingKey {
        let Self { bits, spec, method, rotation, step, .. } = self;
        RoundingKey { bits, spec, method, rotation, step: step.map(AdapterStep::version) }
    }

    /// Whether more than each weight alone decides its code.
    pub(crate) fn is_calibrated(self) -> bool {
        self.method != RoundingMethod::Nearest || self.spec.range == RangeEstimator::Importance
    }

    /// Whether an optimizer may change it between calls.
    pub(crate) fn is_trained(self) -> bool {
        self.step.is_some_and(AdapterStep::is_trained)
    }
}

impl<B: QuantBackend> WeightRounding<'_, B> {
    /// The values of a weight after rounding, with the gradients of [`Rounding::apply`].
    ///
    /// # Shapes
    ///
    /// - `weight` and output `[d_in, d_out]`
    ///
    /// # Errors
    ///
    /// Those of [`Rounding::apply`], and of [`InputMoments::rotated`].
    pub fn apply(self, weight: Tensor<B, 2>, gradient: GradientRule) -> Result<Tensor<B, 2>> {
        let transform = self.transform(&weight);
        let values =
            self.of_rotated(weight, transform.as_deref(), |rounding, weight| rounding.apply(weight, gradient))?;
        Ok(match transform {
            Some(transform) => rotate_inputs(values, &transform, Direction::Back),
            None => values,
        })
    }

    /// The codes of a weight, rotated if it is.
    ///
    /// # Shapes
    ///
    /// - `weight` `[d_in, d_out]`
    ///
    /// # Errors
    ///
    /// Those of [`Rounding::pack`], and of [`InputMoments::rotated`].
    pub fn pack(self, weight: &Tensor<B, 2>, scale_format: ScaleFormat) -> Result<PackedTensor> {
        let transform = self.transform(weight);
        self.of_rotated(weight.clone(), transform.as_deref(), |rounding, weight| rounding.pack(&weight, scale_format))
    }

    /// The scales of a weight, as [`Rounding::scales`] has them.
    ///
    /// # Shapes
    ///
    /// - `weight` `[d_in, d_out]`
    ///
    /// # Errors
    ///
    /// Those of [`Rounding::scales`], and of [`InputMoments::rotated`].
    pub fn scales(self, weight: &Tensor<B, 2>) -> Result<Vec<f32>> {
        let transform = self.transform(weight);
        self.of_rotated(weight.clone(), transform.as_deref(), |rounding, weight| rounding.scales(&weight))
    }

    /// What the scales are those of: the weight, or the weight rotated.
    pub(crate) fn rotated(self, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.transform(&weight) {
            Some(transform) => rotate_inputs(weight, &transform, Direction::There),
            None => weight,
        }
    }

    /// The values of a weight after rounding by a step that no adapter has yet.
    pub(crate) fn apply_step(self, weight: Tensor<B, 2>, step: &LearnedStep<B>) -> Tensor<B, 2> {
        match self.transform(&weight) {
            Some(transform) => {
                let rotated = rotate_inputs(weight, &transform, Direction::There);
                rotate_inputs(step.forward(rotated), &transform, Direction::Back)
            }
            None => step.forward(weight),
        }
    }

    /// The rotation of the inputs of a weight, if they are rotated.
    fn transform(self, weight: &Tensor<B, 2>) -> Option<Arc<HadamardTransform>> {
        let [d_in, _] = weight.dims();
        HadamardTransform::of(self.rotation, d_in)
    }

    fn of_rotated<T>(
        self,
        weight: Tensor<B, 2>,
        transform: Option<&HadamardTransform>,
        round: impl FnOnce(Rounding<'_, B>, Tensor<B, 2>) -> quant_kernels::Result<T>,
    ) -> Result<T> {
        let Some(transform) = transform else { return Ok(round(self.rounding(self.moments), weight)?) };
        let rotated = rotate_inputs(weight, transform, Direction::There);
        let moments = match self.moments.filter(|_| self.step.is_none() && self.is_calibrated()) {
            Some(moments) => Some(moments.rotated(transform)?),
            None => None,
        };
        Ok(round(self.rounding(moments.as_ref()), rotated)?)
    }

    /// The rounding of a weight whose inputs have the moments.
    fn rounding<'b>(self, moments: Option<&'b InputMoments>) -> Rounding<'b, B>
    where
        Self: 'b,
    {
        let Self { bits, spec, method, step, .. } = self;
        match step {
            Some(step) => Rounding::Step(step.get()),
            None if self.is_calibrated() => Rounding::Calibrated(Calibrated { bits, spec, method, moments }),
            None => Rounding::Nearest { bits, spec },
        }
    }
}
