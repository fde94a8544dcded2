//! Short hashes of questions and paragraphs, by which they are found again.
//!
//! ```text
//! the first 16 hexadecimal digits of BLAKE3(context ‖ question), both in lower case and without articles,
//! punctuation and characters that cannot be seen, runs of white space as one space
//! ```
//!
//! So a question is found that was copied by hand. Two of a million different questions have the same one with a probability of 3·10⁻⁸.

use std::fmt;
use std::str::FromStr;

use content_identity::Hasher;
use serde::{Deserialize, Serialize};
use squad_data::normalize_text;

/// The hash of a question with its context, or of a context.
///
/// ```
/// use span_reader::certificate::text_hash::TextHash;
///
/// let hash = TextHash::of_question("Mira plays the harp.", "What does Mira play?");
/// assert_eq!(hash, TextHash::of_question("Mira plays\n the harp ", "what does\u{200b} Mira play"));
/// assert_ne!(hash, TextHash::of_question("Mira plays the harp.", "What did Mira play?"));
/// assert_eq!(hash.to_string().parse(), Ok(hash));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TextHash(u64);

impl TextHash {
    /// Of a question about a context. Its id and its answers do not count.
    pub fn of_question(context: &str, question: &str) -> Self {
        Self::of(&[("context", context), ("question", question)])
    }

    /// Of a context.
    pub fn of_context(context: &str) -> Self {
        Self::of(&[("context", context)])
    }

    fn of(parts: &[(&str, &str)]) -> Self {
        let mut hasher = Hasher::default();
        for (name, text) in parts {
            hasher.bytes(name, normalize_text(text).as_bytes());
        }
        let digits = format!("{:.16}", hasher.finish());
        Self(u64::from_str_radix(&digits, 16).unwrap_or_default())
    }
}

impl fmt::Display for TextHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TextHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let refused = || format!("`{text}` is no hash, expected 16 hexadecimal digits in lower case");
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(refused());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| refused())
    }
}

impl TryFrom<String> for TextHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TextHash> for String {
    fn from(hash: TextHash) -> Self {
        hash.to_string()
    }
}
