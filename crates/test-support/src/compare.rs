//! Comparison of values with what they should be.

use burn::tensor::{Tensor, backend::Backend};

/// The values of a tensor in row-major order.
///
/// # Panics
///
/// If they are not converted to f32.
pub fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("data converted to f32 is f32")
}

/// The largest absolute difference; infinite where either side is not a number.
///
/// # Panics
///
/// If there are more values on one side.
pub fn largest_difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len(), "different numbers of values");
    let difference = |(g, w): (&f32, &f32)| if (g - w).is_nan() { f32::INFINITY } else { (g - w).abs() };
    got.iter().zip(want).map(difference).fold(0.0, f32::max)
}

/// Asserts that values agree with those of a fixture.
///
/// # Panics
///
/// If one of them is further from its fixture's than the tolerance, or there are none.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert!(!want.is_empty(), "{what}: nothing to compare");
    let largest = largest_difference(got, want);
    assert!(
        largest <= tolerance,
        "{what}: largest difference {largest:e}, tolerance {tolerance:e}; \
         if the fixture is at fault, make it again with `tests/golden/make_golden.py` of its crate"
    );
}

/// `‖got − expected‖ / ‖expected‖`.
pub fn relative_error(got: &[f32], expected: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(got, expected)| got - expected)) / norm(&mut expected.iter().copied())
}
