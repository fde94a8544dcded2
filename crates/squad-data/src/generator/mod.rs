//! Synthetic reading comprehension.
//!
//! ```text
//! paragraph = entities × attributes facts, each one (name, attribute, value)
//! question  = (name, attribute)  →  value
//! ```
//!
//! A paragraph tells the same attributes of several fictional people, so that a question can only
//! be answered by reading whom and what it asks about: every other person's value of the same
//! attribute is a distractor, every other value of the same person as well. Facts are worded by
//! many templates, questions by many paraphrases.
//!
//! What holds for every corpus, and is tested:
//!
//! - the two splits share no full name, whatever their seeds; given names, family names and
//!   values are shared, so that a held-out name is readable;
//! - within a paragraph no two people share a given name or a family name, and no two values of
//!   an attribute are equal;
//! - in every sentence the name stands before the value: a causal model decides at a token having
//!   read nothing behind it;
//! - paragraph `i` depends on the seed and on `i` alone, so a longer corpus begins with a shorter
//!   one, on every platform.
//!
//! ```
//! use squad_data::{GeneratorConfig, Split, generate};
//!
//! let corpus = generate(&GeneratorConfig::new(Split::Dev, 10, 7))?;
//! assert_eq!(corpus.len(), 30); // three questions a paragraph
//! let example = &corpus.examples()[0];
//! assert!(example.context.contains(&example.answers[0].text));
//! # Ok::<(), squad_data::Error>(())
//! ```

mod attributes;
mod names;
mod paragraph;
#[cfg(test)]
mod tests;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::dataset::{Article, Dataset, Format};
use crate::error::{Error, Result};
use attributes::ATTRIBUTES;
use paragraph::draw_paragraph;

/// Paragraphs an article of the generated file holds.
const PARAGRAPHS_PER_ARTICLE: usize = 50;

/// Most people a paragraph can tell of: beyond it distinct held-out names become rare.
const MAX_ENTITIES: usize = 20;

/// Which names a corpus may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Four names in five.
    Train,
    /// The other names, which no train corpus contains.
    Dev,
}

impl Split {
    /// The split as a lower-case word, the first part of every question id.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
        }
    }
}

/// In which order a paragraph tells its sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SentenceOrder {
    /// All sentences of a person in a row.
    Grouped,
    /// Sentences of all people mixed.
    Shuffled,
}

/// What [`generate`] makes.
///
/// | field | range | default |
/// |---|---|---|
/// | `paragraphs` | 1.. | given |
/// | `entities` | 1..=20 | 3 |
/// | `attributes` | 1..=12 | 3 |
/// | `questions` | 1..=entities × attributes | 3 |
/// | probabilities | 0..=1 | see each |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GeneratorConfig {
    /// Chooses the corpus.
    pub seed: u64,
    /// Chooses the names.
    pub split: Split,
    /// Paragraphs to make.
    pub paragraphs: usize,
    /// People in a paragraph.
    pub entities: usize,
    /// Attributes told of each of them, the same ones of all.
    pub attributes: usize,
    /// Questions asked of a paragraph, each about another fact.
    pub questions: usize,
    /// Chance that two facts of a person share one sentence (0.75).
    pub pair_probability: f64,
    /// Chance that a paragraph holds a sentence about nobody (0.1).
    pub filler_probability: f64,
    /// Chance that a person is called by the given name alone, in a question or in a sentence
    /// behind one that has the full name (0.2).
    pub given_name_probability: f64,
    /// Chance that a question asks about somebody the paragraph does not name (0). Above 0 the
    /// corpus is in the format of SQuAD v2.0.
    pub unanswerable_probability: f64,
    /// Order of the sentences (shuffled).
    pub order: SentenceOrder,
}

impl GeneratorConfig {
    /// A configuration with every choice at its default.
    pub fn new(split: Split, paragraphs: usize, seed: u64) -> Self {
        Self {
            seed,
            split,
            paragraphs,
            entities: 3,
            attributes: 3,
            questions: 3,
            pair_probability: 0.75,
            filler_probability: 0.1,
            given_name_probability: 0.2,
            unanswerable_probability: 0.0,
            order: SentenceOrder::Shuffled,
        }
    }

    fn check(&self) -> Result<()> {
        let counts = [
            ("paragraphs", self.paragraphs, usize::MAX),
            ("entities", self.entities, MAX_ENTITIES),
            ("attributes", self.attributes, ATTRIBUTES.len()),
            ("questions", self.questions, self.entities.saturating_mul(self.attributes)),
        ];
        for (field, got, most) in counts {
            if !(1..=most).contains(&got) {
                return Err(Error::config(field, got, format!("1 to {most}")));
            }
        }
        let probabilities = [
            ("pair_probability", self.pair_probability),
            ("filler_probability", self.filler_probability),
            ("given_name_probability", self.given_name_probability),
            ("unanswerable_probability", self.unanswerable_probability),
        ];
        for (field, got) in probabilities {
            if !(0.0..=1.0).contains(&got) {
                return Err(Error::config(field, got, "0 to 1"));
            }
        }
        Ok(())
    }
}

/// Makes a corpus: the same one for the same configuration, on every platform.
///
/// # Errors
/// [`Error::Config`] for a field outside its range.
pub fn generate(config: &GeneratorConfig) -> Result<Dataset> {
    config.check()?;
    let mut paragraphs = (0..config.paragraphs).map(|index| {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        // One stream a paragraph: none depends on how much its predecessors drew.
        rng.set_stream(index as u64);
        draw_paragraph(config, index, &mut rng)
    });
    let mut articles = Vec::new();
    loop {
        let chunk: Vec<_> = paragraphs.by_ref().take(PARAGRAPHS_PER_ARTICLE).collect();
        if chunk.is_empty() {
            break;
        }
        articles.push(Article { title: format!("{}_{}", config.split.name(), articles.len()), paragraphs: chunk });
    }
    let format = if config.unanswerable_probability > 0.0 { Format::V2 } else { Format::V1 };
    Ok(Dataset { format, articles })
}

/// Every context and every question of `dataset`, in order: what a tokenizer is trained on.
///
/// ```
/// use squad_data::{BpeConfig, GeneratorConfig, Split, TextTokenizer, corpus_texts, generate};
///
/// let corpus = generate(&GeneratorConfig::new(Split::Train, 50, 1))?;
/// let texts = corpus_texts(&corpus);
/// assert_eq!(texts.len(), 50 + 150);
/// let tokenizer = TextTokenizer::train_bpe(texts, &BpeConfig::default())?;
/// assert!(tokenizer.vocab_size() <= 1024);
/// # Ok::<(), squad_data::Error>(())
/// ```
pub fn corpus_texts(dataset: &Dataset) -> Vec<&str> {
    let paragraphs = dataset.articles.iter().flat_map(|a| &a.paragraphs);
    paragraphs
        .flat_map(|paragraph| {
            let questions = paragraph.questions.iter().map(|q| q.question.as_str());
            std::iter::once(paragraph.context.as_str()).chain(questions)
        })
        .collect()
}
