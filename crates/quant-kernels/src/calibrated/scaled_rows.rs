//! Factors for the rows of a weight, which what computes its inputs is divided by.
//!
//! ```text
//! AWQ           s_i = x_i^α,   x_i = √H_ii                     arXiv:2306.00978
//! SmoothQuant   s_i = m_i^α / w_i^(1−α),   m_i = max |x_i|,  w_i = max_j |W_ij|       arXiv:2211.10438
//! normalised    s ← s / √(max s · min s)
//!
//! error         tr((W − Ŵ)ᵀ H (W − Ŵ)),   Ŵ = diag(s)⁻¹·Q(diag(s)·W·diag(t)⁻¹)·diag(t)
//! ```
//!
//! `t` are the factors that the layer's own outputs are divided by. AWQ raises the mean of `|x_i|` to the power; the root of the mean square is in the moments already, and is what an
//! error of the row's weights is multiplied by in the output. A common factor of all rows changes no code: scales take
//! it up. Normalised, factors are far from the ends of f32.

use burn::tensor::{Tensor, TensorData};

use super::codes::Calibrated;
use crate::{
    backends::quant_backend::QuantBackend,
    error::{Error, Result},
    spec::{gradient_rule::GradientRule, rounding_method::RoundingMethod},
    tensor::rounding::Rounding,
};

/// The least magnitude of an input, of that of the largest: what is smaller in calibration may be so by chance.
const LEAST: f32 = 1e-4;

/// AWQ's factors for magnitudes of the inputs.
///
/// ```
/// use quant_kernels::calibrated::scaled_rows::awq_factors;
///
/// assert_eq!(awq_factors(&[4.0, 1.0], 1.0), [2.0, 0.5]);
/// assert_eq!(awq_factors(&[4.0, 1.0], 0.0), [1.0, 1.0]);
/// ```
pub fn awq_factors(magnitudes: &[f32], alpha: f32) -> Vec<f32> {
    let largest = magnitudes.iter().copied().fold(0.0, f32::max);
    if largest == 0.0 {
        return vec![1.0; magnitudes.len()];
    }
    let power = |magnitude: &f32| (magnitude / largest).max(LEAST).powf(alpha);
    normalised(&magnitudes.iter().map(power).collect::<Vec<_>>())
}

/// `SmoothQuant`'s factors for the largest magnitudes of the inputs and of the weights of each. An input that was
/// always 0, or whose weights are, has the factor 1.
///
/// ```
/// use quant_kernels::calibrated::scaled_rows::smooth_factors;
///
/// // Inputs and weights meet half-way: 8 and 0.5 become 2 and 2.
/// assert_eq!(smooth_factors(&[8.0, 2.0], &[0.5, 2.0], 0.5), [2.0, 0.5]);
/// ```
pub fn smooth_factors(inputs: &[f32], weights: &[f32], alpha: f32) -> Vec<f32> {
    let factor = |(&input, &weight): (&f32, &f32)| {
        if input > 0.0 && weight > 0.0 { input.powf(alpha) / weight.powf(1.0 - alpha) } else { 0.0 }
    };
    normalised(&inputs.iter().zip(weights).map(factor).collect::<Vec<_>>())
}

/// Positive numbers about 1; those that are not positive become 1.
fn normalised(factors: &[f32]) -> Vec<f32> {
    let positive = || factors.iter().copied().filter(|&factor| factor > 0.0);
    let (low, high) = positive().fold((f32::INFINITY, 0.0_f32), |(low, high), f| (low.min(f), high.max(f)));
    let middle = low.sqrt() * high.sqrt();
    factors.iter().map(|&factor| if factor > 0.0 { factor / middle } else { 1.0 }).collect()
}

/// What a weight stands between: its rows are multiplied and its columns divided by factors; none are ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct Between<'a> {
    /// `[d_in]`.
    pub rows: Option<&'a [f32]>,
    /// `[d_out]`.
    pub columns: Option<&'a [f32]>,
}

impl Calibrated<'_> {
    /// The error of the outputs of a weight that is rounded between factors, in units of the outputs without.
    ///
    /// # Shapes
    ///
    /// - `weight`: `[d_in, d_out]`
    ///
    /// # Errors
    ///
    /// [`Error::Uncalibrated`] without moments, and those of rounding.
    pub fn scaled_error<B: QuantBackend>(self, weight: &Tensor<B, 2>, between: Between<'_>) -> Result<f64> {
        let moments = self.moments.ok_or(Error::Uncalibrated { what: "scaling `awq`" })?;
        let ([d_in, d_out], device) = (weight.dims(), weight.device());
        if moments.d_in() != d_in {
            return Err(Error::MomentsOfInputs { got: moments.d_in(), expected: d_in });
        }
        let tensor =
            |values: &[f32], shape| Tensor::<B, 2>::from_data(TensorData::new(values.to_vec(), shape), &device);
        let ones = |factors: Option<&[f32]>, count| factors.map_or_else(|| vec![1.0; count], <[f32]>::to_vec);
        let (rows, columns) = (ones(between.rows, d_in), ones(between.columns, d_out));
        let divided = moments.divided_by(&rows)?;
        let factors = tensor(&rows, [d_in, 1]) / tensor(&columns, [1, d_out]);
        let Self { bits, spec, method, .. } = self;
        let rounding = if method == RoundingMethod::Nearest && !method.needs_moments(spec) {
            Rounding::Nearest { bits, spec }
        } else {
            Rounding::Calibrated(Calibrated { moments: Some(&divided), ..self })
        };
        let rounded = rounding.apply(weight.clone() * factors.clone(), GradientRule::default())? / factors;
        let error = weight.clone() - rounded;
        let second = tensor(moments.second(), [d_in, d_in]);
        let of_outputs = (second.matmul(error.clone()) * error).sum_dim(0).into_data();
        Ok(of_outputs.iter::<f64>().sum())
    }
}
