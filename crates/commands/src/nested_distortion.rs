//! What one 8-bit tensor that serves every width costs beside a tensor per width.
//!
//! ```text
//! cargo run --release --example nested_distortion -- --quantizer per-channel,symmetric,min-max
//! cargo run --release --example nested_distortion -- --gpt2-small
//! ```
//!
//! Prints a Markdown table: at each width the signal to quantisation noise ratio of all matrices, in
//! decibels, quantised from the floats, cut from the packed 8-bit codes, and rounded from them by the scales
//! that the quantiser finds at the width, as the mean weighted by
//! parameters with the least and the greatest of a matrix; and the bytes of the packed tensors,
//! scales included. Without arguments it takes the built-in model.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use command_line::arguments::quant::QuantArgs;
use command_line::files::resolve_model;
use command_line::{finish, outln, output};
use switchable_quant::burn::tensor::{Tensor, TensorData};
use switchable_quant::default_model;
use switchable_quant::device::{DeviceChoice, WithBackend};
use switchable_quant::kernels::{BitWidth, Distortion, NestedTensor, QuantBackend, Rounding, ScaleFormat};
use switchable_quant::model::{Gpt2, Gpt2Config};
use switchable_quant::transformer::model::SwitchableModel as _;
use switchable_quant::transformer::model_weights::ModelWeights as _;
use switchable_quant::transformer::sites::Site;

/// Distortion and bytes of nested and of independent packed weights
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Hugging Face folder of a GPT-2, or a name such as openai-community/gpt2 to download;
    /// by default the model that is part of the program
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Take random weights of GPT-2 small's shapes
    #[arg(long, conflicts_with = "model")]
    gpt2_small: bool,
    /// Seed of the random weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    quant: QuantArgs,
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
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
    arguments.quant.calibration.expect_none()?;
    arguments.device.dispatch(arguments)?
}

/// Decibels of several matrices.
struct Decibels(Vec<(f64, usize)>);

impl Decibels {
    /// The mean over parameters.
    fn mean(&self) -> f64 {
        let parameters: usize = self.0.iter().map(|(_, n)| n).sum();
        self.0.iter().map(|(db, n)| db * *n as f64).sum::<f64>() / parameters as f64
    }

    /// `mean [least, greatest]`
    fn text(&self) -> String {
        let mean = self.mean();
        let least = self.0.iter().map(|(db, _)| *db).fold(f64::INFINITY, f64::min);
        let greatest = self.0.iter().map(|(db, _)| *db).fold(f64::NEG_INFINITY, f64::max);
        format!("{mean:.1} [{least:.1}, {greatest:.1}]")
    }
}

impl WithBackend for Arguments {
    type Output = anyhow::Result<()>;

    fn run<B: QuantBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Self { model, gpt2_small, seed, quant, .. } = self;
        let options = quant.model_options();
        let model: Gpt2<B> = match model {
            Some(name) => Gpt2::load(resolve_model(&name)?, &options, &device)?,
            None if gpt2_small => Gpt2::random(&Gpt2Config::gpt2_small(), &options, seed, &device)?,
            None => default_model::load_without_adapters(&options, &device)?.model.transformer,
        };
        let sites: Vec<Site> = model.sites().iter().collect();
        let count = |site| model.sites().parameters(site);
        let pack = |site, bits| {
            let nearest = Rounding::Nearest { bits, spec: quant.quantizer };
            nearest.pack(&model.site(site).weight(), ScaleFormat::F32)
        };
        let eight =
            sites.iter().map(|&site| NestedTensor::new(pack(site, BitWidth::B8)?)).collect::<Result<Vec<_>, _>>()?;
        let parameters: usize = sites.iter().copied().map(count).sum();
        let of_f32 = |bytes: usize| bytes as f64 / (parameters * size_of::<f32>()) as f64;

        outln!("{} matrices, {parameters} parameters, {}\n", sites.len(), quant.quantizer);
        outln!("| bits | independent, dB | nested, dB | nested, own scales, dB | bytes | of f32 |");
        outln!("|---:|---:|---:|---:|---:|---:|");
        let mut rows = Vec::new();
        let (mut all_bytes, mut own_bytes) = (0, eight.iter().map(NestedTensor::bytes).sum::<usize>());
        for bits in (2..=8).rev().map(BitWidth::new) {
            let bits = bits?;
            let [mut independent, mut nested, mut own] = [const { Decibels(Vec::new()) }; 3];
            let mut bytes = 0;
            for (&site, eight) in sites.iter().zip(&eight) {
                let weight = model.site(site).weight();
                let db = |values: Vec<f32>| {
                    let values = Tensor::from_data(TensorData::new(values, weight.dims()), &device);
                    (Distortion::between(&weight, &values).sqnr_db, count(site))
                };
                let packed = pack(site, bits)?;
                bytes += packed.bytes();
                independent.0.push(db(packed.dequantize()));
                nested.0.push(db(eight.dequantize(bits)?));
                let scaled = if bits == BitWidth::B8 {
                    eight.clone()
                } else {
                    eight.clone().with_scales(bits, ScaleFormat::F32, &packed.scales())?
                };
                own_bytes += scaled.bytes() - eight.bytes();
                own.0.push(db(scaled.dequantize(bits)?));
            }
            rows.push(json!({
                "bits": bits, "bytes": bytes, "independent_db": independent.mean(), "nested_db": nested.mean(),
                "own_scales_db": own.mean(),
            }));
            let [independent, nested, own] = [independent, nested, own].map(|all| all.text());
            outln!("| {bits} | {independent} | {nested} | {own} | {bytes} | {:.4} |", of_f32(bytes));
            all_bytes += bytes;
        }
        let nested_bytes: usize = eight.iter().map(|eight| eight.tensor().bytes()).sum();
        outln!("\nall widths, nested         {nested_bytes:>10} bytes, {:.4} of f32", of_f32(nested_bytes));
        outln!("all widths, own scales     {own_bytes:>10} bytes, {:.4} of f32", of_f32(own_bytes));
        outln!("all widths, independent    {all_bytes:>10} bytes, {:.4} of f32", of_f32(all_bytes));
        output::result(&json!({
            "parameters": parameters, "widths": rows, "nested_bytes": nested_bytes, "own_scales_bytes": own_bytes,
            "independent_bytes": all_bytes,
        }))
    }
}
