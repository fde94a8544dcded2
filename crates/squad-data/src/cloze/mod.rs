//! Questions made from running text: cloze questions in SQuAD format.
//!
//! ```text
//! sentence   Powers was born in Jenkins, Kentucky, to Oliver and Ida Powers.
//! answer                        ───────
//! question   what Powers was born in Kentucky to Oliver?
//! ```
//!
//! A span of a sentence becomes the answer, the words around it the question, with a question word
//! in front and with noise: words are left out, and neighbours change places. Nobody would ask like
//! that, but to answer a model has to find the sentence that a question shares words with, and the
//! gap in it. Trained on many of them, a small model reads real questions better.
//!
//! Source: the *noisy cloze* of Lewis, Denoyer and Riedel, *Unsupervised Question Answering by Cloze
//! Translation*, arXiv:1906.04980, without their translation model.

use rand::Rng;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde::{Deserialize, Serialize};

use crate::dataset::{Answer, Paragraph, Question};
use crate::error::{Error, Result};

/// Most words of an answer.
const ANSWER_WORDS: usize = 4;

/// Words that answers neither begin nor end with.
const FUNCTION_WORDS: [&str; 60] = [
    "a", "an", "the", "of", "in", "on", "at", "to", "for", "from", "by", "with", "and", "or", "but", "as", "is", "are",
    "was", "were", "be", "been", "has", "had", "have", "it", "its", "he", "his", "him", "she", "her", "they", "their",
    "them", "this", "that", "these", "those", "which", "who", "when", "where", "while", "not", "no", "also", "than",
    "then", "there", "into", "i", "we", "you", "my", "our", "so", "if", "do", "did",
];

/// How cloze questions are made.
///
/// | field | range | default |
/// |---|---|---|
/// | `questions_per_paragraph` | 1.. | 3 |
/// | `words_per_context` | 20.. | 110 |
/// | `words_per_question` | 2.. | 12 |
/// | `dropped` | 0..1 | 0.2 |
/// | `phrases` | 0..=1 | 0.3 |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClozeConfig {
    /// Chooses answers and noise.
    pub seed: u64,
    /// Questions asked of a paragraph, as far as it has spans for them.
    pub questions_per_paragraph: usize,
    /// Longest context in words; paragraphs are cut behind a sentence.
    pub words_per_context: usize,
    /// Most words of a question, the question word not counted.
    pub words_per_question: usize,
    /// Chance that a word of the question is left out.
    pub dropped: f64,
    /// Share of answers that are any phrase; the others are names and numbers.
    pub phrases: f64,
}

impl Default for ClozeConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            questions_per_paragraph: 3,
            words_per_context: 110,
            words_per_question: 12,
            dropped: 0.2,
            phrases: 0.3,
        }
    }
}

impl ClozeConfig {
    fn check(&self) -> Result<()> {
        let counts = [
            ("questions_per_paragraph", self.questions_per_paragraph, 1),
            ("words_per_context", self.words_per_context, 20),
            ("words_per_question", self.words_per_question, 2),
        ];
        for (field, got, least) in counts {
            if got < least {
                return Err(Error::config(field, got, format!("at least {least}")));
            }
        }
        if !(0.0..1.0).contains(&self.dropped) {
            return Err(Error::config("dropped", self.dropped, "0 to below 1"));
        }
        if !(0.0..=1.0).contains(&self.phrases) {
            return Err(Error::config("phrases", self.phrases, "0 to 1"));
        }
        Ok(())
    }
}

