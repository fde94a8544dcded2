//! How well a language model foretells documents, at one width after another.
//!
//! ```text
//! cargo run --release --example perplexity -- --model DIR --text validation.txt.zst --bits 8,4,3,2 \\
//!     --quantizer per-channel,symmetric,importance --rounding gptq --calibration train.txt.zst
//! ```
//!
//! Files are `.txt` or `.txt.zst`; a line `<|endoftext|>` ends a document. Each width is compared with the first row
//! on the same documents. Without `--model` the built-in model reads its held-out paragraphs.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Parser;
use serde_json::{Value, json};

use command_line::arguments::count::parse_count;
use command_line::arguments::plan::{PlanArgs, PlanFile};
use command_line::arguments::run::RunArgs;
use command_line::files::flag_of;
use command_line::finished::refuse_other_work;
use command_line::reported::Reported;
use command_line::session::{Command, LanguageModel, Opening, Session};
use command_line::{finish, outln, output, stop_on_ctrl_c, stoppable};
use switchable_quant::data::{TextFiles, TextTokenizer};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::experiments::document_losses::{Document, DocumentLosses};
use switchable_quant::experiments::running::computation::COMPUTATION;
use switchable_quant::experiments::running::progress::Progress;
use switchable_quant::identity::ContentHash;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::reader::Cost;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::statistics::Interval;
use switchable_quant::reader::text::{plan_label, quantisers_text};
use switchable_quant::transformer::model::{SwitchableModel as _, TrainableModel};
use switchable_quant::transformer::site_plan::SitePlan;

/// The longest window by default.
const WINDOW: usize = 512;

/// Perplexity of a language model at one width after another, or under a plan
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    /// Folder or name of a language model; by default the built-in model
    #[arg(long, value_name = "DIR|NAME", requires = "text")]
    model: Option<String>,
    /// Folder of adapters, one per width, in the place of the model's own
    #[arg(long, value_name = "DIR", conflicts_with = "no_adapter")]
    adapters: Option<PathBuf>,
    /// Use no adapter
    #[arg(long)]
    no_adapter: bool,
    /// Text files, .txt or .txt.zst; by default the held-out paragraphs of the built-in model
    #[arg(long, num_args = 1.., value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Tokens of the text that are read, up to the end of a document
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = parse_count)]
    tokens: usize,
    /// Tokens of a document that are read, from its start: more documents say more than longer ones
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = parse_count)]
    document_tokens: usize,
    /// Tokens of a window; by default the model's positions, at most 512
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Widths of all sites, after 32 bits; by default that of packed weights
    #[arg(long, value_delimiter = ',', value_name = "BITS", conflicts_with_all = ["plan", "plan_name"])]
    bits: Vec<BitWidth>,
    #[command(flatten)]
    plan: PlanArgs,
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
    let files = if arguments.text.is_empty() { None } else { Some(TextFiles::new(&arguments.text)?) };
    let plan = arguments.plan.read()?;
    if arguments.run.out.is_some() {
        arguments.run.prepared_out(".")?;
    }
    let bits = arguments.bits.iter().copied();
    let model = LanguageModel {
        device: arguments.run.device,
        model: arguments.model.as_deref(),
        adapters: arguments.adapters.as_deref(),
        no_adapter: arguments.no_adapter,
        execution: arguments.run.execution,
    };
    let calibration = arguments.plan.calibration_request(plan.as_ref(), bits, arguments.run.show())?;
    let opening = Opening::of_language_model(model, &arguments.plan, plan.as_ref(), calibration);
    stoppable(|| opening.run(Reading { arguments: &arguments, files, plan }))
}

impl Arguments {
    /// The text that is read, by its flag and its files.
    fn text_name(&self) -> String {
        if self.text.is_empty() { "the held-out paragraphs".to_owned() } else { flag_of("--text", &self.text) }
    }
}

struct Reading<'a> {
    arguments: &'a Arguments,
    files: Option<TextFiles>,
    plan: Option<PlanFile>,
}

