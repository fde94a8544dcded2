//! The scalar of a window, or of a prompt with its answer, whose gradient is taken.

use burn::tensor::{Tensor, TensorData};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::evaluation::reading::{BatchTensors, scores};
use switchable_model::loss::{answer_loss, span_loss};
use switchable_model::span_head::SpanLogits;

use crate::search::allocation::damage::DamageMeasure;

/// Score of a position where no answer can start or end: its probability is zero in f32.
const IMPOSSIBLE: f64 = -1e9;

/// What is differentiated for one window.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerGradient {
    pub(super) measure: DamageMeasure,
    pub(super) seed: u64,
    /// Number of the window, so that its signs are its own.
    pub(super) window: usize,
}

impl AnswerGradient {
    /// The scalar of a window.
    ///
    /// # Shapes
    ///
    /// `logits`: `[1, tokens]` each; `[1]` out.
    pub(super) fn of_spans<B: QuantAutodiffBackend>(
        self,
        logits: SpanLogits<B>,
        batch: &BatchTensors<B>,
    ) -> Tensor<B, 1> {
        let masked = |logits: Tensor<B, 2>| logits.mask_fill(batch.unanswerable.clone(), IMPOSSIBLE);
        let (start, end) = (masked(logits.start), masked(logits.end));
        match self.measure {
            DamageMeasure::Loss => span_loss(start, end, batch.starts.clone(), batch.ends.clone()),
            DamageMeasure::Divergence => {
                let mut rng = self.rng();
                // Where no answer may stand the direction is 0; the score there is finite.
                along(start, &mut rng) + along(end, &mut rng)
            }
        }
    }

    /// The scalar of a prompt with its answer.
    ///
    /// # Shapes
    ///
    /// `logits`: `[tokens of the answer, vocabulary]`; `[1]` out.
    pub(super) fn of_tokens<B: QuantAutodiffBackend>(self, logits: Tensor<B, 2>, answer: &[u32]) -> Tensor<B, 1> {
        match self.measure {
            DamageMeasure::Loss => answer_loss(logits, answer),
            DamageMeasure::Divergence => along(logits, &mut self.rng()),
        }
    }

    fn rng(self) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.window as u64);
        rng
    }
}

/// The sum of the scores of some distributions along a random direction of each.
///
/// # Shapes
///
/// `logits`: `[distributions, classes]`; `[1]` out.
fn along<B: QuantAutodiffBackend>(logits: Tensor<B, 2>, rng: &mut ChaCha8Rng) -> Tensor<B, 1> {
    let [_, classes] = logits.dims();
    let values = scores(logits.clone().inner());
    let directions = values.chunks(classes).flat_map(|row| root_of_curvature(row, rng)).collect();
    let directions = Tensor::from_data(TensorData::new::<f32, _>(directions, logits.dims()), &logits.device());
    (logits * directions).sum()
}

/// `√p ⊙ ε − p · ⟨√p, ε⟩` for random signs ε, with `p = softmax(logits)`: its covariance is `diag(p) − p pᵀ`.
fn root_of_curvature(logits: &[f32], rng: &mut ChaCha8Rng) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits.iter().map(|logit| f64::from(logit - max).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    let signed_roots: Vec<f64> = exponentials
        .iter()
        .map(|exponential| (exponential / total).sqrt() * if rng.random_bool(0.5) { 1.0 } else { -1.0 })
        .collect();
    // `⟨√p, ε⟩`: the roots have their signs already.
    let product: f64 = signed_roots.iter().sum();
    exponentials
        .iter()
        .zip(signed_roots)
        .map(|(exponential, root)| (root - exponential / total * product) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_covariance_is_the_curvature_of_the_divergence() {
        let logits = [0.3f32, -1.0, 2.0, 0.1];
        let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let p: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp() / total).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let draws: Vec<Vec<f32>> = (0..40_000).map(|_| root_of_curvature(&logits, &mut rng)).collect();
        for i in 0..4 {
            for j in 0..4 {
                let products = draws.iter().map(|draw| f64::from(draw[i]) * f64::from(draw[j]));
                let found = products.sum::<f64>() / draws.len() as f64;
                let expected = if i == j { p[i] } else { 0.0 } - p[i] * p[j];
                assert!((found - expected).abs() < 0.005, "{i} {j}: {found} {expected}");
            }
        }
    }
}
