//! Accuracy of a model under a plan on SQuAD questions, or of a file of predictions.
//!
//! ```text
//! cargo run --release --example evaluate -- --bits 4
//! cargo run --release --example evaluate -- --model DIR --data dev-v1.1.json --plan plan.json
//! cargo run --release --example evaluate -- --predictions predictions.json --data dev-v1.1.json
//! cargo run --release --example evaluate -- --model DIR --data dev-v1.1.json --task generate --shots 2 --shots-from train.json
//! ```
//!
//! `--task generate` asks a language model in words: it continues a prompt greedily, and its answer is the first line. Shots
//! show a model that was not trained for it what is asked; they are drawn by the seed from other contexts.
//!
//! On SQuAD v2.0 questions are answered with nothing by the null rule, at `--null-threshold` (0): `auto` chooses
//! the threshold on a fifth of the questions, which share no article with the others, and measures those.
//!
//! A plan says how its sites are quantised, unless its file is of version 1: then the run's quantiser is used.
//! A folder of packed weights runs under the plan that it was packed by, unless `--plan` or `--bits` names
//! another. Beside the accuracy it prints what the process holds in memory, tokens a second and the time of a
//! question alone (`--untimed` leaves the times out). The last line on standard output is one JSON object: `exact_match` and `f1` in percent, `n`; for
//! SQuAD v2.0 also `HasAns_*`, `NoAns_*`, and `best_*`, what the best thresholds on the measured questions
//! themselves would give.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use serde::Serialize;
use serde_json::{Value, json};

use command_line::arguments::{
    answers::AnswerArgs,
    input::InputArgs,
    null_threshold::NullThreshold,
    plan::{PlanArgs, PlanFile},
    run::RunArgs,
};
use command_line::contents::{name_of, of_reading};
use command_line::files::{LoadedQuestions, load_questions, resolve_data};
use command_line::finished::refuse_other_work;
use command_line::reported::Reported;
use command_line::session::{Command, Session};
use command_line::{finish, out, outln, output, stop_on_ctrl_c, stoppable, usage};
use switchable_quant::data::{
    self, Dataset, Format, NullProbabilities, NullRule, Predictions, QuestionCounts, QuestionScore, TextTokenizer,
    WhyLeftOut,
};
use switchable_quant::default_model::QuestionSet;
use switchable_quant::experiments::running::computation::COMPUTATION;
use switchable_quant::experiments::running::progress::EvaluationProgress;
use switchable_quant::identity::{ContentHash, Identity};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend, QuantBackend};
use switchable_quant::reader::certificate::machine::{Resident, resident_bytes};
use switchable_quant::reader::certificate::measured_model::Timing;
use switchable_quant::reader::certificate::text_hash::TextHash;
use switchable_quant::reader::evaluation::question_task::QuestionTask;
use switchable_quant::reader::model_folder::OwnAdapters;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::statistics::PairedComparison;
use switchable_quant::reader::text::{
    bounds, cost_table, in_points, interval, p_value, plan_label, plan_row, points, quantisers_text,
};
use switchable_quant::reader::{Accuracy, Cost, EvaluateOptions, Evaluator, ReadingTask};
use switchable_quant::transformer::model::{SwitchableModel, TrainableModel};
use switchable_quant::transformer::site_plan::SitePlan;
use switchable_quant::transformer::span_head::ForQuestionAnswering;

/// Questions that are timed one at a time.
const TIMED: usize = 16;

/// Share of v2.0 questions that a null threshold is chosen on.
const HELD_OUT: f64 = 0.2;

/// Accuracy of a model under a plan, or of a file of predictions
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// Width of every site, with its adapter where there is one; by default that of packed weights, else 32
    #[arg(long, value_name = "BITS")]
    bits: Option<BitWidth>,
    /// Do not time questions
    #[arg(long)]
    untimed: bool,
    /// Score these predictions ({"question id": "answer"}) and run no model
    #[arg(long, value_name = "FILE", requires = "data", conflicts_with_all = OF_MODELS)]
    predictions: Option<PathBuf>,
    /// Predictions of another run on the same questions, such as the predictions.json in its --out: the difference is printed,
    /// question by question
    #[arg(long, value_name = "FILE")]
    compare_with: Option<PathBuf>,
    /// How likely each of the predicted questions has no answer ({"question id": number}), for v2.0 data: as
    /// --na-prob-file of the official script, with --null-threshold (1) for its --na-prob-thresh
    #[arg(long, value_name = "FILE", requires = "predictions")]
    null_probabilities: Option<PathBuf>,
}

