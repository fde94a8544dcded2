//! How questions are answered: by spans, or by what a language model writes.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use switchable_quant::data::{Dataset, Example, PromptTemplate};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::kernels::QuantBackend;
use switchable_quant::lora::SitePrecision;
use switchable_quant::reader::evaluation::prompt_task::PromptOptions;
use switchable_quant::reader::text::head_text;
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::site_plan::SitePlan;
use switchable_quant::transformer::span_head::ForQuestionAnswering;

use crate::arguments::count::parse_count;
use crate::arguments::input::InputArgs;
use crate::arguments::reading::ReadingArgs;
use crate::contents::name_of;
use crate::files::{GENERATED, load_questions};
use crate::mixed_heads::check_mixed_heads;
use crate::usage;

/// Characters of the longest context of a shot.
const SHOT_CONTEXT: usize = 600;

/// How questions are answered.
#[derive(Debug, Clone, Args, Serialize)]
pub struct AnswerArgs {
    /// How questions are answered: by the span that a head points to, or by what the language model writes greedily behind a
    /// prompt, up to the end of its first line
    #[arg(long, value_enum, default_value = "span", value_name = "span|generate")]
    pub task: TaskForm,
    /// Questions that stand before each prompt with their answers, with --task generate
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub shots: usize,
    /// SQuAD file that they are drawn from by the seed, or "generated" for the training questions of the built-in model:
    /// answerable ones about contexts of at most 600 characters on which nothing is measured or searched; the built-in
    /// model itself takes its own by default
    #[arg(long, value_name = "FILE")]
    pub shots_from: Option<PathBuf>,
    /// The prompt, with {context} and {question} once each; by default
    /// "Context: {context}\nQuestion: {question}\nAnswer:"
    #[arg(long, value_name = "TEXT")]
    pub prompt_template: Option<String>,
    /// Tokens of a generated answer at most
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = parse_count)]
    pub answer_tokens: usize,
}

/// How questions are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskForm {
    /// By the span of the context that a head points to
    Span,
    /// By what the language model writes behind a prompt
    Generate,
}

impl AnswerArgs {
    /// Whether a language model writes the answers.
    pub fn generates(&self) -> bool {
        self.task == TaskForm::Generate
    }

    /// [`check`](Self::check) beside the flags of an input.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn check_with(&self, input: &InputArgs) -> anyhow::Result<()> {
        let of_spans =
            [("--null-threshold", input.null_threshold.is_some()), ("--span-head", input.span_head.is_some())];
        self.check(input.model.is_some(), &of_spans)
    }

    /// Refuses flags of the other form of answers, and shots that come from nowhere; `has_model` where it is not the
    /// built-in model that answers, `of_spans` the flags that are for spans alone, and whether they are given.
    ///
    /// # Errors
    ///
    /// The flag that does not fit.
    pub fn check(&self, has_model: bool, of_spans: &[(&str, bool)]) -> anyhow::Result<()> {
        if self.generates() {
            if let Some((flag, _)) = of_spans.iter().find(|(_, is_given)| *is_given) {
                return Err(usage(format!("`{flag}` is for `--task span`")));
            }
        } else {
            let given = [
                ("--shots", self.shots > 0),
                ("--shots-from", self.shots_from.is_some()),
                ("--prompt-template", self.prompt_template.is_some()),
                ("--answer-tokens", self.answer_tokens != 32),
            ];
            if let Some((flag, _)) = given.iter().find(|(_, is_given)| *is_given) {
                return Err(usage(format!("`{flag}` is for `--task generate`")));
            }
        }
        if self.shots > 0 && self.shots_from.is_none() && has_model {
            return Err(usage("`--shots` needs `--shots-from`: the questions that stand before each prompt"));
        }
        if self.shots == 0 && self.shots_from.is_some() {
            return Err(usage("`--shots-from` needs `--shots`, how many of its questions stand before each prompt"));
        }
        if let Some(template) = &self.prompt_template {
            PromptTemplate::new(template).map_err(|error| usage(format!("`--prompt-template`: {error}")))?;
        }
        Ok(())
    }

    /// How questions are answered, in a line.
    pub fn text(&self) -> String {
        if !self.generates() {
            return "spans".to_owned();
        }
        let from = self.shots_from.as_deref().map_or_else(|| "the training questions".to_owned(), name_of);
        let shots = if self.shots == 0 { "no shots".to_owned() } else { format!("{} shots from {from}", self.shots) };
        format!("generated, {} tokens at most, {shots}", self.answer_tokens)
    }

    /// Checks that a model can run a plan and answer under it.
    ///
    /// # Errors
    ///
    /// When an adapter is missing or, for spans, which head answers is not said.
    pub fn check_plan<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &ForQuestionAnswering<B, M>,
        plan: &SitePlan,
    ) -> switchable_quant::transformer::error::Result<()> {
        if self.generates() { model.transformer.check_plan(plan) } else { model.check_plan(plan) }
    }

    /// Checks that plans which mix widths have a head to answer with, where answers are spans.
    ///
    /// # Errors
    ///
    /// As [`check_mixed_heads`].
    pub fn check_mixed_heads<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &ForQuestionAnswering<B, M>,
        precisions: &[SitePrecision],
    ) -> anyhow::Result<()> {
        if self.generates() { Ok(()) } else { check_mixed_heads(model, precisions) }
    }

    /// Which span head answers, where one does and several could.
    ///
    /// # Errors
    ///
    /// When the plan names a head that is not there.
    pub fn head_text<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &ForQuestionAnswering<B, M>,
        plan: &SitePlan,
    ) -> anyhow::Result<String> {
        if self.generates() { Ok(String::new()) } else { Ok(head_text(model, plan)?) }
    }

    /// How the questions of a command are asked, all behind the same shots; `measured` are those that something is
    /// measured on, or chosen by.
    ///
    /// # Errors
    ///
    /// When the file of the shots is missing or damaged, or holds too few.
    pub fn asking(
        &self,
        measured: &[&Dataset],
        window: Option<usize>,
        seed: u64,
        reading: ReadingArgs,
    ) -> anyhow::Result<Asking<'_>> {
        let shots = match (&self.shots_from, self.shots) {
            (_, 0) => Vec::new(),
            (Some(file), n) if file.as_os_str() != GENERATED => {
                drawn(&load_questions(file, reading)?.dataset, measured, n, seed)
                    .map_err(|error| error.context(file.display().to_string()))?
            }
            (_, n) => drawn(&default_model::questions(QuestionSet::Train)?, measured, n, seed)?,
        };
        Ok(Asking { answers: self, shots, window })
    }
}

