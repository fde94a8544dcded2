//! What gradients are taken on.

use span_reader::evaluation::question_task::TaskRef;
use squad_data::Batch;

use crate::error::{Error, Result};
use crate::search::allocation::damage::DamageMeasure;

/// One window of a question, or one prompt with its answer.
#[derive(Debug)]
pub(super) enum Window {
    /// One window.
    Span(Batch),
    /// A prompt and, behind it, all of its answer but the last token.
    Answer {
        /// Tokens of both.
        ids: Vec<u32>,
        /// Tokens of the answer: what is foretold at the last of the tokens.
        answer: Vec<u32>,
    },
}

impl Window {
    /// The windows that a measure has a gradient on, one by one.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(super) fn all(task: TaskRef<'_>, measure: DamageMeasure) -> Result<Vec<Self>> {
        let task = match task {
            TaskRef::Span(task) => task,
            TaskRef::Generate(task) => {
                let windows = task.prompts().iter().map(|prompt| Self::Answer {
                    ids: prompt.ids.iter().chain(&prompt.answer[..prompt.answer.len() - 1]).copied().collect(),
                    answer: prompt.answer.clone(),
                });
                return Ok(windows.collect());
            }
        };
        let all = task.evaluation_batches(1)?.into_iter();
        let holds_gold_span = |window: &Batch| window.starts[0] >= 0 && window.ends[0] >= 0;
        let chosen = all.filter(|window| measure == DamageMeasure::Divergence || holds_gold_span(window));
        let windows: Vec<Self> = chosen.map(Self::Span).collect();
        if windows.is_empty() {
            return Err(Error::option("measure", "loss", "divergence, as no window holds a gold span"));
        }
        Ok(windows)
    }

    /// Labels that make up the answer: the ends of a span, or its tokens.
    pub(super) fn labels(&self) -> usize {
        match self {
            Self::Span(_) => 2,
            Self::Answer { answer, .. } => answer.len(),
        }
    }
}
