//! How attacks on the questions and contexts change the answers, width against width.
//!
//! ```text
//! cargo run --release --example robustness
//! cargo run --release --example robustness -- --model DIR --data dev-v1.1.json --limit 100 --bits 32,8,4
//! ```
//!
//! Without arguments it attacks the built-in model on 60 generated questions. Attacks that ask the
//! model are made on each width and, as `all`, on all widths at once, and tried on each. For each attack
//! it prints the share of right answers made wrong: made on (down) against tried on (across), `mean` and
//! `sampled` being inference at a width drawn for each question; then a table. It writes
//! `robustness.json`; with `--out` attacks are kept there, and a run that was stopped goes on. Training on
//! attacks is part of the `report` example.

use std::path::Path;

use clap::Parser;
use serde_json::json;
use switchable_quant::default_model::QuestionSet;
use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::experiments::robustness::attacks::attack_kind::AttackKind;
use switchable_quant::experiments::robustness::hardening::adversarial_study::plans_and_sources;
use switchable_quant::experiments::robustness::protocol::attack_report::MatrixMap;
use switchable_quant::experiments::robustness::protocol::craft::RobustnessOptions;
use switchable_quant::experiments::robustness::protocol::matrix::RobustnessProtocol;
use switchable_quant::experiments::robustness::victim::model_under_attack::{Victim, VictimOptions};
use switchable_quant::experiments::running::memory::Memory;
use switchable_quant::experiments::search::heat_map::Colour;
use switchable_quant::experiments::train::ladder::Ladder;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::model::SwitchableModel;
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant_examples::{Input, InputArgs, QuantArgs, RunArgs, parse_bits, stop_on_ctrl_c};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Attacks made on every width, tried on every width
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    quant: QuantArgs,
    /// Widths to attack and to answer at
    #[arg(long, default_value = "32,8,4,3", value_parser = parse_bits, value_name = "BITS,...")]
    bits: std::vec::Vec<BitWidth>,
    /// Attacks
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "typos,misspellings,distractor,hot-flip-word,hot-flip-token,word-substitution"
    )]
    attacks: Vec<AttackKind>,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    arguments.input.limit = arguments.input.limit.or(Some(60));
    let device = arguments.run.device.resolve()?;
    device.dispatch_autodiff(Robustness { arguments, device: &device })
}

struct Robustness<'a> {
    arguments: Arguments,
    device: &'a Device,
}

impl WithAutodiff for Robustness<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Arguments { run, input: input_args, quant, bits, attacks } = self.arguments;
        let input = Input::<B>::load(&input_args, &run, &quant.model_options(), QuestionSet::HeldOut, &device)?;
        println!("{}: model {}, questions {}", self.device, input.source["model"], input.source["questions"]);
        let plans = bits.iter().map(|&bits| (bits, input.model.transformer.uniform_plan(input.precision(bits))));
        let (inference, sources) = plans_and_sources(&Ladder::new(plans)?);

        let (window, batch_size, workers) = (input_args.window, input_args.batch, run.workers(self.device));
        let reading =
            VictimOptions { window, batch_size, workers, stop: stop_on_ctrl_c()?, ..VictimOptions::default() };
        let victim = Victim::new(&input.model, &input.tokenizer, &input.task.dataset, reading)?;
        let options = RobustnessOptions {
            seed: run.seed,
            show: run.show(),
            memory: run.out.as_ref().map_or(Memory::Nothing, |out| {
                Memory::folder(out.join("attacks"), json!({ "source": input.source, "quantizer": quant.quantizer }))
            }),
            ..RobustnessOptions::default()
        };
        let items = input.task.dataset.examples();
        let protocol = RobustnessProtocol::new(&victim, &items, inference, options)?;
        let mut matrices = Vec::new();
        for attack in attacks {
            let matrix = protocol.matrix(attack.build::<B>()?.as_ref(), &sources)?;
            println!("\n{}: right answers made wrong, percent", matrix.attack);
            print!("{}", MatrixMap::new(&matrix, Colour::of_stdout()));
            matrices.push(matrix);
        }
        let report = protocol.report(matrices);
        print!("\n{report}");
        let out = run.out.as_deref().unwrap_or(Path::new("."));
        let how = json!({ "source": input.source, "device": self.device.to_string(), "quantizer": quant.quantizer });
        write_json(out.join("robustness.json"), &json!({ "run": how, "report": report }))?;
        println!("\nwrote robustness.json to {}", out.display());
        Ok(())
    }
}
