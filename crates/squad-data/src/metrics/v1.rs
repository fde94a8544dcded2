//! The script of version 1.1.

use super::normalization::{f1_of_normalized, normalize_answer};
use super::{Evaluation, QuestionScore, require_questions};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::predictions::Predictions;

/// Scores predictions as `evaluate-v1.1.py` does.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if the dataset has no question.
pub fn evaluate_v1(dataset: &Dataset, predictions: &Predictions) -> Result<Evaluation> {
    require_questions(dataset)?;
    let mut scores = Vec::with_capacity(dataset.len());
    let (mut exact_sum, mut f1_sum) = (0.0, 0.0);
    let mut missing = 0;
    for question in dataset.questions() {
        let (mut exact, mut f1) = (0.0_f64, 0.0_f64);
        if let Some(prediction) = predictions.get(&question.id) {
            let prediction = normalize_answer(prediction);
            for gold in &question.answers {
                let gold = normalize_answer(&gold.text);
                exact = exact.max(f64::from(u8::from(prediction == gold)));
                f1 = f1.max(f1_of_normalized(&prediction, &gold));
            }
        } else {
            missing += 1;
        }
        exact_sum += exact;
        f1_sum += f1;
        scores.push(QuestionScore { id: question.id.clone(), exact, f1, has_answer: !question.answers.is_empty() });
    }
    let n = scores.len();
    Ok(Evaluation {
        exact_match: 100.0 * exact_sum / n as f64,
        f1: 100.0 * f1_sum / n as f64,
        n,
        missing,
        has_answer: None,
        no_answer: None,
        best: None,
        scores,
    })
}
