//! The model under attack, with what attacks need to know about its tokens.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use burn::module::{AutodiffModule as _, Module as _};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::{ReadingTask, span_config};
use span_reader::running::stop::StopFlag;
use span_reader::running::workers::Workers;
use squad_data::{
    Article, Dataset, DecodeConfig, Example, Format, Paragraph, Question, QuestionScore, SpanConfig, SpecialTokens,
    TextTokenizer, corpus_texts,
};
use switchable_lora::linear_settings::BasePolicy;
use switchable_model::model::{SwitchableModel, TrainableModel};
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::Result;

/// How a victim reads.
#[derive(Debug, Clone)]
pub struct VictimOptions {
    /// Longest window in tokens; by default the model's positions, at most 384 each time that it holds its context.
    pub window: Option<usize>,
    /// Windows per batch.
    pub batch_size: usize,
    /// How spans become answers.
    pub decode: DecodeConfig,
    /// Items, or batches, worked on at once.
    pub workers: Workers,
    /// Asked between items and batches.
    pub stop: StopFlag,
}

impl Default for VictimOptions {
    fn default() -> Self {
        Self {
            window: None,
            batch_size: 32,
            decode: DecodeConfig::default(),
            workers: Workers::default(),
            stop: StopFlag::default(),
        }
    }
}

/// A token and its text, leading space included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenText {
    /// Its id.
    pub id: u32,
    /// What it stands for.
    pub text: String,
}

/// A model under attack: all its weights fixed, with a copy that gradients go through.
#[derive(Debug)]
pub struct Victim<'a, B: QuantAutodiffBackend, M: TrainableModel<B>> {
    /// The copy that gradients go through, to its inputs alone.
    pub(crate) differentiable: ForQuestionAnswering<B, M>,
    pub(crate) model: ForQuestionAnswering<B::InnerBackend, M::InnerModule>,
    pub(crate) tokenizer: &'a TextTokenizer,
    pub(crate) special: SpecialTokens,
    pub(crate) span: SpanConfig,
    pub(crate) options: VictimOptions,
    pub(crate) device: B::Device,
    words: Vec<TokenText>,
    tokens: OnceLock<Vec<TokenText>>,
}

impl<'a, B: QuantAutodiffBackend, M: TrainableModel<B>> Victim<'a, B, M> {
    /// Takes a copy of a model; `corpus` is where real words are learnt from, such as the questions
    /// to attack.
    ///
    /// # Errors
    ///
    /// When the corpus is empty, or tokenizer, window and model do not fit together.
    pub fn new(
        model: &ForQuestionAnswering<B, M>,
        tokenizer: &'a TextTokenizer,
        corpus: &Dataset,
        options: VictimOptions,
    ) -> Result<Self> {
        // Checks that everything fits.
        ReadingTask::new(corpus.limited(1), tokenizer, model.config(), options.window)?;
        let device = model.transformer.device();
        let model = model.valid().with_policy(BasePolicy::Frozen).no_grad();
        let differentiable = ForQuestionAnswering::from_inner(model.clone()).with_policy(BasePolicy::Frozen).no_grad();
        let special = SpecialTokens::of(tokenizer)?;
        let span = span_config(&model.transformer.shape(), options.window, &special);
        let words = single_token_words(tokenizer, corpus)?;
        let tokens = OnceLock::new();
        Ok(Self { differentiable, model, tokenizer, special, span, options, device, words, tokens })
    }

    /// The model.
    pub fn model(&self) -> &ForQuestionAnswering<B::InnerBackend, M::InnerModule> {
        &self.model
    }

    /// Words of the corpus that are one token each, with the space before them, in alphabetical order.
    pub fn words(&self) -> &[TokenText] {
        &self.words
    }

    /// Every token that stands for a piece of text; special tokens, control characters and parts of
    /// characters are left out.
    pub fn tokens(&self) -> &[TokenText] {
        let is_text = |text: &str| {
            !text.is_empty() && !text.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
        };
        let token = |id: u32| {
            let text = self.tokenizer.decode(&[id]).ok().filter(|text| is_text(text))?;
            Some(TokenText { id, text })
        };
        self.tokens.get_or_init(|| (0..self.tokenizer.vocab_size() as u32).filter_map(token).collect())
    }

    /// The scores of examples under a plan, in their order.
    ///
    /// # Errors
    ///
    /// When there is no example, an adapter of the plan is missing, a question is longer than the
    /// window, or the work is stopped.
    pub fn scores(&self, plan: &SitePlan, examples: &[Example]) -> Result<Vec<QuestionScore>> {
        let dataset = dataset_of(examples);
        let task = ReadingTask::new(dataset, self.tokenizer, self.model.config(), self.options.window)?;
        let options = EvaluateOptions {
            batch_size: self.options.batch_size,
            workers: self.options.workers.clone(),
            decode: self.options.decode,
            stop: self.options.stop.clone(),
            ..EvaluateOptions::default()
        };
        Ok(Evaluator::new(&self.model, &task, options, &self.device)?.evaluate(plan)?.scores)
    }
}

/// Examples as a data set, one paragraph each.
pub(crate) fn dataset_of(examples: &[Example]) -> Dataset {
    let paragraph = |example: &Example| Paragraph {
        context: example.context.to_string(),
        questions: vec![Question {
            id: example.id.clone(),
            question: example.question.clone(),
            answers: example.answers.clone(),
            plausible_answers: Vec::new(),
            is_impossible: example.is_impossible,
        }],
    };
    let has_impossible = examples.iter().any(|example| example.is_impossible);
    Dataset {
        format: if has_impossible { Format::V2 } else { Format::V1 },
        articles: vec![Article { title: String::new(), paragraphs: examples.iter().map(paragraph).collect() }],
    }
}

/// The words of a corpus, letters alone and at least two, that are one token behind a space.
fn single_token_words(tokenizer: &TextTokenizer, corpus: &Dataset) -> Result<Vec<TokenText>> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for text in corpus_texts(corpus) {
        let runs = text.split(|c: char| !c.is_alphanumeric());
        seen.extend(runs.filter(|run| run.chars().count() > 1 && run.chars().all(char::is_alphabetic)));
    }
    let mut words = Vec::new();
    for word in seen {
        let text = format!(" {word}");
        if let [id] = *tokenizer.encode(&text)?.ids {
            words.push(TokenText { id, text });
        }
    }
    Ok(words)
}
