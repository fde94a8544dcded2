//! What is asked, as JSON.
//!
//! ```json
//! {"question": "Where was Ada Moor born?", "context": "Ada Moor was born in Riga.", "choice": {"bytes": 500000}}
//! {"prompt": "Ada Moor", "max_new_tokens": 8, "temperature": 0.8, "seed": 7, "choice": {"plan": "bits-4"}}
//! ```
//!
//! `choice` is `"default"`, `"confidence"`, `{"plan": NAME}`, `{"bytes": N}` or `{"accuracy": PERCENT}`, which mean what
//! the flags of `answer` do.

use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use switchable_quant::reader::choice::controller::PlanRequest;
use switchable_quant::reader::serving::plan_choice::PlanChoice;
use switchable_quant::transformer::generate::{DrawOptions, GenerateOptions, Sampling};

use super::problem::Problem;

/// A question about a text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerBody {
    #[serde(default)]
    question: Option<String>,
    #[serde(default)]
    context: Option<String>,
    #[serde(default)]
    choice: ChoiceBody,
}

/// A text to continue.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GenerateBody {
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    max_new_tokens: Option<usize>,
    #[serde(default, deserialize_with = "single")]
    temperature: Option<f32>,
    #[serde(default)]
    top_k: Option<usize>,
    #[serde(default, deserialize_with = "single")]
    top_p: Option<f32>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default, deserialize_with = "single")]
    repetition_penalty: Option<f32>,
    #[serde(default)]
    choice: ChoiceBody,
}

/// How the plan is chosen.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChoiceBody {
    #[default]
    Default,
    Confidence,
    Plan(String),
    Bytes(usize),
    Accuracy(f64),
}

impl From<ChoiceBody> for PlanChoice {
    fn from(choice: ChoiceBody) -> Self {
        match choice {
            ChoiceBody::Default => Self::Default,
            ChoiceBody::Confidence => Self::Confidence,
            ChoiceBody::Plan(name) => Self::Named(name),
            ChoiceBody::Bytes(bytes) => Self::Measured(PlanRequest::Bytes(bytes)),
            ChoiceBody::Accuracy(percent) => Self::Measured(PlanRequest::AccuracyForSure(percent)),
        }
    }
}

/// What is computed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Task {
    /// An answer to a question about a text.
    Answer { question: String, context: String },
    /// What follows a text.
    Generate { prompt: String, options: GenerateOptions },
}

impl AnswerBody {
    /// The task and the choice of its plan.
    pub(super) fn asked(self) -> Result<(Task, PlanChoice), Problem> {
        let (question, context) = (text("question", self.question)?, text("context", self.context)?);
        Ok((Task::Answer { question, context }, self.choice.into()))
    }
}

impl GenerateBody {
    /// The task and the choice of its plan, with what is not asked for as the model has it.
    pub(super) fn asked(self, of_model: &GenerateOptions, most: usize) -> Result<(Task, PlanChoice), Problem> {
        let prompt = text("prompt", self.prompt)?;
        let max_new_tokens = self.max_new_tokens.unwrap_or(of_model.max_new_tokens.min(most));
        if max_new_tokens > most {
            return Err(Problem::field("max_new_tokens", max_new_tokens, format!("at most {most}")));
        }
        let asks = self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some() || self.seed.is_some();
        let sampling = match of_model.sampling {
            Sampling::Greedy if !asks => Sampling::Greedy,
            sampling => {
                let draws = if let Sampling::Draws(draws) = sampling { draws } else { DrawOptions::default() };
                Sampling::Draws(DrawOptions {
                    temperature: self.temperature.unwrap_or(draws.temperature),
                    top_k: self.top_k.or(draws.top_k),
                    top_p: self.top_p.or(draws.top_p),
                    seed: self.seed.unwrap_or(draws.seed),
                })
            }
        };
        let options = GenerateOptions {
            max_new_tokens,
            max_length: if self.max_new_tokens.is_some() { None } else { of_model.max_length },
            sampling,
            repetition_penalty: self.repetition_penalty.unwrap_or(of_model.repetition_penalty),
            stop: of_model.stop.clone(),
        };
        Ok((Task::Generate { prompt, options }, self.choice.into()))
    }
}

fn text(field: &'static str, text: Option<String>) -> Result<String, Problem> {
    match text {
        None => Err(Problem::field(field, "missing", "some text")),
        Some(text) if text.trim().is_empty() => Err(Problem::field(field, "empty", "some text")),
        Some(text) => Ok(text),
    }
}

/// A body as JSON; where a field is wrong, the problem says which.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde takes an array as the fields in their order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::field("body", "an array", "an object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| unread::<T>(body, error))?;
    reader.end().map_err(|source| Problem::Malformed { source })?;
    Ok(parsed)
}

/// Why a body was not read. The parser calls it an error of syntax where a choice has the shape of no choice, and where a
/// number is too large: both are JSON, of which a field is wrong.
fn unread<T: DeserializeOwned>(body: &[u8], error: WithPath) -> Problem {
    if error.inner().is_data() {
        return wrong_field(error);
    }
    if let Err(source) = well_formed(body) {
        return Problem::Malformed { source };
    }
    // Of a value that is parsed already the same is said in words of its shape.
    match serde_json::from_slice::<Value>(body).map(serde_path_to_error::deserialize::<_, T>) {
        Ok(Err(in_words)) => wrong_field(in_words),
        _ => wrong_field(error),
    }
}

type WithPath = serde_path_to_error::Error<serde_json::Error>;

fn wrong_field(error: WithPath) -> Problem {
    let field = error.path().to_string();
    let source = error.into_inner();
    if field == "." {
        return Problem::Field { field: "body".into(), message: source.to_string() };
    }
    Problem::Field { message: format!("`{field}`: {source}"), field }
}

/// Whether a body is JSON, whatever its numbers.
fn well_formed(body: &[u8]) -> serde_json::Result<()> {
    // Texts that are passed over are not looked at.
    std::str::from_utf8(body).map_err(serde_json::Error::custom)?;
    serde_json::from_slice::<IgnoredAny>(body).map(drop)
}

/// A number of 32 bits: one that is too large is refused as it was given, and not as infinity.
fn single<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    let single = number as f32;
    if single.is_finite() {
        return Ok(Some(single));
    }
    Err(D::Error::custom(format_args!("{number:e}, expected a number of at most {:e}", f32::MAX)))
}
