//! What a model and a plan take, before anything is loaded.
//!
//! ```text
//! cargo run --release --example inspect -- --model DIR
//! cargo run --release --example inspect -- --model DIR --plan plan.json --tokens 1024 --batch 8
//! cargo run --release --example inspect -- --model DIR --bits 4 --embedding-bits 8 --quantizer per-channel,symmetric,min-max
//! cargo run --release --example inspect -- --model DIR --rank 8 --widths 4 --tokens 400 --questions 500
//! ```
//!
//! Only the configuration and the headers of files are read. Bytes are those that `evaluate` prints of the loaded model in
//! floats: codes with their scales in f32, everything else in f32; and the keys and values of a context. Of packed weights,
//! whose scales may be smaller and which may hold every width at once, what they take is the size of their file. The time
//! is that of a block of the model's shapes in f32, its products and its attention, for each block: the output matrix,
//! what stands between products, quantising and unpacking are not in it. `--questions` says what searches over so many take,
//! `--rank` what adapters add, and what their training keeps beside them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use serde::Serialize;
use serde_json::{Value, json};

use command_line::arguments::count::{parse_count, parse_up_to};
use command_line::contents::name_of;
use command_line::files::resolve_model;
use command_line::{finish, out, output, usage};
use switchable_quant::burn::tensor::{Distribution, Tensor, activation};
use switchable_quant::default_model;
use switchable_quant::device::{DeviceChoice, WithBackend};
use switchable_quant::families::{WithFamily, with_family};
use switchable_quant::kernels::{BitWidth, QuantBackend, QuantSpec};
use switchable_quant::lora::switchable_embedding::EMBEDDING_SPEC;
use switchable_quant::lora::{LinearSettings, PrecisionPlan, SitePrecision};
use switchable_quant::model::Gpt2Config;
use switchable_quant::reader::footprint::Footprint;
use switchable_quant::transformer::config::ModelConfig;
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::shape::ModelShape;
use switchable_quant::transformer::site_plan::SitePlan;
use switchable_quant::transformer::weights::opening::read_config;

mod runs;

use self::runs::{Run, runs};

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
    /// Rank of the adapters of every site, for their bytes and their work
    #[arg(long, value_name = "RANK", value_parser = parse_up_to::<65_536>)]
    rank: Option<usize>,
    /// With --rank: widths that have adapters of their own
    #[arg(long, default_value_t = 1, requires = "rank", value_name = "N", value_parser = parse_up_to::<16>)]
    widths: usize,
    /// Questions of --tokens each: what evaluations and searches over them take here
    #[arg(long, value_name = "N", value_parser = parse_count)]
    questions: Option<usize>,
    /// Sequences that are read at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = parse_up_to::<65_536>)]
    batch: usize,
    /// What multiplies, for the time: auto, cpu, ndarray, cuda, cuda:N or wgpu
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
    let inspected = arguments.device.dispatch(OnDevice(&arguments))??;
    out!("{}", inspected.text());
    output::result(&inspected.json())
}

/// Inspects, and times the device.
struct OnDevice<'a>(&'a Arguments);

impl WithBackend for OnDevice<'_> {
    type Output = anyhow::Result<Inspected>;

    fn run<B: QuantBackend>(self, device: B::Device) -> Self::Output {
        let Self(arguments) = self;
        let plan = arguments.plan.as_deref().map(PrecisionPlan::load).transpose()?;
        let mut inspected = if let Some(model) = &arguments.model {
            let dir = resolve_model(model)?;
            with_family::<B, _>(&dir, Inspection { arguments, name: model, dir: &dir, plan })??
        } else {
            let config: Value = serde_json::from_str(default_model::FILES.config)?;
            arguments.inspect("built-in", &Gpt2Config::from_json(&config, Path::new("<built-in>"))?, plan)?
        };
        inspected.multiplies_per_second = multiplies_per_second::<B>(&inspected, &device);
        Ok(inspected)
    }
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
        let Arguments { plan, bits, embedding_bits, .. } = self.arguments;
        let asked =
            [("--plan", plan.is_some()), ("--bits", bits.is_some()), ("--embedding-bits", embedding_bits.is_some())];
        if let (Some((flag, _)), true) = (asked.iter().find(|(_, is_given)| *is_given), packed.is_some()) {
            return Err(usage(format!("`{flag}` is for weights in floats, those of {} are packed", self.name)));
        }
        let plan = self.plan.or(packed);
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
    adapters: Option<AdapterBytes>,
    questions: Option<usize>,
    /// Linear sites.
    sites: usize,
    multiplies_per_second: f64,
}

