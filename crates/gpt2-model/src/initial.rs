//! Random initial values that depend on the seed alone.

use rand::Rng;

/// Normal values with mean 0 by the Box–Muller transform.
pub(crate) fn normal_values(rng: &mut impl Rng, n: usize, standard_deviation: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(n + 1);
    while values.len() < n {
        // 1 − u lies in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * standard_deviation;
        let (sin, cos) = (2.0 * std::f64::consts::PI * rng.random::<f64>()).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(n);
    values
}
