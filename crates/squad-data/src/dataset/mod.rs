//! SQuAD data: articles of paragraphs of questions, and the flat list the rest works on.
//!
//! ```text
//! {"version": "1.1", "data": [{"title", "paragraphs": [{"context",
//!     "qas": [{"id", "question", "answers": [{"text", "answer_start"}]}]}]}]}
//! ```
//!
//! Version 2.0 adds `is_impossible` and `plausible_answers` to a question. `answer_start` counts
//! characters (Unicode code points, not bytes and not what is seen as one letter), as the official files
//! do, and reading checks that each answer stands where it says.
//!
//! Read as well are the rows that `datasets` of Hugging Face exports, one question each: as JSON lines,
//! as a JSON array, or as `{"data": [rows]}`. What a file is, its content says, not its name; a byte order
//! mark and CRLF are no hindrance.
//!
//! ```text
//! {"id", "title", "context", "question", "answers": {"text": ["tea"], "answer_start": [13]}}
//! ```
//!
//! `answers.text` and `answers.answer_start` may be columns of their own, as `flatten` makes them. Rows have no
//! version: without an answer a question is impossible, and the file is of version 2.0 if
//! there is one. Rows of one title and context become one paragraph, at the place of the first of them.
//!
//! ```
//! use squad_data::Dataset;
//!
//! let json = r#"{"version": "1.1", "data": [{"title": "Tea", "paragraphs": [{
//!     "context": "Zoë drinks 🍵 tea.",
//!     "qas": [{"id": "q1", "question": "What does Zoë drink?",
//!              "answers": [{"text": "tea", "answer_start": 13}]}]}]}]}"#;
//! let dataset = Dataset::from_json(json, "tea.json")?;
//! assert_eq!(dataset.examples()[0].answers[0].text, "tea");
//!
//! let moved = json.replace("13", "11");
//! let error = Dataset::from_json(&moved, "tea.json").unwrap_err().to_string();
//! assert_eq!(
//!     error,
//!     "tea.json: question `q1`: answers[0].answer_start: \
//!      expected `tea` at character 11, got `🍵 t`"
//! );
//! # Ok::<(), squad_data::Error>(())
//! ```
//!
//! Source: Rajpurkar et al., arXiv 1606.05250 (v1.1) and 1806.03822 (v2.0).

mod form;
mod reading;
pub(crate) mod shown_value;
#[cfg(test)]
mod tests;
mod writing;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::question_counts::{QuestionCounts, WhyLeftOut};

/// Which of the two formats, and so which of the two official scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// Version 1.1: every question has an answer.
    V1,
    /// Version 2.0: some questions have none.
    V2,
}

/// A SQuAD file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The format.
    pub format: Format,
    /// The articles.
    pub articles: Vec<Article>,
}

/// A titled list of paragraphs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Article {
    /// The title.
    pub title: String,
    /// The paragraphs.
    pub paragraphs: Vec<Paragraph>,
}

/// A context and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paragraph {
    /// The text that holds the answers.
    pub context: String,
    /// The questions.
    pub questions: Vec<Question>,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The identifier that predictions refer to.
    pub id: String,
    /// The question's text.
    pub question: String,
    /// The gold answers; none for an impossible question.
    pub answers: Vec<Answer>,
    /// What an impossible question may wrongly be answered with.
    pub plausible_answers: Vec<Answer>,
    /// Whether the context holds no answer.
    pub is_impossible: bool,
}

/// A piece of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer's text.
    pub text: String,
    /// Where it begins in the context, in characters.
    pub start: usize,
}

/// A question with its context: the unit that windows, prompts and attacks work on.
///
/// Questions of one paragraph share their context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The identifier that predictions refer to.
    pub id: String,
    /// The text that holds the answers.
    pub context: Arc<str>,
    /// The question's text.
    pub question: String,
    /// The gold answers; none for an impossible question.
    pub answers: Vec<Answer>,
    /// Whether the context holds no answer.
    pub is_impossible: bool,
}

/// What to do with a JSON field that no SQuAD file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UnknownFields {
    /// It is an error: it may be a misspelt one.
    #[default]
    Reject,
    /// It is passed over.
    Ignore,
}

/// What to do with an answer that does not stand at its offset, but elsewhere in the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Realign {
    /// Nothing: its offset is bad.
    #[default]
    Never,
    /// It is moved to where its text stands, if that is in one place only.
    WhereOnce,
}

/// What to do with answers whose offsets are bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BadAnswers {
    /// They are an error, which lists them.
    #[default]
    Refuse,
    /// They are left out and counted, with the questions that have no other answer.
    Skip,
}

/// How [`Dataset::read_with`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ReadOptions {
    /// What to do with a JSON field that no SQuAD file has.
    pub unknown_fields: UnknownFields,
    /// What to do with an answer that stands elsewhere in the context.
    pub realign: Realign,
    /// What to do with answers whose offsets are bad.
    pub bad_answers: BadAnswers,
}

/// A data set and what reading it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadDataset {
    /// The questions that are left.
    pub dataset: Dataset,
    /// The questions of the file, and those left out.
    pub counts: QuestionCounts,
    /// Answers left out because they do not stand at their offsets.
    pub skipped_answers: usize,
    /// Answers moved to where their text stands.
    pub realigned_answers: usize,
}

