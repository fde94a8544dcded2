//! Accuracy of one plan on one set of questions, with its uncertainty.

use serde::{Deserialize, Serialize};

use squad_data::QuestionScore;

use crate::statistics::{Interval, PairedComparison};

/// Exact match and F1 in percent with 95 % intervals, the loss of the gold spans and the divergence
/// from a reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Questions answered exactly, percent.
    pub exact_match: f64,
    /// Wilson interval of the exact match, percent.
    pub exact_match_interval: Interval,
    /// Mean token overlap with the best gold answer, percent.
    pub f1: f64,
    /// Interval of the F1, percent; that of the exact match where every answer is right or shares no word.
    pub f1_interval: Interval,
    /// Mean cross-entropy of the gold spans in nats; `None` when no window holds a gold span.
    pub loss: Option<f64>,
    /// Mean KL divergence of the answer distributions from those of the reference plan in nats;
    /// `None` for a plan evaluated without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// Number of questions.
    pub n: usize,
    /// Scores of each question, for paired comparisons; not saved.
    #[serde(skip)]
    pub scores: Vec<QuestionScore>,
}

impl Accuracy {
    /// From EM and F1 in percent, and the scores of single questions.
    pub fn new(exact_match: f64, f1: f64, scores: Vec<QuestionScore>, loss: Option<f64>) -> Self {
        let exact = scores.iter().filter(|score| score.exact > 0.5).count();
        let overlaps: Vec<f64> = scores.iter().map(|score| score.f1).collect();
        Self {
            exact_match,
            // The official scripts multiply by 100 before they divide, which may round to another number.
            exact_match_interval: Interval::wilson(exact, scores.len()).scaled(100.0).holding(exact_match),
            f1,
            f1_interval: Interval::of_mean(&overlaps).scaled(100.0).holding(f1),
            loss,
            divergence: None,
            n: scores.len(),
            scores,
        }
    }

    /// Exact match of another configuration on the same questions minus this one's, in fractions.
    ///
    /// # Panics
    ///
    /// When the two are not of the same questions.
    pub fn compare(&self, other: &Self, seed: u64) -> PairedComparison {
        let exact = |accuracy: &Self| accuracy.scores.iter().map(|score| score.exact).collect::<Vec<_>>();
        PairedComparison::new(&exact(self), &exact(other), seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accuracy_lies_within_its_interval_to_the_last_bit() {
        for n in 1..200 {
            for f1 in [1.0, 2.0 / 3.0, 0.1, 0.8] {
                let score = |i: usize| QuestionScore { id: i.to_string(), exact: 1.0, f1, has_answer: true };
                let scores: Vec<QuestionScore> = (0..n).map(score).collect();
                // As the official scripts have it: the sum times 100, by the number of questions.
                let percent = 100.0 * scores.iter().map(|score| score.f1).sum::<f64>() / n as f64;
                let accuracy = Accuracy::new(100.0, percent, scores, None);
                assert!(accuracy.f1_interval.contains(accuracy.f1), "{n} of {f1}: {accuracy:?}");
                assert!(accuracy.exact_match_interval.contains(accuracy.exact_match), "{n}: {accuracy:?}");
            }
        }
    }
}
