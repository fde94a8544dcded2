//! An added sentence that looks like an answer and is none.
//!
//! ```text
//! question   What is the capital of France?                gold: Paris
//! altered    What is the capital of Tolvania?              every name and number changed
//! fake       Quillby                                       of the gold answer's kind, no word of it
//! sentence   The capital of Tolvania is Quillby.
//! ```
//!
//! The sentence is about other entities than the question, and is refused when it holds a gold answer
//! or the fake answer shares a word with one. Source: Jia and Liang, *Adversarial Examples for
//! Evaluating Reading Comprehension Systems*, arXiv:1707.07328 (their AddOneSent, with rules and
//! invented names in place of WordNet and crowd workers).

use std::collections::BTreeMap;

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use squad_data::{CharSpan, Example, normalize_answer};
use switchable_model::model::TrainableModel;

use crate::error::Result;
use crate::robustness::attacks::attack::{Access, Attack, Outcome};
use crate::robustness::protected_example::{Edit, Place, ProtectedExample, Unattackable};
use crate::robustness::victim::oracle::Oracle;

/// Invented names, for people and places alike.
const NAMES: [&str; 32] = [
    "Tolvan", "Quillby", "Ostvan", "Marvek", "Dorlin", "Yevgar", "Pelmar", "Brindor", "Kestor", "Lundrel", "Varrick",
    "Zelmora", "Hobrent", "Grenlow", "Fenwold", "Ulmar", "Corvane", "Nessim", "Jorvane", "Ardley", "Wexcombe", "Imrie",
    "Tamsel", "Ruddane", "Sorvel", "Eskvale", "Bolvar", "Cathmor", "Oderin", "Palmyre", "Xanter", "Heskan",
];

/// Common nouns.
const NOUNS: [&str; 24] = [
    "lantern", "gravel", "walnut", "anvil", "ribbon", "barrel", "thimble", "pebble", "harness", "cobbler", "saffron",
    "velvet", "quarry", "bramble", "plaster", "magnet", "pigment", "compass", "trellis", "mustard", "sulphur", "tunic",
    "ferry", "almanac",
];

/// Where the sentence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistractorPlace {
    /// Before the context.
    Start,
    /// Behind the context.
    #[default]
    End,
}

/// One distractor sentence added to the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Distractor {
    /// Where it stands.
    pub place: DistractorPlace,
}

