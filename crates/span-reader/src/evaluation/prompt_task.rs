//! A data set made ready for a model that writes its answers: prompts, and what is to follow them.

use std::sync::Arc;

use content_identity::{ContentHash, Hasher};
use serde_json::{Value, json};

use squad_data::{
    Dataset, EncodedPrompt, Example, PromptTemplate, QuestionCounts, SpecialTokens, TextTokenizer, WhyLeftOut,
};
use switchable_model::shape::ModelShape;

use crate::error::{Error, Result};

/// Tokens of prompt and answer together, unless something else is asked for and where the model has as many positions.
const WINDOW: usize = 2048;

/// How questions become prompts, and how long answers get.
///
/// | option | default | range |
/// |---|---|---|
/// | `template` | context, question, answer, a line each; no shots | see [`PromptTemplate`] |
/// | `answer_tokens` | 32 | at least 1 |
/// | `window` | the model's positions, at most 2,048 | more than `answer_tokens`, at most the model's positions |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptOptions {
    /// Context, question and shots.
    pub template: PromptTemplate,
    /// Tokens of an answer at most.
    pub answer_tokens: usize,
    /// Tokens of prompt and answer at most: contexts that are too long for it lose their ends.
    pub window: Option<usize>,
}

impl Default for PromptOptions {
    fn default() -> Self {
        Self { template: PromptTemplate::default(), answer_tokens: 32, window: None }
    }
}

impl PromptOptions {
    /// Tokens that a prompt and its answer have room for in a model.
    pub fn room(&self, shape: &ModelShape) -> usize {
        self.window.unwrap_or(shape.positions.min(WINDOW))
    }
}

/// Questions as prompts that a language model continues.
#[derive(Debug, Clone)]
pub struct PromptTask {
    /// The questions and their gold answers.
    pub dataset: Dataset,
    tokenizer: Arc<TextTokenizer>,
    pub(crate) template: PromptTemplate,
    pub(crate) answer_tokens: usize,
    /// Tokens of a prompt and its answer at most.
    window: usize,
    /// Tokens that end an answer wherever its line ends: the tokenizer's end, if it has one.
    pub(crate) stop: Vec<u32>,
    /// First tokens that all prompts have in common: those of the shots.
    pub(crate) opening: Vec<u32>,
    prompts: Vec<Prompt>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The question's identifier.
    pub id: String,
    /// Tokens of the prompt.
    pub ids: Vec<u32>,
    /// Tokens of the first gold answer, of which at least one, as they are to follow the prompt, with the end of their
    /// line.
    pub answer: Vec<u32>,
    /// Of its context the prompt holds the start alone.
    pub is_cut: bool,
    /// The question has gold answers, and none is in what the prompt holds of the context.
    pub lost_its_answer: bool,
}

impl PromptTask {
    /// Writes every question as a prompt that fits the model.
    ///
    /// # Errors
    ///
    /// When there is no question, an option is out of its range, the tokenizer's ids exceed the model, or a prompt does
    /// not fit the window without its context.
    pub fn new(
        dataset: Dataset,
        tokenizer: &TextTokenizer,
        shape: &ModelShape,
        options: &PromptOptions,
    ) -> Result<Self> {
        let PromptOptions { template, answer_tokens, .. } = options;
        if dataset.is_empty() {
            return Err(Error::NoQuestions { what: "the data set".into() });
        }
        let room = options.room(shape);
        if room > shape.positions {
            return Err(Error::DoesNotFit { what: "the window", got: room, room: shape.positions });
        }
        if *answer_tokens == 0 || *answer_tokens >= room {
            let expected = format!("at least 1 and fewer than the {room} tokens of a window");
            return Err(Error::option("answer_tokens", answer_tokens, expected));
        }
        tokenizer.check_fits(shape.vocabulary)?;
        let prompt = |example: &Example| -> Result<Prompt> {
            let EncodedPrompt { ids, text, context } = template.encode(tokenizer, example, room - answer_tokens)?;
            // As it stands behind the prompt, where that is made of the same tokens there.
            let continuation = template.continuation(example);
            let mut both = tokenizer.encode_ids(&(text + &continuation))?;
            let mut answer =
                if both.starts_with(&ids) { both.split_off(ids.len()) } else { tokenizer.encode_ids(&continuation)? };
            answer.truncate(*answer_tokens);
            if answer.is_empty() {
                return Err(Error::option("template", "without a stop", "one that ends an answer of nothing"));
            }
            let ends = example.answers.iter().map(|answer| answer.start + answer.text.chars().count());
            Ok(Prompt {
                id: example.id.clone(),
                ids,
                answer,
                is_cut: context < example.context.chars().count(),
                lost_its_answer: ends.min().is_some_and(|first| first > context),
            })
        };
        let prompts = dataset.examples().iter().map(prompt).collect::<Result<Vec<_>>>()?;
        let mut opening = prompts[0].ids.as_slice();
        for Prompt { ids, .. } in &prompts {
            // At least one token of each is its own: its scores are those of the answer's first token.
            let most = opening.len().min(ids.len() - 1);
            let shared = opening.iter().zip(ids).take(most).take_while(|(a, b)| a == b).count();
            opening = &opening[..shared];
        }
        let stop = SpecialTokens::of(tokenizer).map(|special| vec![special.end]).unwrap_or_default();
        let (opening, template, tokenizer) = (opening.to_vec(), template.clone(), Arc::new(tokenizer.clone()));
        Ok(Self { dataset, tokenizer, template, answer_tokens: *answer_tokens, window: room, stop, opening, prompts })
    }