/// How the questions of a command are asked.
#[derive(Debug, Clone)]
pub struct Asking<'a> {
    /// The form of their answers.
    pub answers: &'a AnswerArgs,
    /// Questions with their answers that stand before each prompt.
    pub shots: Vec<Example>,
    /// Longest window or prompt in tokens.
    pub window: Option<usize>,
}

impl Asking<'_> {
    /// How questions become prompts.
    ///
    /// # Errors
    ///
    /// When the template has not both places.
    pub fn prompt_options(&self) -> anyhow::Result<PromptOptions> {
        let Self { answers, shots, window } = self;
        let template = answers.prompt_template.as_ref().map(PromptTemplate::new).transpose()?.unwrap_or_default();
        Ok(PromptOptions {
            template: template.with_shots(shots),
            answer_tokens: answers.answer_tokens,
            window: *window,
        })
    }

    /// A training set without the contexts of the shots: else a prompt would hold its answer.
    pub fn without_shots(&self, dataset: &Dataset) -> Dataset {
        let contexts: HashSet<&str> = self.shots.iter().map(|shot| shot.context.as_ref()).collect();
        let mut dataset = dataset.clone();
        for article in &mut dataset.articles {
            article.paragraphs.retain(|paragraph| !contexts.contains(paragraph.context.as_str()));
        }
        dataset
    }
}

/// Answerable questions about short contexts, one of each, none of them a context that is measured on.
fn drawn(from: &Dataset, measured: &[&Dataset], n: usize, seed: u64) -> anyhow::Result<Vec<Example>> {
    let measured = measured.iter().flat_map(|dataset| dataset.examples());
    let measured: HashSet<String> = measured.map(|example| example.context.to_string()).collect();
    let fits = |example: &Example| !example.answers.is_empty() && example.context.chars().count() <= SHOT_CONTEXT;
    let mut candidates: Vec<Example> = from.examples().into_iter().filter(fits).collect();
    // Whatever is left out, the order of the others stays.
    candidates.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut contexts = HashSet::new();
    candidates
        .retain(|example| contexts.insert(example.context.clone()) && !measured.contains(example.context.as_ref()));
    anyhow::ensure!(
        candidates.len() >= n,
        "`--shots {n}`: {} answerable questions are about contexts of at most {SHOT_CONTEXT} characters on which nothing \
         is measured, one of each",
        candidates.len()
    );
    candidates.truncate(n);
    Ok(candidates)
}
