//! Questions answered with nothing: the null rule, and the threshold that decides it.
//!
//! ```text
//! d(q)   = null score − score of the best span              as `Decoded::null_score_diff`
//! answer = nothing where d(q) > τ, else the best span
//! τ*     = argmax over τ of the F1 of questions that are not measured
//! ```
//!
//! Source: Devlin et al., *BERT*, arXiv:1810.04805, section 4.3, whose null score is that of the position of
//! `[CLS]`. Here it is that of the separator between question and context. A causal model has read the
//! question there and nothing of the context, so the null score says how high a span must score that answers
//! this question; the spans, which stand behind both, say whether one does. Training points to the separator
//! in every window that holds no answer ([`NullTarget`](crate::NullTarget)), the rule compares with it.
//!
//! ```
//! use squad_data::{Dataset, NullAnswers};
//!
//! let json = r#"{"version": "v2.0", "data": [{"paragraphs": [{"context": "The cat sat.", "qas": [
//!     {"id": "who", "question": "Who sat?", "answers": [{"text": "The cat", "answer_start": 0}]},
//!     {"id": "dog", "question": "Did a dog?", "answers": [], "is_impossible": true}
//! ]}]}]}"#;
//! let dataset = Dataset::from_json(json, "cat.json")?;
//! let mut answers = NullAnswers::default();
//! answers.insert("who", "The cat", -3.0);
//! answers.insert("dog", "cat", 2.5);
//! let threshold = answers.best_threshold(&dataset)?;
//! assert_eq!(answers.at(threshold).get("dog"), Some(""));
//! assert_eq!(answers.evaluate(&dataset, threshold)?.exact_match, 100.0);
//! # Ok::<(), squad_data::Error>(())
//! ```

#[cfg(test)]
mod tests;

use crate::dataset::Dataset;
use crate::decoding::Decoded;
use crate::error::Result;
use crate::metrics::{Evaluation, evaluate_v2, evaluate_v2_with_null_probabilities};
use crate::predictions::{NullProbabilities, Predictions};

/// For each question its best span, and by how much its null score exceeds that of the span.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NullAnswers {
    best: Predictions,
    differences: Vec<(String, f64)>,
}

impl NullAnswers {
    /// Adds a question: its best span, and the null score minus that span's.
    pub fn insert(&mut self, id: impl Into<String>, best: impl Into<String>, difference: f32) {
        let id = id.into();
        self.best.insert(id.clone(), best);
        self.differences.push((id, f64::from(difference)));
    }

    /// The answers under a threshold.
    pub fn at(&self, threshold: f32) -> Predictions {
        let answer = |(id, difference): &(String, f64)| {
            let best = self.best.get(id).unwrap_or_default();
            (id.clone(), if *difference > f64::from(threshold) { String::new() } else { best.to_owned() })
        };
        self.differences.iter().map(answer).collect()
    }

    /// The scores under a threshold, and what the best thresholds on the same questions would give, as the
    /// official script of version 2.0 has them from `best` and these differences.
    ///
    /// Where answering nothing at all is best, the script says 0, which is below every probability; here it is
    /// a threshold below every difference.
    ///
    /// # Errors
    /// As [`evaluate_v2_with_null_probabilities`].
    pub fn evaluate(&self, dataset: &Dataset, threshold: f32) -> Result<Evaluation> {
        let differences: NullProbabilities = self.differences.iter().cloned().collect();
        let mut evaluation =
            evaluate_v2_with_null_probabilities(dataset, &self.best, &differences, f64::from(threshold))?;
        let impossible = evaluation.scores.iter().filter(|score| !score.has_answer).count();
        let of_silence = 100.0 * impossible as f64 / evaluation.scores.len() as f64;
        if let Some(best) = &mut evaluation.best {
            // The search starts from silence, and goes on only to what scores more.
            for (score, at) in [(best.exact, &mut best.exact_threshold), (best.f1, &mut best.f1_threshold)] {
                if score <= of_silence {
                    *at = self.below_all();
                }
            }
        }
        Ok(evaluation)
    }

    /// A threshold that answers every question with nothing.
    fn below_all(&self) -> f64 {
        let least = self.differences.iter().map(|(_, difference)| *difference).min_by(f64::total_cmp);
        // Far from 0, 1 less rounds to the same number.
        least.map_or(0.0, |least| (least - 1.0).min(f64::from((least as f32).next_down())))
    }

    /// The threshold of the highest F1 on these questions, the lowest of several. Measure with it on other
    /// questions.
    ///
    /// It is the official script's `best_f1_thresh`, but for two things: where answering nothing at all is
    /// best it lies below every difference, and questions of equal difference are answered together.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the dataset has no question.
    pub fn best_threshold(&self, dataset: &Dataset) -> Result<f32> {
        let scores = evaluate_v2(dataset, &self.best)?.scores;
        let differences: NullProbabilities = self.differences.iter().cloned().collect();
        let mut gains: Vec<(f64, f64)> = scores
            .iter()
            .filter_map(|score| {
                let is_silent = self.best.get(&score.id)?.is_empty();
                // Answered with nothing, an impossible question counts 1 and any other 0.
                let nothing = f64::from(u8::from(!score.has_answer));
                let gain = if is_silent && !score.has_answer { 0.0 } else { score.f1 - nothing };
                Some((differences.get(&score.id)?, gain))
            })
            .collect();
        gains.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut total, mut best) = (0.0, 0.0);
        let mut threshold = self.below_all();
        for equal in gains.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
            total += equal.iter().map(|(_, gain)| gain).sum::<f64>();
            if total > best {
                (best, threshold) = (total, equal[0].0);
            }
        }
        Ok(threshold as f32)
    }
}

impl From<&[Decoded]> for NullAnswers {
    fn from(decoded: &[Decoded]) -> Self {
        let mut answers = Self::default();
        for Decoded { id, n_best, null_score_diff, .. } in decoded {
            answers.insert(id, n_best.first().map_or("", |best| &best.text), *null_score_diff);
        }
        answers
    }
}
