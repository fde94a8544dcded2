//! Trains a GPT-2 of any size from text files.
//!
//! ```text
//! cargo run --release --example pretrain -- --text wiki-0.txt.zst wiki-1.txt.zst \
//!     --validation validation.txt.zst --vocabulary 8192 --layers 12 --embedding 128 --heads 4 \
//!     --steps 2000 --out runs/pretrain
//! ```
//!
//! Files are `.txt` or `.txt.zst`; a line `<|endoftext|>` ends a document. Without `--tokenizer` a
//! byte-level BPE is trained on the first documents. A run goes on where it was when it is started again
//! with the same folder. `OUT/model` is a Hugging Face folder: `train_bank --model OUT/model` goes on
//! from there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::json;

use command_line::arguments::language_model::{LanguageModelArgs, LanguageTrainingArgs, TextArgs};
use command_line::contents::{name_of, of_parameters};
use command_line::files::{check_apart, flag_of, resolve_model, resolve_tokenizer};
use command_line::next_command::NextCommand;
use command_line::{arguments::run::RunArgs, finish, outln, output, resumable, stop_on_ctrl_c};
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::burn::tensor::backend::DeviceId;
use switchable_quant::data::SpecialTokens;
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::train::perplexity::Perplexity;
use switchable_quant::experiments::train::regimes::single::Single;
use switchable_quant::experiments::train::text_task::TextTask;
use switchable_quant::experiments::train::trainer::{TrainRun, Training, train};
use switchable_quant::identity::{ContentHash, Identity};
use switchable_quant::kernels::QuantAutodiffBackend;
use switchable_quant::lora::SitePrecision;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::transformer::config::ModelConfig as _;
use switchable_quant::transformer::model::SwitchableModel as _;
use switchable_quant::transformer::model_weights::ModelWeights as _;

/// The folder for results by default.
const OUT: &str = "runs/pretrain";

/// Next-token training of a GPT-2 from text files
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    start: LanguageModelArgs,
    #[command(flatten)]
    training: LanguageTrainingArgs,
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
    arguments.training.config(arguments.run.seed).check()?;
    let model = arguments.start.model.as_deref().map(resolve_model).transpose()?;
    let tokenizer = arguments.start.tokenizer.as_deref().map(resolve_tokenizer).transpose()?;
    let read: Vec<PathBuf> = model.into_iter().chain(tokenizer).collect();
    let target = arguments.run.out_or(OUT).join("model");
    check_apart(&target, &read.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    arguments.run.execution.refuse_bf16("weights that are trained are multiplied in f32")?;
    let out = arguments.run.prepared_out(OUT)?;
    let machine = arguments.run.device.resolve()?;
    let beside = arguments.training.further.beside(&machine, arguments.training.micro_batches)?;
    let pretrain = Pretrain { arguments: &arguments, out: &out, machine: &machine, beside };
    resumable(&out, || machine.dispatch_autodiff(pretrain))
}

struct Pretrain<'a> {
    arguments: &'a Arguments,
    out: &'a Path,
    machine: &'a Device,
    beside: Vec<DeviceId>,
}

impl WithAutodiff for Pretrain<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Arguments { run, text, start, training } = self.arguments;
        let out = self.out;
        let (files, unseen) = (text.training()?, text.validation()?);
        let config = training.config(run.seed);
        let text_name = || flag_of("--text", &text.text);
        ensure!(files.documents().next().is_some(), "{}: no document", text_name());
        let (model, tokenizer) = start.start::<B>(&files, run.seed, &device)?;
        let (window, batch) = (training.window.unwrap_or(model.config().n_positions), config.batch_size);
        let end = SpecialTokens::of(&tokenizer)?.end;

        // No more text is read than the run goes through.
        let most = config.steps.saturating_mul(batch).saturating_mul(window);
        let tokens = files.tokens(&tokenizer, end, most)?;
        let unseen = unseen.map(|unseen| unseen.tokens(&tokenizer, end, text.validation_tokens)).transpose()?;
        if let Some(unseen) = &unseen {
            let name = flag_of("--validation", &text.validation);
            ensure!(unseen.len() >= window, "{name}: {} tokens, expected {window} at least", unseen.len());
        }
        let (parameters, read, a_step) = (model.config().parameters(), tokens.len(), batch * window);
        outln!("running on {}: {parameters} parameters, {read} tokens of text, {a_step} tokens a step", self.machine);
        let shape = model.config().to_json("GPT2LMHeadModel");
        let mut identity = Identity::default();
        for file in &text.text {
            identity = identity.with_content("text", name_of(file), ContentHash::of_file(file)?);
        }
        let training = TrainRun {
            dir: Some(out.join("training")),
            workers: training.further.workers(run.workers(self.machine)),
            beside: self.beside,
            stop: stop_on_ctrl_c()?,
            show: run.show(),
            identity: identity
                .with_content("tokenizer", "", ContentHash::of_bytes(tokenizer.to_json().as_bytes()))
                .with_content("model", "", of_parameters(&model))
                .with_options(json!({ "shape": shape, "window": window })),
        };
        let task = TextTask::new(tokens, window, &config).with_context(text_name)?;
        let plan = model.uniform_plan(SitePrecision::FULL);
        let training = Training { config: &config, run: &training };
        let (model, outcome) = train(model, &task, &Single(plan.clone()), training)?;
        outln!("{} steps at {:.0} tokens/s", outcome.losses.len(), outcome.tokens_per_second);

        let target = out.join("model");
        model.export(&target)?;
        tokenizer.save_in(&target)?;
        outln!("wrote {}", target.display());
        let next = NextCommand::new("train_bank").with_path("--model", &target).with("--train", "QUESTIONS");
        next.with("--base-steps", "STEPS").say(run);
        let Some(tokens) = unseen else {
            return output::result(&json!({ "model": target, "seed": run.seed, "config": config }));
        };
        let measured = Perplexity::measure(&model.valid(), &tokens, window, &plan)?;
        outln!("validation: {measured}");
        let Perplexity { loss, perplexity, tokens, .. } = measured;
        let result = json!({
            "loss": loss, "perplexity": perplexity, "tokens": tokens, "window": window, "seed": run.seed,
            "config": config, "files": text.validation,
        });
        write_json(out.join("pretrain.json"), &result)?;
        output::result(&result)
    }
}