/// What says how a model runs, and nothing of predictions.
const OF_MODELS: [&str; 24] = [
    "model",
    "adapters",
    "no_adapter",
    "span_head",
    "plan",
    "plan_name",
    "quantizer",
    "rounding",
    "rotation",
    "activations",
    "calibration",
    "calibration_samples",
    "calibration_seed",
    "scaling",
    "scaling_bits",
    "embedding_bits",
    "untimed",
    "execution",
    "compute",
    "bits",
    "window",
    "batch",
    "device",
    "workers",
];

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
    arguments.answers.check_with(&arguments.input)?;
    if arguments.predictions.is_some() && arguments.answers.generates() {
        return Err(usage("`--task generate` is for a model, and `--predictions` runs none"));
    }
    // Read before the first long step.
    let rival = arguments.compare_with.as_deref().map(RivalPredictions::read).transpose()?;
    if let (Some(predictions), Some(data)) = (&arguments.predictions, &arguments.input.data) {
        let loaded = load_questions(&resolve_data(data)?, arguments.input.reading)?;
        let loaded = if let Some(limit) = arguments.input.limit { loaded.limited(limit) } else { loaded };
        return arguments.score(predictions, &loaded, rival);
    }
    if arguments.run.out.is_some() {
        arguments.run.prepared_out(".")?;
    }
    let plan = arguments.plan.read()?;
    if let Some(plan) = &plan {
        plan.check_span_head(arguments.input.span_head)?;
    }
    let options = arguments.plan.model_options(plan.as_ref());
    let mut opening = arguments.input.opening(&arguments.run, options).answering(&arguments.answers);
    opening.options.quantiser = arguments.plan.quantiser();
    opening.options.activations = arguments.plan.activations.activations;
    opening.calibration = arguments.plan.calibration_request(plan.as_ref(), arguments.bits, arguments.run.show())?;
    if plan.as_ref().is_some_and(|plan| !plan.names_adapters()) && arguments.input.span_head.is_none() {
        // Adapters that are not asked for need not be those of the plan's quantiser.
        opening.options.adapters = OwnAdapters::LeftOut;
    }
    stoppable(|| opening.run(Evaluation { arguments: &arguments, plan, rival }))
}

impl Arguments {
    fn score(&self, file: &Path, loaded: &LoadedQuestions, rival: Option<RivalPredictions<'_>>) -> anyhow::Result<()> {
        if self.run.out.is_some() {
            self.run.prepared_out(".")?;
        }
        let (dataset, predictions) = (&loaded.dataset, Predictions::read(file)?);
        let rival = rival.map(|rival| rival.scored(dataset)).transpose()?;
        let evaluation = match (&self.null_probabilities, self.input.null_threshold) {
            (None, None) => data::evaluate(dataset, &predictions)?,
            (None, Some(_)) => return Err(usage("`--null-threshold` of predictions needs `--null-probabilities`")),
            (Some(_), Some(NullThreshold::Auto)) => {
                return Err(usage("`--null-threshold auto` is for a model; the official script's is a number"));
            }
            (Some(_), _) if dataset.format == Format::V1 => {
                bail!("`--null-probabilities` is for data of version 2.0: in version 1.1 each question has an answer")
            }
            (Some(file), threshold) => {
                let threshold = if let Some(NullThreshold::At(threshold)) = threshold { threshold } else { 1.0 };
                let probabilities = NullProbabilities::read(file)?;
                data::evaluate_v2_with_null_probabilities(dataset, &predictions, &probabilities, threshold)?
            }
        };
        if !loaded.counts.left_out.is_empty() {
            eprintln!("{}", loaded.counts.text("questions"));
        }
        if evaluation.missing == evaluation.n {
            bail!("{}: no prediction is of a question of the data", file.display());
        }
        if evaluation.missing > 0 {
            eprintln!("{} of {} questions have no prediction and count as wrong", evaluation.missing, evaluation.n);
        }
        let official = evaluation.to_json();
        let accuracy = Accuracy::new(evaluation.exact_match, evaluation.f1, evaluation.scores, None);
        let comparison = rival.map(|rival| rival.against(&accuracy, self.run.seed));
        let mut scored = json!({
            "accuracy": accuracy, "counts": loaded.counts, "official": serde_json::from_str::<Value>(&official)?,
            "comparison": comparison,
        });
        if let Some(out) = &self.run.out {
            let result = out.join("evaluate.json");
            let mut made_from = Identity::default()
                .with_content("data", "", ContentHash::of_bytes(dataset.to_json().as_bytes()))
                .with_content("predictions", name_of(file), ContentHash::of_file(file)?)
                .with_option("null_threshold", self.input.null_threshold.map(|threshold| format!("{threshold:?}")));
            if let Some(file) = &self.null_probabilities {
                made_from = made_from.with_content("null probabilities", name_of(file), ContentHash::of_file(file)?);
            }
            let made_from = made_from.computed_by(COMPUTATION);
            refuse_other_work(&result, &made_from)?;
            scored["made_from"] = json!(made_from);
            write_json(result, &scored)?;
        }
        let exact = interval(accuracy.exact_match, accuracy.exact_match_interval);
        let f1 = interval(accuracy.f1, accuracy.f1_interval);
        outln!("predictions  EM {exact}  F1 {f1}  n = {}", accuracy.n);
        self.tell(comparison.as_ref());
        outln!("{official}");
        output::result(&scored)
    }

