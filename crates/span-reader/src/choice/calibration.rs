//! Temperature scaling: one number that makes confidences agree with how often answers are right.
//!
//! ```text
//! p_T = softmax(z / T)
//! T   = argmin of the mean −y log c_T − (1 − y) log(1 − c_T) over held-out questions
//! ECE = Σ_b |b|/n · |share of right answers in b − mean confidence in b|        15 bins of equal width
//! ```
//!
//! Logits `z`; confidence `c_T`, the probability `p_T` of the answer; `y` is 1 where the answer is right
//! and 0 where it is wrong. T does not change which answer is best. The loss need not be convex in T, so
//! log T is searched on a grid first and by golden sections from there.
//!
//! Source: Guo et al., *On Calibration of Modern Neural Networks*, arXiv:1706.04599, which takes the
//! likelihood of the label. A question has several right spans and a score that forgives articles and
//! punctuation, so the likelihood of one gold span would fit another event than the one that the
//! confidence is about; the likelihood of being right is fitted instead.

use super::span_scores::SpanScores;
use super::temperature::Temperature;
use crate::error::{Error, Result};

const BINS: usize = 15;
/// Largest temperature that is fitted; the least is its inverse.
const LARGEST: f64 = 32.0;

impl Temperature {
    /// The temperature of the greatest likelihood, between 1/32 and 32; an end of that range where the
    /// likelihood rises beyond it, as it does when every answer is right.
    ///
    /// `right` holds 1 for each right answer and 0 for each wrong one.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    ///
    /// # Panics
    ///
    /// When the two are not of the same length.
    pub fn fit(answers: &[SpanScores], right: &[f64]) -> Result<Self> {
        assert_eq!(answers.len(), right.len(), "one score for each answer");
        if answers.is_empty() {
            return Err(Error::NoQuestions { what: "the calibration set".into() });
        }
        let loss = |log: f64| -> f64 {
            let confidences = answers.iter().map(|scores| scores.confidence(Self(log.exp())));
            confidences.zip(right).map(|(confidence, &right)| cross_entropy(confidence, right)).sum()
        };
        Ok(Self(least(loss, LARGEST.ln()).exp()))
    }
}

/// Cross-entropy of a confidence in nats. A confidence of 0 or 1 that no temperature changes counts as
/// one just inside, so that it leaves the others their say.
fn cross_entropy(confidence: f64, right: f64) -> f64 {
    let confidence = confidence.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
    -right * confidence.ln() - (1.0 - right) * (-confidence).ln_1p()
}

/// Where a function is least between −`end` and `end`.
fn least(function: impl Fn(f64) -> f64, end: f64) -> f64 {
    const STEPS: usize = 28;
    const TOLERANCE: f64 = 1e-6;
    let at = |step: usize| end * (2.0 * step as f64 / STEPS as f64 - 1.0);
    let values: Vec<f64> = (0..=STEPS).map(|step| function(at(step))).collect();
    let best = (0..=STEPS).min_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0);
    let (mut low, mut high) = (at(best.saturating_sub(1)), at((best + 1).min(STEPS)));
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (function(left), function(right));
    while high - low > TOLERANCE {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - ratio * (high - low);
            at_left = function(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + ratio * (high - low);
            at_right = function(right);
        }
    }
    f64::midpoint(low, high)
}

/// Mean distance between confidence and share of right answers, 0 to 1; 0 for no answer.
///
/// `right` holds 1 for each right answer and 0 for each wrong one.
///
/// # Panics
///
/// When the two are not of the same length.
///
/// ```
/// use span_reader::choice::calibration::expected_calibration_error;
///
/// // Four answers at 0.9, of which three are right; one at 0.1, wrong.
/// let error = expected_calibration_error(&[0.9, 0.9, 0.9, 0.9, 0.1], &[1.0, 1.0, 1.0, 0.0, 0.0]);
/// assert!((error - (0.8 * 0.15 + 0.2 * 0.1)).abs() < 1e-12);
/// ```
pub fn expected_calibration_error(confidences: &[f64], right: &[f64]) -> f64 {
    assert_eq!(confidences.len(), right.len(), "one confidence for each answer");
    let mut bins = [(0.0, 0.0); BINS];
    for (confidence, right) in confidences.iter().zip(right) {
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += confidence;
        bin.1 += right;
    }
    let distance: f64 = bins.iter().map(|(confidence, right)| (right - confidence).abs()).sum();
    distance / confidences.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts `spread` : 0, one end; the answer is the first token.
    fn answer(spread: f32) -> SpanScores {
        SpanScores::of_one_window(&[spread, 0.0], &[0.0, f32::NEG_INFINITY], 0)
    }

    #[test]
    fn the_fitted_temperature_gives_the_share_of_right_answers() {
        // σ(spread / T) = 3/4 at T = spread / ln 3.
        for (spread, expected) in [(2.0 * 3f32.ln(), 2.0), (3f32.ln(), 1.0), (0.5 * 3f32.ln(), 0.5)] {
            let answers = vec![answer(spread); 4];
            let fitted = Temperature::fit(&answers, &[1.0, 0.0, 1.0, 1.0]).unwrap();
            assert!((fitted.get() - expected).abs() < 1e-4, "{fitted:?}, expected {expected}");
            assert!((answers[0].confidence(fitted) - 0.75).abs() < 1e-4);
        }
    }

    #[test]
    fn answers_that_are_too_sure_are_fitted_above_1_where_the_loss_is_least() {
        let spreads = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let answers: Vec<SpanScores> = spreads.iter().map(|&spread| answer(spread)).collect();
        let right = [0.0, 1.0, 0.0, 1.0, 1.0, 1.0];
        let fitted = Temperature::fit(&answers, &right).unwrap();
        assert!(fitted > Temperature::ONE);
        let loss = |temperature| -> f64 {
            answers.iter().zip(right).map(|(scores, right)| cross_entropy(scores.confidence(temperature), right)).sum()
        };
        for other in [0.5, 0.9, 1.1, 2.0] {
            assert!(loss(fitted) < loss(Temperature(fitted.get() * other)), "{other}");
        }
    }

    #[test]
    fn answers_that_are_all_right_are_fitted_at_the_end_of_the_range() {
        let fitted = Temperature::fit(&[answer(0.25)], &[1.0]).unwrap().get();
        assert!((1.0 / LARGEST..1.0001 / LARGEST).contains(&fitted), "{fitted}");
    }

    #[test]
    fn an_answer_without_alternative_leaves_the_fit_to_the_others() {
        let certain = SpanScores::of_one_window(&[1.0], &[1.0], 0);
        let mut answers = vec![answer(2.0 * 3f32.ln()); 4];
        answers.push(certain);
        let fitted = Temperature::fit(&answers, &[1.0, 1.0, 1.0, 0.0, 0.0]).unwrap();
        assert!((fitted.get() - 2.0).abs() < 1e-4, "{fitted:?}");
    }

    #[test]
    fn nothing_to_fit_is_refused() {
        assert!(Temperature::fit(&[], &[]).unwrap_err().to_string().contains("holds no question"));
    }

    #[test]
    fn calibrated_confidences_have_no_calibration_error() {
        assert!(expected_calibration_error(&[0.75; 4], &[1.0, 1.0, 1.0, 0.0]).abs() < 1e-12);
        let error = expected_calibration_error(&[1.0; 4], &[1.0, 1.0, 1.0, 0.0]);
        assert!((error - 0.25).abs() < 1e-12, "{error}");
        assert!(expected_calibration_error(&[], &[]).abs() < 1e-12);
    }
}
