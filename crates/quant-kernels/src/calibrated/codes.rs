//! From a weight to codes, by a method and a quantiser.

use burn::tensor::Tensor;

use super::{
    gptq::Gptq, hqq::half_quadratic_params, importance::weighted_params, input_moments::InputMoments,
    level_grid::LevelGrid, output_range::Start,
};
use crate::{
    backends::quant_backend::QuantBackend,
    cpu::range_search::Params,
    error::{Error, Result},
    packed::{coded::Coded, packed_spec::PackedSpec, scales::ScaleFormat},
    spec::{
        bit_width::BitWidth, quant_spec::QuantSpec, range_estimator::RangeEstimator, rounding_method::RoundingMethod,
    },
    tensor::params::choose_params,
};

/// How a weight is rounded with what is known of its inputs.
#[derive(Debug, Clone, Copy)]
pub struct Calibrated<'a> {
    /// The number of bits.
    pub bits: BitWidth,
    /// How scales are found.
    pub spec: QuantSpec,
    /// How codes are found.
    pub method: RoundingMethod,
    /// What is known of the inputs.
    pub moments: Option<&'a InputMoments>,
}

impl Calibrated<'_> {
    /// Whether there are codes of the width: others are rounded to the nearest level, which at 9 bits and more costs
    /// nothing that a method could win back.
    pub(crate) fn is_coded(self) -> bool {
        (2..=8).contains(&self.bits.bits())
    }

    /// The quantiser of widths without codes.
    pub(crate) fn nearest_spec(self) -> QuantSpec {
        match self.spec.range {
            RangeEstimator::Importance => self.spec.with_range(RangeEstimator::Mse),
            _ => self.spec,
        }
    }

    /// The codes of a weight `[d_in, d_out]`.
    pub(crate) fn code<B: QuantBackend>(self, weight: &Tensor<B, 2>, scale_format: ScaleFormat) -> Result<Coded> {
        let QuantSpec { granularity, format, .. } = self.spec;
        let spec = PackedSpec { shape: weight.dims(), bits: self.bits, format, granularity, scale_format };
        spec.check()?;
        let weights: Vec<f32> = weight.to_data().iter::<f32>().collect();
        let [d_in, d_out] = spec.shape;
        if let Some(at) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(Error::PackedWeight { row: at / d_out, column: at % d_out, got: weights[at] });
        }
        if let Some(got) = self.moments.map(InputMoments::d_in).filter(|&got| got != d_in) {
            return Err(Error::MomentsOfInputs { got, expected: d_in });
        }
        let found = self.params(&spec, weight, &weights)?;
        match self.method {
            RoundingMethod::Nearest => LevelGrid::new(spec, &found)?.nearest(&weights),
            RoundingMethod::Hqq => {
                LevelGrid::new(spec, &half_quadratic_params(&spec, &weights, &found)?)?.nearest(&weights)
            }
            RoundingMethod::Nested => {
                let eight = Calibrated { bits: BitWidth::B8, method: RoundingMethod::Nearest, ..self };
                eight.code(weight, ScaleFormat::F32)?.cut_to(self.bits, scale_format)
            }
            RoundingMethod::Gptq => {
                let gptq = Gptq::new(self.expect_moments("rounding `gptq`")?)?;
                let start = Start { spec, weights: &weights, params: &found };
                let params = if self.spec.range.is_searched() { start.fitted(&gptq)? } else { found };
                let grid = LevelGrid::new(spec, &params)?;
                let codes = gptq.round(&grid, &weights, d_out).codes;
                grid.coded(codes)
            }
        }
    }

    /// The parameters that the quantiser finds for each scale.
    fn params<B: QuantBackend>(self, spec: &PackedSpec, weight: &Tensor<B, 2>, weights: &[f32]) -> Result<Vec<Params>> {
        if self.spec.range == RangeEstimator::Importance {
            let moments = self.expect_moments("range `importance`")?;
            return weighted_params(spec, weights, &moments.importance().collect::<Vec<_>>());
        }
        let found = choose_params(weight, self.bits, &self.spec)?;
        let scales: Vec<f32> = found.scale().into_data().iter::<f32>().collect();
        let zeros = found.zero_point().map(|zeros| zeros.into_data().iter::<f32>().collect::<Vec<f32>>());
        let zero = |index| zeros.as_ref().map_or(0.0, |zeros: &Vec<f32>| zeros[index]);
        Ok(scales.into_iter().enumerate().map(|(index, scale)| Params { scale, zero: zero(index) }).collect())
    }

    fn expect_moments(&self, what: &'static str) -> Result<&InputMoments> {
        self.moments.ok_or(Error::Uncalibrated { what })
    }
}
