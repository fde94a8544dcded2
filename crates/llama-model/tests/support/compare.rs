//! Comparison of values with what they should be.

use burn::tensor::Tensor;
use quant_kernels::backends::quant_backend::QuantBackend;

/// How the fixtures are made again, should one of them be at fault.
const REGENERATE: &str = "crates/llama-model/tests/golden/make_golden.py";

/// The values of a tensor in row-major order.
pub(crate) fn values<B: QuantBackend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("data converted to f32 is f32")
}

/// The largest absolute difference; infinite where either side is not a number.
pub(crate) fn largest_difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len(), "different numbers of values");
    let difference = |(g, w): (&f32, &f32)| if (g - w).is_nan() { f32::INFINITY } else { (g - w).abs() };
    got.iter().zip(want).map(difference).fold(0.0, f32::max)
}

/// Asserts that values agree with those of a fixture.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert!(!want.is_empty(), "{what}: nothing to compare");
    let largest = largest_difference(got, want);
    assert!(
        largest <= tolerance,
        "{what}: largest difference {largest:e}, tolerance {tolerance:e}; \
         if the fixture is at fault, make it again with `python {REGENERATE}`"
    );
}

/// `‖got − expected‖ / ‖expected‖`.
pub(crate) fn relative_error(got: &[f32], expected: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(got, expected)| got - expected)) / norm(&mut expected.iter().copied())
}
