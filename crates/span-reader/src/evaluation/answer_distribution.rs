//! The distribution of a span's ends, or of the next token: its loss against the gold answer and its divergence from another.
//!
//! ```text
//! p(i)     = exp(zᵢ) / Σⱼ exp(zⱼ)                     over the positions where an answer may stand
//! loss     = −½ · (log p_start(i*) + log p_end(j*))   mean over the windows that hold a gold span
//! KL(p‖q)  = Σᵢ p(i) · (log p(i) − log q(i))          p of the reference, q of the changed plan
//! diverge  = ½ · (KL_start + KL_end)                  mean over all windows, in nats
//! ```
//!
//! Where answers are generated the distributions are those of the next token over the vocabulary, at each token of the
//! first gold answer behind the prompt and at the end of its line: both are means over these, then over the questions.
//!
//! Source: Kullback and Leibler, *On Information and Sufficiency*, Annals of Mathematical Statistics
//! 1951. All sums are in `f64`, from logits in `f32`.

use squad_data::Batch;

/// Scores that answers are chosen by: of the starts and of the ends of a batch of windows, each window by window; or of the
/// next token at every token of one gold answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnswerScores {
    pub(crate) rows: Vec<Vec<f32>>,
}

impl AnswerScores {
    /// Those of starts and of ends.
    fn of_spans(&self) -> [&[f32]; 2] {
        [&self.rows[0], &self.rows[1]]
    }

    /// Mean cross-entropy of the tokens of a gold answer in nats.
    pub(crate) fn loss_of(&self, answer: &[u32]) -> f64 {
        let losses = self.rows.iter().zip(answer).map(|(scores, &token)| {
            let all = vec![true; scores.len()];
            negative_log_probability(scores, &all, token as usize)
        });
        losses.sum::<f64>() / answer.len() as f64
    }

    /// Mean divergence of the next token at the tokens of a gold answer from a reference, in nats.
    pub(crate) fn divergence_from(&self, reference: &Self) -> f64 {
        let rows = reference.rows.iter().zip(&self.rows);
        let divergences = rows.map(|(p, q)| kl_divergence(p, q, &vec![true; p.len()]));
        divergences.sum::<f64>() / self.rows.len() as f64
    }
}

/// Mean cross-entropy of the gold spans over the windows that hold one.
#[derive(Debug, Default)]
pub(crate) struct MeanLoss {
    sum: f64,
    windows: usize,
}

impl MeanLoss {
    pub(crate) fn add(&mut self, batch: &Batch, scores: &AnswerScores) {
        for row in 0..batch.batch {
            let (first, last) = (batch.starts[row], batch.ends[row]);
            let (Ok(first), Ok(last)) = (usize::try_from(first), usize::try_from(last)) else { continue };
            let range = row * batch.len..(row + 1) * batch.len;
            let allowed = &batch.answerable[range.clone()];
            let side = |logits: &[f32], target: usize| negative_log_probability(logits, allowed, target);
            let [start, end] = scores.of_spans();
            self.sum += 0.5 * (side(&start[range.clone()], first) + side(&end[range], last));
            self.windows += 1;
        }
    }

    /// `None` when no window holds a gold span.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.windows > 0).then(|| self.sum / self.windows as f64)
    }
}

/// Mean divergence from a reference over all windows.
#[derive(Debug, Default)]
pub(crate) struct MeanDivergence {
    sum: f64,
    windows: usize,
}

impl MeanDivergence {
    pub(crate) fn add(&mut self, batch: &Batch, reference: &AnswerScores, changed: &AnswerScores) {
        for row in 0..batch.batch {
            let range = row * batch.len..(row + 1) * batch.len;
            let allowed = &batch.answerable[range.clone()];
            let side = |p: &[f32], q: &[f32]| kl_divergence(&p[range.clone()], &q[range.clone()], allowed);
            let ([start, end], [changed_start, changed_end]) = (reference.of_spans(), changed.of_spans());
            self.sum += 0.5 * (side(start, changed_start) + side(end, changed_end));
            self.windows += 1;
        }
    }

    pub(crate) fn mean(&self) -> f64 {
        self.sum / self.windows.max(1) as f64
    }
}

/// `log Σ exp` of the logits of the allowed positions.
fn log_sum_exp(logits: &[f32], allowed: &[bool]) -> f64 {
    let scores = || logits.iter().zip(allowed).filter(|(_, allowed)| **allowed).map(|(logit, _)| f64::from(*logit));
    let max = scores().fold(f64::NEG_INFINITY, f64::max);
    max + scores().map(|score| (score - max).exp()).sum::<f64>().ln()
}

/// `−log softmax(logits)[target]` over the allowed positions.
fn negative_log_probability(logits: &[f32], allowed: &[bool], target: usize) -> f64 {
    log_sum_exp(logits, allowed) - f64::from(logits[target])
}

/// `KL(softmax(p) ‖ softmax(q))` over the allowed positions; infinite where only `q` excludes one.
fn kl_divergence(p: &[f32], q: &[f32], allowed: &[bool]) -> f64 {
    let (p_total, q_total) = (log_sum_exp(p, allowed), log_sum_exp(q, allowed));
    let terms = p.iter().zip(q).zip(allowed).filter(|(_, allowed)| **allowed).map(|((p, q), _)| {
        let (p, q) = (f64::from(*p) - p_total, f64::from(*q) - q_total);
        // The limit of p·log p at 0, where the product itself would be 0·∞.
        if p.exp() == 0.0 { 0.0 } else { p.exp() * (p - q) }
    });
    // Rounding can leave a sum of nearly equal distributions just below the bound of 0.
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::{kl_divergence, negative_log_probability};

    #[test]
    fn probability_is_over_the_allowed_positions() {
        let logits = [9.0, 0.0, 3f32.ln(), 900.0];
        let loss = negative_log_probability(&logits, &[false, true, true, false], 2);
        assert!((loss - (4.0f64 / 3.0).ln()).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn divergence_is_that_of_the_allowed_positions_worked_out_by_hand() {
        // p = (1/4, 3/4) and q = (1/2, 1/2): KL = ¼·log ½ + ¾·log 3/2.
        let (p, q) = ([7.0, 0.0, 3f32.ln()], [-3.0, 5.0, 5.0]);
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        let found = kl_divergence(&p, &q, &[false, true, true]);
        assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        let back = kl_divergence(&q, &p, &[false, true, true]);
        assert!((back - 0.5 * (2.0f64.ln() + (2.0f64 / 3.0).ln())).abs() < 1e-7, "{back}");
    }

    #[test]
    fn divergence_does_not_depend_on_the_level_of_the_logits() {
        let all = [true; 3];
        for (p, q) in [([1.0, 2.0, 3.0], [5.0, 6.0, 7.0]), ([3e38, 0.0, 0.0], [3e38, -3e38, 0.0])] {
            let found = kl_divergence(&p, &q, &all);
            assert!((0.0..1e-12).contains(&found), "{found}");
        }
        let found = kl_divergence(&[1000.0, 0.0, f32::NEG_INFINITY], &[0.0, 0.0, f32::NEG_INFINITY], &all);
        assert!((found - 2.0f64.ln()).abs() < 1e-12, "{found}");
        assert!(kl_divergence(&[0.0, 0.0], &[0.0, f32::NEG_INFINITY], &all[..2]).is_infinite());
    }
}
