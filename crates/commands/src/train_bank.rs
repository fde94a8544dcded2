//! Trains an adapter bank on SQuAD files for any model folder.
//!
//! ```text
//! cargo run --release --example train_bank -- --model DIR --train train-v1.1.json \
//!     --data dev-v1.1.json --bits 32,16,8,4 --steps 2000 --out runs/bank
//! ```
//!
//! A folder without a span head, such as that of a language model, is fine-tuned in full precision
//! first: say for how long with `--base-steps`. Runs go on where they were when they are started
//! again with the same folder. `OUT/model` holds the model and `OUT/model/adapters` the bank; with `--data`
//! the last lines, and `OUT/train_bank.json`, show whether training helped: the base at full precision, then
//! every width without and with its adapter.
//!
//! `--task generate` trains a language model to write answers behind prompts, and evaluates what it writes; it needs no span
//! head, and what is saved has none.
//!
//! `--validate-every N` measures every width on the way and draws how they learn.
//!
//! `--regime` says which widths a step trains; `--steps 0` trains the base alone. `--loftq` starts the
//! adapters from what quantisation loses, `--learned-steps` trains the weights' step sizes with them and
//! saves these beside the adapters of each width.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};

use command_line::arguments::answers::AnswerArgs;
use command_line::arguments::bank::{BankArgs, BankSourceArgs, BankTrainingArgs};
use command_line::arguments::null_threshold::null_rule;
use command_line::arguments::{quant::QuantArgs, regime::RegimeArgs, run::RunArgs};
use command_line::contents::{name_of, of_questions, of_reading};
use command_line::files::{LoadedQuestions, check_apart, resolve_model};
use command_line::next_command::NextCommand;
use command_line::reported::Reported;
use command_line::session::{Command, Session};
use command_line::{finish, out, outln, output, resumable, stop_on_ctrl_c, usage};
use switchable_quant::burn::tensor::backend::DeviceId;
use switchable_quant::charts::{Figure as _, LineChart};
use switchable_quant::data::{Dataset, NullRule, TextTokenizer};
use switchable_quant::experiments::banks::bank::{BankConfig, RegimeOfBank, train_bank_with, train_base};
use switchable_quant::experiments::banks::bank_accuracy::{BankEvaluation, bank_accuracies, rows_of_bank};
use switchable_quant::experiments::banks::validation::{VALIDATION, Validation, read_rows, validation_chart};
use switchable_quant::experiments::running::memory::Memory;
use switchable_quant::experiments::train::ladder::Ladder;
use switchable_quant::experiments::train::trainer::{TrainRun, Training};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::reader::certificate::seen_data::{SeenRole, SeenSet};
use switchable_quant::reader::choice::fingerprint::ModelFingerprint;
use switchable_quant::reader::evaluation::question_task::QuestionTask;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::running::stop::StopFlag;
use switchable_quant::reader::{EvaluateOptions, Evaluator};
use switchable_quant::transformer::model::TrainableModel;
use switchable_quant::transformer::span_head::MissingHead;

/// The folder for results by default.
const OUT: &str = "runs/bank";

/// Trains one LoRA adapter per width on a frozen, quantised model
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    quant: QuantArgs,
    #[command(flatten)]
    regime: RegimeArgs,
    #[command(flatten)]
    source: BankSourceArgs,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    bank: BankArgs,
    #[command(flatten)]
    training: BankTrainingArgs,
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
    let Arguments { run, quant, source, answers, training, bank, .. } = &arguments;
    // Flags and data that do not fit are refused before anything is opened.
    bank.config(&quant.quantizer, run.seed)?;
    for config in [training.base(run.seed), training.bank(run.seed)].iter().filter(|config| config.steps > 0) {
        config.check()?;
    }
    if training.base_steps > 0 && quant.rounding.needs_moments(quant.quantizer) {
        return Err(usage(format!(
            "`--base-steps` changes the inputs that `--rounding {}` and `--quantizer {}` go by: train the base by `--steps 0` \
             first, and the bank from `--model OUT/model`",
            quant.rounding, quant.quantizer
        )));
    }
    if source.validate_every.is_some() && training.steps == 0 {
        return Err(usage("`--validate-every` looks at a bank that is trained, and `--steps 0` trains none"));
    }
    let beside = training.further.beside(&run.device.resolve()?, training.micro_batches)?;
    answers.check(true, &[("--null-threshold", source.null_threshold.is_some())])?;
    let data = Questions { training: source.questions()?, evaluation: source.evaluation()? };
    check_apart(&run.out_or(OUT).join("model"), &[&resolve_model(&source.model)?])?;
    let out = run.prepared_out(OUT)?;
    let missing_head =
        if answers.generates() { MissingHead::Random(run.seed) } else { training.missing_head(run.seed) };
    let model = quant.model_options();
    let task = TrainBank { arguments: &arguments, data, beside, out: &out };
    let mut calibration = quant.calibration.request(None, [bank.lowest()], run.show())?;
    if calibration.files.is_empty() && quant.needs_calibration() {
        // Nothing is reported on the questions of the training.
        calibration.files = source.train.iter().map(|file| file.display().to_string()).collect();
    }
    resumable(&out, || source.run(run, model, missing_head, calibration, task))
}

