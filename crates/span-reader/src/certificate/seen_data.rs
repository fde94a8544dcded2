//! The questions that made an artefact: `made_from.json` in its folder.
//!
//! ```text
//! {"version": 2, "sets": [{"role": "search", "name": "dev.json", "hash": …, "questions": […], "contexts": […]}]}
//! ```
//!
//! Each question is there by its [`TextHash`], so that one of them is found in any other file. A folder without
//! the file does not say what made it; one with an empty list says that no question did.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use content_identity::{ContentHash, Hasher};
use serde::{Deserialize, Serialize};
use squad_data::Dataset;

use crate::certificate::file_names::MADE_FROM;
use crate::certificate::held_out::{HeldOut, HeldOutQuestion};
use crate::certificate::text_hash::TextHash;
use crate::error::{Error, Result};
use crate::running::json_file::{read_json, write_text};

/// In version 1 case, punctuation and articles counted in hashes.
const VERSION: u32 = 2;

/// What questions were used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeenRole {
    /// Weights or adapters were trained on them.
    Training,
    /// Ranges, roundings or temperatures were fitted on them.
    Calibration,
    /// Plans were chosen on them.
    Search,
}

impl fmt::Display for SeenRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Training => "training",
            Self::Calibration => "calibration",
            Self::Search => "search",
        })
    }
}

/// A set of questions that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenSet {
    /// What for.
    pub role: SeenRole,
    /// The name of its file, for messages.
    pub name: String,
    /// As [`HeldOutRecord::hash`](crate::certificate::held_out::HeldOutRecord::hash).
    pub hash: ContentHash,
    /// Its questions.
    pub questions: BTreeSet<TextHash>,
    /// Their contexts.
    pub contexts: BTreeSet<TextHash>,
}

impl SeenSet {
    /// The questions of a data set.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn new(role: SeenRole, name: impl Into<String>, dataset: &Dataset) -> Result<Self> {
        let held_out = HeldOut::new(dataset.clone())?;
        Ok(Self {
            role,
            name: name.into(),
            hash: held_out.record().hash,
            questions: held_out.by_content().map(|(_, question)| question.hash).collect(),
            contexts: held_out.by_content().map(|(_, question)| question.context).collect(),
        })
    }

    /// Running texts: each is there as a whole, and by every line that may be a paragraph somebody asks about.
    pub fn of_texts(role: SeenRole, name: impl Into<String>, texts: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut contexts = BTreeSet::new();
        for text in texts {
            contexts.extend(paragraphs(text.as_ref()));
        }
        let mut hasher = Hasher::default();
        for context in &contexts {
            hasher.bytes("context", context.to_string().as_bytes());
        }
        Self { role, name: name.into(), hash: hasher.finish(), questions: BTreeSet::new(), contexts }
    }
}

/// The hashes of a text and of its lines, short ones such as headings left out: many texts have them.
pub fn paragraphs(text: &str) -> impl Iterator<Item = TextHash> {
    const LEAST_WORDS: usize = 8;
    let lines = text.lines().filter(|line| line.split_whitespace().nth(LEAST_WORDS - 1).is_some());
    std::iter::once(text).chain(lines).map(TextHash::of_context)
}

/// All sets of questions that made an artefact.
///
/// ```
/// use span_reader::certificate::held_out::HeldOut;
/// use span_reader::certificate::seen_data::{SeenData, SeenRole, SeenSet};
/// use squad_data::{GeneratorConfig, Split, generate};
///
/// let [search, other] = [1, 2].map(|seed| generate(&GeneratorConfig::new(Split::Dev, 4, seed)));
/// let (search, other) = (search?, other?);
/// let seen = SeenData::new(vec![SeenSet::new(SeenRole::Search, "search.json", &search)?]);
/// let dir = tempfile::tempdir()?;
/// seen.write(dir.path())?;
///
/// let seen = SeenData::read(dir.path())?.unwrap();
/// assert!(seen.check_unseen(&HeldOut::new(search)?).is_err());
/// seen.check_unseen(&HeldOut::new(other)?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenData {
    version: u32,
    sets: Vec<SeenSet>,
}

