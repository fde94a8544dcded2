//! Random initial values that depend on the seed alone.
//!
//! ```text
//! gpt2:      w ~ N(0, r²),  r = initializer_range;  projections into the residual stream ÷ √(2·n_layer)
//! matching:  the same, but W_K = W_Q ~ N(0, β/(√w·d)),  position embedding ÷ 5
//! ```
//!
//! With equal query and key matrices the score of a normalised token with itself is `β` on average,
//! and with another token 0: every head starts by attending to earlier occurrences of the same
//! token. A small model that must bind a value to the entity it stands beside finds out how in a
//! fraction of the steps. This is the query-key part of mimetic initialisation (Trockman and
//! Kolter, arXiv:2305.09828), `w` the width of a head, `d` that of the residual stream, `β = 4`.

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::Gpt2Config;

/// How random weights are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialWeights {
    /// As GPT-2 was.
    #[default]
    Gpt2,
    /// Queries and keys start equal.
    Matching,
}

impl InitialWeights {
    /// Values of a parameter by its Hugging Face name.
    pub(crate) fn values(self, rng: &mut impl Rng, config: &Gpt2Config, name: &str, shape: &[usize]) -> Vec<f32> {
        let n = shape.iter().product();
        let range = config.initializer_range;
        if name.ends_with("bias") {
            vec![0.0; n]
        } else if name.contains("ln_") {
            vec![1.0; n]
        } else if name.ends_with("c_proj.weight") {
            normal_values(rng, n, range / (2.0 * config.n_layer as f64).sqrt())
        } else {
            match self {
                Self::Matching if name.ends_with("c_attn.weight") => matching(rng, config),
                Self::Matching if name.ends_with("wpe.weight") => normal_values(rng, n, range / 5.0),
                _ => normal_values(rng, n, range),
            }
        }
    }
}

/// `[d, 3d]` whose query and key columns are equal.
fn matching(rng: &mut impl Rng, config: &Gpt2Config) -> Vec<f32> {
    const SELF_SCORE: f64 = 4.0;
    let d = config.n_embd;
    let deviation = (SELF_SCORE / ((config.head_width() as f64).sqrt() * d as f64)).sqrt();
    let queries = normal_values(rng, d * d, deviation);
    let values = normal_values(rng, d * d, config.initializer_range);
    queries.chunks(d).zip(values.chunks(d)).flat_map(|(q, v)| [q, q, v].concat()).collect()
}

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

    #[test]
    fn matching_weights_have_equal_queries_and_keys_of_the_stated_score() {
        let config = Gpt2Config::new(50, 32, 64, 2, 4);
        let (d, name) = (config.n_embd, "transformer.h.0.attn.c_attn.weight");
        let draw = |kind: InitialWeights| kind.values(&mut ChaCha8Rng::seed_from_u64(2), &config, name, &[d, 3 * d]);
        let part = |row: &[f32], i: usize| row[i * d..(i + 1) * d].to_vec();
        for row in draw(InitialWeights::Matching).chunks(3 * d) {
            assert_eq!(part(row, 0), part(row, 1));
            assert_ne!(part(row, 0), part(row, 2));
        }
        assert!(draw(InitialWeights::Gpt2).chunks(3 * d).all(|row| part(row, 0) != part(row, 1)));
        // Score of a token of unit variance with itself in one head: ‖x·W‖²/√w, on average Σ W²/√w.
        let weights = draw(InitialWeights::Matching);
        let squares: f64 = weights.chunks(3 * d).flat_map(|row| part(row, 0)).map(|q| f64::from(q).powi(2)).sum();
        let score = squares / config.n_head as f64 / (config.head_width() as f64).sqrt();
        // Four standard errors of a sum of d² squares.
        assert!((score / 4.0 - 1.0).abs() < 4.0 * (2.0 / (d * d) as f64).sqrt(), "{score}");
    }
}
