//! From start and end logits to answers.
//!
//! ```text
//! score(i, j) = start[i] + end[j]        i ≤ j < i + max_answer_tokens, both in the context
//! p(i, j)     = softmax(start)[i] · softmax(end)[j]
//! null score  = min over windows of start[sep] + end[sep]
//! p(null)     = Π over windows of softmax(start)[sep] · softmax(end)[sep]
//! ```
//!
//! A softmax runs over the answerable positions of one window: the tokens of its context, and the
//! separator where "no answer" is allowed. Candidates of all windows of a question compete by
//! score. The answer is the text that stands in the context between the first character of token
//! `i` and the last of token `j`, never a text put together from tokens.
//!
//! ```
//! # use squad_data::*;
//! # let corpus = generate(&GeneratorConfig::new(Split::Train, 20, 1))?;
//! # let tokenizer = TextTokenizer::train_bpe(corpus_texts(&corpus), &BpeConfig::default())?;
//! # let special = SpecialTokens::of(&tokenizer)?;
//! # let config = SpanConfig::new(128, special.separator.clone());
//! # let features = SpanFeatures::new(&tokenizer, &corpus.examples(), &config)?;
//! let batches = Batches::new(&features, BatchConfig::evaluation(8, special.pad))?;
//! let mut decoder = SpanDecoder::new(&features, DecodeConfig::default())?;
//! for batch in batches.epoch(0) {
//!     // A model would compute these from `batch.ids`; here the targets themselves are the logits.
//!     let mut start = vec![0.0; batch.batch * batch.len];
//!     let mut end = start.clone();
//!     for row in 0..batch.batch {
//!         start[row * batch.len + batch.starts[row] as usize] = 9.0;
//!         end[row * batch.len + batch.ends[row] as usize] = 9.0;
//!     }
//!     decoder.add_batch(&batch, &start, &end)?;
//! }
//! let predictions = Predictions::from(decoder.finish()?.as_slice());
//! assert_eq!(evaluate(&corpus, &predictions)?.exact_match, 100.0);
//! # Ok::<(), Error>(())
//! ```

#[cfg(test)]
mod tests;

use crate::batches::Batch;
use crate::dataset::Example;
use crate::error::{Error, Result};
use crate::tokenizer::CharSpan;
use crate::windows::{SpanFeatures, TokenSpan, Window};

/// When a question is answered with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum NullRule {
    /// Never: every question has an answer, as in version 1.1.
    #[default]
    Never,
    /// When the null score exceeds the best answer's by more than this.
    Threshold(f32),
}

/// How [`SpanDecoder`] chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeConfig {
    /// Most tokens in an answer (30).
    pub max_answer_tokens: usize,
    /// Candidates kept for each question (20).
    pub n_best: usize,
    /// When a question is answered with nothing (never).
    pub null: NullRule,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self { max_answer_tokens: 30, n_best: 20, null: NullRule::default() }
    }
}

/// A possible answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The answer, cut out of the context.
    pub text: String,
    /// Where it stands in the context.
    pub chars: CharSpan,
    /// Index of its window among those of the features.
    pub window: usize,
    /// Its tokens in that window.
    pub tokens: TokenSpan,
    /// Start logit plus end logit.
    pub score: f32,
    /// Probability of its start times that of its end, in its window.
    pub probability: f64,
}

/// What is decided about a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The question's id.
    pub id: String,
    /// The answer; empty if it is that there is none.
    pub text: String,
    /// The probability of what is answered.
    pub probability: f64,
    /// The probability that no window holds an answer; 0 under [`NullRule::Never`].
    pub null_probability: f64,
    /// The null score minus the best candidate's score: what thresholds are compared with.
    pub null_score_diff: f32,
    /// The best candidates, best first, no two of the same place.
    pub n_best: Vec<Candidate>,
}

/// A candidate before its text is cut.
#[derive(Debug, Clone, Copy)]
struct Scored {
    score: f32,
    probability: f64,
    window: usize,
    tokens: TokenSpan,
    chars: CharSpan,
}

/// `ln Σ exp` of logits that are finite or infinite downwards.
fn log_sum_exp(logits: impl Iterator<Item = f32> + Clone) -> f64 {
    let largest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let sum: f64 = logits.map(|logit| (f64::from(logit) - f64::from(largest)).exp()).sum();
    f64::from(largest) + sum.ln()
}

