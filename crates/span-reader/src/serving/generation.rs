//! Texts that a service continues.
//!
//! ```text
//! prompt → tokens → plan of the choice → new tokens, one at a time → text, as soon as its characters are whole
//! ```

use std::ops::ControlFlow;

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::TextTokenizer;
use switchable_model::generate::{Generate as _, GenerateOptions};
use switchable_model::model::SwitchableModel;

use crate::error::{Error, Result};
use crate::serving::plan_choice::PlanChoice;
use crate::serving::service::Service;

/// A text to continue, and how its plan is chosen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextRequest {
    /// The text.
    pub prompt: String,
    /// Length, choice and end of what follows; [`GenerateOptions::of_folder`] is what a model's folder says.
    pub options: GenerateOptions,
    /// How the plan is chosen. That of a cascade is chosen by an answer, which a text has not.
    pub choice: PlanChoice,
}

/// What follows a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedText {
    /// The text without its prompt.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Mean width of the weights of the plan that wrote it, in bits.
    pub average_bits: f64,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Service<B, M> {
    /// Continues a text.
    ///
    /// # Errors
    ///
    /// When the choice is [`PlanChoice::Confidence`] or as [`plan`](Self::plan), the prompt has no token or more than
    /// the model has positions, or an option is out of its range.
    ///
    /// ```
    /// # use quant_kernels::backends::quant_backend::QuantBackend;
    /// # use span_reader::serving::{generation::TextRequest, plan_choice::PlanChoice, service::Service};
    /// # use switchable_model::model::SwitchableModel;
    /// # fn write<B: QuantBackend, M: SwitchableModel<B>>(service: &Service<B, M>) -> span_reader::Result<()> {
    /// let choice = PlanChoice::Named("small".into());
    /// let request = TextRequest { prompt: "The river".into(), choice, ..TextRequest::default() };
    /// println!("{}{}", request.prompt, service.generate(&request)?.text);
    /// # Ok(())
    /// # }
    /// ```
    pub fn generate(&self, request: &TextRequest) -> Result<GeneratedText> {
        self.generate_streaming(request, |_| ControlFlow::Continue(()))
    }

    /// [`generate`](Self::generate), and every piece of the text is handed out as soon as its characters are whole.
    /// Where `on_text` breaks, the text ends, that piece included.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate), and when the model chooses a token that the tokenizer has not. What was
    /// handed out before an error was right.
    pub fn generate_streaming(
        &self,
        request: &TextRequest,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GeneratedText> {
        let TextRequest { prompt, options, choice } = request;
        if *choice == PlanChoice::Confidence {
            let expected = "a plan by name, bytes, BitOps, latency or accuracy: a cascade goes by answers to questions";
            return Err(Error::option("choice", choice, expected));
        }
        let plan = self.plan(choice)?;
        let tokenizer = &self.folder().tokenizer;
        let prompt = tokenizer.encode_ids(prompt)?;
        let mut text = GrowingText::new(tokenizer, &prompt)?;
        let mut failed = None;
        let model = &self.folder().model.transformer;
        let written = model.generate_streaming(&[&prompt], options, plan, |new| match text.push(new.token) {
            Ok(piece) if piece.is_empty() => ControlFlow::Continue(()),
            Ok(piece) => on_text(&piece),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        let tokens = written.map_err(without_index)?.into_iter().flatten().collect();
        if let Some(error) = failed {
            return Err(error);
        }
        // The text is over: whether there was more to come no longer matters.
        let rest = text.rest(Growth::Ended)?;
        if !rest.is_empty() {
            _ = on_text(&rest);
        }
        Ok(GeneratedText { text: text.new, tokens, average_bits: plan.average_weight_bits() })
    }
}

/// There is one prompt alone.
fn without_index(error: switchable_model::error::Error) -> Error {
    match error {
        switchable_model::error::Error::Prompt { source, .. } => Error::from(*source),
        other => other.into(),
    }
}

/// Stands for the bytes of a character that are not all there yet.
const UNFINISHED: char = '\u{fffd}';

/// Whether more tokens come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    Growing,
    Ended,
}

/// A text whose tokens come one by one.
struct GrowingText<'a> {
    tokenizer: &'a TextTokenizer,
    /// Prompt and what follows.
    tokens: Vec<u32>,
    /// Bytes of the prompt's whole characters.
    prompt: usize,
    /// What follows the prompt, as far as its characters are whole.
    new: String,
}

impl<'a> GrowingText<'a> {
    fn new(tokenizer: &'a TextTokenizer, prompt: &[u32]) -> Result<Self> {
        let prompt_bytes = tokenizer.decode(prompt)?.trim_end_matches(UNFINISHED).len();
        Ok(Self { tokenizer, tokens: prompt.to_vec(), prompt: prompt_bytes, new: String::new() })
    }

    /// What a further token adds.
    fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        self.rest(Growth::Growing)
    }

    /// What was not handed out. Where the text grows, a character whose last bytes are missing waits for them.
    fn rest(&mut self, growth: Growth) -> Result<String> {
        let mut text = self.tokenizer.decode(&self.tokens)?;
        if growth == Growth::Growing {
            text.truncate(text.trim_end_matches(UNFINISHED).len());
        }
        let rest = text.get(self.prompt + self.new.len()..).unwrap_or_default().to_owned();
        self.new += &rest;
        Ok(rest)
    }
}
