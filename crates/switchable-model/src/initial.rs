//! Random initial values that depend on the seed alone.

use rand::Rng;
use serde::{Deserialize, Serialize};

/// How random weights are drawn. What each means in numbers is the family's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialWeights {
    /// As those of the family's published models were.
    #[default]
    #[serde(rename = "gpt2")]
    Published,
    /// Queries and keys start equal, so that every head starts by attending to earlier occurrences of
    /// the same token.
    Matching,
}

/// Normal values with mean 0 by the Box–Muller transform.
pub fn normal_values(rng: &mut impl Rng, n: usize, standard_deviation: f64) -> Vec<f32> {
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn normal_values_have_their_mean_and_deviation() {
        let values = normal_values(&mut ChaCha8Rng::seed_from_u64(1), 40_001, 0.5);
        assert_eq!(values.len(), 40_001);
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let deviation = (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        // Four standard errors.
        assert!(mean.abs() < 4.0 * 0.5 / n.sqrt(), "{mean}");
        assert!((deviation - 0.5).abs() < 4.0 * 0.5 / (2.0 * n).sqrt(), "{deviation}");
    }
}
