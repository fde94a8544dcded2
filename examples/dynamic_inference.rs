//! Answers at few bits, and at more where the confidence is low; plans picked by budget.
//!
//! ```text
//! cargo run --release --example dynamic_inference                        a prompt, in a terminal
//! cargo run --release --example dynamic_inference -- --data dev-v1.1.json
//! ```
//!
//! All widths run from one nested 8-bit copy of the weights. Every other paragraph of the questions
//! serves to measure the plans, fit temperatures and choose thresholds; the curve is measured on the
//! rest, and written as `dynamic_inference.json` and `dynamic_inference.png`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Instant;

use clap::Parser;
use serde_json::json;
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::charts::Figure as _;
use switchable_quant::data::TextTokenizer;
use switchable_quant::default_model::QuestionSet;
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::report::stages::dynamic::cascade_curve;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend, QuantBackend};
use switchable_quant::model::{Gpt2, PackOptions, PackedForm, SwitchableModel};
use switchable_quant::reader::choice::cascade::ConfidenceCascade;
use switchable_quant::reader::choice::controller::{PlanRequest, PrecisionController};
use switchable_quant::reader::choice::latency::LatencyOptions;
use switchable_quant::reader::choice::measured_cascade::{CalibratedCascade, MeasuredCascade};
use switchable_quant::reader::choice::resident::ResidentBytes;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant_examples::{Input, InputArgs, QuantArgs, RunArgs, plan_table_row, stop_on_ctrl_c};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plans chosen at run time
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    quant: QuantArgs,
    /// Widths of the plans, 2 to 8
    #[arg(long, value_delimiter = ',', default_value = "2,3,4,8", value_name = "BITS,...")]
    bits: Vec<BitWidth>,
    /// Share of the best exact match that the cascade of the prompt is to reach, 0 to 1
    #[arg(long, default_value_t = 0.99, value_name = "SHARE")]
    share: f64,
    /// Bytes that the controller may use; by default midway between the smallest and the largest plan
    #[arg(long, value_name = "BYTES")]
    bytes: Option<usize>,
    /// Most points of the curve
    #[arg(long, default_value_t = 24, value_name = "N")]
    points: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = arguments.run.device.resolve()?;
    device.dispatch_autodiff(Serve { arguments, device: &device })
}

struct Serve<'a> {
    arguments: Arguments,
    device: &'a Device,
}

impl WithAutodiff for Serve<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Arguments { run, input: args, quant, mut bits, share, bytes, points } = self.arguments;
        let input = Input::<B>::load(&args, &run, &quant.model_options(), QuestionSet::HeldOut, &device)?;
        let model = input.model.valid().pack(PackedForm::Nested, &PackOptions::default())?;
        let options = run.evaluate_options(self.device, args.batch, &stop_on_ctrl_c()?);
        let [calibration, evaluation] = input.task.halves()?;
        bits.sort_unstable();
        bits.dedup();
        let resident = ResidentBytes::measure(&model, &bits)?;
        let (nested, apart, wide) = (resident.sites, resident.per_width.values().sum::<usize>(), resident.sites_f32);
        println!("running on {}\nmatrices: {nested} bytes for all widths, {apart} apart, {wide} in f32", self.device);

        let plans: Vec<_> = bits.iter().map(|bits| model.transformer.uniform_plan(input.precision(*bits))).collect();
        let latency = LatencyOptions::new(self.device.to_string());
        let cascade = CalibratedCascade::new(&model, &calibration, &plans, share, (&options, Some(&latency)), &device)?;
        let controller = PrecisionController::new(&model, cascade.front.clone(), self.device.to_string())?;
        let sizes = || controller.picks().map(|pick| pick.point.site_bytes);
        let midway = usize::midpoint(sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
        let pick = controller.pick(PlanRequest::Bytes(bytes.unwrap_or(midway)))?.point;
        let milliseconds = pick.latency_ms.unwrap_or(f64::NAN);
        println!("picked by bytes: {:.1} bits, {} bytes, {milliseconds:.2} ms", pick.average_bits, pick.site_bytes);

        if std::io::stdin().is_terminal() && args.data.is_none() {
            let cascade = ConfidenceCascade::new(&model, cascade.stages(), cascade.chosen.thresholds)?;
            return prompt(&cascade, &controller, &input.tokenizer);
        }

        let MeasuredCascade { curve, chosen, outcome } =
            cascade.measure(&model, &evaluation, (points, run.seed), &options)?;
        for (plan, width) in curve.plans.iter().zip(&bits) {
            let answers = &plan.answers;
            let row = plan_table_row(&format!("{width} bits alone"), &answers.accuracy, f64::from(width.bits()));
            let (before, after) = (answers.calibration_error_before, answers.calibration_error);
            println!("{row}  {:.3e} BitOps  calibration error {before:.3} → {after:.3}", plan.bit_ops_per_question);
        }
        // Width at which one plan would do the work that the cascade does.
        let per_bit = curve.plans[0].bit_ops_per_question / f64::from(bits[0].bits());
        for point in curve.cascade.iter().map(|point| &point.outcome).chain([&outcome]) {
            let label = format!("cascade {}", point.thresholds_text());
            let row = plan_table_row(&label, &point.accuracy, point.bit_ops_per_question / per_bit);
            println!("{row}  {:.3e} BitOps", point.bit_ops_per_question);
        }
        let out = run.out.as_deref().unwrap_or(Path::new("."));
        cascade_curve(&curve, bits).write(&out.join("dynamic_inference.png"))?;
        let result = json!({
            "source": input.source, "device": self.device.to_string(), "quantizer": quant.quantizer, "seed": run.seed,
            "resident": resident, "front": controller.front(), "curve": curve, "chosen": chosen, "outcome": outcome,
        });
        Ok(write_json(out.join("dynamic_inference.json"), &result)?)
    }
}

/// Reads a context and a question at a time until the input ends; an empty context is the one before.
fn prompt<B: QuantBackend>(
    cascade: &ConfidenceCascade<'_, B, Gpt2<B>>,
    controller: &PrecisionController,
    tokenizer: &TextTokenizer,
) -> anyhow::Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let mut ask = |what: &str| {
        print!("{what}> ");
        std::io::stdout().flush()?;
        lines.next().transpose()
    };
    let mut context = String::new();
    while let Some(line) = ask("context")? {
        if !line.trim().is_empty() {
            context = line;
        }
        let Some(question) = ask("question")? else { break };
        let start = Instant::now();
        let (answer, _) = match cascade.answer(tokenizer, &question, &context) {
            Ok(answered) => answered,
            Err(error) => {
                println!("{error}");
                continue;
            }
        };
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let plan = &cascade.stages()[answer.stage].plan;
        let Some(pick) = controller.picks().find(|pick| pick.plan == plan) else { continue };
        let (bits, bytes) = (pick.point.average_bits, pick.point.site_bytes);
        let (text, confidence) = (&answer.decoded.text, answer.confidence);
        println!(
            "{text}\n  confidence {confidence:.2}, {bits:.1} bits, {milliseconds:.1} ms, {bytes} bytes of weights"
        );
    }
    Ok(())
}