/// What adapters of every site take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct AdapterBytes {
    rank: usize,
    widths: usize,
    /// Of one width, in f32; a token is multiplied by each once.
    parameters: usize,
}

impl AdapterBytes {
    /// `rank · (inputs + outputs)` numbers for every linear site.
    fn new(rank: usize, widths: usize, footprint: &Footprint) -> Self {
        let sites = footprint.rows.iter().filter(|row| !row.is_embedding);
        let parameters = sites.map(|row| rank * (row.shape[0] + row.shape[1]) * row.count).sum();
        Self { rank, widths, parameters }
    }

    fn bytes(self) -> usize {
        size_of::<f32>() * self.parameters * self.widths
    }

    /// With gradients and the two moments of AdamW.
    fn bytes_in_training(self) -> usize {
        4 * self.bytes()
    }
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
        if let Some(bits) = self.embedding_bits {
            plan = plan.with_embedding_bits(bits);
        }
        for (site, precision) in plan.iter().chain(plan.embeddings()) {
            let own = if site.block.is_some() { self.quantizer } else { EMBEDDING_SPEC };
            let (bits, spec) = (precision.weights, precision.quantizer.unwrap_or(own));
            spec.check(bits, 2).with_context(|| format!("{}: {bits} bits by `{spec}`", sites.name(site)))?;
        }
        let tokens = self.tokens.unwrap_or(shape.positions);
        if tokens > shape.positions {
            return Err(usage(format!("`--tokens` is {tokens}, {name} has {} positions", shape.positions)));
        }
        let settings = LinearSettings { weight: self.quantizer, ..LinearSettings::default() }.quantisation();
        let footprint = Footprint::of(config, &plan, settings);
        Ok(Inspected {
            model: name.to_owned(),
            family: C::MODEL_TYPE,
            shape,
            adapters: self.rank.map(|rank| AdapterBytes::new(rank, self.widths, &footprint)),
            footprint,
            sites: sites.iter().count(),
            questions: self.questions,
            average_bits: plan.average_weight_bits(),
            files: Vec::new(),
            tokens,
            batch: self.batch,
            multiplies_per_second: f64::NAN,
        })
    }
}

/// The weights of a folder and of the adapters of each width in it, or the one file, with their bytes.
fn files_of(path: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let size = |file: &Path| anyhow::Ok(file.metadata().with_context(|| file.display().to_string())?.len());
    if path.is_file() {
        return Ok(vec![(name_of(path), size(path)?)]);
    }
    let adapters = path.join("adapters");
    let widths = if adapters.is_dir() { entries(&adapters)? } else { Vec::new() };
    let mut found = Vec::new();
    for dir in std::iter::once(path.to_owned()).chain(widths.into_iter().filter(|entry| entry.is_dir())) {
        for file in entries(&dir)?.into_iter().filter(|file| file.extension().is_some_and(|end| end == "safetensors")) {
            let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
            found.push((name, size(&file)?));
        }
    }
    Ok(found)
}

fn entries(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let found = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut found = found.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    found.sort_unstable();
    Ok(found)
}

