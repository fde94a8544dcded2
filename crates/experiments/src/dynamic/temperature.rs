//! Temperature scaling: one number that makes confidences agree with how often answers are right.
//!
//! ```text
//! p_T = softmax(z / T)
//! T   = argmin of the mean −log p_T(gold span) over held-out questions
//! ECE = Σ_b |b|/n · |share of right answers in b − mean confidence in b|        15 bins of equal width
//! ```
//!
//! Source: Guo et al., *On Calibration of Modern Neural Networks*, arXiv:1706.04599. T does not change
//! which answer is best. The likelihood of one window's gold span is convex in 1/T; where several
//! windows show it, it need not be. So log T is searched on a grid first and by golden sections from
//! there.

use serde::{Deserialize, Serialize};

use super::span_scores::SpanScores;
use crate::{Error, Result};

const BINS: usize = 15;
/// Largest temperature that is fitted; the least is its inverse.
const LARGEST: f64 = 32.0;

/// A temperature: finite and above 0.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Temperature(f64);

impl Temperature {
    /// The temperature that changes nothing.
    pub const ONE: Self = Self(1.0);

    /// A temperature.
    ///
    /// # Errors
    ///
    /// When it is not finite or not above 0.
    pub fn new(temperature: f64) -> Result<Self> {
        if temperature.is_finite() && temperature > 0.0 {
            return Ok(Self(temperature));
        }
        Err(Error::option("temperature", temperature, "a finite number above 0"))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The temperature of the greatest likelihood, between 1/32 and 32; an end of that range where the
    /// likelihood rises beyond it, as it does when every answer is right.
    ///
    /// Gold spans at masked positions are left out: no temperature makes them possible.
    ///
    /// # Errors
    ///
    /// When no question has a gold span that its windows show.
    pub fn fit(questions: &[SpanScores]) -> Result<Self> {
        let possible = |scores: &&SpanScores| scores.gold_loss(Self::ONE).is_some_and(f64::is_finite);
        let questions: Vec<&SpanScores> = questions.iter().filter(possible).collect();
        if questions.is_empty() {
            return Err(Error::NoQuestions {
                what: "the calibration set, of those whose windows show an answer".into(),
            });
        }
        let loss = |log: f64| -> f64 { questions.iter().filter_map(|scores| scores.gold_loss(Self(log.exp()))).sum() };
        Ok(Self(least(loss, LARGEST.ln()).exp()))
    }
}

impl TryFrom<f64> for Temperature {
    type Error = Error;

    fn try_from(temperature: f64) -> Result<Self> {
        Self::new(temperature)
    }
}

impl From<Temperature> for f64 {
    fn from(temperature: Temperature) -> Self {
        temperature.0
    }
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
/// use experiments::expected_calibration_error;
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

    /// Starts `spread` : 0 and one token; the first is gold in 3 of 4 questions.
    fn three_of_four(spread: f32) -> Vec<SpanScores> {
        let question = |gold| SpanScores::of_one_window(&[spread, 0.0], &[0.0, 0.0], 0, gold);
        [0, 0, 0, 1].map(question).into()
    }

    #[test]
    fn the_fitted_temperature_gives_the_share_of_right_answers() {
        // σ(spread / T) = 3/4 at T = spread / ln 3.
        for (spread, expected) in [(2.0 * 3f32.ln(), 2.0), (3f32.ln(), 1.0), (0.5 * 3f32.ln(), 0.5)] {
            let questions = three_of_four(spread);
            let fitted = Temperature::fit(&questions).unwrap();
            assert!((fitted.get() - expected).abs() < 1e-4, "{fitted:?}, expected {expected}");
            // The ends are even.
            let confidence = questions[0].confidence(fitted);
            assert!((confidence - 0.75 * 0.5).abs() < 1e-4, "{confidence}");
        }
    }

    #[test]
    fn answers_that_are_all_right_are_fitted_at_the_end_of_the_range() {
        let all_right = vec![SpanScores::of_one_window(&[0.25, 0.0], &[0.0, f32::NEG_INFINITY], 0, 0)];
        let fitted = Temperature::fit(&all_right).unwrap().get();
        assert!((1.0 / LARGEST..1.0001 / LARGEST).contains(&fitted), "{fitted}");
    }

    #[test]
    fn nothing_to_fit_is_refused() {
        assert!(Temperature::fit(&[]).unwrap_err().to_string().contains("holds no question"));
        // The gold span is masked.
        let masked = SpanScores::of_one_window(&[1.0, f32::NEG_INFINITY], &[0.0, 0.0], 0, 1);
        assert!(Temperature::fit(&[masked]).is_err());
    }

    #[test]
    fn temperatures_out_of_range_are_refused() {
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let message = Temperature::new(wrong).unwrap_err().to_string();
            assert!(message.contains("temperature") && message.contains("above 0"), "{message}");
        }
        assert!(serde_json::from_str::<Temperature>("-2.0").is_err());
        assert_eq!(serde_json::from_str::<Temperature>("2.5").unwrap(), Temperature(2.5));
    }

    #[test]
    fn calibrated_confidences_have_no_calibration_error() {
        assert!(expected_calibration_error(&[0.75; 4], &[1.0, 1.0, 1.0, 0.0]).abs() < 1e-12);
        let error = expected_calibration_error(&[1.0; 4], &[1.0, 1.0, 1.0, 0.0]);
        assert!((error - 0.25).abs() < 1e-12, "{error}");
        assert!(expected_calibration_error(&[], &[]).abs() < 1e-12);
    }
}
