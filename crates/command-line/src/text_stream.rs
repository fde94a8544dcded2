//! Generated texts, printed as their tokens come.

use switchable_quant::data::TextTokenizer;
use switchable_quant::transformer::generate::NewToken;

/// What is to be printed of some texts: the first as it grows, each further one as soon as those before it have
/// ended.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    /// Prompt and continuation.
    texts: Vec<Vec<u32>>,
    new: Vec<usize>,
    /// The text that is being printed.
    current: usize,
    /// What is printed of it.
    printed: String,
}

/// Stands for the bytes of a character that are not all there yet.
const UNFINISHED: char = '\u{fffd}';

impl<'a> TextStream<'a> {
    /// Nothing printed yet of texts that start with these prompts.
    pub fn new(tokenizer: &'a TextTokenizer, prompts: &[Vec<u32>]) -> Self {
        Self { tokenizer, texts: prompts.to_vec(), new: vec![0; prompts.len()], current: 0, printed: String::new() }
    }

    /// What can be printed with a further token.
    ///
    /// # Errors
    ///
    /// When the tokenizer has no such token.
    pub fn push(&mut self, token: NewToken) -> anyhow::Result<String> {
        let NewToken { sequence, token } = token;
        self.texts[sequence].push(token);
        self.new[sequence] += 1;
        let mut out = String::new();
        // Tokens come in turns: a text that was passed over has ended.
        while self.current < sequence && self.new[self.current] < self.new[sequence] {
            out += &self.finish_current()?;
        }
        if self.current == sequence {
            out += &self.rest(true)?;
        }
        Ok(out)
    }

    /// What is left of all texts, which have ended.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn finish(mut self) -> anyhow::Result<String> {
        let mut out = String::new();
        while self.current < self.texts.len() {
            out += &self.finish_current()?;
        }
        Ok(out)
    }

    fn finish_current(&mut self) -> anyhow::Result<String> {
        let mut out = self.rest(false)?;
        out.push('\n');
        self.current += 1;
        self.printed.clear();
        Ok(out)
    }

    /// What is not printed of the current text. Where it grows, a character whose last bytes are missing waits
    /// for them.
    fn rest(&mut self, grows: bool) -> anyhow::Result<String> {
        let text = self.tokenizer.decode(&self.texts[self.current])?;
        // The space that some tokenizers put before a text.
        let mut text = text.trim_start().to_owned();
        if grows {
            text.truncate(text.trim_end_matches(UNFINISHED).len());
        }
        let rest = text.strip_prefix(&self.printed).unwrap_or_default().to_owned();
        self.printed += &rest;
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_printed_one_behind_the_other_and_whole() {
        let files = switchable_quant::default_model::FILES;
        let tokenizer = TextTokenizer::from_bytes(files.tokenizer, "<built-in>").unwrap();
        let whole = ["Éva lives in the north.", "The town", "A river — called Éa"];
        let ids = whole.map(|text| tokenizer.encode_ids(text).unwrap());
        let prompts: Vec<Vec<u32>> = ids.iter().map(|ids| ids[..1].to_vec()).collect();
        let mut stream = TextStream::new(&tokenizer, &prompts);
        let (mut printed, mut steps) = (String::new(), Vec::new());
        for turn in 1..ids.iter().map(Vec::len).max().unwrap() {
            for (sequence, ids) in ids.iter().enumerate() {
                if let Some(&token) = ids.get(turn) {
                    let piece = stream.push(NewToken { sequence, token }).unwrap();
                    steps.push(piece.len());
                    printed += &piece;
                }
            }
        }
        printed += &stream.finish().unwrap();
        assert_eq!(printed, format!("{}\n", whole.join("\n")));
        // The first character comes in two tokens.
        assert_eq!(steps[0], 0);
        assert!(steps.iter().filter(|&&bytes| bytes > 0).count() > 3, "{steps:?}");
    }
}