    /// The score above which questions are answered with nothing, if any are, and the questions that are left to measure.
    fn null_threshold<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        task: ReadingTask,
        (model, plan): (&ForQuestionAnswering<B, M>, &SitePlan),
        options: &EvaluateOptions,
        device: &B::Device,
        counts: &mut QuestionCounts,
    ) -> anyhow::Result<(ReadingTask, Option<f32>)> {
        let is_v2 = task.dataset.format == Format::V2;
        match self.input.null_threshold {
            Some(NullThreshold::Auto) if is_v2 => {
                let parts = task.held_out(HELD_OUT, self.run.seed);
                let [held_out, measured] =
                    parts.context("`--null-threshold auto` needs a part that is not measured")?;
                let chosen_on = Evaluator::new(model, &held_out, options.clone(), device)?;
                let threshold = chosen_on.null_answers(plan)?.best_threshold(&held_out.dataset)?;
                let n = held_out.dataset.len();
                eprintln!("null threshold {threshold}, of the highest F1 on {n} questions that are not measured");
                counts.leave_out(
                    task.measured_counts().used - measured.measured_counts().used,
                    WhyLeftOut::ChoseThreshold,
                );
                Ok((measured, Some(threshold)))
            }
            None if is_v2 => {
                eprintln!("null threshold 0: v2.0 data, and `--null-threshold` says no other");
                Ok((task, Some(0.0)))
            }
            _ => {
                let rule = self.input.null_rule(task.dataset.format)?;
                let threshold = if let NullRule::Threshold(threshold) = rule { Some(threshold) } else { None };
                Ok((task, threshold))
            }
        }
    }

    /// What these answers gain over those of `--compare-with`.
    fn tell(&self, against: Option<&Against>) {
        let (Some(file), Some(Against { found, n, paragraphs })) = (&self.compare_with, against) else { return };
        let PairedComparison { only_first, only_second, .. } = found;
        let over_paragraphs = found.over_paragraphs.map(|of| format!(", over paragraphs {}", bounds(in_points(of))));
        outln!(
            "against {}: EM {} points{}, {only_second} right here alone and {only_first} there alone, p = {}, n = {n} questions \
             about {paragraphs} paragraphs",
            file.display(),
            points(found),
            over_paragraphs.unwrap_or_default(),
            p_value(found.p_value),
        );
    }
}

/// The predictions of `--compare-with`.
struct RivalPredictions<'a> {
    file: &'a Path,
    predictions: Predictions,
}

impl<'a> RivalPredictions<'a> {
    fn read(file: &'a Path) -> anyhow::Result<Self> {
        Ok(Self { file, predictions: Predictions::read(file)? })
    }

    /// Scored on the questions that are asked here, each of which they must answer.
    fn scored(&self, dataset: &Dataset) -> anyhow::Result<RivalScores> {
        let scored = data::evaluate(dataset, &self.predictions)?;
        if scored.missing > 0 {
            bail!("{}: {} of {} questions have no prediction there", self.file.display(), scored.missing, scored.n);
        }
        let paragraphs = dataset.examples().into_iter().map(|example| TextHash::of_context(&example.context));
        let of_question = |(score, paragraph): (QuestionScore, TextHash)| (score.id, (score.exact, paragraph));
        Ok(RivalScores { of_questions: scored.scores.into_iter().zip(paragraphs).map(of_question).collect() })
    }
}

/// Whether the other run answered a question exactly, and the paragraph of it, by the question's id.
struct RivalScores {
    of_questions: HashMap<String, (f64, TextHash)>,
}

impl RivalScores {
    /// What the answers here gain, on the questions that are measured here.
    fn against(&self, accuracy: &Accuracy, seed: u64) -> Against {
        let here: Vec<f64> = accuracy.scores.iter().map(|score| score.exact).collect();
        let there = accuracy.scores.iter().map(|score| self.of_questions[&score.id]);
        let (there, paragraphs): (Vec<f64>, Vec<TextHash>) = there.unzip();
        let found = PairedComparison::over_paragraphs(&there, &here, &paragraphs, seed);
        let different: HashSet<TextHash> = paragraphs.into_iter().collect();
        Against { found, n: here.len(), paragraphs: different.len() }
    }
}

