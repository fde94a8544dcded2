//! Makes the built-in model from nothing: tokenizer, base, adapter bank.
//!
//! ```text
//! cargo run --release --example train_default -- --out runs/default
//! ```
//!
//! Takes about half an hour on 2 cores, shows its progress, and goes on where it was when it is started
//! again with the same folder. `runs/default/model` then holds what `crates/switchable-quant/default`
//! holds: a Hugging Face folder with `tokenizer.json` and `adapters/bits-*`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use command_line::contents::{of_questions, of_reading};
use command_line::{arguments::run::RunArgs, finish, out, outln, output, resumable, stop_on_ctrl_c};
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::data::{SpecialTokens, TextTokenizer, corpus_texts};
use switchable_quant::default_model::{self, DefaultModel, QuestionSet, Recipe};
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::banks::bank::{train_bank, train_base};
use switchable_quant::experiments::banks::bank_accuracy::{BankEvaluation, bank_accuracies};
use switchable_quant::experiments::running::memory::Memory;
use switchable_quant::experiments::train::trainer::{TrainRun, Training};
use switchable_quant::identity::Identity;
use switchable_quant::kernels::QuantAutodiffBackend;
use switchable_quant::lora::SitePrecision;
use switchable_quant::model::Gpt2ForQuestionAnswering;
use switchable_quant::reader::choice::fingerprint::ModelFingerprint;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::{Evaluator, ReadingTask};
use switchable_quant::transformer::config::ModelConfig as _;
use switchable_quant::transformer::options::ModelOptions;

/// Makes the built-in model from nothing
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    /// Optimiser steps of the base, to try things out
    #[arg(long)]
    base_steps: Option<usize>,
    /// Optimiser steps of the bank, to try things out
    #[arg(long)]
    bank_steps: Option<usize>,
}

/// Runs it as a program of its own.
pub fn main() -> ExitCode {
    finish(|| run(std::env::args_os()))
}

/// Runs it on a command line whose first word names the program.
///
/// # Errors
///
/// Those of the command.
pub fn run(line: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    let arguments = output::parse::<Arguments>(line);
    crate::allocator::keep_freed_memory();
    arguments.run.execution.refuse_bf16("the model that is part of the program is made in f32")?;
    let out = arguments.run.prepared_out("runs/default")?;
    let machine = arguments.run.device.resolve()?;
    let make = Make { arguments: &arguments, out: &out, machine: &machine };
    resumable(&out, || machine.dispatch_autodiff(make))
}

struct Make<'a> {
    arguments: &'a Arguments,
    out: &'a Path,
    machine: &'a Device,
}

impl WithAutodiff for Make<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Arguments { run, base_steps, bank_steps } = self.arguments;
        let Recipe { tokenizer, shape, initial, seed, mut base, bank, mut bank_train } = default_model::recipe()?;
        base.steps = base_steps.unwrap_or(base.steps);
        bank_train.steps = bank_steps.unwrap_or(bank_train.steps);
        let out = self.out;
        let (stop, workers) = (stop_on_ctrl_c()?, run.workers(self.machine));
        let part = |part: &str| {
            let identity = Identity::default().with_option("part", part);
            let (dir, workers, stop) = (Some(out.join(part)), workers.clone(), stop.clone());
            TrainRun { dir, workers, stop, show: run.show(), identity, ..TrainRun::default() }
        };

        outln!("running on {}", self.machine);
        let questions = default_model::questions(QuestionSet::Train)?;
        let tokenizer = TextTokenizer::train_bpe(corpus_texts(&questions), &tokenizer)?;
        let (mut config, special) = (shape(tokenizer.vocab_size()), SpecialTokens::of(&tokenizer)?);
        config.kept = config.kept.with("eos_token_id", special.end).with("pad_token_id", special.pad);
        outln!("{} questions, {} tokens, {} parameters", questions.len(), config.vocab_size, config.parameters());
        let task = ReadingTask::new(questions, &tokenizer, &config, None)?;

        let options = ModelOptions { initial, ..ModelOptions::default() };
        let model = Gpt2ForQuestionAnswering::<B>::random(&config, &options, seed, &device)?;
        let (model, outcome) = train_base(model, &task, Training { config: &base, run: &part("base") })?;
        outln!("base: {} steps at {:.0} tokens/s", outcome.losses.len(), outcome.tokens_per_second);
        let (model, outcome) = train_bank(model, &task, &bank, Training { config: &bank_train, run: &part("bank") })?;
        outln!("bank: {} steps at {:.0} tokens/s", outcome.losses.len(), outcome.tokens_per_second);
        let folder =
            DefaultModel { model, tokenizer, plan: None, artefact: None, activations: None, notes: Vec::new() };
        folder.save(out.join("model"), "switchable-quant-default")?;

        let questions = default_model::questions(QuestionSet::HeldOut)?;
        let task = ReadingTask::new(questions, &folder.tokenizer, &config, None)?;
        let (model, options) = (folder.model.valid(), run.evaluate_options(self.machine, 32, &stop));
        let evaluator = Evaluator::new(&model, &task, options, &device)?;
        let adapted = default_model::BANK_WIDTHS.map(SitePrecision::uniform);
        let identity = of_questions("questions", "held-out", &task)
            .with_content("trained model", "", ModelFingerprint::of(&model).into())
            .with(&of_reading(evaluator.options()));
        let known = Memory::folder(out.join("evaluation"), identity);
        let mut rows = Vec::new();
        let precisions = adapted.into_iter().flat_map(|p| [p, p.without_adapter()]).collect();
        let evaluation = BankEvaluation { show: run.show(), known: known.clone() };
        for row in bank_accuracies(&evaluator, precisions, evaluation) {
            rows.push(row?);
            out!("{}", rows.last().map_or_else(String::new, |row| row.row_with_adapter() + "\n"));
        }
        write_json(out.join("train_default.json"), &rows)?;
        known.forget()?;
        outln!("wrote {}", out.join("model").display());
        output::result(&rows)
    }
}