/// What is known of a question so far.
#[derive(Debug, Clone)]
struct Tally {
    best: Vec<Scored>,
    null_score: f32,
    null_probability: f64,
}

/// Collects the logits of windows, in any order, and decides the answers.
#[derive(Debug, Clone)]
pub struct SpanDecoder<'a> {
    features: &'a SpanFeatures,
    config: DecodeConfig,
    tallies: Vec<Tally>,
    is_seen: Vec<bool>,
}

impl<'a> SpanDecoder<'a> {
    /// A decoder that has seen no window.
    ///
    /// # Errors
    /// [`Error::Config`] if `max_answer_tokens` or `n_best` is 0 or the threshold is not a number.
    pub fn new(features: &'a SpanFeatures, config: DecodeConfig) -> Result<Self> {
        let counts = [("max_answer_tokens", config.max_answer_tokens), ("n_best", config.n_best)];
        for (field, got) in counts {
            if got == 0 {
                return Err(Error::config(field, got, "at least 1"));
            }
        }
        if let NullRule::Threshold(threshold) = config.null
            && threshold.is_nan()
        {
            return Err(Error::config("null", threshold, "a threshold that is a number"));
        }
        let unseen = Tally { best: Vec::new(), null_score: f32::INFINITY, null_probability: 1.0 };
        Ok(Self {
            features,
            config,
            tallies: vec![unseen; features.examples().len()],
            is_seen: vec![false; features.len()],
        })
    }

    /// Takes the logits of one window; what they hold behind the window's tokens is padding.
    ///
    /// # Shapes
    /// - `start`, `end`: `[len]`, at least as long as the window
    ///
    /// # Errors
    /// [`Error::Logits`] if they are shorter than the window, if one of an answerable position is
    /// not a number or infinite upwards, if none of them is finite, or if the window was there before.
    ///
    /// # Panics
    /// If there is no such window.
    pub fn add(&mut self, window: usize, start: &[f32], end: &[f32]) -> Result<()> {
        let index = window;
        let window = &self.features.windows()[index];
        check_logits(index, window, "start logits", start)?;
        check_logits(index, window, "end logits", end)?;
        if self.is_seen[index] {
            return Err(wrong_logits(index, window, "logits", "one set of them", "a second"));
        }
        let behind = window.ids.len();
        let first_answerable = match self.config.null {
            NullRule::Never => window.context_start,
            NullRule::Threshold(_) => window.null,
        };
        let answerable = first_answerable..behind;
        let normaliser =
            log_sum_exp(start[answerable.clone()].iter().copied()) + log_sum_exp(end[answerable].iter().copied());
        if !normaliser.is_finite() {
            let expected = "a finite one for starts and for ends";
            return Err(wrong_logits(index, window, "logits", expected, "none"));
        }
        // The score of a span is a sum in f32, its normaliser one in f64: a span without a rival may come out above 1 by what
        // was rounded.
        let probability = |score: f32| (f64::from(score) - normaliser).exp().min(1.0);

        self.is_seen[index] = true;
        let tally = &mut self.tallies[window.example];
        let null_score = start[window.null] + end[window.null];
        tally.null_score = tally.null_score.min(null_score);
        tally.null_probability *= probability(null_score);
        for first in window.context_start..behind {
            let ends = &end[first..behind];
            for (more, end) in ends.iter().take(self.config.max_answer_tokens).enumerate() {
                let score = start[first] + end;
                if !tally.admits(score, self.config.n_best) {
                    continue;
                }
                let tokens = TokenSpan { start: first, end: first + more };
                if let Some(chars) = window.chars(tokens) {
                    let scored = Scored { score, probability: probability(score), window: index, tokens, chars };
                    tally.admit(scored, self.config.n_best);
                }
            }
        }
        Ok(())
    }

    /// Takes the logits of a whole batch.
    ///
    /// # Shapes
    /// - `start`, `end`: `[batch, len]` of `batch`, row by row
    ///
    /// # Errors
    /// As [`SpanDecoder::add`].
    ///
    /// # Panics
    /// If the logits are not as many as the batch has positions, or the batch is of other features.
    pub fn add_batch(&mut self, batch: &Batch, start: &[f32], end: &[f32]) -> Result<()> {
        let expected = batch.batch * batch.len;
        assert!(
            start.len() == expected && end.len() == expected,
            "expected {} × {} logits, got {} for starts and {} for ends",
            batch.batch,
            batch.len,
            start.len(),
            end.len()
        );
        let rows = start.chunks(batch.len).zip(end.chunks(batch.len));
        for (&window, (start, end)) in batch.windows.iter().zip(rows) {
            self.add(window, start, end)?;
        }
        Ok(())
    }

