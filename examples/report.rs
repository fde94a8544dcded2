//! The whole study on one model: sweeps, sensitivities, searches, choice at run time, training regimes,
//! attacks; one report.
//!
//! ```text
//! cargo run --release --example report
//! cargo run --release --example report -- --model DIR --data dev-v1.1.json \
//!     --search held-out.json --train train-v1.1.json --out runs/report
//! ```
//!
//! Writes `report.md`, one JSON file per experiment and PNG figures to `--out`. A report that was stopped
//! goes on where it was when it is started again with the same flags and folder, and ends the same.
//! Plans are chosen on the search questions and reported on those of `--data`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Parser;
use serde_json::json;
use switchable_quant::data::Dataset;
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::banks::bank::BankConfig;
use switchable_quant::experiments::banks::contestants::Contestants;
use switchable_quant::experiments::report::layout::{Heading, write_report};
use switchable_quant::experiments::report::stages::dynamic::DynamicStudy;
use switchable_quant::experiments::report::stages::regimes::RegimeStudy;
use switchable_quant::experiments::report::stages::robustness::RobustnessStudy;
use switchable_quant::experiments::report::study::{StudyConfig, run_study};
use switchable_quant::experiments::running::memory::Memory;
use switchable_quant::experiments::train::config::TrainConfig;
use switchable_quant::experiments::train::schedule::Schedule;
use switchable_quant::experiments::train::trainer::TrainRun;
use switchable_quant::experiments::workbench::{RunSettings, StudyData, Workbench};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::lora::LoraConfig;
use switchable_quant::reader::evaluation::reading::ReadingTask;
use switchable_quant_examples::{
    HardeningArgs, Input, InputArgs, QuantArgs, RunArgs, load_training_set, parse_bits, resolve_data, stop_on_ctrl_c,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole study as one report
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    quant: QuantArgs,
    /// SQuAD JSON file that plans are searched on; needed with --data
    #[arg(long, value_name = "FILE")]
    search: Option<String>,
    /// Use at most this many search questions
    #[arg(long, default_value_t = 240, value_name = "N")]
    search_limit: usize,
    /// SQuAD JSON files that adapters are trained on, and the model on attacks; needed with --data unless
    /// neither is asked for
    #[arg(long, num_args = 1.., value_name = "FILE")]
    train: Vec<PathBuf>,
    /// Use at most this many training questions
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    train_limit: usize,
    /// Leave out the comparison of training regimes
    #[arg(long)]
    no_regimes: bool,
    /// Regimes that are compared with static, such as cyclic-equal-steps,joint; all by default
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    contestants: Vec<String>,
    /// Leave out the attacks
    #[arg(long)]
    no_robustness: bool,
    /// Leave out the choice of plans at run time
    #[arg(long)]
    no_dynamic: bool,
    /// Widths that are attacked
    #[arg(long, default_value = "32,8,4,3", value_parser = parse_bits, value_name = "BITS,...")]
    attack_bits: std::vec::Vec<BitWidth>,
    /// Report questions that are attacked
    #[arg(long, default_value_t = 60, value_name = "N")]
    attack_items: usize,
    #[command(flatten)]
    hardening: HardeningArgs,
    /// Widths of the banks that are trained
    #[arg(long, default_value = "32,4,3,2", value_parser = parse_bits, value_name = "BITS,...")]
    bits: std::vec::Vec<BitWidth>,
    /// Optimiser steps of the static regime; the others get as many BitOps
    #[arg(long, default_value_t = 120, value_name = "N")]
    steps: usize,
    /// Seeds of every regime
    #[arg(long, default_value_t = 3, value_name = "N")]
    seeds: u64,
    /// Rank of the adapters
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Highest learning rate of the adapters
    #[arg(long, default_value_t = 2e-3)]
    learning_rate: f64,
    /// Share of the exact match that the greedy search may lose
    #[arg(long, default_value_t = 0.1)]
    tolerance: f64,
    /// Width of the sensitivities and the greedy search; by default the highest of 4, 3 and 2 bits that
    /// costs more than the noise
    #[arg(long, value_name = "BITS")]
    low: Option<BitWidth>,
    /// Swaps tried at each budget of the exact allocation
    #[arg(long, default_value_t = 20, value_name = "N")]
    swaps: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = arguments.run.device.resolve()?;
    device.dispatch_autodiff(Report { arguments, device: &device })
}

struct Report<'a> {
    arguments: Arguments,
    device: &'a Device,
}

