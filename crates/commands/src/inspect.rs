//! What a model and a plan take, before anything is loaded.
//!
//! ```text
//! cargo run --release --example inspect -- --model DIR
//! cargo run --release --example inspect -- --model DIR --plan plan.json --tokens 1024 --batch 8
//! cargo run --release --example inspect -- --model DIR --bits 4 --embedding-bits 8 --quantizer per-channel,symmetric,min-max
//! ```
//!
//! Only the configuration and the headers of files are read. Bytes are those that `evaluate` prints of the loaded model:
//! codes with their scales, everything else in f32, and the keys and values of a context. The time is that of the
//! multiplications alone at the rate at which this machine multiplies f32 matrices of 512 by 512 now, so that a run takes
//! longer than it by what attention, normalisations and unpacking take. `--json` prints the figures for programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use serde_json::{Value, json};

use command_line::arguments::count::parse_count;
use command_line::files::resolve_model;
use command_line::{finish, usage};
use switchable_quant::backend::{Cpu, CpuDevice};
use switchable_quant::burn::tensor::{Distribution, Tensor};
use switchable_quant::default_model;
use switchable_quant::families::{WithFamily, with_family};
use switchable_quant::kernels::{BitWidth, QuantBackend, QuantSpec};
use switchable_quant::lora::{LinearSettings, PrecisionPlan, SitePrecision};
use switchable_quant::model::Gpt2Config;
use switchable_quant::reader::footprint::Footprint;
use switchable_quant::transformer::config::ModelConfig;
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::shape::ModelShape;
use switchable_quant::transformer::site_plan::SitePlan;
use switchable_quant::transformer::weights::opening::read_config;

/// Sites, parameters and bytes of a model under a plan, from headers alone
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Folder, GGUF file or name of a GPT-2 or a Llama; by default the model that is part of the program
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Plan as JSON
    #[arg(long, value_name = "FILE", conflicts_with = "bits")]
    plan: Option<PathBuf>,
    /// Width of every linear site; by default that of packed weights, else 32
    #[arg(long, value_name = "BITS")]
    bits: Option<BitWidth>,
    /// Width of the embeddings and of the output matrix, in place of what the plan says
    #[arg(long, value_name = "BITS")]
    embedding_bits: Option<BitWidth>,
    /// Weight quantiser where the plan does not say one: granularity,mapping,range
    #[arg(long, default_value = "per-tensor,symmetric,min-max", value_name = "SPEC")]
    quantizer: QuantSpec,
    /// Tokens of context; by default the model's positions
    #[arg(long, value_name = "N", value_parser = parse_count)]
    tokens: Option<usize>,
    /// Sequences that are read at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = parse_count)]
    batch: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
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
    let arguments = Arguments::parse_from(line);
    let plan = arguments.plan.as_deref().map(PrecisionPlan::load).transpose()?;
    let inspected = match &arguments.model {
        None => {
            let config: Value = serde_json::from_str(default_model::FILES.config)?;
            let config = Gpt2Config::from_json(&config, Path::new("<built-in>"))?;
            arguments.inspect("built-in", &config, plan)?
        }
        Some(model) => {
            let dir = resolve_model(model)?;
            let inspection = Inspection { arguments: &arguments, name: model, dir: &dir, plan };
            with_family::<Cpu, _>(&dir, inspection)??
        }
    };
    if arguments.json {
        println!("{:#}", inspected.json());
    } else {
        print!("{}", inspected.text());
    }
    Ok(())
}

struct Inspection<'a> {
    arguments: &'a Arguments,
    name: &'a str,
    dir: &'a Path,
    plan: Option<PrecisionPlan>,
}

impl<B: QuantBackend> WithFamily<B> for Inspection<'_> {
    type Output = anyhow::Result<Inspected>;

    fn run<M: SwitchableModel<B>>(self) -> Self::Output {
        let (config, packed) = read_config::<M::Config>(self.dir)?;
        let plan = self.plan.or(packed.filter(|_| self.arguments.bits.is_none()));
        let files = files_of(self.dir)?;
        Ok(Inspected { files, ..self.arguments.inspect(self.name, &config, plan)? })
    }
}

/// What is known of a model and a plan.
struct Inspected {
    model: String,
    family: &'static str,
    shape: ModelShape,
    footprint: Footprint,
    average_bits: f64,
    /// Files of the folder with their bytes, those of adapters among them.
    files: Vec<(String, u64)>,
    tokens: usize,
    batch: usize,
    multiplies_per_second: f64,
}

impl Arguments {
    fn inspect<C: ModelConfig>(
        &self,
        name: &str,
        config: &C,
        plan: Option<PrecisionPlan>,
    ) -> anyhow::Result<Inspected> {
        let (sites, shape) = (config.sites(), config.shape());
        let full = PrecisionPlan::uniform(SitePrecision::FULL);
        let of_bits = self.bits.map(|bits| PrecisionPlan::uniform(SitePrecision::FULL.with_weights(bits)));
        let plan = plan.or(of_bits).unwrap_or(full);
        let file = || self.plan.as_deref().unwrap_or(Path::new("the plan")).display().to_string();
        let mut plan = SitePlan::named(&sites, &plan).with_context(file)?;
        for bits in plan.iter().map(|(_, precision)| precision.weights).chain(self.embedding_bits) {
            self.quantizer.check(bits, 2).with_context(|| format!("{bits} bits by `{}`", self.quantizer))?;
        }
        if let Some(bits) = self.embedding_bits {
            for site in sites.embeddings() {
                plan.set(site, SitePrecision::FULL.with_weights(bits));
            }
        }
        let tokens = self.tokens.unwrap_or(shape.positions);
        if tokens > shape.positions {
            return Err(usage(format!("`--tokens` is {tokens}, {name} has {} positions", shape.positions)));
        }
        let settings = LinearSettings { weight: self.quantizer, ..LinearSettings::default() }.quantisation();
        Ok(Inspected {
            model: name.to_owned(),
            family: C::MODEL_TYPE,
            shape,
            footprint: Footprint::of(config, &plan, settings),
            average_bits: plan.average_weight_bits(),
            files: Vec::new(),
            tokens,
            batch: self.batch,
            multiplies_per_second: multiplies_per_second(),
        })
    }
}

