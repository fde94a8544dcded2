//! Generation of text, one token at a time with a KV cache.
//!
//! ```text
//! greedy:   xₜ₊₁ = argmax z,    sampled:   xₜ₊₁ ~ softmax(z/τ) over the k best
//! ```
//!
//! Source of top-k sampling: Fan, Lewis and Dauphin, arXiv:1805.04833.

use burn::tensor::{Int, Tensor, TensorData};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use quant_kernels::backends::quant_backend::QuantBackend;

use crate::error::{Error, Result};
use crate::kv_cache::KvCache;
use crate::model::SwitchableModel;
use crate::parameters::floats;
use crate::site_plan::SitePlan;

/// How the next token is chosen from its scores.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Sampling {
    /// The most probable token; of equals, the first.
    #[default]
    Greedy,
    /// A draw from the `top_k` most probable tokens at a temperature.
    TopK {
        /// Candidates, at least 1.
        top_k: usize,
        /// Divides the scores; above 0.
        temperature: f32,
        /// Seed of the draws.
        seed: u64,
    },
}

/// Length and choice of generated tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// How each is chosen.
    pub sampling: Sampling,
    /// Tokens that end the text; they are not returned.
    pub stop: Vec<u32>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_new_tokens: 32, sampling: Sampling::Greedy, stop: Vec::new() }
    }
}

/// Text from a model.
///
/// It is implemented for every model.
pub trait Generate<B: QuantBackend>: SwitchableModel<B> {
    /// Checks token ids before they reach an embedding look-up.
    ///
    /// # Errors
    ///
    /// When there are none, more than the model's positions, or one outside the vocabulary.
    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let shape = self.shape();
        if ids.is_empty() || ids.len() > shape.positions {
            return Err(Error::SequenceLength { got: ids.len(), positions: shape.positions });
        }
        match ids.iter().position(|&id| id as usize >= shape.vocabulary) {
            Some(position) => Err(Error::TokenId { id: ids[position], position, vocab_size: shape.vocabulary }),
            None => Ok(()),
        }
    }

    /// Continues a prompt and returns the new tokens alone.
    ///
    /// Generation ends at a stop token, at `max_new_tokens`, or when the model's positions are full.
    ///
    /// # Errors
    ///
    /// When the prompt is empty, too long or outside the vocabulary, an option is out of range, or the plan
    /// is one that [`check_plan`](SwitchableModel::check_plan) refuses.
    fn generate(&self, prompt: &[u32], options: &GenerateOptions, plan: &SitePlan) -> Result<Vec<u32>> {
        self.check_ids(prompt)?;
        self.check_plan(plan)?;
        let mut chooser = Chooser::new(options.sampling)?;
        let (device, shape) = (self.device(), self.shape());
        let capacity = prompt.len().saturating_add(options.max_new_tokens).min(shape.positions);
        let mut cache = KvCache::new(&shape, 1, capacity, &device);
        let mut generated = Vec::new();
        let mut next = prompt.to_vec();
        while generated.len() < options.max_new_tokens && cache.len() + next.len() <= capacity {
            let ids: Vec<i64> = next.iter().map(|&id| i64::from(id)).collect();
            let tokens = ids.len();
            let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, vec![1, tokens]), &device);
            let hidden = self.forward_cached(ids, &mut cache, plan);
            let last = hidden.slice([0..1, tokens - 1..tokens, 0..shape.width]);
            let token = chooser.choose(&floats(self.next_token_scores(last, plan).into_data()));
            if options.stop.contains(&token) {
                break;
            }
            generated.push(token);
            next = vec![token];
        }
        Ok(generated)
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> Generate<B> for M {}

/// Chooses tokens and keeps the state of the draws.
enum Chooser {
    Greedy,
    TopK { top_k: usize, temperature: f32, rng: Box<ChaCha8Rng> },
}

impl Chooser {
    fn new(sampling: Sampling) -> Result<Self> {
        let fault = |field, got: String, expected| Err(Error::Option { field, got, expected });
        match sampling {
            Sampling::Greedy => Ok(Self::Greedy),
            Sampling::TopK { top_k: 0, .. } => fault("top_k", "0".into(), "at least 1"),
            Sampling::TopK { temperature, .. } if !(temperature > 0.0 && temperature.is_finite()) => {
                fault("temperature", temperature.to_string(), "a finite number above 0")
            }
            Sampling::TopK { top_k, temperature, seed } => {
                Ok(Self::TopK { top_k, temperature, rng: Box::new(ChaCha8Rng::seed_from_u64(seed)) })
            }
        }
    }

    fn choose(&mut self, scores: &[f32]) -> u32 {
        match self {
            Self::Greedy => argmax(scores) as u32,
            Self::TopK { top_k, temperature, rng } => {
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                order.truncate(*top_k);
                let best = scores[order[0]];
                let weights: Vec<f64> =
                    order.iter().map(|&i| f64::from((scores[i] - best) / *temperature).exp()).collect();
                let mut draw = rng.random::<f64>() * weights.iter().sum::<f64>();
                for (&token, weight) in order.iter().zip(&weights) {
                    draw -= weight;
                    if draw < 0.0 {
                        return token as u32;
                    }
                }
                order[0] as u32
            }
        }
    }
}

fn argmax(scores: &[f32]) -> usize {
    scores.iter().enumerate().fold(0, |best, (i, &score)| if score > scores[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(argmax(&[0.0, 2.0, 2.0, 1.0]), 1);
    }

    #[test]
    fn samples_stay_within_the_best_and_follow_their_probabilities() {
        let sampling = Sampling::TopK { top_k: 2, temperature: 1.0, seed: 3 };
        let mut chooser = Chooser::new(sampling).unwrap();
        let scores = [0.0, 3f32.ln(), -5.0, -9.0];
        let mut counts = [0usize; 4];
        for _ in 0..4000 {
            counts[chooser.choose(&scores) as usize] += 1;
        }
        assert_eq!(counts[2] + counts[3], 0);
        // 3:1; three standard deviations of 4000 draws are 82.
        assert!((2918..=3082).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn options_out_of_range_are_errors() {
        for (top_k, temperature, field) in [(0, 1.0, "top_k"), (1, 0.0, "temperature"), (1, f32::NAN, "temperature")] {
            let error = Chooser::new(Sampling::TopK { top_k, temperature, seed: 0 }).err().expect("an error");
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