impl Reading<'_> {
    /// The documents from the first on, until there are the tokens that are asked for.
    fn documents(&self, tokenizer: &TextTokenizer) -> anyhow::Result<(Vec<String>, Vec<Document>)> {
        let mut texts = Vec::new();
        let mut documents = Vec::new();
        let mut tokens = 0;
        let mut add = |text: String| -> anyhow::Result<bool> {
            let mut ids = tokenizer.encode_ids(&text)?;
            let mut bytes = text.len();
            if ids.len() > self.arguments.document_tokens {
                ids.truncate(self.arguments.document_tokens);
                bytes = tokenizer.decode(&ids)?.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
            }
            let document = Document { tokens: ids, bytes };
            tokens += document.tokens.len();
            documents.push(document);
            texts.push(text);
            Ok(tokens < self.arguments.tokens)
        };
        let Some(files) = &self.files else {
            let questions = default_model::questions(QuestionSet::HeldOut)?;
            let mut contexts: Vec<String> = questions.examples().iter().map(|e| e.context.to_string()).collect();
            contexts.dedup();
            for text in contexts {
                if !add(text)? {
                    break;
                }
            }
            return Ok((texts, documents));
        };
        for text in files.documents() {
            if !add(text?)? {
                break;
            }
        }
        ensure!(!texts.is_empty(), "{}: no document", self.arguments.text_name());
        Ok((texts, documents))
    }
}

impl Command for Reading<'_> {
    fn reported(&self, tokenizer: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        let (documents, _) = self.documents(tokenizer)?;
        Ok(vec![Reported::Texts { name: self.arguments.text_name(), documents }])
    }

    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments: Arguments { run, plan: how, bits, no_adapter, .. }, .. } = &self;
        let (folder, model) = (&session.folder, session.plain());
        let body = &model.transformer;
        let positions = body.shape().positions;
        let window = self.arguments.window.unwrap_or(WINDOW.min(positions));
        ensure!(
            (2..=positions).contains(&window),
            "`--window {window}`, expected 2 to the model's {positions} positions"
        );
        let (texts, documents) = self.documents(&folder.tokenizer)?;
        let chosen = |bits| how.choose(folder, self.plan.as_ref(), bits);
        let is_float = body.sites().iter().all(|site| body.site(site).packed_weights().is_none());
        let mut plans: Vec<SitePlan> = Vec::new();
        if is_float {
            plans.push(body.uniform_plan(folder.precision(BitWidth::FULL)));
        }
        if self.plan.is_some() || how.plan_name.is_some() || (bits.is_empty() && !is_float) {
            plans.push(chosen(None)?);
        }
        for bits in bits.iter().filter(|bits| !bits.is_full()) {
            plans.push(chosen(Some(*bits))?);
        }
        if *no_adapter {
            plans = plans.into_iter().map(SitePlan::without_adapters).collect();
        }
        for plan in &plans {
            body.check_plan(plan)?;
        }

        let text = texts.join("\n<|endoftext|>\n");
        let identity = session.identity()?.with_content("text", "", ContentHash::of_bytes(text.as_bytes()));
        let named: Vec<_> = plans.iter().map(|plan| model.named_plan(plan)).collect();
        let made_from = identity
            .with_options(json!({ "plans": named, "window": window, "seed": run.seed }))
            .computed_by(COMPUTATION);
        if let Some(out) = &run.out {
            refuse_other_work(&out.join("perplexity.json"), &made_from)?;
        }
        let tokens: usize = documents.iter().map(|document| document.tokens.len()).sum();
        eprintln!("running on {}", session.machine);
        let plural = if documents.len() == 1 { "" } else { "s" };
        eprintln!("{} document{plural}, {tokens} tokens in windows of {window}", documents.len());
        eprint!("{}", quantisers_text(body, plans.last().expect("the full width at least")));
        let stop = stop_on_ctrl_c()?;
        let mut progress = Progress::start("perplexity", 0, documents.len() * plans.len(), run.show());
        let (mut rows, mut first): (Vec<Value>, Option<DocumentLosses>) = (Vec::new(), None);
        let mut lines = Vec::new();
        for plan in &plans {
            let losses = DocumentLosses::measure(body, &documents, (window, plan), (&stop, &mut progress))?;
            if let Err(error) = check_finite(&losses) {
                // What was found before it took as long.
                for line in &lines {
                    outln!("{line}");
                }
                return Err(error.context(format!("{} at {}", self.arguments.text_name(), plan_label(plan))));
            }
            let against = first.as_ref().map(|first| losses.above(first, run.seed));
            let bits = Cost::of(body, plan).average_bits;
            lines.push(line(&plan_label(plan), bits, &losses, against));
            rows.push(json!({
                "plan": model.named_plan(plan), "average_bits": bits, "losses": losses,
                "nats_per_token": losses.nats_per_token(), "perplexity": losses.perplexity(),
                "bits_per_byte": losses.bits_per_byte(),
                "above_first": against.map(|(mean, interval)| json!({ "nats_per_token": mean, "interval": interval })),
            }));
            first.get_or_insert(losses);
        }
        progress.finish();
        outln!("{}", lines.join("\n"));
        let result = json!({
            "made_from": made_from, "model": session.name, "documents": documents.len(), "tokens": tokens,
            "window": window, "seed": run.seed, "rows": rows,
        });
        if let Some(out) = &run.out {
            write_json(out.join("perplexity.json"), &result)?;
        }
        run.tell_cache(body);
        output::result(&result)
    }
}

