//! Byte offsets to character offsets.

use super::CharSpan;

/// Finds the character that a byte of a text belongs to.
pub(super) struct CharIndex<'a> {
    text: &'a str,
    /// For each byte, and for the end of the text, the number of characters that begin before
    /// it. None for ASCII, where that is the byte's own position.
    begun_before: Option<Vec<usize>>,
}

impl<'a> CharIndex<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let begun_before = (!text.is_ascii()).then(|| {
            let mut begun = 0;
            let mut counts = Vec::with_capacity(text.len() + 1);
            for byte in 0..=text.len() {
                counts.push(begun);
                begun += usize::from(text.is_char_boundary(byte));
            }
            counts
        });
        Self { text, begun_before }
    }

    /// The characters that bytes `start..end` touch, without white space at either side; with it
    /// where there is nothing else.
    pub(super) fn trimmed(&self, start: usize, end: usize) -> CharSpan {
        let end = self.text.ceil_char_boundary(end);
        let start = self.text.floor_char_boundary(start).min(end);
        let piece = &self.text[start..end];
        let inner = piece.trim();
        let (start, end) = if inner.is_empty() {
            (start, end)
        } else {
            let start = start + (piece.len() - piece.trim_start().len());
            (start, start + inner.len())
        };
        CharSpan { start: self.char_of(start), end: self.char_of(end) }
    }

    fn char_of(&self, boundary: usize) -> usize {
        match &self.begun_before {
            Some(counts) => counts[boundary],
            None => boundary,
        }
    }
}
