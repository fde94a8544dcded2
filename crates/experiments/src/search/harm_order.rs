//! Which of two plans does less harm.
//!
//! ```text
//! exact match   higher EM, then higher F1, then lower loss
//! loss          lower loss of the gold spans, then higher EM, then higher F1
//! divergence    lower KL from the reference, then lower loss
//! ```
//!
//! Exact match is what the study reports, but changes of a single site often leave it as it is. Loss
//! and divergence tell such sites apart; divergence needs no gold answers.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use span_reader::evaluation::accuracy::Accuracy;

/// The figure that plans are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HarmOrder {
    /// Exact match, then F1, then loss.
    #[default]
    ExactMatch,
    /// Loss, then exact match, then F1.
    Loss,
    /// Divergence from the reference, then loss.
    Divergence,
}

impl HarmOrder {
    /// `Less` when the first does less harm. A figure that neither has decides nothing.
    ///
    /// ```
    /// # use std::cmp::Ordering;
    /// use experiments::search::harm_order::HarmOrder;
    /// use span_reader::evaluation::accuracy::Accuracy;
    ///
    /// # let json = r#"{"exact_match": 80.0, "exact_match_interval": {"low": 72.0, "high": 86.0}, "f1": 84.0,
    /// #     "f1_interval": {"low": 78.0, "high": 90.0}, "loss": 0.7, "n": 120}"#;
    /// let a: Accuracy = serde_json::from_str(json)?;
    /// let b = Accuracy { f1: 85.0, loss: Some(0.8), ..a.clone() };
    /// assert_eq!(HarmOrder::ExactMatch.compare(&a, &b), Ordering::Greater);
    /// assert_eq!(HarmOrder::Loss.compare(&a, &b), Ordering::Less);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn compare(self, a: &Accuracy, b: &Accuracy) -> Ordering {
        let exact_match = || b.exact_match.total_cmp(&a.exact_match).then(b.f1.total_cmp(&a.f1));
        let loss = || compare_figures(a.loss, b.loss);
        match self {
            Self::ExactMatch => exact_match().then_with(loss),
            Self::Loss => loss().then_with(exact_match),
            Self::Divergence => compare_figures(a.divergence, b.divergence).then_with(loss),
        }
    }
}

/// The lower first, and what is known before what is not.
fn compare_figures(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => b.is_some().cmp(&a.is_some()),
    }
}
