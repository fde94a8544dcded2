//! Questions in the form in which a model answers them.

use content_identity::ContentHash;
use serde_json::Value;

use squad_data::{Dataset, QuestionCounts};

use crate::error::{Error, Result};
use crate::evaluation::prompt_task::PromptTask;
use crate::evaluation::reading::ReadingTask;

/// Questions, and how they are answered.
#[derive(Debug, Clone)]
pub enum QuestionTask {
    /// By the span of the context that a head points to.
    Span(ReadingTask),
    /// By what a language model writes behind a prompt.
    Generate(PromptTask),
}

/// A [`QuestionTask`] of somebody else.
#[derive(Debug, Clone, Copy)]
pub enum TaskRef<'a> {
    /// By the span of the context that a head points to.
    Span(&'a ReadingTask),
    /// By what a language model writes behind a prompt.
    Generate(&'a PromptTask),
}

impl QuestionTask {
    /// The questions.
    pub fn dataset(&self) -> &Dataset {
        TaskRef::from(self).dataset()
    }

    /// How many questions are measured.
    pub fn measured_counts(&self) -> QuestionCounts {
        self.dataset().measured_counts()
    }

    /// How many questions a model can be trained on, and why not on the others.
    pub fn training_counts(&self) -> QuestionCounts {
        match self {
            Self::Span(task) => task.training_counts(),
            Self::Generate(task) => task.training_counts(),
        }
    }

    /// A line about what does not fit, where answers are generated and something does not.
    pub fn cut_text(&self) -> Option<String> {
        match self {
            Self::Span(_) => None,
            Self::Generate(task) => task.cut_text(),
        }
    }
}

impl<'a> TaskRef<'a> {
    /// The questions.
    pub fn dataset(self) -> &'a Dataset {
        match self {
            Self::Span(task) => &task.dataset,
            Self::Generate(task) => &task.dataset,
        }
    }

    /// Tokens that are read, padding and answers left out.
    pub fn tokens(self) -> usize {
        match self {
            Self::Span(task) => task.features.windows().iter().map(|window| window.ids.len()).sum(),
            Self::Generate(task) => task.tokens(),
        }
    }

    /// The tokens of each window, or prompt.
    pub fn texts(self) -> Vec<Vec<u32>> {
        match self {
            Self::Span(task) => task.features.windows().iter().map(|window| window.ids.clone()).collect(),
            Self::Generate(task) => task.prompts().iter().map(|prompt| prompt.ids.clone()).collect(),
        }
    }

    /// One of the questions alone.
    ///
    /// # Panics
    ///
    /// When there is no such question.
    pub(crate) fn select(self, question: usize) -> QuestionTask {
        match self {
            Self::Span(task) => QuestionTask::Span(task.select(question)),
            Self::Generate(task) => QuestionTask::Generate(task.select(question)),
        }
    }

    /// The windows that a span head reads.
    ///
    /// # Errors
    ///
    /// When answers are generated; `what` needs a span.
    pub fn spans(self, what: &str) -> Result<&'a ReadingTask> {
        match self {
            Self::Span(task) => Ok(task),
            Self::Generate(_) => Err(Error::option("task", "generate", format!("span: {what} needs a span head"))),
        }
    }

    /// How the questions are asked, as options of a result: the prompt's template and shots, tokens of an answer; nothing
    /// where a span head answers.
    pub fn how_asked(self) -> Value {
        match self {
            Self::Span(_) => Value::Null,
            Self::Generate(task) => task.how_asked(),
        }
    }

    /// The hash of all that a result on these questions depends on.
    pub fn content(self) -> ContentHash {
        match self {
            Self::Span(task) => task.content(),
            Self::Generate(task) => task.content(),
        }
    }
}

impl<'a> From<&'a QuestionTask> for TaskRef<'a> {
    fn from(task: &'a QuestionTask) -> Self {
        match task {
            QuestionTask::Span(task) => Self::Span(task),
            QuestionTask::Generate(task) => Self::Generate(task),
        }
    }
}

impl<'a> From<&'a ReadingTask> for TaskRef<'a> {
    fn from(task: &'a ReadingTask) -> Self {
        Self::Span(task)
    }
}

impl<'a> From<&'a PromptTask> for TaskRef<'a> {
    fn from(task: &'a PromptTask) -> Self {
        Self::Generate(task)
    }
}