impl WithAutodiff for Report<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let arguments = &self.arguments;
        let Arguments { run, input: input_args, quant, .. } = arguments;
        let config = self.config()?;
        let input = Input::<B>::load(input_args, run, &quant.model_options(), QuestionSet::HeldOut, &device)?;
        let task =
            |dataset: Dataset| ReadingTask::new(dataset, &input.tokenizer, input.model.config(), input_args.window);
        let search = match (&arguments.search, &input_args.data) {
            (Some(file), _) => Dataset::read(resolve_data(file)?)?,
            (None, None) => default_model::questions(QuestionSet::Search)?,
            (None, Some(_)) => {
                bail!("`--data` needs `--search`: plans are not chosen on the questions they are reported on")
            }
        };
        let search = task(search.limited(arguments.search_limit))?;
        let train = match (arguments.train.is_empty(), &input_args.data) {
            (false, _) => load_training_set(&arguments.train)?,
            (true, None) => default_model::questions(QuestionSet::Train)?,
            (true, Some(_)) if !arguments.trains() => search.dataset.clone(),
            (true, Some(_)) => bail!(
                "`--data` needs `--train`, or `--no-regimes` and `--adversarial-rounds 0` to leave the training out"
            ),
        };
        let train = task(train.limited(arguments.train_limit))?;

        let out = run.out.clone().unwrap_or_else(|| PathBuf::from("runs/report"));
        let identity = json!({
            "source": input.source, "search": arguments.search, "search_questions": search.dataset.len(),
            "train": arguments.train, "train_questions": train.dataset.len(), "quantizer": quant.quantizer,
        });
        let stop = stop_on_ctrl_c()?;
        let settings = RunSettings {
            seed: run.seed,
            evaluate: run.evaluate_options(self.device, input_args.batch, &stop),
            train: TrainRun {
                workers: run.workers(self.device),
                stop,
                show: run.show(),
                identity: identity.clone(),
                ..TrainRun::default()
            },
            show: run.show(),
        };
        let questions = StudyData {
            train: &train,
            search: &search,
            report: &input.task,
            tokenizer: &input.tokenizer,
            window: input_args.window,
        };
        let bench = Workbench::new(&input.model, questions, settings, Memory::folder(&out, identity));
        let sections = run_study(&bench, &config.stages())?;

        let fact = |name: &str, value: String| (name.to_string(), value);
        let heading = Heading {
            command: std::iter::once("cargo run --release --example report --".to_string())
                .chain(std::env::args().skip(1))
                .collect::<Vec<_>>()
                .join(" "),
            facts: vec![
                fact("model", input.source["model"].to_string()),
                fact("report questions", format!("{}, n = {}", input.source["data"], input.task.dataset.len())),
                fact("search questions", format!("n = {}", search.dataset.len())),
                fact("training questions", format!("n = {}", train.dataset.len())),
                fact("quantiser", quant.quantizer.to_string()),
                fact("seed", run.seed.to_string()),
            ],
        };
        let figures = write_report(&sections, &heading, &out)?;
        println!("wrote report.md, {} figures and the JSON of every experiment to {}", figures.len(), out.display());
        Ok(())
    }
}

impl Arguments {
    /// Whether anything is trained.
    fn trains(&self) -> bool {
        !self.no_regimes || (!self.no_robustness && self.hardening.adversarial_rounds > 0)
    }
}

impl Report<'_> {
    fn config(&self) -> anyhow::Result<StudyConfig> {
        let arguments = &self.arguments;
        let seed = arguments.run.seed;
        let train = TrainConfig {
            steps: arguments.steps,
            batch_size: arguments.input.batch,
            micro_batches: if arguments.input.batch.is_multiple_of(2) { 2 } else { 1 },
            schedule: Schedule { peak: arguments.learning_rate, final_share: 0.05, ..Schedule::default() },
            weight_decay: 0.0,
            checkpoint_every: 50,
            ..TrainConfig::default()
        };
        let regimes = RegimeStudy {
            bank: BankConfig::new(&arguments.bits, LoraConfig::new(arguments.rank, 16.0)?, seed),
            range_steps: (arguments.steps / arguments.bits.len().max(1)).max(4),
            range_threshold: 0.05,
            seeds: (seed..seed + arguments.seeds).collect(),
            table: Contestants::default(),
            contestants: arguments.contestants.clone(),
            train,
        };
        let robustness = RobustnessStudy {
            widths: arguments.attack_bits.clone(),
            items: arguments.attack_items,
            training: arguments.hardening.training(arguments.input.batch, seed),
            ..RobustnessStudy::default()
        };
        Ok(StudyConfig {
            low: arguments.low,
            tolerance: arguments.tolerance,
            swaps: arguments.swaps,
            regimes: (!arguments.no_regimes).then_some(regimes),
            robustness: (!arguments.no_robustness).then_some(robustness),
            dynamic: (!arguments.no_dynamic).then(DynamicStudy::default),
            ..StudyConfig::default()
        })
    }
}
