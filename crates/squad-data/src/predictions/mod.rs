//! Answers by question id, as the official scripts read them: `{"id": "answer", …}`.
//!
//! ```
//! use squad_data::Predictions;
//!
//! let mut predictions = Predictions::new();
//! predictions.insert("q1", "tea");
//! let file = tempfile::tempdir()?.path().join("predictions.json");
//! # std::fs::create_dir_all(file.parent().unwrap())?;
//! predictions.write(&file)?;
//! assert_eq!(Predictions::read(&file)?.get("q1"), Some("tea"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::dataset::shown_value::shown;
use crate::decoding::Decoded;
use crate::error::{Error, Result};

/// An answer for each question id; the empty answer says that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Predictions {
    answers: BTreeMap<String, String>,
}

impl Predictions {
    /// No predictions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the answer to a question, in the place of an earlier one.
    pub fn insert(&mut self, id: impl Into<String>, answer: impl Into<String>) {
        self.answers.insert(id.into(), answer.into());
    }

    /// The answer to a question.
    pub fn get(&self, id: &str) -> Option<&str> {
        self.answers.get(id).map(String::as_str)
    }

    /// Number of answers.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Ids and answers, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.answers.iter().map(|(id, answer)| (id.as_str(), answer.as_str()))
    }

    /// Reads a prediction file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Json`], or [`Error::Field`] for an answer that is not a string.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut answers = BTreeMap::new();
        for (id, value) in read_object(path)? {
            match value {
                Value::String(answer) => answers.insert(id, answer),
                other => return Err(wrong_type(path, id, "a string", &other)),
            };
        }
        Ok(Self { answers })
    }

    /// Writes a prediction file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Write`].
    #[expect(clippy::missing_panics_doc, reason = "a map of strings is always JSON")]
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let json = serde_json::to_string(&self.answers).expect("a map of strings is always JSON");
        Ok(whole_files::write(path, json.as_bytes())?)
    }
}

impl FromIterator<(String, String)> for Predictions {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(answers: I) -> Self {
        Self { answers: answers.into_iter().collect() }
    }
}

impl From<&[Decoded]> for Predictions {
    fn from(decoded: &[Decoded]) -> Self {
        decoded.iter().map(|decoded| (decoded.id.clone(), decoded.text.clone())).collect()
    }
}

/// For each question id, how likely it is that there is no answer, or any score that grows with
/// it: `{"id": number, …}`, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct NullProbabilities {
    /// The file they are from, for messages.
    pub(crate) source: PathBuf,
    /// The order decides between equals in the official search for the best threshold.
    pub(crate) in_order: Vec<(String, f64)>,
    by_id: HashMap<String, usize>,
}

impl NullProbabilities {
    /// Reads a file of them.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Json`], or [`Error::Field`] for a value that is not a number.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut values = Vec::new();
        for (id, value) in read_object(path)? {
            match value.as_f64() {
                Some(number) => values.push((id, number)),
                None => return Err(wrong_type(path, id, "a number", &value)),
            }
        }
        Ok(Self { source: path.to_owned(), ..values.into_iter().collect() })
    }

    /// The value of a question.
    pub fn get(&self, id: &str) -> Option<f64> {
        self.by_id.get(id).map(|&position| self.in_order[position].1)
    }
}

impl FromIterator<(String, f64)> for NullProbabilities {
    /// As Python's dictionaries do, a later value of an id replaces the earlier one in its place.
    fn from_iter<I: IntoIterator<Item = (String, f64)>>(values: I) -> Self {
        let mut collected =
            Self { source: PathBuf::from("null probabilities"), in_order: Vec::new(), by_id: HashMap::new() };
        for (id, value) in values {
            if let Some(&position) = collected.by_id.get(&id) {
                collected.in_order[position].1 = value;
            } else {
                collected.by_id.insert(id.clone(), collected.in_order.len());
                collected.in_order.push((id, value));
            }
        }
        collected
    }
}

impl From<&[Decoded]> for NullProbabilities {
    /// Each question's [`Decoded::null_score_diff`].
    fn from(decoded: &[Decoded]) -> Self {
        decoded.iter().map(|decoded| (decoded.id.clone(), f64::from(decoded.null_score_diff))).collect()
    }
}

/// The ids of a file, in its order.
#[cfg(test)]
pub(crate) fn ids_in_order(path: &Path) -> Result<Vec<String>> {
    Ok(read_object(path)?.into_iter().map(|(id, _)| id).collect())
}

/// The members of a JSON object in the order of the file.
fn read_object(path: &Path) -> Result<Vec<(String, Value)>> {
    let json = std::fs::read_to_string(path).map_err(|source| Error::read(path, source))?;
    let json = json.strip_prefix('\u{feff}').unwrap_or(&json);
    let members: Members =
        serde_json::from_str(json).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    Ok(members.0)
}

/// Keeps the order of a JSON object, which [`serde_json::Map`] does not.
struct Members(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> serde::de::Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of question ids")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Characters of a wrong value that a message shows whole.
const MOST_SHOWN: usize = 40;

fn wrong_type(path: &Path, id: String, expected: &str, got: &Value) -> Error {
    let expected = match id.as_str() {
        // What a SQuAD file has where a file of predictions has the answer to a question.
        "data" | "version" => format!("{expected} for each question id, not a SQuAD file"),
        _ => expected.to_owned(),
    };
    let whole = got.to_string();
    let got = if whole.chars().count() <= MOST_SHOWN { whole } else { shown(got) };
    Error::Field { path: path.to_owned(), field: id, expected, got }
}
