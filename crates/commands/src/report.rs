//! The whole study on one model: sweeps, sensitivities, searches, choice at run time, training regimes,
//! attacks; one report.
//!
//! ```text
//! cargo run --release --example report
//! cargo run --release --example report -- --model DIR --data dev-v1.1.json \
//!     --search held-out.json --train train-v1.1.json --out runs/report
//! ```
//!
//! Writes `report.md`, `report.html` (one page that needs no network), one JSON file per experiment and figures (PNG
//! and SVG) to `--out`, and `study.toml`, by which `--config` runs it again. A report that was stopped
//! goes on where it was when it is started again with the same flags and folder, and ends the same.
//! With `--task generate` a language model answers in words, and what needs a span head is left out.
//! Several processes, on one machine or on many with a shared folder, do its items: `--items`, `--run-item` and `--merge`.
//! Plans are chosen on the search questions and reported on those of `--data`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use command_line::arguments::items::{Folders, ItemArgs, before_flags};
use command_line::arguments::study::{StudyArgs, StudyDataArgs, check_unseen};
use command_line::arguments::{answers::AnswerArgs, input::InputArgs, quant::QuantArgs, run::RunArgs};
use command_line::contents::{name_of, of_questions};
use command_line::reported::Reported;
use command_line::session::{Command, Session};
use command_line::study_file::{self, Study};
use command_line::{command_again, finish, outln, output, stop_on_ctrl_c, usage};
use switchable_quant::data::TextTokenizer;
use switchable_quant::default_model::QuestionSet;
use switchable_quant::experiments::report::layout::{Heading, write_report};
use switchable_quant::experiments::report::study::{check_study, only, run_study};
use switchable_quant::experiments::running::memory::Memory;
use switchable_quant::experiments::running::share::Share;
use switchable_quant::experiments::train::trainer::TrainRun;
use switchable_quant::experiments::workbench::{RunSettings, StudyData, Workbench};
use switchable_quant::kernels::QuantAutodiffBackend;
use switchable_quant::reader::running::json_file::{write_json, write_text};
use switchable_quant::transformer::model::TrainableModel;

/// The whole study as one report
#[derive(Debug, Parser)]
#[command(name = "report")]
pub struct Arguments {
    /// File of flags (TOML: `steps = 240`), such as the study.toml that stands beside every report; flags on the command
    /// line take the place of its
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    quant: QuantArgs,
    #[command(flatten)]
    questions: StudyDataArgs,
    #[command(flatten)]
    study: StudyArgs,
    #[command(flatten)]
    items: ItemArgs,
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
    let line: Vec<OsString> = line.into_iter().collect();
    let read = study_file::read::<Arguments>(line.iter().cloned());
    let Study { mut arguments, text } = read.map_err(|error| before_flags(error, &line))?;
    crate::allocator::keep_freed_memory();
    // Flags that do not fit are refused before anything is opened.
    arguments.answers.check_with(&arguments.input)?;
    if arguments.answers.generates() && arguments.study.only.is_empty() {
        eprintln!("left out: dynamic and robustness, which need a span head");
        (arguments.study.no_dynamic, arguments.study.no_robustness) = (true, true);
    }
    if arguments.answers.generates()
        && let Some(stage) =
            arguments.study.only.iter().find(|stage| ["dynamic", "robustness"].contains(&stage.as_str()))
    {
        return Err(usage(format!("`--only {stage}` needs `--task span`: it needs a span head")));
    }
    arguments.questions.check(arguments.input.data.as_deref(), &arguments.study)?;
    arguments.study.config(arguments.input.batch, arguments.run.seed)?;
    let out = arguments.items.prepared_out(&arguments.run, "runs/report")?;
    let command = |share| {
        let calibration = arguments.quant.calibration.request(None, [], arguments.run.show())?;
        let report = Report { arguments: &arguments, study_file: &text, out: &out, share };
        let opening = arguments.input.opening(&arguments.run, arguments.quant.model_options());
        opening.answering(&arguments.answers).calibrated_on(calibration).run(report)
    };
    arguments.items.run(Folders { out: &out, kept_in: &out }, &arguments.run, command)
}