impl Distractor {
    /// Edits an item; no model is needed.
    ///
    /// # Errors
    ///
    /// Never for an item: the sentence stands before or behind all of the context.
    pub fn perturb(&self, item: &ProtectedExample, rng: &mut ChaCha8Rng) -> Result<Outcome> {
        let sentence = match distractor_sentence(item.example(), rng) {
            Ok(sentence) => sentence,
            Err(reason) => return Ok(Outcome::Unattackable(reason)),
        };
        let (at, text) = match self.place {
            DistractorPlace::Start => (0, format!("{sentence} ")),
            DistractorPlace::End => (item.example().context.chars().count(), format!(" {sentence}")),
        };
        let edit = Edit { place: Place::Context, chars: CharSpan { start: at, end: at }, text };
        item.edit(&[edit]).map(Outcome::Attacked)
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Attack<B, M> for Distractor {
    fn name(&self) -> String {
        "distractor".into()
    }

    fn settings(&self) -> Value {
        json!(self)
    }

    fn access(&self) -> Access {
        Access::Blind
    }

    fn attack(&self, item: &ProtectedExample, _: &Oracle<'_, B, M>, rng: &mut ChaCha8Rng) -> Result<Outcome> {
        self.perturb(item, rng)
    }
}

/// A sentence that answers another question than the example's.
fn distractor_sentence(example: &Example, rng: &mut ChaCha8Rng) -> Result<String, Unattackable> {
    let gold = &example.answers.first().ok_or(Unattackable::NoAnswer)?.text;
    let known = format!("{} {}", example.question, example.context).to_lowercase();
    let mut unused = |words: &[&'static str]| {
        let mut free: Vec<_> = words.iter().copied().filter(|word| !known.contains(&word.to_lowercase())).collect();
        free.shuffle(rng);
        free
    };
    let (mut names, mut nouns) = (unused(&NAMES), unused(&NOUNS));
    let altered = altered_question(&example.question, &mut names, rng)?;
    let number = gold.split_whitespace().max_by_key(|word| word.chars().filter(char::is_ascii_digit).count());
    let fake = if let Some(number) = number.filter(|word| word.contains(|c: char| c.is_ascii_digit())) {
        other_number(number.trim_matches(|c: char| !c.is_alphanumeric()), rng)
    } else {
        let kind = if gold.contains(char::is_uppercase) { &mut names } else { &mut nouns };
        kind.pop().ok_or(Unattackable::NoEntity)?.to_string()
    };
    let sentence = statement(&altered, &fake);
    let shares_word = |gold: &str| words(gold).iter().any(|word| words(&fake).contains(word));
    let is_answer = |gold: &str| shares_word(gold) || holds(&sentence, gold);
    if example.answers.iter().any(|answer| is_answer(&answer.text)) {
        return Err(Unattackable::AnswerInDistractor);
    }
    Ok(sentence)
}

/// The question with every name and number replaced, the same one by the same.
fn altered_question(
    question: &str,
    names: &mut Vec<&'static str>,
    rng: &mut ChaCha8Rng,
) -> Result<String, Unattackable> {
    let mut replaced: BTreeMap<String, String> = BTreeMap::new();
    let mut out = String::new();
    let mut rest = question;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let is_number = word.chars().any(|c| c.is_ascii_digit());
        let is_name = !out.is_empty() && word.chars().next().is_some_and(char::is_uppercase);
        if is_number || is_name {
            if !replaced.contains_key(word) {
                let mut name = || names.pop().map(str::to_string).ok_or(Unattackable::NoEntity);
                let other = if is_number { other_number(word, rng) } else { name()? };
                replaced.insert(word.to_string(), other);
            }
            out.push_str(&replaced[word]);
        } else {
            out.push_str(word);
        }
        let between = behind.find(char::is_alphanumeric).unwrap_or(behind.len());
        out.push_str(&behind[..between]);
        rest = &behind[between..];
    }
    if replaced.is_empty() { Err(Unattackable::NoEntity) } else { Ok(out) }
}

/// The text with every digit replaced by another one, the first never by zero.
fn other_number(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut is_first = true;
    let other = |c: char| match c.to_digit(10) {
        Some(digit) => {
            let least = u32::from(std::mem::take(&mut is_first));
            let choices: Vec<u32> = (least..10).filter(|&other| other != digit).collect();
            char::from_digit(choices[rng.random_range(0..choices.len() as u32) as usize], 10).unwrap_or(c)
        }
        None => c,
    };
    text.chars().map(other).collect()
}

/// A statement that answers a question: by rule for the plainest forms, else by quoting it.
fn statement(question: &str, answer: &str) -> String {
    let question = question.trim().trim_end_matches('?').trim_end();
    let mut parts = question.splitn(3, ' ');
    let (first, second, rest) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let first = first.to_lowercase();
    let is_to_be = ["is", "are", "was", "were"].contains(&second);
    let is_auxiliary = ["do", "does", "did", "has", "have", "had", "can", "could", "will", "would"].contains(&second);
    match first.as_str() {
        "what" | "who" if is_to_be && !rest.is_empty() => format!("{} {second} {answer}.", capitalised(rest)),
        "who" if !is_to_be && !is_auxiliary && !rest.is_empty() => format!("{} {second} {rest}.", capitalised(answer)),
        _ => format!("The answer to \"{question}?\" is {answer}."),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The words that answers are compared by.
fn words(text: &str) -> Vec<String> {
    normalize_answer(text).split_whitespace().map(str::to_string).collect()
}

/// Whether a sentence holds an answer, as the metrics compare them or letter by letter.
fn holds(sentence: &str, answer: &str) -> bool {
    let (sentence_words, answer_words) = (words(sentence), words(answer));
    let in_words =
        !answer_words.is_empty() && sentence_words.windows(answer_words.len()).any(|window| window == answer_words);
    in_words || (answer_words.is_empty() && sentence.to_lowercase().contains(&answer.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_questions_become_statements_and_others_are_quoted() {
        for (question, expected) in [
            ("What is the capital of Tolvan?", "The capital of Tolvan is Kestor."),
            ("Who founded Tolvan?", "Kestor founded Tolvan."),
            ("Who was Tolvan's uncle ?", "Tolvan's uncle was Kestor."),
            ("In which year was Tolvan born?", "The answer to \"In which year was Tolvan born?\" is Kestor."),
            ("Who did Tolvan meet?", "The answer to \"Who did Tolvan meet?\" is Kestor."),
        ] {
            assert_eq!(statement(question, "Kestor"), expected);
        }
    }

    #[test]
    fn a_sentence_holds_an_answer_whatever_its_case_and_articles() {
        assert!(holds("It lies in the Old Town.", "old town"));
        assert!(holds("It lies in Oslo.", "The Oslo"));
        assert!(!holds("It lies in Osloby.", "Oslo"));
        assert!(holds("Answer: the", "the"));
    }
}
