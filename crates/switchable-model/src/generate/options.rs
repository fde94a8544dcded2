//! How long a text gets, how its tokens are chosen and where it ends.

use crate::error::{Error, Result};

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawOptions {
    /// Divides the scores; above 0.
    pub temperature: f32,
    /// Draw from this many best tokens and those that are as good as the last of them; at least 1.
    pub top_k: Option<usize>,
    /// Draw from the fewest best tokens that together have this probability; above 0, at most 1.
    pub top_p: Option<f32>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for DrawOptions {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, seed: 0 }
    }
}

/// How the next token is chosen from its scores.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Sampling {
    /// The most probable token; of equals, the first.
    #[default]
    Greedy,
    /// A draw by its probability.
    Draws(DrawOptions),
}

/// Length, choice and end of a generated text.
///
/// | option | default | range |
/// |---|---|---|
/// | `max_new_tokens` | 32 | any |
/// | `max_length` | none | at least 1 |
/// | `sampling` | greedy | see [`DrawOptions`] |
/// | `repetition_penalty` | 1, which changes nothing | finite, above 0 |
/// | `stop` | none | ids of the vocabulary |
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Tokens of prompt and continuation at most, beside the model's positions.
    pub max_length: Option<usize>,
    /// How each is chosen.
    pub sampling: Sampling,
    /// Divides the scores above 0 of tokens that the prompt or the text holds, and multiplies those below.
    pub repetition_penalty: f32,
    /// Tokens that end the text; they are not returned.
    pub stop: Vec<u32>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 32,
            max_length: None,
            sampling: Sampling::Greedy,
            repetition_penalty: 1.0,
            stop: Vec::new(),
        }
    }
}

impl GenerateOptions {
    /// Checks the options for a model with a vocabulary of this size.
    ///
    /// # Errors
    ///
    /// When one is out of its range, which names it.
    pub fn check(&self, vocabulary: usize) -> Result<()> {
        let fault = |field, got: String, expected| Err(Error::Option { field, got, expected });
        if !is_positive(self.repetition_penalty) {
            return fault("repetition_penalty", self.repetition_penalty.to_string(), "a finite number above 0");
        }
        if self.max_length == Some(0) {
            return fault("max_length", "0".into(), "at least 1");
        }
        if let Some(token) = self.stop.iter().find(|&&token| token as usize >= vocabulary) {
            return fault("stop", token.to_string(), "a token id of the model's vocabulary");
        }
        let Sampling::Draws(DrawOptions { temperature, top_k, top_p, .. }) = self.sampling else { return Ok(()) };
        if !is_positive(temperature) {
            return fault("temperature", temperature.to_string(), "a finite number above 0");
        }
        if top_k == Some(0) {
            return fault("top_k", "0".into(), "at least 1");
        }
        match top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => fault("top_p", p.to_string(), "a number above 0, at most 1"),
            _ => Ok(()),
        }
    }

    /// Checks the length of a prompt against that of the text.
    pub(super) fn check_prompt(&self, tokens: usize) -> Result<()> {
        match self.max_length {
            Some(most) if tokens >= most && self.max_new_tokens > 0 => Err(Error::Option {
                field: "max_length",
                got: format!("{most} with a prompt of {tokens} tokens"),
                expected: "more tokens than the prompt has",
            }),
            _ => Ok(()),
        }
    }

    /// New tokens that a prompt of some tokens gets at most in a model with some positions. The last one is not
    /// read itself and needs no position.
    pub(super) fn room(&self, prompt: usize, positions: usize) -> usize {
        let length = self.max_length.map_or(usize::MAX, |most| most.saturating_sub(prompt));
        self.max_new_tokens.min(length).min(positions + 1 - prompt)
    }
}

fn is_positive(x: f32) -> bool {
    x > 0.0 && x.is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: usize = 10;

    fn drawn(change: impl FnOnce(&mut DrawOptions)) -> GenerateOptions {
        let mut options = DrawOptions::default();
        change(&mut options);
        GenerateOptions { sampling: Sampling::Draws(options), ..Default::default() }
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let mut refused = vec![(GenerateOptions { max_length: Some(0), ..Default::default() }, "max_length")];
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            refused.push((drawn(|options| options.temperature = bad), "temperature"));
            refused.push((GenerateOptions { repetition_penalty: bad, ..Default::default() }, "repetition_penalty"));
        }
        for bad in [0.0, -0.5, 1.000_001, f32::NAN, f32::INFINITY] {
            refused.push((drawn(|options| options.top_p = Some(bad)), "top_p"));
        }
        refused.push((drawn(|options| options.top_k = Some(0)), "top_k"));
        for bad in [10, u32::MAX] {
            refused.push((GenerateOptions { stop: vec![3, bad], ..Default::default() }, "stop"));
        }
        for (options, field) in refused {
            let message = options.check(VOCABULARY).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{field} is ")), "{field}: {message}");
        }
    }

    #[test]
    fn options_at_the_ends_of_their_ranges_are_taken() {
        for options in [
            GenerateOptions::default(),
            GenerateOptions { stop: vec![0, 9], max_new_tokens: 0, max_length: Some(1), ..Default::default() },
            GenerateOptions { repetition_penalty: f32::MIN_POSITIVE, ..Default::default() },
            drawn(|options| options.top_p = Some(1.0)),
            drawn(|options| options.top_p = Some(f32::MIN_POSITIVE)),
            drawn(|options| options.top_k = Some(usize::MAX)),
            drawn(|options| options.temperature = f32::MAX),
        ] {
            options.check(VOCABULARY).unwrap();
        }
    }

    #[test]
    fn a_text_ends_at_the_first_of_its_limits() {
        let options = |max_new_tokens, max_length| GenerateOptions { max_new_tokens, max_length, ..Default::default() };
        assert_eq!(options(5, None).room(3, 16), 5);
        assert_eq!(options(usize::MAX, None).room(3, 16), 14);
        assert_eq!(options(5, None).room(16, 16), 1);
        assert_eq!(options(5, Some(4)).room(3, 16), 1);
        assert_eq!(options(0, Some(4)).room(3, 16), 0);
        let message = options(5, Some(3)).check_prompt(3).unwrap_err().to_string();
        assert_eq!(message, "max_length is 3 with a prompt of 3 tokens, expected more tokens than the prompt has");
        options(5, Some(4)).check_prompt(3).unwrap();
    }
}