/// The names of files, for the report.
fn files_of(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|file| name_of(file)).collect();
    if names.is_empty() { "generated".to_owned() } else { names.join(", ") }
}

struct Report<'a> {
    arguments: &'a Arguments,
    /// All flags, by which the report can be made again.
    study_file: &'a str,
    out: &'a Path,
    share: Share,
}

impl Command for Report<'_> {
    fn reported(&self, _: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        Ok(vec![self.arguments.input.reported(QuestionSet::HeldOut)?])
    }

    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments: Arguments { run, input, answers, questions, study, .. }, study_file, out, share } = self;
        let config = study.config(input.batch, run.seed)?;
        let to_search = questions.search(input)?;
        let set = QuestionSet::HeldOut;
        let (report, asking) = session.questions_as(answers, input, run.seed, set, &[&to_search.dataset])?;
        let source = &report.source;
        let to_train = questions.train(input, study, &to_search)?;
        if input.data.is_some() {
            check_unseen("--search", &to_search.dataset, report.task.dataset())?;
            if study.trains() {
                check_unseen("--train", &to_train.dataset, report.task.dataset())?;
            }
        }
        let search = session.task_as(&asking, to_search.dataset.clone())?;
        let train = session.task_as(&asking, asking.without_shots(&to_train.dataset))?;
        let searched = to_search.counts_with(&search.measured_counts());
        let trained = to_train.counts_with(&train.training_counts());

        let named = |file: Option<&Path>| file.map_or_else(|| "generated".to_owned(), name_of);
        let search_file = questions.search.as_deref().map(Path::new);
        let null = input.null_rule(report.task.dataset().format)?;
        let identity = report
            .identity
            .with_option("null_rule", format!("{null:?}"))
            .with(&of_questions("search questions", &named(search_file), &search))
            .with(&of_questions("training questions", &named(questions.train.first().map(PathBuf::as_path)), &train));
        let mut evaluate = run.evaluate_options(&session.machine, input.batch, &stop_on_ctrl_c()?);
        evaluate.decode.null = null;
        let (workers, stop) = (evaluate.workers.clone(), evaluate.stop.clone());
        let training = TrainRun { workers, stop, show: run.show(), identity: identity.clone(), ..TrainRun::default() };
        let settings = RunSettings { seed: run.seed, evaluate, train: training, show: run.show() };
        let (tokenizer, window) = (&session.folder.tokenizer, input.window);
        let data = StudyData {
            train: (&train).into(),
            search: (&search).into(),
            report: (&report.task).into(),
            tokenizer,
            window,
        };
        let bench =
            Workbench::new(&session.folder.model, data, settings, Memory::folder(out, identity).shared(share.clone()));
        let counts = json!({ "report": report.counts, "search": searched, "train": trained });
        let stages = only(config.stages(), &study.only)?;
        check_study(&bench, &stages)?;
        if share.concludes() {
            write_json(out.join("questions.json"), &counts)?;
        }
        let sections = run_study(&bench, &stages)?;
        if !share.concludes() {
            return Ok(());
        }

        let facts = [
            ("model", source["model"].to_string()),
            ("report questions", format!("{}, {}", source["data"], report.counts.text("questions"))),
            ("search questions", format!("{}, {}", named(search_file), searched.text("questions"))),
            (
                "training questions",
                if study.trains() {
                    format!("{}, {}", files_of(&questions.train), trained.text("questions"))
                } else {
                    "none: nothing is trained".to_owned()
                },
            ),
            ("answers", answers.text()),
            ("quantiser", session.quantizer().to_string()),
            ("adapters", session.adapters.to_string()),
            ("seed", run.seed.to_string()),
        ];
        let heading = Heading {
            command: command_again("report"),
            facts: facts.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        let figures = write_report(&sections, &heading, out)?;
        write_text(out.join("study.toml"), study_file)?;
        outln!(
            "wrote report.md, report.html, {} figures and the JSON of every experiment to {}",
            figures.len(),
            out.display()
        );
        output::result(&json!({ "report": out.join("report.md"), "page": out.join("report.html"), "figures": figures }))
    }
}