struct Questions {
    training: LoadedQuestions,
    evaluation: Option<LoadedQuestions>,
}

struct TrainBank<'a> {
    arguments: &'a Arguments,
    data: Questions,
    beside: Vec<DeviceId>,
    out: &'a Path,
}

impl Command for TrainBank<'_> {
    fn reported(&self, _: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        let Arguments { quant, source, .. } = self.arguments;
        // What a bank is trained on it may be calibrated on: only files of their own have to be apart.
        let evaluation = self.data.evaluation.as_ref().filter(|_| !quant.calibration.calibration.is_empty());
        let name = format!("--data {}", source.data.as_deref().unwrap_or_default());
        let reported = evaluation.map(|loaded| Reported::Questions { name, dataset: loaded.dataset.clone() });
        Ok(reported.into_iter().collect())
    }

    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, mut session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, data, beside, out } = self;
        let Arguments { run, quant, regime, source, answers, bank, training } = arguments;
        let window = training.window;
        anyhow::ensure!(session.folder.plan.is_none(), "`--model` holds packed weights, expected floats to train");
        let measured: Vec<&Dataset> = data.evaluation.iter().map(|loaded| &loaded.dataset).collect();
        let asking = answers.asking(&measured, window, run.seed, source.reading)?;
        let task = session.task_as(&asking, asking.without_shots(&data.training.dataset))?;
        let counts = data.training.counts_with(&task.training_counts());
        outln!("running on {}, {}", session.machine, counts.text("training questions"));
        let load = |loaded: LoadedQuestions| {
            let task = session.task_as(&asking, loaded.dataset.clone())?;
            let counts = loaded.counts_with(&task.measured_counts());
            if !counts.left_out.is_empty() {
                outln!("evaluated on {}", counts.text("questions"));
            }
            if let Some(text) = task.cut_text() {
                outln!("{text}");
            }
            anyhow::Ok(task)
        };
        let evaluation = data.evaluation.map(load).transpose()?;
        let null = match &evaluation {
            Some(task) => null_rule(source.null_threshold, task.dataset().format)?,
            None => NullRule::Never,
        };
        let mut options = run.evaluate_options(&session.machine, training.batch, &stop_on_ctrl_c()?);
        options.decode.null = null;
        let (body, lowest) = (&session.folder.model.transformer, bank.lowest());
        let bank = bank.config(&quant.quantizer, run.seed)?;
        let regime = regime.config(body.sites(), bank.precision(lowest), run.seed)?;
        if training.steps > 0 {
            bank.check(&session.folder.model)?;
            // A regime that does not fit is refused before the base is trained.
            regime.build(&bank.ladder(&session.folder.model)?, training.steps)?;
        }
        write_json(out.join("questions.json"), &json!({ "train": counts }))?;
        let trained_on = source.train.first().map_or_else(String::new, |file| name_of(file));
        let identity = session.identity()?.with(&of_questions("data", &trained_on, &task));
        let workers = training.further.workers(options.workers.clone());
        let part = |part: &str| {
            let (dir, stop) = (Some(out.join(part)), options.stop.clone());
            let (workers, beside) = (workers.clone(), beside.clone());
            let identity = identity.clone().with_options(json!({ "window": window, "part": part, "seed": run.seed }));
            TrainRun { dir, workers, beside, stop, show: run.show(), identity }
        };
        if training.base_steps > 0 {
            let (config, run) = (&training.base(run.seed), &part("base"));
            session.folder.model = train_base(session.folder.model, &task, Training { config, run })?.0;
        }
        if training.steps > 0 {
            let (config, run) = (&training.bank(run.seed), &part("bank"));
            let built = |_: &_, ladder: &Ladder| regime.build(ladder, config.steps);
            let looked_at = match (&evaluation, source.validate_every) {
                (Some(task), Some(every)) => {
                    let some = task.dataset().limited(source.validation_limit);
                    Some((every, session.task_as(&asking, some)?))
                }
                _ => None,
            };
            let validation = looked_at.as_ref().map(|(every, task)| Validation {
                every: *every,
                questions: task.into(),
                // A look is short, and what is stopped in the midst of one has to be saved.
                options: EvaluateOptions { stop: StopFlag::default(), ..options.clone() },
            });
            let of = RegimeOfBank { validation: validation.as_ref(), ..RegimeOfBank::new(&bank, &built) };
            let (model, outcome) = train_bank_with(session.folder.model, &task, &of, Training { config, run })?;
            match outcome.losses.len() {
                0 => {
                    outln!("bank: all {} steps were done before", training.steps);
                    say_looks(&out.join("bank"), source.validate_every, training.steps)?;
                }
                steps => outln!("bank: {steps} steps at {:.0} tokens/s", outcome.tokens_per_second),
            }
            session.folder.model = model;
        }
        let target = out.join("model");
        if answers.generates() && session.has_random_head {
            session.folder.save_language_model(&target, &source.model)?;
        } else {
            session.folder.save(&target, &source.model)?;
        }
        // Of what is made from this model, certificates are then known to be on other questions.
        let seen = SeenSet::new(SeenRole::Training, trained_on, &data.training.dataset)?;
        if let Some(seen) = session.seen_with(vec![seen])? {
            seen.write(&target)?;
        }
        outln!("wrote {}", target.display());
        if source.validate_every.is_some() {
            draw_validation(out)?;
        }

        let rows = evaluation.map(|task| arguments.evaluate(&session, &task, (&bank, options), out)).transpose()?;
        NextCommand::new("greedy_search").with_path("--model", &target).with("--data", "QUESTIONS").say(run);
        output::result(&rows.unwrap_or_else(|| json!({ "model": target, "seed": run.seed })))
    }
}

