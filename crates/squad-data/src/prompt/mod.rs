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
}

impl Default for PromptTemplate {
    fn default() -> Self {
        Self { template: format!("Context: {CONTEXT}\nQuestion: {QUESTION}\nAnswer:"), stops: vec!["\n".to_owned()] }
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
    /// [`Error::Config`] if it has not.
    pub fn new(template: impl Into<String>) -> Result<Self> {
        let template = template.into();
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

    /// The prompt of an example.
    pub fn render(&self, example: &Example) -> String {
        self.fill(&example.context, &example.question)
    }

    /// The prompt and behind it, with a space between, the first gold answer: a text to train a
    /// language model on. An impossible question has nothing behind its prompt.
    pub fn render_with_answer(&self, example: &Example) -> String {
        let prompt = self.render(example);
        match example.answers.first() {
            Some(answer) => format!("{prompt} {}", answer.text),
            None => prompt,
        }
    }

    /// The tokens of the prompt, at most `max_tokens`: the end of a long context is left out, the
    /// question never.
    ///
    /// # Errors
    /// [`Error::LongQuestion`] if the prompt is too long without any context, or what the
    /// tokenizer says.
    pub fn encode(&self, tokenizer: &TextTokenizer, example: &Example, max_tokens: usize) -> Result<Vec<u32>> {
        let whole = tokenizer.encode(&self.render(example))?.ids;
        if whole.len() <= max_tokens {
            return Ok(whole);
        }
        let context = tokenizer.encode(&example.context)?.offsets;
        let mut kept = context.len().saturating_sub(whole.len() - max_tokens);
        loop {
            let end = kept.checked_sub(1).map_or(0, |last| context[last].end);
            let cut = CharSpan { start: 0, end }.slice(&example.context);
            let ids = tokenizer.encode(&self.fill(cut, &example.question))?.ids;
            if ids.len() <= max_tokens {
                return Ok(ids);
            }
            if kept == 0 {
                return Err(Error::LongQuestion {
                    id: example.id.clone(),
                    got: ids.len(),
                    most: max_tokens,
                    max_len: max_tokens,
                });
            }
            // Tokens at the seams may differ from those of the parts: try again with a few less.
            kept = kept.saturating_sub(ids.len() - max_tokens);
        }
    }

    /// The answer in what a model wrote behind the prompt: up to the first stop, without white
    /// space around it.
    pub fn cut(&self, generated: &str) -> String {
        let generated = generated.trim_start();
        let stops = self.stops.iter().filter(|stop| !stop.is_empty());
        let end = stops.filter_map(|stop| generated.find(stop.as_str())).min();
        generated[..end.unwrap_or(generated.len())].trim_end().to_owned()
    }

    /// Replaces both placeholders at once: a context may itself contain `{question}`.
    fn fill(&self, context: &str, question: &str) -> String {
        let mut places = [(CONTEXT, context), (QUESTION, question)]
            .map(|(placeholder, text)| (self.template.find(placeholder).unwrap_or(0), placeholder, text));
        places.sort_by_key(|place| place.0);
        let [(first, first_name, first_text), (second, second_name, second_text)] = places;
        let template = &self.template;
        [
            &template[..first],
            first_text,
            &template[first + first_name.len()..second],
            second_text,
            &template[second + second_name.len()..],
        ]
        .concat()
    }
}
