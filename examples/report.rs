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
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use switchable_quant::default_model::QuestionSet;
use switchable_quant::experiments::report::layout::{Heading, write_report};
use switchable_quant::experiments::report::study::run_study;
use switchable_quant::experiments::running::memory::Memory;
use switchable_quant::experiments::train::trainer::TrainRun;
use switchable_quant::experiments::workbench::{RunSettings, StudyData, Workbench};
use switchable_quant::kernels::QuantAutodiffBackend;
use switchable_quant::transformer::model::TrainableModel;
use switchable_quant_examples::arguments::study::{StudyArgs, StudyDataArgs};
use switchable_quant_examples::arguments::{input::InputArgs, quant::QuantArgs, run::RunArgs};
use switchable_quant_examples::session::{Command, Session};
use switchable_quant_examples::{finish, stop_on_ctrl_c};

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
    #[command(flatten)]
    questions: StudyDataArgs,
    #[command(flatten)]
    study: StudyArgs,
}

fn main() -> ExitCode {
    finish(command)
}

fn command() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    arguments.questions.check(arguments.input.data.as_deref(), &arguments.study)?;
    arguments.input.opening(&arguments.run, arguments.quant.model_options()).run(&arguments)
}

impl Command for &Arguments {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Arguments { run, input, questions, study, .. } = self;
        let config = study.config(input.batch, run.seed)?;
        let report = session.questions(input, QuestionSet::HeldOut)?;
        let (source, data) = (&report.source, input.data.as_deref());
        let search = session.task(questions.search(data)?, input.window)?;
        let train = session.task(questions.train(data, study, &search.dataset)?, input.window)?;
        let [n_report, n_search, n_train] = [&report.task, &search, &train].map(|task| task.dataset.len());

        let out = run.out.clone().unwrap_or_else(|| PathBuf::from("runs/report"));
        let identity = json!({
            "source": source, "search": questions.search, "search_questions": n_search, "train": questions.train,
            "train_questions": n_train, "quantizer": session.quantizer(),
        });
        let evaluate = run.evaluate_options(&session.machine, input.batch, &stop_on_ctrl_c()?);
        let (workers, stop) = (evaluate.workers.clone(), evaluate.stop.clone());
        let training = TrainRun { workers, stop, show: run.show(), identity: identity.clone(), ..TrainRun::default() };
        let settings = RunSettings { seed: run.seed, evaluate, train: training, show: run.show() };
        let (tokenizer, window) = (&session.folder.tokenizer, input.window);
        let data = StudyData { train: &train, search: &search, report: &report.task, tokenizer, window };
        let bench = Workbench::new(&session.folder.model, data, settings, Memory::folder(&out, identity));
        let sections = run_study(&bench, &config.stages())?;

        let command =
            ["cargo run --release --example report --".to_owned()].into_iter().chain(std::env::args().skip(1));
        let facts = [
            ("model", source["model"].to_string()),
            ("report questions", format!("{}, n = {n_report}", source["data"])),
            ("search questions", format!("n = {n_search}")),
            ("training questions", format!("n = {n_train}")),
            ("quantiser", session.quantizer().to_string()),
            ("adapters", session.adapters.to_string()),
            ("seed", run.seed.to_string()),
        ];
        let heading = Heading {
            command: command.collect::<Vec<_>>().join(" "),
            facts: facts.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        let figures = write_report(&sections, &heading, &out)?;
        println!("wrote report.md, {} figures and the JSON of every experiment to {}", figures.len(), out.display());
        Ok(())
    }
}
