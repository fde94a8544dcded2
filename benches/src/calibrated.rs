//! Rounding that knows the inputs, of two matrices of GPT-2 small.

use switchable_quant::burn::tensor::Tensor;
use switchable_quant::kernels::{
    Granularity, InputMoments, QuantBackend, QuantSpec, RangeEstimator, RoundingMethod, ScaleFormat,
    calibrated::codes::Calibrated, tensor::rounding::Rounding,
};

use crate::answer::{matrix, width};
use crate::case::{Case, Unit};

const SHAPES: [[usize; 2]; 2] = [[768, 3072], [3072, 768]];
const HOW: [(RoundingMethod, RangeEstimator); 5] = [
    (RoundingMethod::Nearest, RangeEstimator::Mse),
    (RoundingMethod::Nearest, RangeEstimator::Importance),
    (RoundingMethod::Hqq, RangeEstimator::MinMax),
    (RoundingMethod::Gptq, RangeEstimator::MinMax),
    (RoundingMethod::Gptq, RangeEstimator::Importance),
];

/// Rows of inputs that the moments are of.
const INPUTS: usize = 4096;

pub(crate) fn cases<B: QuantBackend>(device: &B::Device) -> Vec<Case> {
    HOW.iter().flat_map(|how| SHAPES.map(|shape| case::<B>(*how, shape, device))).collect()
}

/// GPTQ errs less than rounding to the nearest, by the moments.
fn case<B: QuantBackend>(
    (method, range): (RoundingMethod, RangeEstimator),
    shape: [usize; 2],
    device: &B::Device,
) -> Case {
    let [d_in, d_out] = shape;
    let id = format!("calibrated/{method}/{range}/{d_in}x{d_out}");
    let amount = ((d_in * d_out * size_of::<f32>()) as u64, Unit::Bytes);
    let device = device.clone();
    Case::new(id.clone(), amount, move || {
        let weight = matrix::<B>(shape, &device);
        let moments = moments::<B>(d_in, &device);
        let spec = QuantSpec { range, ..QuantSpec::default().with_granularity(Granularity::PerChannel) };
        let run = move |method| {
            let how = Calibrated { bits: width(4), spec, method, moments: Some(&moments) };
            Rounding::Calibrated(how).pack(&weight, ScaleFormat::F32).expect("it packs").dequantize()
        };
        if method == RoundingMethod::Gptq {
            assert!(run(method) != run(RoundingMethod::Nearest), "{id}: the codes of rounding to the nearest");
        }
        move || drop(std::hint::black_box(run(method)))
    })
}

/// Moments of inputs that depend on each other, as those of a layer do.
fn moments<B: QuantBackend>(d_in: usize, device: &B::Device) -> InputMoments {
    let mixed = matrix::<B>([INPUTS, d_in], device).matmul(matrix::<B>([d_in, d_in], device));
    let read = |x: Tensor<B, 2>| x.into_data().iter::<f32>().collect::<Vec<f32>>();
    let second = read(mixed.clone().transpose().matmul(mixed.clone()).div_scalar(INPUTS as f32));
    let (mean, largest) = (read(mixed.clone().mean_dim(0)), read(mixed.abs().max_dim(0)));
    InputMoments::new(second, mean, largest, INPUTS as u64).expect("finite inputs")
}
