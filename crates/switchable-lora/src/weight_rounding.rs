//! How a layer's weight is quantised in one call.

use burn::tensor::backend::Backend;

use quant_kernels::{
    calibrated::{codes::Calibrated, input_moments::InputMoments},
    spec::{
        bit_width::BitWidth, quant_spec::QuantSpec, range_estimator::RangeEstimator, rounding_method::RoundingMethod,
    },
    tensor::rounding::Rounding,
};

use crate::adapter_step::{AdapterStep, StepVersion};

/// How a layer's weight is quantised in one call: to a width, by the scales that its quantiser finds and a method,
/// or by the learned step of an adapter.
#[derive(Debug)]
pub(crate) struct WeightRounding<'a, B: Backend> {
    pub(crate) bits: BitWidth,
    pub(crate) spec: QuantSpec,
    pub(crate) method: RoundingMethod,
    pub(crate) moments: Option<&'a InputMoments>,
    pub(crate) step: Option<&'a AdapterStep<B>>,
}

/// What tells the quantised forms of one weight apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RoundingKey {
    pub(crate) bits: BitWidth,
    pub(crate) spec: QuantSpec,
    pub(crate) method: RoundingMethod,
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

impl<'a, B: Backend> WeightRounding<'a, B> {
    /// The rounding itself.
    pub(crate) fn rounding(self) -> Rounding<'a, B> {
        match self.step {
            Some(step) => Rounding::Step(step.get()),
            None if self.is_calibrated() => {
                let Self { bits, spec, method, moments, .. } = self;
                Rounding::Calibrated(Calibrated { bits, spec, method, moments })
            }
            None => Rounding::Nearest { bits: self.bits, spec: self.spec },
        }
    }

    pub(crate) fn key(self) -> RoundingKey {
        let Self { bits, spec, method, step, .. } = self;
        RoundingKey { bits, spec, method, step: step.map(AdapterStep::version) }
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
