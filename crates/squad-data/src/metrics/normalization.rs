//! Answers reduced to what the scripts compare.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

/// Runs of what Python's `\w` takes for word characters: letters, numbers, the underscore.
///
/// Rust's own `\w` has combining marks as well, so `\b` would stand elsewhere.
static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]+").expect("the expression is a constant"));

/// Lower case, without ASCII punctuation, without the words a, an and the, and with one space
/// between words.
///
/// ```
/// assert_eq!(squad_data::normalize_answer(" The Cat's  hat, an old one."), "cats hat old one");
/// ```
pub fn normalize_answer(answer: &str) -> String {
    let lower: String = answer.to_lowercase().chars().filter(|character| !character.is_ascii_punctuation()).collect();
    let without_articles = WORD.replace_all(&lower, |word: &regex::Captures<'_>| match &word[0] {
        "a" | "an" | "the" => " ".to_owned(),
        other => other.to_owned(),
    });
    words(&without_articles).collect::<Vec<_>>().join(" ")
}

/// What cannot be seen, and punctuation beyond that of ASCII.
static UNSEEN: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\p{Cf}\p{P}]").expect("the expression is a constant"));

/// [`normalize_answer`] without Unicode's format characters, such as zero-width spaces and soft hyphens, and without
/// its punctuation: by this a text that was copied is known again.
///
/// ```
/// assert_eq!(squad_data::normalize_text("Who wrote “The\u{200b} Ha\u{ad}rp”?"), "who wrote harp");
/// ```
pub fn normalize_text(text: &str) -> String {
    normalize_answer(&UNSEEN.replace_all(text, ""))
}

/// Splits at Python's white space, which has four separators that Rust's has not.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character))
        .filter(|word| !word.is_empty())
}

/// The overlap of two normalised answers as bags of words.
pub(super) fn f1_of_normalized(prediction: &str, gold: &str) -> f64 {
    let mut in_gold: HashMap<&str, usize> = HashMap::new();
    let mut gold_words = 0_usize;
    for word in words(gold) {
        *in_gold.entry(word).or_default() += 1;
        gold_words += 1;
    }
    let (mut common, mut predicted_words) = (0_usize, 0_usize);
    for word in words(prediction) {
        predicted_words += 1;
        if let Some(left) = in_gold.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let precision = common as f64 / predicted_words as f64;
    let recall = common as f64 / gold_words as f64;
    (2.0 * precision * recall) / (precision + recall)
}