/// Asks cloze questions of a document, paragraph (line) by paragraph.
///
/// The same ones for the same document, name and configuration. Lines of fewer than 20 words, such as
/// headings, are passed over. `name` begins the ids of the questions.
///
/// # Errors
/// [`Error::Config`] for a field outside its range.
pub fn cloze_questions(document: &str, name: &str, config: &ClozeConfig) -> Result<Vec<Paragraph>> {
    const LEAST_WORDS: usize = 20;
    config.check()?;
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(131).wrapping_add(u64::from(byte))));
    let mut paragraphs = Vec::new();
    for (line_number, line) in document.lines().enumerate() {
        let text = Text::new(line.trim(), config.words_per_context);
        if text.words.len() < LEAST_WORDS {
            continue;
        }
        let mut questions: Vec<Question> = Vec::new();
        let mut taken: Vec<Gap> = Vec::new();
        for _ in 0..2 * config.questions_per_paragraph {
            if questions.len() == config.questions_per_paragraph {
                break;
            }
            let candidates = if rng.random_bool(config.phrases) { text.phrases() } else { text.names_and_numbers() };
            let Some(&gap) = candidates.choose(&mut rng) else { continue };
            if taken.iter().any(|other| other.first <= gap.last && gap.first <= other.last) {
                continue;
            }
            let Some(question) = text.question(gap, config, &mut rng) else { continue };
            taken.push(gap);
            questions.push(Question {
                id: format!("{name}-{line_number}-{}", questions.len()),
                question,
                answers: vec![text.answer(gap)],
                plausible_answers: Vec::new(),
                is_impossible: false,
            });
        }
        if !questions.is_empty() {
            paragraphs.push(Paragraph { context: text.context(), questions });
        }
    }
    Ok(paragraphs)
}

/// Words `first..=last` of a text, all of one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    first: usize,
    last: usize,
}

/// A word with what stands around it.
struct Word<'a> {
    /// Without punctuation at its ends.
    core: &'a str,
    /// Where the core begins, in bytes.
    start: usize,
    /// Whether punctuation stands before or behind the core.
    opened: bool,
    closed: bool,
    sentence: usize,
}

impl Word<'_> {
    fn end(&self) -> usize {
        self.start + self.core.len()
    }

    fn is_function_word(&self) -> bool {
        FUNCTION_WORDS.contains(&self.core.to_lowercase().as_str())
    }

    fn is_number(&self) -> bool {
        self.core.starts_with(|c: char| c.is_ascii_digit())
    }

    fn is_capitalised(&self) -> bool {
        self.core.starts_with(char::is_uppercase)
    }
}

/// A paragraph cut into words and sentences.
struct Text<'a> {
    text: &'a str,
    words: Vec<Word<'a>>,
}

impl<'a> Text<'a> {
    /// The whole sentences of `text` that fit into so many words; a longer first sentence is cut.
    fn new(text: &'a str, most_words: usize) -> Self {
        let mut words: Vec<Word<'a>> = Vec::new();
        let mut sentence = 0;
        let mut sentence_ended = false;
        for raw in text.split_whitespace() {
            let core = raw.trim_matches(|c: char| !c.is_alphanumeric());
            if core.is_empty() {
                // A dash or the like between two words keeps them apart.
                if let Some(word) = words.last_mut() {
                    word.closed = true;
                }
                continue;
            }
            if sentence_ended && core.starts_with(char::is_uppercase) {
                sentence += 1;
            }
            let at = raw.as_ptr() as usize - text.as_ptr() as usize;
            let before = core.as_ptr() as usize - raw.as_ptr() as usize;
            let tail = &raw[before + core.len()..];
            // A full stop behind one letter is an initial's.
            sentence_ended = tail.contains(['.', '?', '!']) && core.chars().nth(1).is_some();
            words.push(Word { core, start: at + before, opened: before > 0, closed: !tail.is_empty(), sentence });
        }
        if let Some(over) = words.get(most_words) {
            let cut = words.partition_point(|word| word.sentence < over.sentence);
            words.truncate(if cut == 0 { most_words } else { cut });
        }
        Self { text, words }
    }

    /// The text as far as its words go, with the punctuation behind the last one.
    fn context(&self) -> String {
        let end = self.words.last().map_or(0, Word::end);
        let tail = self.text[end..].split_whitespace().next().unwrap_or_default();
        // Only what belongs to the word itself, not the word behind a space.
        let tail = if self.text[end..].starts_with(tail) { tail } else { "" };
        format!("{}{tail}", &self.text[..end])
    }

