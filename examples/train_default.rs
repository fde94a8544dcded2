//! Makes the built-in model from nothing: tokenizer, base, adapter bank.
//!
//! ```text
//! cargo run --release --example train_default -- --out runs/default
//! ```
//!
//! Takes about half an hour on 2 cores, shows its progress, and goes on where it was when it is started
//! again with the same folder. `runs/default/model` then holds what `crates/switchable-quant/default`
//! holds: a Hugging Face folder with `tokenizer.json` and `adapters/bits-*`.

use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::json;
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::data::{TextTokenizer, corpus_texts};
use switchable_quant::default_model::{self, QuestionSet, Recipe};
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::banks::bank::{train_bank, train_base};
use switchable_quant::experiments::train::trainer::TrainRun;
use switchable_quant::experiments::train::trainer::Training;
use switchable_quant::kernels::{QuantAutodiffBackend, QuantBackend};
use switchable_quant::model::{
    AdapterFolders, Gpt2ForQuestionAnswering, ModelConfig, ModelOptions, SitePrecision, SwitchableModel,
};
use switchable_quant::reader::evaluation::evaluate::{EvaluateOptions, Evaluator};
use switchable_quant::reader::evaluation::reading::ReadingTask;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant_examples::{RunArgs, plan_table_row, stop_on_ctrl_c};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Makes the built-in model from nothing
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    /// Optimiser steps of the base, to try things out
    #[arg(long)]
    base_steps: Option<usize>,
    /// Optimiser steps of the bank, to try things out
    #[arg(long)]
    bank_steps: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = arguments.run.device.resolve()?;
    device.dispatch_autodiff(Make { arguments, device: &device })
}

struct Make<'a> {
    arguments: Arguments,
    device: &'a Device,
}

impl WithAutodiff for Make<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Arguments { run, base_steps, bank_steps } = self.arguments;
        let Recipe { tokenizer, shape, initial, seed, mut base, bank, mut bank_train } = default_model::recipe()?;
        base.steps = base_steps.unwrap_or(base.steps);
        bank_train.steps = bank_steps.unwrap_or(bank_train.steps);
        let out = run.out.clone().unwrap_or_else(|| PathBuf::from("runs/default"));
        let stop = stop_on_ctrl_c()?;
        let part = |part: &str| TrainRun {
            dir: Some(out.join(part)),
            workers: run.workers(self.device),
            stop: stop.clone(),
            show: run.show(),
            identity: json!({ "model": "default", "part": part }),
        };

        println!("running on {}", self.device);
        let questions = default_model::questions(QuestionSet::Train)?;
        let tokenizer = TextTokenizer::train_bpe(corpus_texts(&questions), &tokenizer)?;
        let config = shape(tokenizer.vocab_size());
        println!("{} questions, {} tokens, {} parameters", questions.len(), config.vocab_size, config.parameters());
        let task = ReadingTask::new(questions, &tokenizer, &config, None)?;

        let model = Gpt2ForQuestionAnswering::<B>::random(
            &config,
            &ModelOptions { initial, ..ModelOptions::default() },
            seed,
            &device,
        )?;
        let (model, outcome) = train_base(model, &task, Training { config: &base, run: &part("base") })?;
        println!("base: {} steps at {:.0} tokens/s", outcome.losses.len(), outcome.tokens_per_second);
        let (model, outcome) = train_bank(model, &task, &bank, Training { config: &bank_train, run: &part("bank") })?;
        println!("bank: {} steps at {:.0} tokens/s", outcome.losses.len(), outcome.tokens_per_second);

        let dir = out.join("model");
        model.export(&dir)?;
        model.transformer.save_adapters(dir.join("adapters"), "switchable-quant-default")?;
        tokenizer.save(dir.join("tokenizer.json"))?;
        let options = run.evaluate_options(self.device, 32, &stop);
        report::<B::InnerBackend>(&model.valid(), &tokenizer, options, &out, &device)?;
        println!("wrote {}", dir.display());
        Ok(())
    }
}

/// Accuracy at every width of the bank, with and without its adapter, on held-out questions.
fn report<B: QuantBackend>(
    model: &Gpt2ForQuestionAnswering<B>,
    tokenizer: &TextTokenizer,
    options: EvaluateOptions,
    out: &Path,
    device: &B::Device,
) -> anyhow::Result<()> {
    let questions = default_model::questions(QuestionSet::HeldOut)?;
    let task = ReadingTask::new(questions, tokenizer, model.config(), None)?;
    let evaluator = Evaluator::new(model, &task, options, device)?;
    let mut rows = Vec::new();
    for width in default_model::BANK_WIDTHS {
        let adapted = SitePrecision::uniform(width);
        for (label, precision) in [("with adapter", adapted), ("without", adapted.without_adapter())] {
            let accuracy = evaluator.evaluate(&model.transformer.uniform_plan(precision))?;
            println!("{}", plan_table_row(&format!("{width:>2} bits {label}"), &accuracy, f64::from(width.bits())));
            rows.push(json!({ "bits": width, "adapter": precision.adapter, "accuracy": accuracy }));
        }
    }
    write_json(out.join("train_default.json"), &rows)?;
    Ok(())
}
