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
use squad_data::{Batch, Predictions, SpanDecoder, evaluate};

use crate::Result;
use crate::reading::ReadingTask;

/// Bounds of an exact match in percent; equal when every question was read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// If every unread question is wrong.
    pub low: f64,
    /// If every unread question is right.
    pub high: f64,
}

impl Bounds {
    pub(crate) fn exactly(value: f64) -> Self {
        Self { low: value, high: value }
    }
}

/// An exact match in percent that a plan has to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Floor {
    /// It has to be higher.
    Above(f64),
    /// It has to be as high.
    AtLeast(f64),
}

impl Floor {
    pub(crate) fn admits(self, exact_match: f64) -> bool {
        match self {
            Self::Above(floor) => exact_match > floor,
            Self::AtLeast(floor) => exact_match >= floor,
        }
    }
}

/// An evaluation that may end early.
#[derive(Debug)]
pub(crate) enum Trial<T> {
    /// Every question was read.
    Whole(T),
    /// The floor is out of reach.
    Short(Bounds),
}

/// Counts the questions whose windows have all been read.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    task: &'a ReadingTask,
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
    pub(crate) fn new(task: &'a ReadingTask) -> Self {
        let mut unread: HashMap<&str, Unread> = HashMap::new();
        for window in task.features.windows() {
            let question = unread.entry(&window.id).or_default();
            question.windows += 1;
            question.example = question.example.max(window.example);
        }
        Self { task, unread, hits: 0, read: 0, n: 0 }
    }

    /// Counts the questions that a batch completes; the decoder has its logits.
    pub(crate) fn add(&mut self, batch: &Batch, decoder: &SpanDecoder<'_>) -> Result<()> {
        let mut answers = Predictions::new();
        for &window in &batch.windows {
            let id = self.task.features.windows()[window].id.as_str();
            let Some(question) = self.unread.get_mut(id) else { continue };
            question.windows -= 1;
            if question.windows == 0
                && let Some(decoded) = decoder.decide(question.example)
            {
                answers.insert(id, decoded.text);
                self.unread.remove(id);
            }
        }
        if !answers.is_empty() {
            let evaluation = evaluate(&self.task.dataset, &answers)?;
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