    /// The decision about one example; none while one of its windows is missing.
    ///
    /// # Panics
    /// If there is no such example.
    pub fn decide(&self, example: usize) -> Option<Decoded> {
        let windows = self.features.windows();
        let first = windows.partition_point(|window| window.example < example);
        let behind = windows.partition_point(|window| window.example <= example);
        let Example { id, context, .. } = &self.features.examples()[example];
        let is_whole = self.is_seen[first..behind].iter().all(|is_seen| *is_seen);
        is_whole.then(|| self.tallies[example].decide(id, context, self.config.null))
    }

    /// The decisions, one for each example, in their order.
    ///
    /// # Errors
    /// [`Error::Logits`] if a window is missing.
    pub fn finish(self) -> Result<Vec<Decoded>> {
        if let Some(index) = self.is_seen.iter().position(|is_seen| !is_seen) {
            let window = &self.features.windows()[index];
            return Err(wrong_logits(index, window, "logits", "one set of them", "none"));
        }
        let examples = self.features.examples().iter().zip(&self.tallies);
        Ok(examples.map(|(example, tally)| tally.decide(&example.id, &example.context, self.config.null)).collect())
    }
}

impl Tally {
    /// Whether a candidate of this score is among the best so far.
    fn admits(&self, score: f32, n_best: usize) -> bool {
        // The earlier of two equals stays, so that the order of the tokens breaks ties.
        self.best.len() < n_best || self.best.last().is_some_and(|last| score > last.score)
    }

    fn admit(&mut self, scored: Scored, n_best: usize) {
        // The same place may be seen in two windows.
        if let Some(twin) = self.best.iter().position(|other| other.chars == scored.chars) {
            if self.best[twin].score >= scored.score {
                return;
            }
            self.best.remove(twin);
        }
        let rank = self.best.partition_point(|other| other.score >= scored.score);
        self.best.insert(rank, scored);
        self.best.truncate(n_best);
    }

    fn decide(&self, id: &str, context: &str, rule: NullRule) -> Decoded {
        let n_best: Vec<Candidate> = self
            .best
            .iter()
            .map(|scored| {
                let cut = scored.chars.slice(context);
                let text = cut.trim();
                let start = scored.chars.start + (cut.chars().count() - cut.trim_start().chars().count());
                Candidate {
                    text: text.to_owned(),
                    chars: CharSpan { start, end: start + text.chars().count() },
                    window: scored.window,
                    tokens: scored.tokens,
                    score: scored.score,
                    probability: scored.probability,
                }
            })
            .collect();
        let best_score = n_best.first().map_or(f32::NEG_INFINITY, |best| best.score);
        let null_score_diff = self.null_score - best_score;
        let (null_probability, is_null) = match rule {
            NullRule::Never => (0.0, false),
            NullRule::Threshold(threshold) => (self.null_probability, null_score_diff > threshold),
        };
        let (text, probability) = match n_best.first() {
            Some(best) if !is_null => (best.text.clone(), best.probability),
            _ => (String::new(), null_probability),
        };
        Decoded { id: id.to_owned(), text, probability, null_probability, null_score_diff, n_best }
    }
}

fn check_logits(index: usize, window: &Window, field: &'static str, logits: &[f32]) -> Result<()> {
    if logits.len() < window.ids.len() {
        let expected = format!("at least {}", window.ids.len());
        return Err(wrong_logits(index, window, field, &expected, &logits.len().to_string()));
    }
    let answerable = (0..window.ids.len()).filter(|&position| window.is_answerable(position));
    for position in answerable {
        let logit = logits[position];
        if logit.is_nan() || logit == f32::INFINITY {
            let got = format!("{logit} at position {position}");
            return Err(wrong_logits(index, window, field, "finite numbers", &got));
        }
    }
    Ok(())
}

fn wrong_logits(index: usize, window: &Window, field: &'static str, expected: &str, got: &str) -> Error {
    Error::Logits { id: window.id.clone(), window: index, field, expected: expected.to_owned(), got: got.to_owned() }
}