/// Refuses losses that no JSON holds, which would stand there as null.
fn check_finite(losses: &DocumentLosses) -> anyhow::Result<()> {
    if let Some(index) = losses.nats.iter().position(|nats| !nats.is_finite()) {
        bail!("the loss is not finite: {} nats in document {}", losses.nats[index], index + 1);
    }
    let (nats, bits) = (losses.nats_per_token(), losses.bits_per_byte());
    ensure!(losses.perplexity().is_finite(), "the perplexity is not finite: the loss is {nats:.1} nats per token");
    ensure!(
        bits.is_finite(),
        "the bits per byte are not finite: what is read of the documents has {} bytes",
        losses.bytes
    );
    Ok(())
}

/// `4 bits   4.25 bits   2.9120 nats/token, perplexity 18.39, 0.912 bits/byte   +0.0521 [+0.0480, +0.0563] nats`
fn line(label: &str, bits: f64, losses: &DocumentLosses, against: Option<(f64, Option<Interval>)>) -> String {
    let mut line = format!(
        "{label:<28} {bits:>6.2} bits   {:.4} nats/token, perplexity {:.2}, {:.4} bits/byte",
        losses.nats_per_token(),
        losses.perplexity(),
        losses.bits_per_byte()
    );
    if let Some((mean, interval)) = against {
        let _ = match interval {
            Some(Interval { low, high }) => write!(line, "   {mean:+.4} [{low:+.4}, {high:+.4}] nats"),
            None => write!(line, "   {mean:+.4} nats, of one document: no interval"),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_that_no_json_holds_are_refused() {
        let of = |nats: &[f64], bytes| DocumentLosses { nats: nats.to_vec(), tokens: vec![10; nats.len()], bytes };
        check_finite(&of(&[20.0, 0.0], 80)).expect("they are finite");
        for (losses, expected) in [
            (of(&[20.0, f64::NAN], 80), "the loss is not finite: NaN nats in document 2"),
            (of(&[f64::INFINITY], 80), "the loss is not finite: inf nats in document 1"),
            // e to the 800 is more than an f64 holds.
            (of(&[8000.0], 80), "the perplexity is not finite: the loss is 800.0 nats per token"),
            (of(&[20.0], 0), "the bits per byte are not finite: what is read of the documents has 0 bytes"),
        ] {
            let message = check_finite(&losses).expect_err(expected).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