/// Only the version, so that a file of another one is told from a damaged one.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl SeenData {
    /// A record of some sets; of none where no question made the artefact.
    pub fn new(sets: Vec<SeenSet>) -> Self {
        Self { version: VERSION, sets }
    }

    /// The sets.
    pub fn sets(&self) -> &[SeenSet] {
        &self.sets
    }

    /// Writes `made_from.json` into a folder.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<()> {
        let path = dir.as_ref().join(MADE_FROM);
        // Without indents: a training set has a hundred thousand hashes.
        let text = serde_json::to_string(self).map_err(|source| Error::json(&path, source))?;
        write_text(path, &format!("{text}\n"))
    }

    /// Reads `made_from.json` of a folder; `None` where there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged or of another version.
    pub fn read(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let path: PathBuf = dir.as_ref().join(MADE_FROM);
        if !path.exists() {
            return Ok(None);
        }
        let Versioned { version } = read_json(&path)?;
        if version != VERSION {
            return Err(Error::Version { path, got: version, known: VERSION });
        }
        read_json(&path).map(Some)
    }

    /// The sets that some questions are among, and how many of the questions each has: by the question, or by the
    /// paragraph of what a model was calibrated on.
    pub fn overlaps(&self, held_out: &HeldOut) -> Vec<(&SeenSet, usize)> {
        let count = |set: &SeenSet| {
            let by_paragraph = set.role == SeenRole::Calibration;
            let is_seen = |question: &HeldOutQuestion| {
                set.questions.contains(&question.hash) || (by_paragraph && set.contexts.contains(&question.context))
            };
            held_out.by_content().filter(|(_, question)| is_seen(question)).count()
        };
        self.sets.iter().map(|set| (set, count(set))).filter(|(_, count)| *count > 0).collect()
    }

    /// Checks that none of some questions is in one of the sets, and none of their paragraphs in one that something was
    /// calibrated on, and counts those whose paragraph is in another.
    ///
    /// # Errors
    ///
    /// [`Error::SeenQuestions`] or [`Error::SeenParagraphs`] with their number and the id of the first.
    pub fn check_unseen(&self, held_out: &HeldOut) -> Result<usize> {
        for set in &self.sets {
            let mut seen = held_out.by_content().filter(|(_, question)| set.questions.contains(&question.hash));
            if let Some((_, first)) = seen.next() {
                return Err(Error::SeenQuestions {
                    role: set.role.to_string(),
                    name: set.name.clone(),
                    seen: 1 + seen.count(),
                    questions: held_out.len(),
                    id: first.example.id.clone(),
                });
            }
        }
        for set in self.sets.iter().filter(|set| set.role == SeenRole::Calibration) {
            let mut seen = held_out.by_content().filter(|(_, question)| set.contexts.contains(&question.context));
            if let Some((_, first)) = seen.next() {
                return Err(Error::SeenParagraphs {
                    name: set.name.clone(),
                    seen: 1 + seen.count(),
                    questions: held_out.len(),
                    id: first.example.id.clone(),
                });
            }
        }
        let is_seen = |context: &TextHash| self.sets.iter().any(|set| set.contexts.contains(context));
        Ok(held_out.by_content().filter(|(_, question)| is_seen(&question.context)).count())
    }
}

#[cfg(test)]
mod tests {
    use squad_data::{GeneratorConfig, Split, generate};

    use super::*;

