//! Accuracy of a model under a plan on SQuAD questions, or of a file of predictions.
//!
//! ```text
//! cargo run --release --example evaluate -- --bits 4
//! cargo run --release --example evaluate -- --model DIR --data dev-v1.1.json --plan plan.json
//! cargo run --release --example evaluate -- --predictions predictions.json --data dev-v1.1.json
//! ```
//!
//! A folder of packed weights runs under the plan that it was packed by, unless `--plan` or `--bits` names
//! another. The last line on standard output is one JSON object: `exact_match` and `f1` in percent, `n`; for
//! SQuAD v2.0 also `HasAns_*` and `NoAns_*`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;

use switchable_quant::data::{self, Dataset, Predictions};
use switchable_quant::default_model::QuestionSet;
use switchable_quant::experiments::running::progress::EvaluationProgress;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::lora::{PrecisionPlan, SitePrecision};
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::text::{cost_table, plan_row};
use switchable_quant::reader::{Cost, Evaluator};
use switchable_quant::transformer::model::{SwitchableModel as _, TrainableModel};
use switchable_quant_examples::arguments::{input::InputArgs, quant::QuantArgs, run::RunArgs};
use switchable_quant_examples::session::{Command, Session};
use switchable_quant_examples::{files::resolve_data, stop_on_ctrl_c};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Accuracy of a model under a plan, or of a file of predictions
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    quant: QuantArgs,
    /// Width of every site, with its adapter where there is one; by default that of packed weights, else 32
    #[arg(long, value_name = "BITS")]
    bits: Option<BitWidth>,
    /// Plan as JSON, instead of --bits
    #[arg(long, value_name = "FILE", conflicts_with = "bits")]
    plan: Option<PathBuf>,
    /// Use no adapter
    #[arg(long, conflicts_with = "plan")]
    no_adapter: bool,
    /// Score these predictions ({"question id": "answer"}) and run no model
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    predictions: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(predictions) = &arguments.predictions {
        let data = arguments.input.data.as_deref().context("`--predictions` needs `--data`")?;
        return score(predictions, &resolve_data(data)?);
    }
    if arguments.run.out.is_some() {
        arguments.run.prepared_out(".")?;
    }
    // A plan that is none is refused before a model is opened.
    arguments.plan.as_deref().map(PrecisionPlan::load).transpose()?;
    arguments.input.opening(&arguments.run, &arguments.quant).run(&arguments)
}

fn score(predictions: &Path, data: &Path) -> anyhow::Result<()> {
    let evaluation = data::evaluate(&Dataset::read(data)?, &Predictions::read(predictions)?)?;
    if evaluation.missing > 0 {
        eprintln!("{} of {} questions have no prediction and count as wrong", evaluation.missing, evaluation.n);
    }
    println!("{}", evaluation.to_json());
    Ok(())
}

impl Command for &Arguments {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let questions = session.questions(&self.input, QuestionSet::HeldOut)?;
        let (folder, model) = (&session.folder, session.plain());
        let body = &model.transformer;
        let plan = match (&self.plan, self.bits, &folder.plan) {
            (Some(file), ..) => body.resolve(&PrecisionPlan::load(file)?)?,
            (None, None, Some(packed)) if self.input.adapters.is_none() => packed.clone(),
            (None, None, Some(packed)) => packed.iter().fold(packed.clone(), |plan, (site, precision)| {
                let adapter = folder.precision(precision.weights).adapter;
                plan.with(site, SitePrecision { adapter, ..precision })
            }),
            (None, bits, _) => body.uniform_plan(folder.precision(bits.unwrap_or(BitWidth::FULL))),
        };
        let plan = if self.no_adapter { plan.without_adapters() } else { plan };
        let cost = Cost::of(body, &plan);
        eprintln!("running on {}", session.machine);

        let options = self.run.evaluate_options(&session.machine, self.input.batch, &stop_on_ctrl_c()?);
        let evaluator = Evaluator::new(&model, &questions.task, options, &session.device)?;
        let progress = EvaluationProgress::start("evaluation", &evaluator, 1, self.run.show());
        let (accuracy, predictions) = progress.predict(&evaluator, &plan)?;
        progress.finish();
        println!("{}", plan_row("plan", &accuracy, cost.average_bits));
        print!("{}", cost_table(&cost));
        if let Some(out) = &self.run.out {
            predictions.write(out.join("predictions.json"))?;
            let result = serde_json::json!({
                "source": questions.source, "plan": plan.to_precision_plan(), "accuracy": accuracy, "cost": cost,
            });
            write_json(out.join("evaluate.json"), &result)?;
        }
        println!("{}", data::evaluate(&questions.task.dataset, &predictions)?.to_json());
        Ok(())
    }
}