/// Multiply-accumulates of linear sites a second, while a block of the model's shapes is computed in f32 on so many tokens: its
/// products and its attention, the best of some times.
fn multiplies_per_second<B: QuantBackend>(inspected: &Inspected, device: &B::Device) -> f64 {
    /// Of more, the scores of attention would take more memory than the model.
    const MOST_TOKENS: usize = 512;
    let random = |dims: [usize; 2]| Tensor::<B, 2>::random(dims, Distribution::Default, device);
    let tokens = inspected.tokens.min(MOST_TOKENS);
    let mut modules: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for row in inspected.footprint.rows.iter().filter(|row| !row.is_embedding) {
        modules.insert(&row.module, row.shape);
    }
    let products: Vec<[Tensor<B, 2>; 2]> =
        modules.values().map(|&[d_in, d_out]| [random([tokens, d_in]), random([d_in, d_out])]).collect();
    let ModelShape { heads, head_width, .. } = inspected.shape;
    let of_heads = || random([heads * tokens, head_width]).reshape([heads, tokens, head_width]);
    let (queries, keys, values) = (of_heads(), of_heads(), of_heads());
    let seconds = |_| {
        let start = Instant::now();
        for [x, weight] in &products {
            let _product = x.clone().matmul(weight.clone()).into_data();
        }
        let scores = queries.clone().matmul(keys.clone().swap_dims(1, 2));
        let _read = activation::softmax(scores, 2).matmul(values.clone()).into_data();
        start.elapsed()
    };
    let best = (0..8).map(seconds).min().unwrap_or(Duration::MAX);
    let of_a_token: usize = modules.values().map(|[d_in, d_out]| d_in * d_out).sum();
    (of_a_token * tokens) as f64 / best.as_secs_f64()
}

/// Bytes as people read them.
fn bytes(bytes: usize) -> String {
    const KIB: f64 = 1024.0;
    match bytes as f64 {
        count if count >= KIB.powi(3) => format!("{:.2} GiB", count / KIB.powi(3)),
        count if count >= KIB.powi(2) => format!("{:.1} MiB", count / KIB.powi(2)),
        count if count >= KIB => format!("{:.1} KiB", count / KIB),
        count => format!("{count} bytes"),
    }
}

impl Inspected {
    fn cache_bytes(&self) -> usize {
        self.footprint.kv_cache_bytes_per_token * self.tokens * self.batch
    }

    /// Multiply-accumulates of a token.
    fn macs_per_token(&self) -> f64 {
        (self.footprint.macs_per_token + self.adapters.map_or(0, |adapters| adapters.parameters)) as f64
    }

    fn multiplies(&self) -> f64 {
        self.macs_per_token() * self.tokens as f64 * self.batch as f64
    }

    /// What the commands take over the questions.
    fn runs(&self) -> Vec<Run> {
        let seconds = |questions| self.macs_per_token() * (self.tokens * questions) as f64 / self.multiplies_per_second;
        self.questions.map(|questions| runs(self.sites, seconds(questions))).unwrap_or_default()
    }

    fn seconds(&self) -> f64 {
        self.multiplies() / self.multiplies_per_second
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
            self.multiplies(),
            self.seconds(),
            self.multiplies_per_second / 1e9,
        );
        if let Some(adapters) = self.adapters {
            let (rank, widths) = (adapters.rank, adapters.widths);
            _ = writeln!(
                text,
                "adapters   rank {rank} for {widths} widths: {}; {} while they are trained",
                bytes(adapters.bytes()),
                bytes(adapters.bytes_in_training())
            );
        }
        if let Some(questions) = self.questions {
            _ = writeln!(
                text,
                "\nover {questions} questions of {tokens} tokens, what quantises weights and activations left out"
            );
            self.runs().iter().for_each(|run| _ = writeln!(text, "{}", run.text()));
        }
        text
    }

    fn json(&self) -> Value {
        let files: serde_json::Map<String, Value> =
            self.files.iter().map(|(name, size)| (name.clone(), json!(size))).collect();
        json!({
            "model": self.model, "family": self.family, "shape": self.shape, "footprint": self.footprint,
            "average_bits": self.average_bits, "files": files, "tokens": self.tokens, "batch": self.batch,
            "stored_bytes": self.footprint.stored(), "f32_bytes": self.footprint.in_f32(),
            "kv_cache_bytes": self.cache_bytes(), "seconds": self.seconds(), "adapters": self.adapters, "runs": self.runs(),
            "multiplies_per_second": self.multiplies_per_second,
        })
    }
}
