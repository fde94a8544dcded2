//! Exact match and F1, equal to the official evaluation scripts to the last digit.
//!
//! ```text
//! normalise(s) = collapse spaces ∘ drop a, an, the ∘ drop ASCII punctuation ∘ lower case
//! exact(p, g)  = 1 if normalise(p) = normalise(g), else 0
//! f1(p, g)     = 2PR / (P + R)    P = |p ∩ g| / |p|,  R = |p ∩ g| / |g|,  as bags of words
//! score(q)     = max over the gold answers g of q
//! total        = 100 · Σ score / number of questions
//! ```
//!
//! Equal to the last digit means: the same operations on `f64` in the same order, and Python's
//! ideas of white space and of word characters instead of Rust's.
//!
//! | | version 1.1 | version 2.0 |
//! |---|---|---|
//! | bags without a common word | 0 | 0, but 1 if both are empty |
//! | gold answers that normalise to nothing | count | are left out; without any other, the empty answer is gold |
//! | a question without a prediction | 0 | the official script stops; here 0 |
//! | an id that comes back | scored again | scored once, against its last answers |
//!
//! Source: the scripts `evaluate-v1.1.py` and `evaluate-v2.0.py` of Rajpurkar et al.,
//! arXiv 1606.05250 and 1806.03822.
//!
//! ```
//! use squad_data::{Dataset, Predictions, evaluate};
//!
//! let json = r#"{"version": "1.1", "data": [{"paragraphs": [{"context": "The cat sat.", "qas": [
//!     {"id": "who", "question": "Who sat?", "answers": [{"text": "The cat", "answer_start": 0}]},
//!     {"id": "what", "question": "What did it?", "answers": [{"text": "sat", "answer_start": 8}]}
//! ]}]}]}"#;
//! let dataset = Dataset::from_json(json, "cat.json")?;
//! let mut predictions = Predictions::new();
//! predictions.insert("who", "a Cat!");
//! let evaluation = evaluate(&dataset, &predictions)?;
//! assert_eq!(evaluation.exact_match, 50.0);
//! assert_eq!(evaluation.missing, 1);
//! assert_eq!(evaluation.to_json(), r#"{"exact_match":50.0,"f1":50.0,"n":2}"#);
//! # Ok::<(), squad_data::Error>(())
//! ```

mod normalization;
#[cfg(test)]
mod tests;
mod thresholds;
mod v1;
mod v2;

use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Format};
use crate::error::{Error, Result};
use crate::predictions::Predictions;
pub use normalization::{normalize_answer, normalize_text};
pub use thresholds::BestThresholds;
pub use v1::evaluate_v1;
pub use v2::{evaluate_v2, evaluate_v2_with_null_probabilities};

/// The scores of one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuestionScore {
    /// The question's id.
    pub id: String,
    /// 1 if the prediction is a gold answer, else 0.
    pub exact: f64,
    /// The best overlap with a gold answer, 0 to 1.
    pub f1: f64,
    /// Whether the question has an answer.
    pub has_answer: bool,
}

/// The mean scores of some of the questions, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Subset {
    /// Exact match.
    pub exact: f64,
    /// F1.
    pub f1: f64,
    /// Number of questions.
    pub total: usize,
}

/// The scores of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Exact match, in percent.
    pub exact_match: f64,
    /// F1, in percent.
    pub f1: f64,
    /// Number of questions.
    pub n: usize,
    /// Questions without a prediction; each counts 0.
    pub missing: usize,
    /// The questions that have an answer; version 2.0 only, and only if there are any.
    pub has_answer: Option<Subset>,
    /// The questions that have none; version 2.0 only, and only if there are any.
    pub no_answer: Option<Subset>,
    /// What the best thresholds would give; only where null probabilities are given.
    pub best: Option<BestThresholds>,
    /// Every question's scores, in the order of the dataset.
    pub scores: Vec<QuestionScore>,
}

impl Evaluation {
    /// One line of JSON: `exact_match`, `f1` and `n`, and for version 2.0 the official script's
    /// `HasAns_*`, `NoAns_*` and `best_*`.
    #[expect(clippy::missing_panics_doc, reason = "numbers are always JSON")]
    pub fn to_json(&self) -> String {
        let line = Line {
            exact_match: self.exact_match,
            f1: self.f1,
            n: self.n,
            has_answer_exact: self.has_answer.map(|subset| subset.exact),
            has_answer_f1: self.has_answer.map(|subset| subset.f1),
            has_answer_total: self.has_answer.map(|subset| subset.total),
            no_answer_exact: self.no_answer.map(|subset| subset.exact),
            no_answer_f1: self.no_answer.map(|subset| subset.f1),
            no_answer_total: self.no_answer.map(|subset| subset.total),
            best: self.best,
        };
        serde_json::to_string(&line).expect("numbers are always JSON")
    }
}

/// [`Evaluation`] under the official script's names.
#[derive(Serialize)]
struct Line {
    exact_match: f64,
    f1: f64,
    n: usize,
    #[serde(rename = "HasAns_exact", skip_serializing_if = "Option::is_none")]
    has_answer_exact: Option<f64>,
    #[serde(rename = "HasAns_f1", skip_serializing_if = "Option::is_none")]
    has_answer_f1: Option<f64>,
    #[serde(rename = "HasAns_total", skip_serializing_if = "Option::is_none")]
    has_answer_total: Option<usize>,
    #[serde(rename = "NoAns_exact", skip_serializing_if = "Option::is_none")]
    no_answer_exact: Option<f64>,
    #[serde(rename = "NoAns_f1", skip_serializing_if = "Option::is_none")]
    no_answer_f1: Option<f64>,
    #[serde(rename = "NoAns_total", skip_serializing_if = "Option::is_none")]
    no_answer_total: Option<usize>,
    #[serde(flatten)]
    best: Option<BestThresholds>,
}

/// Scores predictions by the official script of the dataset's format.
///
/// # Errors
/// [`Error::Config`] if the dataset has no question.
pub fn evaluate(dataset: &Dataset, predictions: &Predictions) -> Result<Evaluation> {
    match dataset.format {
        Format::V1 => evaluate_v1(dataset, predictions),
        Format::V2 => evaluate_v2(dataset, predictions),
    }
}

/// Whether two answers are equal but for case, punctuation, articles and white space.
///
/// ```
/// assert!(squad_data::exact_match("The  U.S.", "us"));
/// ```
pub fn exact_match(prediction: &str, gold: &str) -> bool {
    normalize_answer(prediction) == normalize_answer(gold)
}

/// The overlap of two answers as bags of words, 0 to 1, as version 1.1 counts it.
///
/// ```
/// assert_eq!(squad_data::f1_score("a black cat", "cat"), 2.0 * (0.5 * 1.0) / (0.5 + 1.0));
/// ```
pub fn f1_score(prediction: &str, gold: &str) -> f64 {
    normalization::f1_of_normalized(&normalize_answer(prediction), &normalize_answer(gold))
}

fn require_questions(dataset: &Dataset) -> Result<()> {
    if dataset.is_empty() {
        return Err(Error::config("dataset", 0, "at least 1 question"));
    }
    Ok(())
}
