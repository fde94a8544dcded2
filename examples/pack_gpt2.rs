//! Packs a GPT-2 and shows what is on disk and how far its logits are from those of floats.
//!
//! ```text
//! cargo run --release --example pack_gpt2 -- --bits 4 --out runs/packed
//! cargo run --release --example pack_gpt2 -- --model DIR --plan plan.json --out runs/packed \
//!     --quantizer per-channel,symmetric,min-max --head 8
//! cargo run --release --example pack_gpt2 -- --model DIR --nested --out runs/packed
//! ```
//!
//! Writes a folder that `Gpt2::load_packed` opens, loads it again and compares it with the same model
//! in floats rounded to the levels of the plan: but for the order of sums, and for a packed head, the
//! two are the same. Adapters and a span head are not written. Without `--model` it packs the body of
//! the built-in model.

use std::path::PathBuf;
use switchable_quant::model::{
    Gpt2, ModelConfig, ModelWeights, PackModel, PackOptions, PackedForm, SitePlan, SitePrecision, SwitchableModel,
};

use clap::Parser;
use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::burn::tensor::{ElementConversion as _, Int, Tensor, TensorData};
use switchable_quant::default_model;
use switchable_quant::device::{DeviceChoice, WithAutodiff};
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend, QuantBackend};
use switchable_quant::lora::PrecisionPlan;
use switchable_quant_examples::{QuantArgs, resolve_model};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Packs a GPT-2 at 2 to 8 bits
#[derive(Debug, Parser)]
struct Arguments {
    /// Hugging Face folder of a GPT-2, or a name such as openai-community/gpt2 to download;
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

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    arguments.device.dispatch_autodiff(Pack(arguments))?
}

struct Pack(Arguments);

impl WithAutodiff for Pack {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Self(Arguments { model, bits, plan, nested, head, out, quant, .. }) = self;
        let options = quant.model_options();
        let model: Gpt2<B> = match model {
            Some(name) => Gpt2::load(resolve_model(&name)?, &options, &device)?,
            None => default_model::load(&options, &device)?.model.transformer,
        };
        let model = model.valid();
        let uniform = SitePrecision::uniform(if nested { BitWidth::B8 } else { bits }).without_adapter();
        let plan = match plan {
            Some(file) => model.resolve(&PrecisionPlan::load(&file)?)?.without_adapters(),
            None => model.uniform_plan(uniform),
        };
        let form = if nested { PackedForm::Nested } else { PackedForm::Plan(&plan) };
        model.save_packed(&out, form, &PackOptions { lm_head: head, ..PackOptions::default() })?;

        let (packed, _) = Gpt2::<B::InnerBackend>::load_packed(&out, &options, &device)?;
        let (expected, got) = (logits(&model, &plan, &device), logits(&packed, &plan, &device));
        let largest = |x: Tensor<B::InnerBackend, 3>| x.abs().max().into_scalar().elem::<f32>();
        let difference = largest(got - expected.clone());
        println!("largest difference of a logit {difference:.1e}, largest logit {:.1}", largest(expected));

        let (sites, floats) = (model.site_bytes(), size_of::<f32>() * model.config().parameters());
        let ratio = |bytes: usize, of: usize| bytes as f64 / of as f64;
        let bytes = packed.site_bytes();
        println!("matrices     {bytes:>11} bytes, {:.4} of f32", ratio(bytes, sites));
        let bytes = std::fs::metadata(out.join("packed.safetensors"))?.len() as usize;
        println!("file         {bytes:>11} bytes, {:.4} of the model in f32", ratio(bytes, floats));
        Ok(())
    }
}

/// Logits of a text that a formula makes.
fn logits<B: QuantBackend>(model: &Gpt2<B>, plan: &SitePlan, device: &B::Device) -> Tensor<B, 3> {
    let (vocabulary, tokens) = (model.config().vocab_size, model.config().n_positions.min(64));
    let ids: Vec<i64> = (0..tokens).map(|i| (i * 7919 % vocabulary) as i64).collect();
    let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [1, tokens]), device);
    model.next_token_scores(model.forward(ids, None, plan))
}
