//! Packs a model and shows what is on disk and how far its logits are from those of floats.
//!
//! ```text
//! cargo run --release --example pack_gpt2 -- --bits 4 --out runs/packed
//! cargo run --release --example pack_gpt2 -- --model DIR --plan plan.json --out runs/packed \
//!     --quantizer per-channel,symmetric,min-max --head 8
//! cargo run --release --example pack_gpt2 -- --model DIR --nested --out runs/packed
//! ```
//!
//! Writes a folder that `PackModel::load_packed` opens, loads it again and compares it with the same model
//! in floats rounded to the levels of the plan: but for the order of sums, and for a packed head, the two
//! are the same. Adapters and a span head are not written; `ModelFolder::save_packed` of the library writes
//! them too. Without `--model` it packs the body of the built-in model.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use switchable_quant::burn::tensor::{ElementConversion as _, Tensor};
use switchable_quant::device::DeviceChoice;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::lora::SitePrecision;
use switchable_quant::reader::FolderOptions;
use switchable_quant::transformer::config::ModelConfig as _;
use switchable_quant::transformer::model::{SwitchableModel as _, TrainableModel};
use switchable_quant::transformer::packed::PackModel as _;
use switchable_quant::transformer::packed::form::{PackOptions, PackedForm};
use switchable_quant::transformer::span_head::MissingHead;
use switchable_quant_examples::arguments::quant::QuantArgs;
use switchable_quant_examples::finish;
use switchable_quant_examples::logits::logits_of_a_formula;
use switchable_quant_examples::session::{Command, Opening, Session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Packs a model at 2 to 8 bits
#[derive(Debug, Parser)]
struct Arguments {
    /// Hugging Face folder of a GPT-2 or a Llama, or a name such as openai-community/gpt2 to download;
    /// by default the model that is part of the program
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Width of every site; sites above 8 bits stay in floats
    #[arg(long, default_value = "4", value_name = "BITS")]
    bits: BitWidth,
    /// Plan as JSON, instead of --bits
    #[arg(long, value_name = "FILE", conflicts_with = "bits")]
    plan: Option<PathBuf>,
    /// 8-bit codes that serve every lower width too, instead of --bits
    #[arg(long, conflicts_with_all = ["bits", "plan"])]
    nested: bool,
    /// Width of a packed language-model head
    #[arg(long, value_name = "BITS")]
    head: Option<BitWidth>,
    /// Folder to write; made when missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    quant: QuantArgs,
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

fn main() -> ExitCode {
    finish(command)
}

fn command() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let options = FolderOptions {
        model: arguments.quant.model_options(),
        missing_head: MissingHead::Random(0),
        ..FolderOptions::default()
    };
    let (device, model) = (arguments.device, arguments.model.as_deref());
    Opening { device, model, adapters: None, options }.run(&arguments)
}

impl Command for &Arguments {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let model = session.plain().transformer;
        let uniform = SitePrecision::uniform(if self.nested { BitWidth::B8 } else { self.bits }).without_adapter();
        let plan = match &self.plan {
            Some(file) => model.load_plan(file)?.without_adapters(),
            None => model.uniform_plan(uniform),
        };
        let form = if self.nested { PackedForm::Nested } else { PackedForm::Plan(&plan) };
        model.save_packed(&self.out, form, &PackOptions { lm_head: self.head, ..PackOptions::default() })?;

        let (packed, _) = M::InnerModule::load_packed(&self.out, &self.quant.model_options(), &session.device)?;
        let (expected, got) = (logits_of_a_formula(&model, &plan), logits_of_a_formula(&packed, &plan));
        let largest = |x: Tensor<B::InnerBackend, 3>| x.abs().max().into_scalar().elem::<f32>();
        let difference = largest(got - expected.clone());
        println!("largest difference of a logit {difference:.1e}, largest logit {:.1}", largest(expected));

        let (sites, floats) = (model.site_bytes(), size_of::<f32>() * model.config().parameters());
        let ratio = |bytes: usize, of: usize| bytes as f64 / of as f64;
        let bytes = packed.site_bytes();
        println!("matrices     {bytes:>11} bytes, {:.4} of f32", ratio(bytes, sites));
        let bytes = std::fs::metadata(self.out.join("packed.safetensors"))?.len() as usize;
        println!("file         {bytes:>11} bytes, {:.4} of the model in f32", ratio(bytes, floats));
        Ok(())
    }
}
