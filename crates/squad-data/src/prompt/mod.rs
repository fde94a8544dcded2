//! Questions as prompts for a model that writes its answer.
//!
//! ```text
//! Context: {context}
//! Question: {question}
//! Answer: …
//! ```
//!
//! ```
//! use squad_data::{Example, PromptTemplate};
//!
//! let example = Example {
//!     id: "q1".to_owned(),
//!     context: "Ada drinks tea.".into(),
//!     question: "What does Ada drink?".to_owned(),
//!     answers: Vec::new(),
//!     is_impossible: false,
//! };
//! let template = PromptTemplate::default();
//! assert_eq!(
//!     template.render(&example),
//!     "Context: Ada drinks tea.\nQuestion: What does Ada drink?\nAnswer:"
//! );
//! assert_eq!(template.cut(" tea.\nQuestion: Who drinks tea?"), "tea.");
//! ```
//!
//! A model that was not trained for the form is shown it by *shots*, questions with their answers that stand before the
//! one that is asked (Brown et al., *Language Models are Few-Shot Learners*, arXiv:2005.14165).

#[cfg(test)]
mod tests;

use crate::dataset::Example;
use crate::error::{Error, Result};
use crate::tokenizer::{CharSpan, TextTokenizer};

const CONTEXT: &str = "{context}";
const QUESTION: &str = "{question}";

/// A text with the places of the context and of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTemplate {
    template: String,
    /// A generated answer ends before the first of these.
    stops: Vec<String>,
    /// The shots, each with what parts it from the next.
    opening: String,
}

/// A prompt in tokens, and how much of its context it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// What they are of.
    pub text: String,
    /// Characters of the context that it holds, from the first on.
    pub context: usize,
}

/// Parts a shot from what follows.
const BETWEEN_SHOTS: &str = "\n\n";

impl Default for PromptTemplate {
    fn default() -> Self {
        let template = format!("Context: {CONTEXT}\nQuestion: {QUESTION}\nAnswer:");
        Self { template, stops: vec!["\n".to_owned()], opening: String::new() }
    }
}

impl PromptTemplate {
    /// A template that has `{context}` and `{question}` once each; answers end with their line.
    ///
    /// ```
    /// use squad_data::PromptTemplate;
    ///
    /// assert!(PromptTemplate::new("{context} Q: {question} A:").is_ok());
    /// let error = PromptTemplate::new("{context} A:").unwrap_err().to_string();
    /// assert_eq!(error, "template: expected `{question}` once, got it 0 times");
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if it has not, or has a word in braces that is neither.
    pub fn new(template: impl Into<String>) -> Result<Self> {
        let template = template.into();
        if let Some(unknown) = places(&template).find(|place| ![CONTEXT, QUESTION].contains(place)) {
            let expected = format!("no place but `{CONTEXT}` and `{QUESTION}`");
            return Err(Error::config("template", format!("`{unknown}`"), expected));
        }
        for placeholder in [CONTEXT, QUESTION] {
            let got = template.matches(placeholder).count();
            if got != 1 {
                let expected = format!("`{placeholder}` once");
                return Err(Error::config("template", format!("it {got} times"), expected));
            }
        }
        Ok(Self { template, ..Self::default() })
    }

    /// Sets the texts that end a generated answer; the first one that occurs does.
    #[must_use]
    pub fn with_stops(mut self, stops: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.stops = stops.into_iter().map(Into::into).collect();
        self
    }

    /// Puts questions with their first answers before every prompt, in the place of those that stood there.
    ///
    /// ```
    /// use squad_data::{Answer, Example, PromptTemplate};
    ///
    /// let mut example = Example {
    ///     id: "q1".to_owned(),
    ///     context: "Ada drinks tea.".into(),
    ///     question: "What does Ada drink?".to_owned(),
    ///     answers: vec![Answer { text: "tea".to_owned(), start: 11 }],
    ///     is_impossible: false,
    /// };
    /// let template = PromptTemplate::new("{context} {question}")?.with_shots(&[example.clone()]);
    /// example.question = "Who?".to_owned();
    /// assert_eq!(template.render(&example), "Ada drinks tea. What does Ada drink? tea\n\nAda drinks tea. Who?");
    /// # Ok::<(), squad_data::Error>(())
    /// ```
    #[must_use]
    pub fn with_shots(mut self, shots: &[Example]) -> Self {
        self.opening.clear();
        self.opening = shots.iter().map(|shot| self.render_with_answer(shot) + BETWEEN_SHOTS).collect();
        self
    }

