//! Random initial values that depend on the seed alone.
//!
//! ```text
//! published: w ~ N(0, r²),  r = initializer_range;  projections into the residual stream ÷ √(2·n_layer)
//! matching:  the same, but W_K = W_Q ~ N(0, β/(√w·d)),  position embedding ÷ 5
//! ```
//!
//! With equal query and key matrices the score of a normalised token with itself is `β` on average,
//! and with another token 0: every head starts by attending to earlier occurrences of the same
//! token. A small model that must bind a value to the entity it stands beside finds out how in a
//! fraction of the steps. This is the query-key part of mimetic initialisation (Trockman and
//! Kolter, arXiv:2305.09828), `w` the width of a head, `d` that of the residual stream, `β = 4`.

use rand::Rng;

use switchable_model::initial::{InitialWeights, normal_values};

use crate::config::Gpt2Config;

/// Values of a parameter by its Hugging Face name.
pub(crate) fn initial_values(
    config: &Gpt2Config,
    initial: InitialWeights,
    rng: &mut impl Rng,
    name: &str,
    shape: &[usize],
) -> Vec<f32> {
    let n = shape.iter().product();
    let range = config.initializer_range;
    if name.ends_with("bias") {
        vec![0.0; n]
    } else if name.contains("ln_") {
        vec![1.0; n]
    } else if name.ends_with("c_proj.weight") {
        normal_values(rng, n, range / (2.0 * config.n_layer as f64).sqrt())
    } else {
        match initial {
            InitialWeights::Matching if name.ends_with("c_attn.weight") => matching(rng, config),
            InitialWeights::Matching if name.ends_with("wpe.weight") => normal_values(rng, n, range / 5.0),
            _ => normal_values(rng, n, range),
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn matching_weights_have_equal_queries_and_keys_of_the_stated_score() {
        let config = Gpt2Config::new(50, 32, 64, 2, 4);
        let (d, name) = (config.n_embd, "transformer.h.0.attn.c_attn.weight");
        let draw =
            |kind: InitialWeights| initial_values(&config, kind, &mut ChaCha8Rng::seed_from_u64(2), name, &[d, 3 * d]);
        let part = |row: &[f32], i: usize| row[i * d..(i + 1) * d].to_vec();
        for row in draw(InitialWeights::Matching).chunks(3 * d) {
            assert_eq!(part(row, 0), part(row, 1));
            assert_ne!(part(row, 0), part(row, 2));
        }
        assert!(draw(InitialWeights::Published).chunks(3 * d).all(|row| part(row, 0) != part(row, 1)));
        // Score of a token of unit variance with itself in one head: ‖x·W‖²/√w, on average Σ W²/√w.
        let weights = draw(InitialWeights::Matching);
        let squares: f64 = weights.chunks(3 * d).flat_map(|row| part(row, 0)).map(|q| f64::from(q).powi(2)).sum();
        let score = squares / config.n_head as f64 / (config.head_width() as f64).sqrt();
        // Four standard errors of a sum of d² squares.
        assert!((score / 4.0 - 1.0).abs() < 4.0 * (2.0 / (d * d) as f64).sqrt(), "{score}");
    }
}