/// Weights of a folder and of the adapters in it, or the one file.
fn files_of(path: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    if path.is_file() {
        return Ok(vec![(name_in(path, path.parent().unwrap_or(path)), path.metadata()?.len())]);
    }
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?.path();
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|ending| ending == "safetensors" || ending == "bin") {
                found.push((name_in(&entry, path), entry.metadata()?.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn name_in(path: &Path, folder: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

/// Multiply-accumulates a second of a product of f32 matrices, the best of some.
fn multiplies_per_second() -> f64 {
    const SIZE: usize = 512;
    let device = CpuDevice::default();
    let random = || Tensor::<Cpu, 2>::random([SIZE, SIZE], Distribution::Default, &device);
    let (a, b) = (random(), random());
    let seconds = |_| {
        let start = Instant::now();
        let _product = a.clone().matmul(b.clone()).into_data();
        start.elapsed()
    };
    let best = (0..8).map(seconds).min().unwrap_or(Duration::MAX);
    (SIZE * SIZE * SIZE) as f64 / best.as_secs_f64()
}

/// Bytes as people read them.
fn bytes(bytes: usize) -> String {
    match bytes as f64 {
        count if count >= 1e9 => format!("{:.2} GB", count / 1e9),
        count if count >= 1e6 => format!("{:.1} MB", count / 1e6),
        count if count >= 1e3 => format!("{:.1} kB", count / 1e3),
        count => format!("{count} bytes"),
    }
}

impl Inspected {
    fn cache_bytes(&self) -> usize {
        self.footprint.kv_cache_bytes_per_token * self.tokens * self.batch
    }

    fn seconds(&self) -> f64 {
        (self.footprint.macs_per_token * self.tokens * self.batch) as f64 / self.multiplies_per_second
    }

    fn text(&self) -> String {
        use std::fmt::Write as _;
        let Self { model, family, shape, footprint, tokens, batch, .. } = self;
        let mut text = format!(
            "model      {model}: {family}, {} blocks of width {}, {} heads ({} of keys and values), {} positions, {} tokens\n\
             parameters {}, of which {} in linear sites\n",
            shape.blocks,
            shape.width,
            shape.heads,
            shape.kv_heads,
            shape.positions,
            shape.vocabulary,
            footprint.parameters,
            footprint.macs_per_token
        );
        for (name, size) in &self.files {
            _ = writeln!(text, "file       {name}, {}", bytes(*size as usize));
        }
        _ = writeln!(text, "\n{:<22} {:>14} {:>6} {:>6} {:>12}", "sub-module", "shape", "count", "bits", "bytes");
        for row in &footprint.rows {
            let shape = format!("{} × {}", row.shape[0], row.shape[1]);
            let (count, bits) = (row.count, row.bits);
            _ = writeln!(text, "{:<22} {shape:>14} {count:>6} {bits:>6} {:>12}", row.module, bytes(row.bytes));
        }
        let rest = bytes(4 * footprint.rest);
        _ = writeln!(text, "{:<22} {:>14} {:>6} {:>6} {rest:>12}", "everything else", "", "", 32);
        let (stored, in_f32) = (footprint.stored(), footprint.in_f32());
        let share = 100.0 * stored as f64 / in_f32 as f64;
        _ = write!(
            text,
            "\nweights    {}, {share:.1} % of {} in f32; {:.2} bits on average in linear sites, adapters not counted\n\
             KV cache   {} a token; {} for {batch} × {tokens} tokens\n\
             together   {}\n\
             work       {:.2e} multiply-adds for {batch} × {tokens} tokens: {:.2} s at the {:.0} billion a second of this machine\n",
            bytes(stored),
            bytes(in_f32),
            self.average_bits,
            bytes(footprint.kv_cache_bytes_per_token),
            bytes(self.cache_bytes()),
            bytes(stored + self.cache_bytes()),
            (footprint.macs_per_token * tokens * batch) as f64,
            self.seconds(),
            self.multiplies_per_second / 1e9,
        );
        text
    }

    fn json(&self) -> Value {
        let files: serde_json::Map<String, Value> =
            self.files.iter().map(|(name, size)| (name.clone(), json!(size))).collect();
        json!({
            "model": self.model, "family": self.family, "shape": self.shape, "footprint": self.footprint,
            "average_bits": self.average_bits, "files": files, "tokens": self.tokens, "batch": self.batch,
            "stored_bytes": self.footprint.stored(), "f32_bytes": self.footprint.in_f32(),
            "kv_cache_bytes": self.cache_bytes(), "seconds": self.seconds(),
            "multiplies_per_second": self.multiplies_per_second,
        })
    }
}
