//! When part of the questions already decides whether a plan reaches an exact match.
//!
//! ```text
//! 100 · hits / n  ≤  EM  ≤  100 · (hits + unread) / n
//! ```
//!
//! A plan is given up once the upper bound misses the floor, and no more watched once the lower bound
//! reaches it. Both bounds are computed as the exact match itself is, and division is monotone under
//! rounding: what they decide is what all questions would decide.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use squad_data::{Dataset, Predictions, evaluate};

use crate::error::Result;

/// Bounds of an exact match in percent; equal when every question was read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// If every unread question is wrong.
    pub low: f64,
    /// If every unread question is right.
    pub high: f64,
}

impl Bounds {
    /// Of an exact match that is known.
    pub fn exactly(value: f64) -> Self {
        Self { low: value, high: value }
    }
}

/// An exact match in percent that a plan has to reach.
#[derive(Debug, Clone, Copy)]
pub enum Floor {
    /// It has to be higher.
    Above(f64),
    /// It has to be as high.
    AtLeast(f64),
}

impl Floor {
    /// Whether an exact match reaches the floor.
    pub fn admits(self, exact_match: f64) -> bool {
        match self {
            Self::Above(floor) => exact_match > floor,
            Self::AtLeast(floor) => exact_match >= floor,
        }
    }
}

impl Floor {
    /// What bounds decide: whether the floor is reached, if they do.
    pub(crate) fn decided_by(self, bounds: Bounds) -> Option<bool> {
        if self.admits(bounds.low) {
            return Some(true);
        }
        (!self.admits(bounds.high)).then_some(false)
    }
}

/// An evaluation that may end early.
#[derive(Debug)]
pub enum Trial<T> {
    /// Every question was read.
    Whole(T),
    /// The floor is out of reach.
    Short(Bounds),
}

/// Counts the questions whose windows, or prompts, have all been read.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    dataset: &'a Dataset,
    unread: HashMap<&'a str, Unread>,
    hits: usize,
    read: usize,
    n: usize,
}

/// A question id some of whose windows are missing.
#[derive(Debug, Default)]
struct Unread {
    windows: usize,
    /// The last example of this id, whose answer counts.
    example: usize,
}

impl<'a> Tally<'a> {
    /// For what is going to be read: the question's id and the example of each window, or prompt.
    pub(crate) fn new(dataset: &'a Dataset, windows: impl Iterator<Item = (&'a str, usize)>) -> Self {
        let mut unread: HashMap<&str, Unread> = HashMap::new();
        for (id, example) in windows {
            let question = unread.entry(id).or_default();
            question.windows += 1;
            question.example = question.example.max(example);
        }
        Self { dataset, unread, hits: 0, read: 0, n: 0 }
    }

    /// Takes note of a window of a question; the example that answers it, where that was the last.
    pub(crate) fn reads(&mut self, id: &str) -> Option<usize> {
        let question = self.unread.get_mut(id)?;
        question.windows -= 1;
        if question.windows > 0 {
            return None;
        }
        self.unread.remove(id).map(|question| question.example)
    }

    /// Counts the answers of questions that have all been read.
    pub(crate) fn count(&mut self, answers: &Predictions) -> Result<()> {
        if !answers.is_empty() {
            let evaluation = evaluate(self.dataset, answers)?;
            self.hits += evaluation.scores.iter().filter(|score| score.exact > 0.5).count();
            self.read += evaluation.n - evaluation.missing;
            self.n = evaluation.n;
        }
        Ok(())
    }

    pub(crate) fn bounds(&self) -> Bounds {
        if self.n == 0 {
            return Bounds { low: 0.0, high: 100.0 };
        }
        let percent = |hits: usize| 100.0 * hits as f64 / self.n as f64;
        Bounds { low: percent(self.hits), high: percent(self.hits + self.n - self.read) }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use squad_data::{
        BpeConfig, DecodeConfig, GeneratorConfig, SpanDecoder, Split, TextTokenizer, corpus_texts, generate,
    };
    use switchable_model::shape::ModelShape;

    use crate::evaluation::reading::ReadingTask;

    use super::*;

    #[test]
    fn bounds_close_in_on_the_exact_match_of_questions_with_several_windows() {
        let dataset = generate(&GeneratorConfig::new(Split::Dev, 6, 1)).unwrap();
        let bpe = BpeConfig { vocab_size: 400, ..BpeConfig::default() };
        let tokenizer = TextTokenizer::train_bpe(corpus_texts(&dataset), &bpe).unwrap();
        let shape = ModelShape {
            blocks: 1,
            width: 8,
            positions: 128,
            vocabulary: tokenizer.vocab_size(),
            heads: 1,
            kv_heads: 1,
            head_width: 8,
            context_reads: 1,
        };
        let task = ReadingTask::for_shape(dataset, &tokenizer, &shape, Some(80)).unwrap();
        assert!(task.features.len() > 2 * task.dataset.len(), "most questions must have several windows");

        // Some windows point at the gold span, the others nowhere.
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut decoder = SpanDecoder::new(&task.features, DecodeConfig::default()).unwrap();
        let windows = || task.features.windows().iter();
        let mut tally = Tally::new(&task.dataset, windows().map(|window| (window.id.as_str(), window.example)));
        let mut all = vec![tally.bounds()];
        for batch in task.evaluation_batches(4).unwrap() {
            let mut start = vec![0.0; batch.batch * batch.len];
            let mut end = start.clone();
            for row in (0..batch.batch).filter(|row| batch.starts[*row] >= 0) {
                if rng.random_bool(0.6) {
                    start[row * batch.len + batch.starts[row] as usize] = 9.0;
                    end[row * batch.len + batch.ends[row] as usize] = 9.0;
                }
            }
            decoder.add_batch(&batch, &start, &end).unwrap();
            let mut answers = Predictions::new();
            for &window in &batch.windows {
                let id = task.features.windows()[window].id.as_str();
                if let Some(decoded) = tally.reads(id).and_then(|example| decoder.decide(example)) {
                    answers.insert(id, decoded.text);
                }
            }
            tally.count(&answers).unwrap();
            all.push(tally.bounds());
        }
        let predictions = Predictions::from(decoder.finish().unwrap().as_slice());
        let exact_match = evaluate(&task.dataset, &predictions).unwrap().exact_match;
        assert!(exact_match > 10.0 && exact_match < 90.0, "{exact_match}");
        assert_eq!(all.last(), Some(&Bounds::exactly(exact_match)));
        assert!(all.windows(2).all(|pair| pair[0].low <= pair[1].low && pair[0].high >= pair[1].high));
        assert!(all.iter().any(|bounds| bounds.low > 0.0 && bounds.high < 100.0 && bounds.low < bounds.high));
    }

    #[test]
    fn a_floor_is_reached_at_it_or_above_it() {
        assert!(Floor::AtLeast(50.0).admits(50.0) && !Floor::Above(50.0).admits(50.0));
        assert!(Floor::Above(50.0).admits(50.5) && !Floor::AtLeast(50.0).admits(49.5));
    }
}
