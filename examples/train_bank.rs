//! Trains an adapter bank on SQuAD files for any model folder.
//!
//! ```text
//! cargo run --release --example train_bank -- --model DIR --train train-v1.1.json \
//!     --data dev-v1.1.json --bits 32,16,8,4 --steps 2000 --out runs/bank
//! ```
//!
//! A folder without a span head, such as that of a language model, is fine-tuned in full precision
//! first: say for how long with `--base-steps`. Runs go on where they were when they are started
//! again with the same folder. `OUT/model` holds the model and `OUT/model/adapters` the bank.
//!
//! `--regime` says which widths a step trains; `--steps 0` trains the base alone. `--loftq` starts the
//! adapters from what quantisation loses, `--learned-steps` trains the weights' step sizes with them and
//! saves these beside the adapters of each width.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use serde_json::{Value, json};

use switchable_quant::experiments::banks::bank::{RegimeOfBank, train_bank_with, train_base};
use switchable_quant::experiments::banks::bank_accuracy::bank_accuracies;
use switchable_quant::experiments::train::trainer::{TrainRun, Training};
use switchable_quant::kernels::QuantAutodiffBackend;
use switchable_quant::reader::Evaluator;
use switchable_quant::transformer::model::TrainableModel;
use switchable_quant_examples::arguments::bank::{BankArgs, BankSourceArgs, BankTrainingArgs};
use switchable_quant_examples::arguments::{quant::QuantArgs, regime::RegimeArgs, run::RunArgs};
use switchable_quant_examples::session::{Command, Session};
use switchable_quant_examples::{finish, stop_on_ctrl_c};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains one LoRA adapter per width on a frozen, quantised model
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    quant: QuantArgs,
    #[command(flatten)]
    regime: RegimeArgs,
    #[command(flatten)]
    source: BankSourceArgs,
    #[command(flatten)]
    bank: BankArgs,
    #[command(flatten)]
    training: BankTrainingArgs,
}

fn main() -> ExitCode {
    finish(command)
}

fn command() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Arguments { run, quant, source, training, .. } = &arguments;
    source.run(run.device, quant.model_options(), training.missing_head(run.seed), &arguments)
}

impl Command for &Arguments {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, mut session: Session<B, M>) -> anyhow::Result<()> {
        let Arguments { run, quant, regime, source, bank, training } = self;
        let (out, window) = (run.out.clone().unwrap_or_else(|| PathBuf::from("runs/bank")), training.window);
        anyhow::ensure!(session.folder.plan.is_none(), "`--model` holds packed weights, expected floats to train");
        let (questions, evaluation) = (source.questions()?, source.evaluation()?);
        println!("running on {}, {} training questions", session.machine, questions.len());
        let task = session.task(questions, window)?;
        let options = run.evaluate_options(&session.machine, training.batch, &stop_on_ctrl_c()?);
        let (body, lowest) = (&session.folder.model.transformer, bank.lowest());
        let bank = bank.config(&quant.quantizer, run.seed)?;
        let regime = regime.config(body.sites(), bank.precision(lowest), run.seed)?;
        if training.steps > 0 {
            // A regime that does not fit is refused before the base is trained.
            regime.build(&bank.ladder(&session.folder.model)?, training.steps)?;
        }
        let part = |part: &str, of_part: Value| {
            let (dir, workers, stop) = (Some(out.join(part)), options.workers.clone(), options.stop.clone());
            let identity = json!({
                "model": source.model, "train": source.train, "limit": source.limit,
                "part": part, "window": window, "of_part": of_part,
            });
            TrainRun { dir, workers, stop, show: run.show(), identity }
        };
        if training.base_steps > 0 {
            let (config, run) = (&training.base(run.seed), &part("base", Value::Null));
            session.folder.model = train_base(session.folder.model, &task, Training { config, run })?.0;
        }
        if training.steps > 0 {
            let of_part = json!({ "quantizer": quant.quantizer, "adapters": bank.adapters });
            let (config, run) = (&training.bank(run.seed), &part("bank", of_part));
            let of = RegimeOfBank { bank: &bank, regime: &|_, ladder| regime.build(ladder, config.steps) };
            let (model, outcome) = train_bank_with(session.folder.model, &task, &of, Training { config, run })?;
            println!("bank: {} steps at {:.0} tokens/s", outcome.losses.len(), outcome.tokens_per_second);
            session.folder.model = model;
        }
        let target = out.join("model");
        session.folder.save(&target, &source.model)?;
        println!("wrote {}", target.display());

        let Some(dataset) = evaluation else { return Ok(()) };
        if dataset.is_empty() {
            bail!("`--data` holds no question");
        }
        let (task, model) = (session.task(dataset, window)?, session.plain());
        let evaluator = Evaluator::new(&model, &task, options, &session.device)?;
        let trained = bank.widths().map(|width| bank.precision(width));
        let precisions = trained.map(|p| if training.steps > 0 { p } else { p.without_adapter() });
        for row in bank_accuracies(&evaluator, precisions) {
            println!("{}", row?.row(""));
        }
        Ok(())
    }
}
