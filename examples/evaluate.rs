//! Accuracy of a model under a plan on SQuAD questions, or of a file of predictions.
//!
//! ```text
//! cargo run --release --example evaluate -- --bits 4
//! cargo run --release --example evaluate -- --model DIR --data dev-v1.1.json --plan plan.json
//! cargo run --release --example evaluate -- --predictions predictions.json --data dev-v1.1.json
//! ```
//!
//! The last line on standard output is one JSON object: `exact_match` and `f1` in percent, `n`; for
//! SQuAD v2.0 also `HasAns_*` and `NoAns_*`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::data::{self, Dataset, Predictions};
use switchable_quant::default_model::QuestionSet;
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::lora::PrecisionPlan;
use switchable_quant::model::SwitchableModel;
use switchable_quant::reader::cost::Cost;
use switchable_quant::reader::evaluation::evaluate::Evaluator;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant_examples::{
    Input, InputArgs, QuantArgs, RunArgs, cost_table, plan_table_row, resolve_data, stop_on_ctrl_c,
};

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
    /// Width of every site, with its adapter where there is one
    #[arg(long, default_value = "32", value_name = "BITS")]
    bits: BitWidth,
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
    let device = arguments.run.device.resolve()?;
    device.dispatch_autodiff(Evaluate { arguments, device: &device })
}

fn score(predictions: &Path, data: &Path) -> anyhow::Result<()> {
    let evaluation = data::evaluate(&Dataset::read(data)?, &Predictions::read(predictions)?)?;
    if evaluation.missing > 0 {
        eprintln!("{} of {} questions have no prediction and count as wrong", evaluation.missing, evaluation.n);
    }
    println!("{}", evaluation.to_json());
    Ok(())
}

struct Evaluate<'a> {
    arguments: Arguments,
    device: &'a Device,
}

impl WithAutodiff for Evaluate<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Arguments { run, input: input_args, quant, bits, plan, no_adapter, .. } = self.arguments;
        let input = Input::<B>::load(&input_args, &run, &quant.model_options(), QuestionSet::HeldOut, &device)?;
        let body = &input.model.transformer;
        let plan = match plan {
            Some(file) => body.resolve(&PrecisionPlan::load(&file)?)?,
            None if no_adapter => body.uniform_plan(input.precision(bits).without_adapter()),
            None => body.uniform_plan(input.precision(bits)),
        };
        let cost = Cost::of(body, &plan);
        eprintln!("running on {}", self.device);

        let model = input.model.valid();
        let options = run.evaluate_options(self.device, input_args.batch, &stop_on_ctrl_c()?);
        let evaluator = Evaluator::new(&model, &input.task, options, &device)?;
        let (accuracy, predictions) = evaluator.predict(&plan)?;
        println!("{}", plan_table_row("plan", &accuracy, cost.average_bits));
        print!("{}", cost_table(&cost));
        if let Some(out) = &run.out {
            predictions.write(out.join("predictions.json"))?;
            write_json(
                out.join("evaluate.json"),
                &serde_json::json!({
                    "source": input.source, "plan": plan.to_precision_plan(), "accuracy": accuracy, "cost": cost,
                }),
            )?;
        }
        println!("{}", data::evaluate(&input.task.dataset, &predictions)?.to_json());
        Ok(())
    }
}
