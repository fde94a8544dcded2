//! What a layer's inputs are like.

use crate::{
    error::{Error, Result},
    rotation::hadamard::HadamardTransform,
};

/// Statistics of the inputs of a layer over some rows: what calibration knows.
///
/// ```text
/// H = XᵀX / n          mean_i = Σ x_i / n          largest_i = max |x_i|
/// ```
///
/// ```
/// use quant_kernels::InputMoments;
///
/// let moments = InputMoments::new(vec![4.0, 1.0, 1.0, 1.0], vec![0.5, 0.0], vec![3.0, 2.0], 10)?;
/// assert_eq!(moments.importance().collect::<Vec<_>>(), [4.0, 1.0]);
/// assert!(InputMoments::new(vec![f32::NAN], vec![0.0], vec![0.0], 1).is_err());
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct InputMoments {
    second: Vec<f32>,
    mean: Vec<f32>,
    largest: Vec<f32>,
    rows: u64,
}

impl InputMoments {
    /// Takes statistics that were collected.
    ///
    /// # Shapes
    ///
    /// - `second`: `[d_in, d_in]`, row-major
    /// - `mean`, `largest`: `[d_in]`
    ///
    /// # Errors
    ///
    /// [`Error::Moments`] where there are no rows, a number is not finite, or a square's mean or a magnitude is
    /// below 0.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit each other.
    pub fn new(second: Vec<f32>, mean: Vec<f32>, largest: Vec<f32>, rows: u64) -> Result<Self> {
        let d_in = mean.len();
        assert_eq!(second.len(), d_in * d_in, "second moments of {d_in} inputs");
        assert_eq!(largest.len(), d_in, "largest magnitudes of {d_in} inputs");
        if rows == 0 {
            return Err(Error::Moments { what: "number of rows", index: 0, got: 0.0, expected: "at least 1" });
        }
        let moments = Self { second, mean, largest, rows };
        let fault = |what, values: &[f32], is_good: fn(f32) -> bool, expected| match values
            .iter()
            .position(|&value| !is_good(value))
        {
            Some(index) => Err(Error::Moments { what, index, got: values[index], expected }),
            None => Ok(()),
        };
        fault("second moment", &moments.second, f32::is_finite, "a finite number")?;
        fault("mean", &moments.mean, f32::is_finite, "a finite number")?;
        let magnitude = |value: f32| value.is_finite() && value >= 0.0;
        fault("largest magnitude", &moments.largest, magnitude, "a finite number of at least 0")?;
        let squares: Vec<f32> = moments.importance().collect();
        fault("mean square of input", &squares, magnitude, "a finite number of at least 0")?;
        Ok(moments)
    }

    /// The number of inputs.
    pub fn d_in(&self) -> usize {
        self.mean.len()
    }

    /// The rows that were seen.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// `H`, `[d_in, d_in]` in row-major order.
    pub fn second(&self) -> &[f32] {
        &self.second
    }

    /// The mean of each input.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The largest magnitude of each input.
    pub fn largest(&self) -> &[f32] {
        &self.largest
    }

    /// The mean square of each input, `diag(H)`: how much an error of its weights counts.
    pub fn importance(&self) -> impl Iterator<Item = f32> {
        self.second.iter().step_by(self.d_in() + 1).copied()
    }

    /// The moments of the inputs divided by factors: `H_ij / (s_i s_j)`, the others divided by `s_i`.
    ///
    /// # Shapes
    ///
    /// - `factors`: `[d_in]`
    ///
    /// # Errors
    ///
    /// [`Error::Moments`] where a quotient is not finite.
    ///
    /// # Panics
    ///
    /// If there are more or fewer factors than inputs.
    ///
    /// ```
    /// use quant_kernels::InputMoments;
    ///
    /// let moments = InputMoments::new(vec![4.0, 1.0, 1.0, 1.0], vec![0.5, 0.0], vec![3.0, 2.0], 10)?;
    /// let divided = moments.divided_by(&[2.0, 0.5])?;
    /// assert_eq!((divided.second(), divided.mean()), ([1.0, 1.0, 1.0, 4.0].as_slice(), [0.25, 0.0].as_slice()));
    /// assert_eq!(divided.largest(), [1.5, 4.0]);
    /// # Ok::<(), quant_kernels::Error>(())
    /// ```
    pub fn divided_by(&self, factors: &[f32]) -> Result<Self> {
        let d_in = self.d_in();
        assert_eq!(factors.len(), d_in, "factors of {d_in} inputs");
        let each = |values: &[f32]| values.iter().zip(factors).map(|(value, factor)| value / factor).collect();
        let row = |(index, row): (usize, &[f32])| {
            let quotients: Vec<f32> = each(row);
            quotients.into_iter().map(move |quotient| quotient / factors[index])
        };
        let second = self.second.chunks_exact(d_in.max(1)).enumerate().flat_map(row).collect();
        Self::new(second, each(&self.mean), each(&self.largest), self.rows)
    }

    /// The moments of the inputs rotated: `Rᵀ·H·R` and `mean·R`. The largest magnitudes are bounds, those of inputs
    /// that are all at their largest together.
    ///
    /// # Errors
    ///
    /// [`Error::Moments`] where a sum is not finite.
    ///
    /// # Panics
    ///
    /// If the rotation is of another number of inputs.
    ///
    /// ```
    /// use quant_kernels::{HadamardTransform, InputMoments, Rotation};
    ///
    /// let moments = InputMoments::new(vec![4.0, 0.0, 0.0, 0.0], vec![2.0, 0.0], vec![2.0, 0.0], 10)?;
    /// let transform = HadamardTransform::of(Rotation::Hadamard(0), 2).unwrap();
    /// let rotated = moments.rotated(&transform)?;
    /// assert!(rotated.importance().all(|square| (square - 2.0).abs() < 1e-6));
    /// assert!(rotated.largest().iter().all(|largest| (largest - 2f32.sqrt()).abs() < 1e-6));
    /// # Ok::<(), quant_kernels::Error>(())
    /// ```
    pub fn rotated(&self, transform: &HadamardTransform) -> Result<Self> {
        let d_in = self.d_in();
        assert_eq!(transform.width(), d_in, "a rotation of {d_in} inputs");
        let mut second = transform.rotated(&transposed(transform.rotated(&self.second), d_in));
        // Equal on both sides of the diagonal, as it was, and no mean of squares below 0 by rounding.
        for row in 0..d_in {
            for column in 0..row {
                second[row * d_in + column] = second[column * d_in + row];
            }
            second[row * (d_in + 1)] = second[row * (d_in + 1)].max(0.0);
        }
        let [order, power] = transform.orders();
        let block = order * power;
        let bound = |inputs: &[f32]| inputs.iter().sum::<f32>() / (block as f32).sqrt();
        let largest = self.largest.chunks(block).flat_map(|inputs| vec![bound(inputs); inputs.len()]).collect();
        Self::new(second, transform.rotated(&self.mean), largest, self.rows)
    }

    /// The bytes that they occupy.
    pub fn bytes(&self) -> usize {
        (self.second.len() + self.mean.len() + self.largest.len()) * size_of::<f32>()
    }
}

/// A square matrix with rows and columns exchanged.
fn transposed(mut matrix: Vec<f32>, size: usize) -> Vec<f32> {
    for row in 0..size {
        for column in 0..row {
            matrix.swap(row * size + column, column * size + row);
        }
    }
    matrix
}
