//! The script of version 2.0.

use std::collections::HashMap;

use super::normalization::{f1_of_normalized, normalize_answer};
use super::thresholds::BestThresholds;
use super::{Evaluation, QuestionScore, Subset, require_questions};
use crate::dataset::{Dataset, Question};
use crate::error::{Error, Result};
use crate::predictions::{NullProbabilities, Predictions};

/// Scores predictions as `evaluate-v2.0.py` does without a file of null probabilities.
///
/// # Errors
/// [`Error::Config`] if the dataset has no question.
pub fn evaluate_v2(dataset: &Dataset, predictions: &Predictions) -> Result<Evaluation> {
    let (scores, missing) = raw_scores(dataset, predictions)?;
    Ok(summary(scores, missing, None))
}

/// Scores predictions as `evaluate-v2.0.py` does with a file of null probabilities: a question
/// whose value is above `threshold` counts as answered with nothing, and the best thresholds are
/// searched for.
///
/// # Errors
/// [`Error::Config`] if the dataset has no question, [`Error::MissingValue`] if a predicted
/// question has no null probability.
pub fn evaluate_v2_with_null_probabilities(
    dataset: &Dataset,
    predictions: &Predictions,
    null_probabilities: &NullProbabilities,
    threshold: f64,
) -> Result<Evaluation> {
    let (mut scores, missing) = raw_scores(dataset, predictions)?;
    let best = BestThresholds::search(&scores, predictions, null_probabilities);
    for score in scores.iter_mut().filter(|score| predictions.get(&score.id).is_some()) {
        let value = null_probabilities
            .get(&score.id)
            .ok_or_else(|| Error::MissingValue { path: null_probabilities.source.clone(), id: score.id.clone() })?;
        if value > threshold {
            let points = f64::from(u8::from(!score.has_answer));
            score.exact = points;
            score.f1 = points;
        }
    }
    Ok(summary(scores, missing, Some(best)))
}

/// The scores of all questions, thresholds left aside, and how many have no prediction.
fn raw_scores(dataset: &Dataset, predictions: &Predictions) -> Result<(Vec<QuestionScore>, usize)> {
    require_questions(dataset)?;
    let mut scores: Vec<QuestionScore> = Vec::with_capacity(dataset.len());
    let mut position_of: HashMap<&str, usize> = HashMap::new();
    for question in dataset.questions() {
        let (exact, f1) = predictions.get(&question.id).map_or((0.0, 0.0), |prediction| score(question, prediction));
        let has_answer = !question.answers.is_empty();
        let scored = QuestionScore { id: question.id.clone(), exact, f1, has_answer };
        // As in a Python dictionary, an id that comes back replaces the first in its place.
        let position = *position_of.entry(&question.id).or_insert(scores.len());
        if position == scores.len() {
            scores.push(scored);
        } else {
            scores[position] = scored;
        }
    }
    let missing = scores.iter().filter(|score| predictions.get(&score.id).is_none()).count();
    Ok((scores, missing))
}

fn score(question: &Question, prediction: &str) -> (f64, f64) {
    let prediction = normalize_answer(prediction);
    let mut golds: Vec<String> =
        question.answers.iter().map(|gold| normalize_answer(&gold.text)).filter(|gold| !gold.is_empty()).collect();
    if golds.is_empty() {
        golds.push(String::new());
    }
    let (mut exact, mut f1) = (0.0_f64, 0.0_f64);
    for gold in golds {
        let is_equal = f64::from(u8::from(prediction == gold));
        exact = exact.max(is_equal);
        f1 = f1.max(if prediction.is_empty() || gold.is_empty() {
            is_equal
        } else {
            f1_of_normalized(&prediction, &gold)
        });
    }
    (exact, f1)
}

fn summary(scores: Vec<QuestionScore>, missing: usize, best: Option<BestThresholds>) -> Evaluation {
    let all = mean(scores.iter());
    let subset = |has_answer: bool| {
        let chosen = scores.iter().filter(move |score| score.has_answer == has_answer);
        chosen.clone().next().is_some().then(|| mean(chosen))
    };
    Evaluation {
        exact_match: all.exact,
        f1: all.f1,
        n: all.total,
        missing,
        has_answer: subset(true),
        no_answer: subset(false),
        best,
        scores,
    }
}

fn mean<'a>(scores: impl Iterator<Item = &'a QuestionScore>) -> Subset {
    let (mut exact, mut f1, mut total) = (0.0, 0.0, 0);
    for score in scores {
        exact += score.exact;
        f1 += score.f1;
        total += 1;
    }
    Subset { exact: 100.0 * exact / f64::from(total), f1: 100.0 * f1 / f64::from(total), total: total as usize }
}
