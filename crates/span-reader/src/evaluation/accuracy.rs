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
            exact_match_interval: Interval::wilson(exact, scores.len()).scaled(100.0),
            f1,
            f1_interval: Interval::of_mean(&overlaps).scaled(100.0),
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
