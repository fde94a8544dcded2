//! Answers questions and continues texts over HTTP, with a page to try it by.
//!
//! ```text
//! cargo run --release --example serve
//! cargo run --release --example serve -- --model ARTEFACT --address 127.0.0.1:8080
//! curl -H 'content-type: application/json' http://127.0.0.1:8080/answer \
//!     -d '{"question": "Where was Ada Moor born?", "context": "Ada Moor was born in Riga.", "choice": "confidence"}'
//! ```
//!
//! The page is at `/`, the interface at `/answer`, `/generate`, `/plans` and `/health`. Every request chooses its plan, by the
//! same words as the flags of `answer`. A bounded number of requests waits for the threads that compute; one more is
//! refused at once, with 503 and the time to try again. One whose client has gone is not computed, and a client that does
//! not take its answer in time loses its connection. Standard output holds
//! the address alone; Ctrl-C ends it once what is under way is answered.

mod catalogue;
mod connections;
mod jobs;
mod problem;
mod queue;
mod requests;
mod routes;
mod served_model;
mod timed_writes;

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;

use command_line::answering::{Answering, Opened, WithFolder, WithoutHead};
use command_line::arguments::count::{parse_count, parse_up_to};
use command_line::arguments::execution::ExecutionArgs;
use command_line::contents::name_of;
use command_line::{finish, outln, output, stop_on_ctrl_c};
use switchable_quant::data::SpecialTokens;
use switchable_quant::device::{Device, DeviceChoice};
use switchable_quant::kernels::QuantBackend;
use switchable_quant::reader::serving::service::Service;
use switchable_quant::transformer::generate::GenerateOptions;
use switchable_quant::transformer::model::SwitchableModel;

use self::catalogue::Catalogue;
use self::jobs::Jobs;
use self::routes::{Limits, Site, routes};
use self::served_model::Served;

/// Answers and texts over HTTP, with a page to try it by
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Artefact, or Hugging Face folder of a GPT-2 or a Llama; by default the built-in model
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Address and port; port 0 takes a free one. Whoever can reach it can use it: there are no passwords
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "IP:PORT")]
    address: SocketAddr,
    /// Threads that compute, each a request on one core; by default as many as there are cores, 1 on a GPU
    #[arg(long, value_name = "N", value_parser = parse_up_to::<1024>)]
    workers: Option<usize>,
    /// Requests that may wait; one more is refused with 503
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = parse_up_to::<65_536>)]
    queue: usize,
    /// Connections at once; one more is refused with 503
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = parse_up_to::<65_536>)]
    connections: usize,
    /// Bytes of a body at most
    #[arg(long, default_value_t = 256 << 10, value_name = "BYTES", value_parser = parse_up_to::<{ 1 << 30 }>)]
    body_limit: usize,
    /// Tokens of a question with its text, or of a prompt, at most
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = parse_count)]
    max_tokens: usize,
    /// Tokens that a request may generate at most
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = parse_count)]
    max_new_tokens: usize,
    #[command(flatten)]
    execution: ExecutionArgs,
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
    let machine = arguments.device.resolve()?;
    let answering = Answering {
        model: arguments.model.as_deref(),
        machine: &machine,
        execution: arguments.execution,
        without_head: WithoutHead::Writes,
    };
    answering.run(Serving { arguments: &arguments, machine: &machine })
}

#[derive(Clone, Copy)]
struct Serving<'a> {
    arguments: &'a Arguments,
    machine: &'a Device,
}

impl WithFolder for Serving<'_> {
    fn run<B: QuantBackend, M: SwitchableModel<B>>(self, opened: Opened<B, M>) -> anyhow::Result<()> {
        let Self { arguments, machine } = self;
        let Opened { folder, dir, has_head: answers_questions } = opened;
        let name = dir.as_deref().map_or_else(|| "built-in".to_owned(), name_of);
        let generation = match &dir {
            Some(dir) => GenerateOptions::of_folder(dir)?,
            None => GenerateOptions { stop: vec![SpecialTokens::of(&folder.tokenizer)?.end], ..Default::default() },
        };
        folder.notes.iter().for_each(|note| eprintln!("{note}"));
        let service = Service::new(folder)?;
        let cores =
            || if machine.is_cpu() { std::thread::available_parallelism().map_or(1, NonZeroUsize::get) } else { 1 };
        let workers = arguments.workers.unwrap_or_else(cores);
        let limits = Limits {
            body_bytes: arguments.body_limit,
            tokens: arguments.max_tokens,
            new_tokens: arguments.max_new_tokens,
            connections: arguments.connections,
        };
        let catalogue = Catalogue::of(&service, name)?;
        let jobs = Jobs::new(arguments.queue, workers);
        let site = Arc::new(Site { jobs, catalogue, limits, generation, machine: machine.to_string() });
        let served =
            Served { service: &service, catalogue: &site.catalogue, most_tokens: limits.tokens, answers_questions };
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| site.jobs.work(&served));
            }
            // Also where the address is taken: the workers end.
            let ended = listen(arguments, &site);
            site.jobs.close();
            ended
        })
    }
}

/// Takes connections until Ctrl-C.
fn listen(arguments: &Arguments, site: &Arc<Site>) -> anyhow::Result<()> {
    let stop = stop_on_ctrl_c()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = arguments.address;
        let listener =
            tokio::net::TcpListener::bind(address).await.with_context(|| format!("`--address {address}`"))?;
        let address = listener.local_addr()?;
        outln!("http://{address}");
        output::result(&json!({ "url": format!("http://{address}") }))?;
        std::io::stdout().flush().context("cannot print to stdout")?;
        if !address.ip().is_loopback() {
            eprintln!("{address} can be reached from other machines, and asks nobody who they are");
        }
        connections::serve(listener, routes(Arc::clone(site)), arguments.connections, &stop).await;
        Ok(())
    })
}