/// Says where a bank that was trained before was not looked at as is asked for.
fn say_looks(bank: &Path, every: Option<usize>, steps: usize) -> anyhow::Result<()> {
    let Some(every) = every else { return Ok(()) };
    let found: BTreeSet<usize> = read_rows(&bank.join(VALIDATION))?.iter().map(|row| row.step).collect();
    let asked = |step: &usize| step.is_multiple_of(every) || *step == steps;
    if let Some(first) = found.first()
        && !(*first..=steps).filter(asked).eq(found.iter().copied())
    {
        outln!(
            "bank/{VALIDATION} stays as it is: `--validate-every {every}` looks while a bank is trained, and this one was \
             trained with another"
        );
    }
    Ok(())
}

/// Draws what was seen of the widths while they were trained, if anything was.
fn draw_validation(out: &Path) -> anyhow::Result<()> {
    let rows = read_rows(&out.join("bank").join(VALIDATION))?;
    let widths: BTreeSet<BitWidth> = rows.iter().map(|row| row.bits).collect();
    if rows.is_empty() {
        outln!("the bank was trained before, without `--validate-every`: there is nothing to draw");
        return Ok(());
    }
    if rows[0].step > 0 {
        outln!("bank/{VALIDATION} begins at step {}: what was seen before is not in it", rows[0].step);
    }
    out!("wrote bank/{VALIDATION}");
    if widths.len() <= LineChart::MOST_SERIES {
        for file in ["validation.png", "validation.svg"] {
            validation_chart(&rows).write(&out.join(file))?;
            out!(", {file}");
        }
    }
    outln!(" to {}", out.display());
    Ok(())
}

impl Arguments {
    /// The base and every width without and with its adapter, on the questions of `--data`.
    fn evaluate<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        session: &Session<B, M>,
        task: &QuestionTask,
        (bank, options): (&BankConfig, EvaluateOptions),
        out: &Path,
    ) -> anyhow::Result<Value> {
        let Self { run, quant, source, training, .. } = self;
        let model = session.plain();
        let evaluator = Evaluator::new(&model, task, options, &session.device)?;
        let of_width = bank.widths().map(|width| bank.precision(width));
        let precisions = rows_of_bank(of_width.map(|p| if training.steps > 0 { p } else { p.without_adapter() }));
        // Of the model as it has been trained, whatever it was trained from.
        let identity = of_questions("data", source.data.as_deref().unwrap_or_default(), task)
            .with_content("trained model", "", ModelFingerprint::of(&model).into())
            .with_option("compute", json!(session.folder.model.transformer.settings().compute))
            .with(&of_reading(evaluator.options()));
        let known = Memory::folder(out.join("evaluation"), identity);
        outln!("on {} questions of --data", task.dataset().len());
        let mut rows = Vec::new();
        for row in bank_accuracies(&evaluator, precisions, BankEvaluation { show: run.show(), known: known.clone() }) {
            let row = row?;
            outln!("{}", row.row_with_adapter());
            rows.push(row);
        }
        let result = json!({ "quantizer": quant.quantizer, "seed": run.seed, "rows": rows });
        write_json(out.join("train_bank.json"), &result)?;
        known.forget()?;
        Ok(result)
    }
}
