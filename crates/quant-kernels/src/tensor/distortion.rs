//! What quantisation cost.
//!
//! ```text
//! mse      = Σ (x − y)² / n
//! sqnr     = 10 · log10(Σ x² / Σ (x − y)²)     in decibels
//! max      = max |x − y|
//! ```

use burn::tensor::{Tensor, TensorData, backend::Backend};

/// The difference between a tensor and its quantised form.
///
/// It is summed on the host in f64, element by element, so that it does not depend on the backend.
/// A NaN in either tensor makes all three figures NaN.
///
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// use quant_kernels::Distortion;
///
/// let device = Default::default();
/// let x = Tensor::<Flex, 1>::from_floats([3.0, -4.0], &device);
/// let y = Tensor::<Flex, 1>::from_floats([3.0, -3.5], &device);
/// let distortion = Distortion::between(&x, &y);
/// assert_eq!(distortion.mse, 0.125);
/// assert_eq!(distortion.max_abs_error, 0.5);
/// assert!((distortion.sqnr_db - 20.0).abs() < 1e-9); // 25 / 0.25 = 10²
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distortion {
    /// Mean squared error; 0 for an empty tensor.
    pub mse: f64,
    /// Signal to quantisation noise ratio in decibels; infinite when there is no noise.
    pub sqnr_db: f64,
    /// The largest absolute error.
    pub max_abs_error: f64,
}

impl Distortion {
    /// The distortion of a whole tensor.
    ///
    /// # Shapes
    ///
    /// - `original`, `quantised`: the same
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn between<B: Backend, const D: usize>(original: &Tensor<B, D>, quantised: &Tensor<B, D>) -> Self {
        let mut sums = Sums::default();
        for (x, y) in pairs(original, quantised) {
            sums.add(x, y);
        }
        sums.finish()
    }

    /// The distortion of each channel, the columns of a weight `[d_in, d_out]`.
    ///
    /// # Shapes
    ///
    /// - `original`, `quantised`: the same, `[.., channels]`
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    ///
    /// ```
    /// use burn::{backend::Flex, tensor::Tensor};
    /// use quant_kernels::Distortion;
    ///
    /// let device = Default::default();
    /// let x = Tensor::<Flex, 2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device);
    /// let y = Tensor::<Flex, 2>::from_floats([[1.0, 2.5], [3.0, 4.0]], &device);
    /// let [first, second] = Distortion::per_channel(&x, &y)[..] else { unreachable!() };
    /// assert_eq!((first.mse, second.mse), (0.0, 0.125));
    /// ```
    pub fn per_channel<B: Backend, const D: usize>(original: &Tensor<B, D>, quantised: &Tensor<B, D>) -> Vec<Self> {
        let channels = original.dims().last().copied().unwrap_or(1);
        let mut sums = vec![Sums::default(); channels];
        for (index, (x, y)) in pairs(original, quantised).enumerate() {
            sums[index % channels].add(x, y);
        }
        sums.into_iter().map(Sums::finish).collect()
    }
}

/// The elements of two tensors side by side.
fn pairs<B: Backend, const D: usize>(
    original: &Tensor<B, D>,
    quantised: &Tensor<B, D>,
) -> impl Iterator<Item = (f64, f64)> {
    let (original_shape, quantised_shape) = (original.dims(), quantised.dims());
    assert_eq!(original_shape, quantised_shape, "distortion needs tensors of one shape");
    let values = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
    values(original.to_data()).into_iter().zip(values(quantised.to_data()))
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: usize,
    signal: f64,
    noise: f64,
    max_abs_error: f64,
}

impl Sums {
    fn add(&mut self, x: f64, y: f64) {
        let error = (x - y).abs();
        self.count += 1;
        self.signal += x * x;
        self.noise += error * error;
        // `f64::max` would drop a NaN.
        if error.is_nan() || error > self.max_abs_error {
            self.max_abs_error = error;
        }
    }

    fn finish(self) -> Distortion {
        Distortion {
            mse: self.noise / self.count.max(1) as f64,
            sqnr_db: if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() },
            max_abs_error: self.max_abs_error,
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use burn::backend::{Flex, flex::FlexDevice};

    use super::*;

    fn tensor(values: &[f32]) -> Tensor<Flex, 1> {
        Tensor::from_floats(values, &FlexDevice)
    }

    #[test]
    fn equal_tensors_have_no_noise_and_empty_ones_neither() {
        for values in [&[1.0, -2.0, 0.0][..], &[]] {
            let distortion = Distortion::between(&tensor(values), &tensor(values));
            let clean = Distortion { mse: 0.0, sqnr_db: f64::INFINITY, max_abs_error: 0.0 };
            assert_eq!(distortion, clean);
        }
    }

    #[test]
    fn a_nan_shows_in_every_figure() {
        let distortion = Distortion::between(&tensor(&[1.0, 2.0]), &tensor(&[f32::NAN, 2.0]));
        assert!(distortion.mse.is_nan());
        assert!(distortion.sqnr_db.is_nan());
        assert!(distortion.max_abs_error.is_nan());
    }

    #[test]
    fn noise_on_a_silent_signal_is_minus_infinity_decibels() {
        let distortion = Distortion::between(&tensor(&[0.0]), &tensor(&[0.5]));
        assert_eq!(distortion.sqnr_db, f64::NEG_INFINITY);
    }

    #[test]
    fn channel_errors_average_to_the_tensor_error() {
        let device = FlexDevice;
        let x = Tensor::<Flex, 2>::from_floats([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
        let y = Tensor::<Flex, 2>::from_floats([[1.5, 2.0, 2.0], [4.0, 5.25, 6.0]], &device);
        let channels = Distortion::per_channel(&x, &y);
        let mean = channels.iter().map(|c| c.mse).sum::<f64>() / 3.0;
        assert!((mean - Distortion::between(&x, &y).mse).abs() < 1e-15);
        assert_eq!(channels[2].max_abs_error, 1.0);
    }
}