/// What the answers here gain over those of another run, and on how much.
#[derive(Serialize)]
struct Against {
    #[serde(flatten)]
    found: PairedComparison,
    /// Questions.
    n: usize,
    /// Paragraphs that they are about.
    paragraphs: usize,
}

struct Evaluation<'a> {
    arguments: &'a Arguments,
    plan: Option<PlanFile>,
    rival: Option<RivalPredictions<'a>>,
}

impl Command for Evaluation<'_> {
    fn reported(&self, _: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        Ok(vec![self.arguments.input.reported(QuestionSet::HeldOut)?])
    }

    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, plan: file, rival } = self;
        let Arguments { run, input, answers, plan: how, bits, untimed, .. } = arguments;
        let questions = session.questions_as(answers, input, run.seed, QuestionSet::HeldOut, &[])?.0;
        let (folder, model) = (&session.folder, session.plain());
        let body = &model.transformer;
        let plan = how.choose(folder, file.as_ref(), *bits)?;
        let is_own = file.is_none() && how.plan_name.is_none() && bits.is_none();
        let plan = if is_own && input.adapters.is_some() { folder.with_adapters(&plan) } else { plan };
        let plan = if input.no_adapter { plan.without_adapters() } else { plan };
        answers.check_plan(&model, &plan).with_context(|| format!("the plan for {}", session.name))?;
        let cost = Cost::of(body, &plan);
        eprintln!("running on {}", session.machine);
        eprint!("{}{}", quantisers_text(body, &plan), answers.head_text(&model, &plan)?);

        let mut options = run.evaluate_options(&session.machine, input.batch, &stop_on_ctrl_c()?);
        let (task, mut counts) = (questions.task, questions.counts);
        let rival = rival.map(|rival| rival.scored(task.dataset())).transpose()?;
        let made_from = questions
            .identity
            .with(&of_reading(&options))
            .with_options(serde_json::json!({
                "plan": model.named_plan(&plan), "seed": run.seed,
                "null_threshold": input.null_threshold.map(|threshold| format!("{threshold:?}")),
            }))
            .computed_by(COMPUTATION);
        if let Some(out) = &run.out {
            refuse_other_work(&out.join("evaluate.json"), &made_from)?;
        }
        let (task, threshold) = match task {
            QuestionTask::Span(task) => {
                let chosen = arguments.null_threshold(task, (&model, &plan), &options, &session.device, &mut counts)?;
                (QuestionTask::Span(chosen.0), chosen.1)
            }
            generated @ QuestionTask::Generate(_) => (generated, None),
        };
        options.decode.null = threshold.map_or(NullRule::Never, NullRule::Threshold);
        let evaluator = Evaluator::new(&model, &task, options, &session.device)?;
        let progress = EvaluationProgress::start("evaluation", &evaluator, 1, run.show());
        let start = Instant::now();
        let (accuracy, predictions, nulls) = progress.predict_with_nulls(&evaluator, &plan)?;
        progress.finish();
        let seconds = start.elapsed().as_secs_f64();
        let resident = resident_bytes();
        let scored = match (&nulls, threshold) {
            (Some(nulls), Some(threshold)) => nulls.evaluate(task.dataset(), threshold)?,
            _ => data::evaluate(task.dataset(), &predictions)?,
        };
        let official = scored.to_json();
        let comparison = rival.map(|rival| rival.against(&accuracy, run.seed));
        let result = json!({
            "made_from": made_from, "source": questions.source, "plan": model.named_plan(&plan),
            "accuracy": accuracy, "cost": cost,
            "counts": counts, "null_threshold": threshold, "official": serde_json::from_str::<Value>(&official)?,
            "comparison": comparison,
        });
        if let Some(out) = &run.out {
            predictions.write(out.join("predictions.json"))?;
            write_json(out.join("evaluate.json"), &result)?;
        }
        outln!("{}", plan_row(&plan_label(&plan), &accuracy, cost.average_bits));
        arguments.tell(comparison.as_ref());
        out!("{}", cost_table(&cost));
        if let Some(Resident { loaded, peak }) = resident {
            outln!("resident: {:.1} MB, at most {:.1} MB", loaded as f64 / 1e6, peak as f64 / 1e6);
        }
        if !untimed {
            outln!("{}", Timing::measure(&evaluator, &plan, TIMED, seconds)?);
        }
        if !counts.left_out.is_empty() {
            outln!("{}", counts.text("questions"));
        }
        run.tell_cache(body);
        outln!("{official}");
        output::result(&result)
    }
}
