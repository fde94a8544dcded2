//! The step that training starts from.

use burn::tensor::{Tensor, TensorData};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::formats::format::Format,
    tensor::{learned_step::LearnedStep, params::choose_params},
};

use crate::{
    error::{Error, Result},
    weight_rounding::WeightRounding,
};

/// The step that training starts from: that of [`LearnedStep::new`] or the scale that the quantiser finds,
/// whichever leaves the smaller squared error. The former is far too wide at many bits, the latter at
/// few. Scales that more than the weights decided are taken as they are.
///
/// # Shapes
///
/// - `weight` `[d_in, d_out]`
///
/// # Errors
///
/// [`Error::StepFormat`] for an asymmetric quantiser; [`Error::Quantisation`] at full precision, at 1
/// bit, for rows that change from call to call, and for ranges that need moments which are not there.
pub(crate) fn starting_step<B: QuantBackend>(
    weight: &Tensor<B, 2>,
    rounding: WeightRounding<'_, B>,
) -> Result<LearnedStep<B>> {
    let WeightRounding { bits, spec, .. } = rounding;
    if spec.format != Format::Symmetric {
        return Err(Error::StepFormat { format: spec.format });
    }
    let weight = weight.clone().set_require_grad(false);
    let from_scales = |scales| LearnedStep::from_steps(scales, bits, spec.granularity);
    if rounding.is_calibrated() {
        let shape = spec.granularity.param_shape(weight.dims())?;
        let scales = TensorData::new(rounding.scales(&weight)?, shape);
        return Ok(from_scales(Tensor::from_data(scales, &weight.device()))?);
    }
    let weight = rounding.rotated(weight);
    let by_mean = LearnedStep::new(&weight, bits, spec.granularity)?;
    let by_range = from_scales(choose_params(&weight, bits, &spec)?.scale())?;
    let squared_error = |step: &LearnedStep<B>| {
        let error = step.forward(weight.clone()).set_require_grad(false) - weight.clone();
        error.square().sum().into_data().iter::<f64>().sum::<f64>()
    };
    Ok(if squared_error(&by_range) < squared_error(&by_mean) { by_range } else { by_mean })
}