    fn answer(&self, gap: Gap) -> Answer {
        let (start, end) = (self.words[gap.first].start, self.words[gap.last].end());
        Answer { text: self.text[start..end].to_owned(), start: self.text[..start].chars().count() }
    }

    /// Whether words `first..=last` stand together: one sentence, no punctuation between them.
    fn is_together(&self, Gap { first, last }: Gap) -> bool {
        let words = &self.words[first..=last];
        words.iter().all(|word| word.sentence == words[0].sentence)
            && words[..words.len() - 1].iter().all(|word| !word.closed)
            && words[1..].iter().all(|word| !word.opened)
    }

    /// Longest runs of capitalised words and numbers, sentence beginnings left out.
    fn names_and_numbers(&self) -> Vec<Gap> {
        let begins_sentence = |i: usize| i == 0 || self.words[i - 1].sentence != self.words[i].sentence;
        let fits = |i: usize| {
            let word = &self.words[i];
            word.is_number() || word.is_capitalised() && !begins_sentence(i) && !word.is_function_word()
        };
        let mut gaps = Vec::new();
        let mut first = 0;
        while first < self.words.len() {
            let mut last = first;
            if fits(first) {
                while last + 1 < self.words.len() && fits(last + 1) && self.is_together(Gap { first, last: last + 1 }) {
                    last += 1;
                }
                if last - first < ANSWER_WORDS {
                    gaps.push(Gap { first, last });
                }
            }
            first = last + 1;
        }
        gaps
    }

    /// One to three words that stand together and neither begin nor end with a function word.
    fn phrases(&self) -> Vec<Gap> {
        const PHRASE_WORDS: usize = 3;
        let gaps = (0..self.words.len()).flat_map(|first| {
            (first..(first + PHRASE_WORDS).min(self.words.len())).map(move |last| Gap { first, last })
        });
        gaps.filter(|gap| {
            let ends = [&self.words[gap.first], &self.words[gap.last]];
            self.is_together(*gap) && ends.iter().all(|word| !word.is_function_word())
        })
        .collect()
    }

    /// The words around a gap, with noise; `None` when too few are left.
    fn question(&self, gap: Gap, config: &ClozeConfig, rng: &mut ChaCha8Rng) -> Option<String> {
        const LEAST_WORDS: usize = 3;
        let sentence = self.words[gap.first].sentence;
        let begin = self.words.partition_point(|word| word.sentence < sentence);
        let end = self.words.partition_point(|word| word.sentence <= sentence);
        // A stretch of the sentence that holds the gap, at a random place.
        let length = config.words_per_question + gap.last + 1 - gap.first;
        let earliest = begin.max((gap.last + 1).saturating_sub(length));
        let latest = gap.first.min(end.saturating_sub(length)).max(earliest);
        let from = rng.random_range(earliest..=latest);
        let around = (from..end.min(from + length)).filter(|i| !(gap.first..=gap.last).contains(i));
        let mut words: Vec<&str> = around.map(|i| self.words[i].core).collect();
        words.retain(|_| !rng.random_bool(config.dropped));
        if words.len() < LEAST_WORDS.min(config.words_per_question) {
            return None;
        }
        let pairs = words.len() - 1;
        for i in 0..pairs {
            if rng.random_bool(0.1) {
                words.swap(i, i + 1);
            }
        }
        Some(format!("{} {}?", self.question_word(gap, rng), words.join(" ")))
    }

    fn question_word(&self, gap: Gap, rng: &mut ChaCha8Rng) -> &'static str {
        let word = &self.words[gap.first];
        let choices: &[&str] = match word.core.parse::<u32>() {
            Ok(1000..2100) => &["when", "what year", "in what year"],
            _ if word.is_number() => &["how many", "how much", "what"],
            _ if word.is_capitalised() => &["who", "what", "where", "which"],
            _ => &["what", "how", "why", "which"],
        };
        choices.choose(rng).copied().unwrap_or("what")
    }
}

#[cfg(test)]
mod tests;