    /// The text with its places.
    pub fn template(&self) -> &str {
        &self.template
    }

    /// The shots as they stand before every prompt; empty where there are none.
    pub fn shots(&self) -> &str {
        &self.opening
    }

    /// The prompt of an example.
    pub fn render(&self, example: &Example) -> String {
        self.fill(&example.context, &example.question)
    }

    /// The prompt and behind it, with a space between, the first gold answer. An impossible question has nothing
    /// behind its prompt.
    pub fn render_with_answer(&self, example: &Example) -> String {
        let prompt = self.render(example);
        match example.answers.first() {
            Some(answer) => format!("{prompt} {}", answer.text),
            None => prompt,
        }
    }

    /// What is to stand behind the prompt: the first gold answer with a space before it, and the first stop. An
    /// impossible question has the stop alone.
    pub fn continuation(&self, example: &Example) -> String {
        let answer = example.answers.first().map(|answer| format!(" {}", answer.text)).unwrap_or_default();
        answer + self.stops.first().map_or("", String::as_str)
    }

    /// The tokens of the prompt, at most `max_tokens`: the end of a long context is left out, the
    /// question never.
    ///
    /// # Errors
    /// [`Error::LongPrompt`] if the prompt is too long without any context, or what the
    /// tokenizer says.
    pub fn encode(&self, tokenizer: &TextTokenizer, example: &Example, max_tokens: usize) -> Result<EncodedPrompt> {
        let text = self.render(example);
        let whole = tokenizer.encode_ids(&text)?;
        if whole.len() <= max_tokens {
            return Ok(EncodedPrompt { ids: whole, text, context: example.context.chars().count() });
        }
        let context = tokenizer.encode(&example.context)?.offsets;
        let mut kept = context.len().saturating_sub(whole.len() - max_tokens);
        loop {
            let end = kept.checked_sub(1).map_or(0, |last| context[last].end);
            let cut = CharSpan { start: 0, end }.slice(&example.context);
            let text = self.fill(cut, &example.question);
            let ids = tokenizer.encode_ids(&text)?;
            if ids.len() <= max_tokens {
                return Ok(EncodedPrompt { ids, text, context: end });
            }
            if kept == 0 {
                return Err(Error::LongPrompt { id: example.id.clone(), got: ids.len(), most: max_tokens });
            }
            // Tokens at the seams may differ from those of the parts: try again with a few less.
            kept = kept.saturating_sub(ids.len() - max_tokens);
        }
    }

    /// The answer in what a model wrote behind the prompt: up to the first stop, without white
    /// space around it; nothing where the stop stands at once.
    pub fn cut(&self, generated: &str) -> String {
        let end = self.end(generated).unwrap_or(generated.len());
        generated[..end].trim().to_owned()
    }

    /// Whether the answer in what a model wrote so far has ended, so that nothing behind it changes it.
    pub fn is_complete(&self, generated: &str) -> bool {
        self.end(generated).is_some()
    }

    /// The byte before which the first stop ends the answer.
    fn end(&self, generated: &str) -> Option<usize> {
        let stops = self.stops.iter().filter(|stop| !stop.is_empty());
        stops.filter_map(|stop| generated.find(stop.as_str())).min()
    }

    /// Replaces both placeholders at once: a context may itself contain `{question}`.
    fn fill(&self, context: &str, question: &str) -> String {
        let mut places = [(CONTEXT, context), (QUESTION, question)]
            .map(|(placeholder, text)| (self.template.find(placeholder).unwrap_or(0), placeholder, text));
        places.sort_by_key(|place| place.0);
        let [(first, first_name, first_text), (second, second_name, second_text)] = places;
        let template = &self.template;
        [
            &self.opening,
            &template[..first],
            first_text,
            &template[first + first_name.len()..second],
            second_text,
            &template[second + second_name.len()..],
        ]
        .concat()
    }
}

/// The words in braces of a template, with their braces.
fn places(template: &str) -> impl Iterator<Item = &str> {
    let place = |(start, _)| {
        let word = &template[start + 1..];
        let end = word.find(|c: char| !c.is_alphanumeric() && !"_- ".contains(c))?;
        let is_word = word[..end].contains(char::is_alphanumeric);
        (is_word && word[end..].starts_with('}')).then(|| &template[start..start + end + 2])
    };
    template.match_indices('{').filter_map(place)
}
