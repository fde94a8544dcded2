//! The search for the null threshold that scores best.

use std::collections::HashMap;

use serde::Serialize;

use super::QuestionScore;
use crate::predictions::{NullProbabilities, Predictions};

/// The best scores that any threshold on the null probabilities gives, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BestThresholds {
    /// Best exact match.
    #[serde(rename = "best_exact")]
    pub exact: f64,
    /// The threshold that gives it.
    #[serde(rename = "best_exact_thresh")]
    pub exact_threshold: f64,
    /// Best F1.
    #[serde(rename = "best_f1")]
    pub f1: f64,
    /// The threshold that gives it.
    #[serde(rename = "best_f1_thresh")]
    pub f1_threshold: f64,
}

impl BestThresholds {
    /// Starts from the threshold that answers nothing and lets one question after the other be
    /// answered, the least likely null first.
    pub(super) fn search(
        scores: &[QuestionScore],
        predictions: &Predictions,
        null_probabilities: &NullProbabilities,
    ) -> Self {
        let by_id: HashMap<&str, &QuestionScore> = scores
            .iter()
            .filter(|score| predictions.get(&score.id).is_some())
            .map(|score| (score.id.as_str(), score))
            .collect();
        let mut in_order: Vec<(&str, f64)> =
            null_probabilities.in_order.iter().map(|(id, value)| (id.as_str(), *value)).collect();
        // Stable, as Python's sort: the order of the file decides between equals.
        in_order.sort_by(|a, b| a.1.total_cmp(&b.1));
        let best = |value: fn(&QuestionScore) -> f64| {
            let unanswerable = scores.iter().filter(|score| !score.has_answer).count();
            let mut current = unanswerable as f64;
            let (mut best, mut threshold) = (current, 0.0);
            for &(id, probability) in &in_order {
                let Some(&score) = by_id.get(id) else {
                    continue;
                };
                let is_answered = predictions.get(id).is_some_and(|answer| !answer.is_empty());
                current += match (score.has_answer, is_answered) {
                    (true, _) => value(score),
                    (false, true) => -1.0,
                    (false, false) => 0.0,
                };
                if current > best {
                    (best, threshold) = (current, probability);
                }
            }
            (100.0 * best / scores.len() as f64, threshold)
        };
        let (exact, exact_threshold) = best(|score| score.exact);
        let (f1, f1_threshold) = best(|score| score.f1);
        Self { exact, exact_threshold, f1, f1_threshold }
    }
}