    /// The prompts, in the order of the questions.
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    pub(crate) fn select(&self, question: usize) -> Self {
        Self {
            dataset: self.dataset.chosen(|place| place == question),
            prompts: vec![self.prompts[question].clone()],
            tokenizer: Arc::clone(&self.tokenizer),
            template: self.template.clone(),
            stop: self.stop.clone(),
            opening: self.opening.clone(),
            answer_tokens: self.answer_tokens,
            window: self.window,
        }
    }

    /// Tokens that are read: what all prompts begin with once, and what each has of its own.
    pub fn tokens(&self) -> usize {
        let own = self.prompts.iter().map(|prompt| prompt.ids.len() - self.opening.len());
        self.opening.len() + own.sum::<usize>()
    }

    /// The answer in the tokens that a model wrote. Those that the tokenizer has not are passed over.
    ///
    /// # Errors
    ///
    /// When the tokenizer fails.
    pub(crate) fn text_of(&self, tokens: &[u32]) -> Result<String> {
        let known: Vec<u32> = tokens.iter().copied().filter(|&id| self.tokenizer.token(id).is_some()).collect();
        Ok(self.tokenizer.decode(&known)?)
    }

    /// How many questions a model can be trained on, and why not on the others.
    pub fn training_counts(&self) -> QuestionCounts {
        let lost = self.prompts.iter().filter(|prompt| prompt.lost_its_answer).count();
        let mut counts = QuestionCounts::of(self.prompts.len());
        counts.leave_out(lost, WhyLeftOut::CutContext);
        counts
    }

    /// Tokens that the longest prompt takes with its answer.
    pub fn longest(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0) + self.answer_tokens
    }

    /// The hash of all that a result on these questions depends on: questions, contexts and answers, the tokens of
    /// every prompt, and where an answer ends.
    pub fn content(&self) -> ContentHash {
        let mut hasher = Hasher::default();
        hasher.bytes("questions", self.dataset.to_json().as_bytes());
        for prompt in &self.prompts {
            hasher.numbers("prompt", prompt.ids.iter().map(|&id| u64::from(id)));
            hasher.numbers("answer", prompt.answer.iter().map(|&id| u64::from(id)));
        }
        hasher.bytes("template", format!("{:?}", self.template).as_bytes());
        let ends = self.stop.iter().map(|&id| u64::from(id)).chain([self.answer_tokens as u64]);
        hasher.numbers("ends", ends.collect::<Vec<_>>().into_iter());
        hasher.finish()
    }

    /// How the questions are asked, as options of a result.
    pub(crate) fn how_asked(&self) -> Value {
        let shots = ContentHash::of_bytes(self.template.shots().as_bytes());
        json!({
            "prompt_template": self.template.template(), "shots": shots, "answer_tokens": self.answer_tokens,
            "prompt_window": self.window,
        })
    }

    /// Whether there are answers, and no prompt holds one of its own.
    pub fn lost_every_answer(&self) -> bool {
        let dataset = self.dataset.examples();
        let answerable = self.prompts.iter().zip(&dataset).filter(|(_, example)| !example.answers.is_empty());
        let mut lost = answerable.map(|(prompt, _)| prompt.lost_its_answer).peekable();
        lost.peek().is_some() && lost.all(|is_lost| is_lost)
    }

    /// A line that says how many contexts do not fit, if any.
    pub fn cut_text(&self) -> Option<String> {
        let count = |is_so: fn(&Prompt) -> bool| self.prompts.iter().filter(|prompt| is_so(prompt)).count();
        let (cut, lost) = (count(|prompt| prompt.is_cut), count(|prompt| prompt.lost_its_answer));
        let (n, room) = (self.prompts.len(), self.longest());
        (cut > 0).then(|| {
            format!(
                "{cut} of {n} prompts hold the start of their context alone, {lost} of them no answer: {room} tokens"
            )
        })
    }
}