    #[test]
    fn a_single_question_of_another_file_is_found_with_its_share() {
        let set = |seed| generate(&GeneratorConfig::new(Split::Dev, 10, seed)).unwrap();
        let (search, mut held_out) = (set(1), set(2));
        let seen = SeenData::new(vec![SeenSet::new(SeenRole::Search, "s.json", &search).unwrap()]);
        assert_eq!(seen.check_unseen(&HeldOut::new(held_out.clone()).unwrap()).unwrap(), 0);

        // The paragraph comes back with another question: told, not refused.
        let mut paragraph = search.articles[0].paragraphs[0].clone();
        paragraph.questions.truncate(1);
        let mut asked = paragraph.clone();
        asked.questions[0].question = "Who wrote this?".into();
        held_out.articles[0].paragraphs.push(asked);
        assert_eq!(seen.check_unseen(&HeldOut::new(held_out.clone()).unwrap()).unwrap(), 1);

        // The question itself, under another id and as somebody copied it.
        paragraph.questions[0].id = "again".into();
        let copies: [fn(&str) -> String; 6] = [
            |text| text.replace(' ', "  "),
            str::to_uppercase,
            |text| text.replace(['?', '.', ','], ""),
            |text| format!("The {text}"),
            |text| text.replace('e', "e\u{200b}\u{ad}"),
            |text| format!("\u{feff}“{text}”"),
        ];
        for (index, copy) in copies.into_iter().enumerate() {
            let (mut held_out, mut paragraph) = (held_out.clone(), paragraph.clone());
            paragraph.context = copy(&paragraph.context);
            paragraph.questions[0].question = copy(&paragraph.questions[0].question);
            paragraph.questions[0].answers.clear();
            held_out.articles[0].paragraphs.push(paragraph);
            let n = held_out.len();
            let message =
                seen.check_unseen(&HeldOut::new(held_out).unwrap()).expect_err(&index.to_string()).to_string();
            for part in [format!("1 of {n} questions"), "search".into(), "s.json".into(), "`again`".into()] {
                assert!(message.contains(&part), "{message}");
            }
        }
    }

    #[test]
    fn paragraphs_that_something_was_calibrated_on_are_found_in_questions_and_in_texts() {
        let set = |seed| generate(&GeneratorConfig::new(Split::Dev, 10, seed)).unwrap();
        let (calibration, other) = (set(1), set(2));
        let mut asked_otherwise = calibration.clone();
        for question in
            asked_otherwise.articles.iter_mut().flat_map(|a| &mut a.paragraphs).flat_map(|p| &mut p.questions)
        {
            question.question = format!("Say: {}", question.question);
        }
        let lines: Vec<&str> =
            calibration.articles.iter().flat_map(|a| &a.paragraphs).map(|p| p.context.as_str()).collect();
        let text = format!("A heading\n\n{}\n", lines.join("\n"));
        let of_text = SeenSet::of_texts(SeenRole::Calibration, "notes.txt", [text.as_str()]);
        let of_questions = SeenSet::new(SeenRole::Calibration, "notes.txt", &calibration).unwrap();
        for seen in [of_text, of_questions] {
            let seen = SeenData::new(vec![seen]);
            assert_eq!(seen.check_unseen(&HeldOut::new(other.clone()).unwrap()).unwrap(), 0);
            let message = seen.check_unseen(&HeldOut::new(asked_otherwise.clone()).unwrap()).unwrap_err().to_string();
            assert!(message.contains("notes.txt") && message.contains("calibrated on"), "{message}");
        }
        // A heading is in many texts, and is none of the paragraphs.
        assert!(!paragraphs(&text).any(|hash| hash == TextHash::of_context("A heading")));
    }

    #[test]
    fn a_record_of_a_newer_version_or_of_unknown_fields_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(SeenData::read(dir.path()).unwrap(), None);
        for (text, expected) in [
            (r#"{"version": 3, "sets": [], "more": 1}"#, "version 3, expected 2"),
            (r#"{"version": 1, "sets": []}"#, "version 1, expected 2"),
            (r#"{"version": 2, "sets": [], "more": 1}"#, "unknown field `more`"),
            (r#"{"version": 2, "sets": [{"role": "play"}]}"#, "field `sets[0].role`"),
            (r#"{"version": 2"#, "EOF"),
        ] {
            std::fs::write(dir.path().join(MADE_FROM), text).unwrap();
            let message = SeenData::read(dir.path()).unwrap_err().to_string();
            assert!(message.contains("made_from.json") && message.contains(expected), "{message}");
        }
    }
}
