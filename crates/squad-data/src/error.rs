//! The one error type of the crate.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a file, a configuration or a call.
///
/// Every message names the file or the question, the field, and what was got and expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file cannot be written. What was there before is still there.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file is not JSON, or stops in the middle of it.
    #[error("{}: not valid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// A line of JSON lines is not JSON.
    #[error("{}: line {line}: not valid JSON: {source}", path.display())]
    JsonLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says, with the column.
        source: serde_json::Error,
    },
    /// A text file does not hold text.
    #[error("{}: {reason}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A JSON field is missing, unknown, or holds something else than it should.
    #[error("{}: {field}: expected {expected}, got {got}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, as in `data[0].paragraphs[3].qas[1].id`.
        field: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        got: String,
    },
    /// An answer does not stand at its offset.
    #[error("{}: question `{id}`: {field}: expected {expected}, got `{got}`", path.display())]
    AnswerOffset {
        /// The file.
        path: PathBuf,
        /// The question.
        id: String,
        /// The field, as in `answers[0].answer_start`.
        field: String,
        /// The answer's text and its offset in characters.
        expected: String,
        /// What the context holds there.
        got: String,
    },
    /// Several answers do not stand at their offsets.
    #[error(
        "{}: {} of {answers} answers do not stand at their offsets, which count characters: {}",
        path.display(), bad.len(), listed(bad)
    )]
    AnswerOffsets {
        /// The file.
        path: PathBuf,
        /// Answers in the file.
        answers: usize,
        /// Those that do not stand at their offsets.
        bad: Vec<BadAnswer>,
    },
    /// A question that cannot be scored: it contradicts itself or another one.
    #[error("{}: question `{id}`: {field}: expected {expected}, got {got}", path.display())]
    Question {
        /// The file.
        path: PathBuf,
        /// The question.
        id: String,
        /// The field.
        field: &'static str,
        /// What should be true of it.
        expected: String,
        /// What is.
        got: String,
    },
    /// A tokenizer's files are not usable, or it refuses a text.
    #[error("tokenizer {name}: {reason}")]
    Tokenizer {
        /// The tokenizer's file, or what it was called.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A token that the task needs is not in the vocabulary.
    #[error("tokenizer {name}: expected a token `{token}` in the vocabulary, got none")]
    MissingToken {
        /// The tokenizer's file, or what it was called.
        name: String,
        /// The token.
        token: String,
    },
    /// A token has an id that the model has no embedding for.
    #[error(
        "tokenizer {name}: token `{token}` has the id {id}, expected ids below the model's `vocab_size` of {vocabulary}"
    )]
    TokenBeyond {
        /// The tokenizer's file, or what it was called.
        name: String,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Tokens that the model knows.
        vocabulary: usize,
    },
    /// A question leaves no room for its context.
    #[error("question `{id}`: expected at most {most} question tokens in a window of {max_len}, got {got}")]
    LongQuestion {
        /// The question.
        id: String,
        /// Its tokens.
        got: usize,
        /// Tokens it may have.
        most: usize,
        /// Tokens in a window.
        max_len: usize,
    },
    /// A prompt has no room for its context.
    #[error(
        "question `{id}`: expected a prompt of at most {most} tokens without its context, template and shots included, got {got}"
    )]
    LongPrompt {
        /// The question.
        id: String,
        /// Tokens of the prompt without the context.
        got: usize,
        /// Tokens that there is room for.
        most: usize,
    },
    /// A question whose context has no token.
    #[error("question `{id}`: expected a context of at least one token, got none")]
    EmptyContext {
        /// The question.
        id: String,
    },
    /// A configuration field is out of its range.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// The field.
        field: &'static str,
        /// Its range.
        expected: String,
        /// Its value.
        got: String,
    },
    /// A window's logits do not fit the window.
    #[error("question `{id}`, window {window}: {field}: expected {expected}, got {got}")]
    Logits {
        /// The question.
        id: String,
        /// The window's index among all windows.
        window: usize,
        /// Which logits, or which property of them.
        field: &'static str,
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// A question that has no value where each must have one.
    #[error("{}: expected a value for question `{id}`, got none", path.display())]
    MissingValue {
        /// The file.
        path: PathBuf,
        /// The question.
        id: String,
    },
}

/// An answer that does not stand at its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadAnswer {
    /// The question.
    pub id: String,
    /// The field, as in `answers[0].answer_start`.
    pub field: String,
    /// The answer's text and its offset in characters.
    pub expected: String,
    /// What the context holds there.
    pub got: String,
}

impl Display for BadAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, field, expected, got } = self;
        write!(f, "question `{id}`: {field}: expected {expected}, got `{got}`")
    }
}

/// The first of some bad answers, and how many more there are.
fn listed(bad: &[BadAnswer]) -> String {
    const MOST: usize = 10;
    let mut list: Vec<String> = bad.iter().take(MOST).map(ToString::to_string).collect();
    if bad.len() > MOST {
        list.push(format!("and {} more", bad.len() - MOST));
    }
    list.join("; ")
}

impl Error {
    pub(crate) fn config(field: &'static str, got: impl Display, expected: impl Into<String>) -> Self {
        Self::Config { field, expected: expected.into(), got: got.to_string() }
    }

    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}

impl From<whole_files::Error> for Error {
    fn from(whole_files::Error { path, source }: whole_files::Error) -> Self {
        Self::Write { path, source }
    }
}