impl Dataset {
    /// Reads a SQuAD file and checks all of it.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Text`], [`Error::Json`], [`Error::Field`], [`Error::AnswerOffset`],
    /// [`Error::AnswerOffsets`] or [`Error::Question`]; all of them name the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        // By these options nothing is left out.
        Ok(Self::read_with(path, ReadOptions::default())?.dataset)
    }

    /// Reads a SQuAD file with other than the default options.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn read_with(path: impl AsRef<Path>, options: ReadOptions) -> Result<ReadDataset> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::read(path, source))?;
        reading::parse(&form::text(bytes, path)?, path, options)
    }

    /// Reads SQuAD from memory; errors call it `name`.
    ///
    /// # Errors
    /// As [`Dataset::read`], but for [`Error::Read`].
    pub fn from_json(json: &str, name: impl AsRef<Path>) -> Result<Self> {
        Ok(reading::parse(json, name.as_ref(), ReadOptions::default())?.dataset)
    }

    /// The dataset as a SQuAD file's text, which [`Dataset::from_json`] reads back.
    pub fn to_json(&self) -> String {
        writing::to_json(self)
    }

    /// Writes a SQuAD file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(whole_files::write(path, self.to_json().as_bytes())?)
    }

    /// The questions, in order.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        let paragraphs = self.articles.iter().flat_map(|a| &a.paragraphs);
        paragraphs.flat_map(|p| &p.questions)
    }

    /// Number of questions.
    pub fn len(&self) -> usize {
        self.questions().count()
    }

    /// Whether there is no question.
    pub fn is_empty(&self) -> bool {
        self.questions().next().is_none()
    }

    /// The questions with their contexts, in order.
    pub fn examples(&self) -> Vec<Example> {
        let paragraphs = self.articles.iter().flat_map(|a| &a.paragraphs);
        paragraphs
            .flat_map(|paragraph| {
                let context: Arc<str> = paragraph.context.as_str().into();
                paragraph.questions.iter().map(move |question| Example {
                    id: question.id.clone(),
                    context: Arc::clone(&context),
                    question: question.question.clone(),
                    answers: question.answers.clone(),
                    is_impossible: question.is_impossible,
                })
            })
            .collect()
    }

    /// `questions` questions that a seed chooses, in the order of the data set, with the paragraphs and articles they
    /// need; all where there are no more.
    ///
    /// ```
    /// use squad_data::{GeneratorConfig, Split, generate};
    ///
    /// let corpus = generate(&GeneratorConfig::new(Split::Dev, 10, 7))?;
    /// assert_eq!(corpus.sampled(4, 1).len(), 4);
    /// assert_ne!(corpus.sampled(4, 1), corpus.sampled(4, 2));
    /// assert_eq!(corpus.sampled(1_000, 1), corpus);
    /// # Ok::<(), squad_data::Error>(())
    /// ```
    pub fn sampled(&self, questions: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        order.truncate(questions);
        let chosen: HashSet<usize> = order.into_iter().collect();
        self.chosen(|place| chosen.contains(&place))
    }

    /// The questions at some places, counted from 0, in the order of the data set, with the paragraphs and articles they
    /// need.
    ///
    /// ```
    /// use squad_data::{GeneratorConfig, Split, generate};
    ///
    /// let corpus = generate(&GeneratorConfig::new(Split::Dev, 10, 7))?;
    /// assert_eq!(corpus.chosen(|place| place == 3).examples(), corpus.examples()[3..4]);
    /// # Ok::<(), squad_data::Error>(())
    /// ```
    pub fn chosen(&self, is_chosen: impl Fn(usize) -> bool) -> Self {
        let mut place = 0;
        let mut is_next_chosen = |_: &Question| {
            place += 1;
            is_chosen(place - 1)
        };
        let mut articles = Vec::new();
        for Article { title, paragraphs } in &self.articles {
            let mut kept = Vec::new();
            for Paragraph { context, questions } in paragraphs {
                let questions: Vec<Question> = questions.iter().filter(|q| is_next_chosen(q)).cloned().collect();
                if !questions.is_empty() {
                    kept.push(Paragraph { context: context.clone(), questions });
                }
            }
            if !kept.is_empty() {
                articles.push(Article { title: title.clone(), paragraphs: kept });
            }
        }
        Self { format: self.format, articles }
    }

    /// The first `questions` questions, with the paragraphs and articles they need.
    ///
    /// ```
    /// use squad_data::{GeneratorConfig, Split, generate};
    ///
    /// let corpus = generate(&GeneratorConfig::new(Split::Dev, 10, 7))?;
    /// assert_eq!(corpus.limited(4).len(), 4);
    /// assert_eq!(corpus.limited(4).examples(), corpus.examples()[..4]);
    /// # Ok::<(), squad_data::Error>(())
    /// ```
    pub fn limited(&self, questions: usize) -> Self {
        self.chosen(|place| place < questions)
    }

    /// How many questions are measured; in version 2.0 an id that comes back is scored once.
    pub fn measured_counts(&self) -> QuestionCounts {
        let mut counts = QuestionCounts::of(self.len());
        if self.format == Format::V2 {
            let ids: HashSet<&str> = self.questions().map(|question| question.id.as_str()).collect();
            counts.leave_out(counts.all - ids.len(), WhyLeftOut::Repeated);
        }
        counts
    }
}
