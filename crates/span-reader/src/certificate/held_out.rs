//! The questions of a certificate, by their content.
//!
//! ```text
//! hash = BLAKE3(format ‖ sorted BLAKE3(context ‖ question ‖ answers) of every question)
//! ```
//!
//! The order of the questions, their ids, titles and the name of the file do not count; every letter of a
//! context, question or answer does. In version 2.0 an id that comes back is one question, as it is scored once.

use std::collections::HashMap;

use content_identity::{ContentHash, Hasher};
use serde::{Deserialize, Serialize};
use squad_data::{Dataset, Example, Format};

use crate::certificate::text_hash::TextHash;
use crate::error::{Error, Result};

/// Questions that two models are compared on.
#[derive(Debug, Clone)]
pub struct HeldOut {
    dataset: Dataset,
    /// In the order in which they are scored.
    questions: Vec<HeldOutQuestion>,
    /// Positions of the questions in the order of their contents.
    order: Vec<usize>,
}

/// A question, and what it is known by.
#[derive(Debug, Clone)]
pub(super) struct HeldOutQuestion {
    pub(super) example: Example,
    /// Of the question with its context and its answers.
    pub(super) content: ContentHash,
    pub(super) hash: TextHash,
    pub(super) context: TextHash,
}

/// What a certificate says of its questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOutRecord {
    /// Of the contents of all questions.
    pub hash: ContentHash,
    /// `1.1` or `2.0`.
    pub format: String,
    /// Number of questions.
    pub questions: usize,
    /// Number of different contexts.
    pub paragraphs: usize,
}

impl HeldOut {
    /// Questions and their contents.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn new(dataset: Dataset) -> Result<Self> {
        let mut examples: Vec<Example> = Vec::new();
        let mut position_of: HashMap<String, usize> = HashMap::new();
        for example in dataset.examples() {
            let next = examples.len();
            let position = match dataset.format {
                Format::V1 => next,
                Format::V2 => *position_of.entry(example.id.clone()).or_insert(next),
            };
            if position == next {
                examples.push(example);
            } else {
                examples[position] = example;
            }
        }
        if examples.is_empty() {
            return Err(Error::NoQuestions { what: "the held-out data set".into() });
        }
        let mut contexts: HashMap<String, TextHash> = HashMap::new();
        let question = |example: Example| {
            let context =
                *contexts.entry(example.context.to_string()).or_insert_with(|| TextHash::of_context(&example.context));
            HeldOutQuestion {
                content: content(&example),
                hash: TextHash::of_question(&example.context, &example.question),
                context,
                example,
            }
        };
        let questions: Vec<HeldOutQuestion> = examples.into_iter().map(question).collect();
        let mut order: Vec<usize> = (0..questions.len()).collect();
        order.sort_by_key(|&position| questions[position].content.to_string());
        Ok(Self { dataset, questions, order })
    }

    /// The questions as they were given.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Number of questions.
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// Questions in the order of their contents, each with its position in the order of the data set.
    pub(super) fn by_content(&self) -> impl Iterator<Item = (usize, &HeldOutQuestion)> {
        self.order.iter().map(|&position| (position, &self.questions[position]))
    }

    /// What a certificate says of them.
    pub fn record(&self) -> HeldOutRecord {
        let mut hasher = Hasher::default();
        let format = match self.dataset.format {
            Format::V1 => "1.1",
            Format::V2 => "2.0",
        };
        hasher.bytes("format", format.as_bytes());
        for (_, question) in self.by_content() {
            hasher.bytes("question", question.content.to_string().as_bytes());
        }
        let mut contexts: Vec<TextHash> = self.questions.iter().map(|question| question.context).collect();
        contexts.sort_unstable();
        contexts.dedup();
        HeldOutRecord {
            hash: hasher.finish(),
            format: format.to_owned(),
            questions: self.len(),
            paragraphs: contexts.len(),
        }
    }
}

fn content(example: &Example) -> ContentHash {
    let mut hasher = Hasher::default();
    hasher.bytes("context", example.context.as_bytes());
    hasher.bytes("question", example.question.as_bytes());
    let mut answers: Vec<(&str, usize)> =
        example.answers.iter().map(|answer| (answer.text.as_str(), answer.start)).collect();
    answers.sort_unstable();
    for (text, start) in answers {
        hasher.bytes("answer", text.as_bytes());
        hasher.numbers("start", [start as u64].into_iter());
    }
    hasher.bytes("impossible", &[u8::from(example.is_impossible)]);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use squad_data::{GeneratorConfig, Split, generate};

    use super::*;

    fn data() -> Dataset {
        generate(&GeneratorConfig::new(Split::Dev, 6, 4)).unwrap()
    }

    fn hash(dataset: Dataset) -> ContentHash {
        HeldOut::new(dataset).unwrap().record().hash
    }

    #[test]
    fn order_ids_and_titles_do_not_count_and_every_text_does() {
        let before = hash(data());
        let mut same = data();
        same.articles.reverse();
        for article in &mut same.articles {
            article.title.push('x');
            article.paragraphs.reverse();
            for paragraph in &mut article.paragraphs {
                paragraph.questions.reverse();
                paragraph.questions.iter_mut().for_each(|question| question.id.push('x'));
            }
        }
        assert_eq!(hash(same), before);
        let changes: [fn(&mut squad_data::Paragraph); 4] = [
            |paragraph| paragraph.context.push('.'),
            |paragraph| paragraph.questions[0].question.push('?'),
            |paragraph| paragraph.questions[0].answers[0].start += 1,
            |paragraph| _ = paragraph.questions.pop(),
        ];
        for change in changes {
            let mut other = data();
            change(&mut other.articles[0].paragraphs[0]);
            assert_ne!(hash(other), before);
        }
        let other = Dataset { format: Format::V2, ..data() };
        assert_ne!(hash(other), before);
    }

    #[test]
    fn an_id_that_comes_back_in_version_2_is_one_question() {
        let mut twice = data();
        let again = twice.articles[0].paragraphs[0].clone();
        let n = twice.len();
        twice.articles[0].paragraphs.push(again);
        assert!(HeldOut::new(twice.clone()).unwrap().len() > n);
        twice.format = Format::V2;
        assert_eq!(HeldOut::new(twice).unwrap().len(), n);
        let none = Dataset { articles: Vec::new(), ..data() };
        assert!(HeldOut::new(none).unwrap_err().to_string().contains("holds no question"));
    }
}
