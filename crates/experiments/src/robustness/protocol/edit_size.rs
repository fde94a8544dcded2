//! How much of an item an attack changed.
//!
//! ```text
//! d(i, 0) = i,  d(0, j) = j
//! d(i, j) = min(d(i−1, j) + 1, d(i, j−1) + 1, d(i−1, j−1) + [aᵢ ≠ bⱼ])
//! ```
//!
//! Once over characters and once over words between white space. Source: Levenshtein, *Binary codes
//! capable of correcting deletions, insertions, and reversals*, Soviet Physics Doklady, 1966.

use serde::{Deserialize, Serialize};

use squad_data::Example;

/// Levenshtein distance of an edited example from the clean one, question and context added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EditSize {
    /// Characters inserted, deleted or replaced.
    pub characters: usize,
    /// Words inserted, deleted or replaced.
    pub words: usize,
}

impl EditSize {
    /// The distance of two versions of an example.
    pub fn between(clean: &Example, edited: &Example) -> Self {
        let pairs = [(clean.question.as_str(), edited.question.as_str()), (&*clean.context, &*edited.context)];
        let mut size = Self::default();
        for (a, b) in pairs {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            size.characters += distance(&chars(a), &chars(b));
            let (a, b): (Vec<&str>, Vec<&str>) = (a.split_whitespace().collect(), b.split_whitespace().collect());
            size.words += distance(&a, &b);
        }
        size
    }
}

fn distance<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let prefix = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use crate::robustness::protocol::edit_size::distance;

    #[test]
    fn distances_are_those_of_the_textbook() {
        let distance = |a: &str, b: &str| distance(a.as_bytes(), b.as_bytes());
        for (a, b, expected) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
