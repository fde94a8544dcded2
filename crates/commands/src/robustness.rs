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
//! `sampled` being inference at a width drawn for each question; then a table. Searches end at their first success;
//! `--attack-end last-step` gives each item the same chances, and `--attack-readings` bounds them. It writes
//! `robustness.json`; attacks are kept in `attacks/` beside it, and a run that was stopped goes on. Training on
//! attacks is part of the `report` example. Several processes do its items by `--items`, `--run-item` and `--merge`: each
//! attack on each width, tried on all.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;

use command_line::arguments::items::{Folders, ItemArgs, say};
use command_line::arguments::{
    attack_budget::AttackBudgetArgs, input::InputArgs, quant::QuantArgs, run::RunArgs, widths::parse_bits,
};
use command_line::reported::Reported;
use command_line::session::{Command, Session};
use command_line::{finish, out, outln, output, stop_on_ctrl_c};
use switchable_quant::data::{DecodeConfig, TextTokenizer};
use switchable_quant::default_model::QuestionSet;
use switchable_quant::experiments::robustness::attacks::attack_kind::AttackKind;
use switchable_quant::experiments::robustness::hardening::adversarial_study::plans_and_sources;
use switchable_quant::experiments::robustness::protocol::attack_report::MatrixMap;
use switchable_quant::experiments::robustness::protocol::craft::RobustnessOptions;
use switchable_quant::experiments::robustness::protocol::matrix::RobustnessProtocol;
use switchable_quant::experiments::robustness::victim::model_under_attack::{Victim, VictimOptions};
use switchable_quant::experiments::running::memory::Memory;
use switchable_quant::experiments::running::share::{Left, Share};
use switchable_quant::experiments::search::heat_map::Colour;
use switchable_quant::experiments::train::ladder::Ladder;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::transformer::model::TrainableModel;

/// Attacks made on every width, tried on every width
#[derive(Debug, Parser)]
pub struct Arguments {
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
    #[command(flatten)]
    budget: AttackBudgetArgs,
    #[command(flatten)]
    items: ItemArgs,
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
    let mut arguments = output::parse::<Arguments>(line);
    arguments.input.limit = arguments.input.limit.or(Some(60));
    let out = arguments.items.prepared_out(&arguments.run, ".")?;
    let folders = Folders { out: &out, kept_in: &out.join(ATTACKS) };
    arguments.items.run(folders, &arguments.run, |share| {
        let calibration =
            arguments.quant.calibration.request(None, arguments.bits.iter().copied(), arguments.run.show())?;
        arguments
            .input
            .opening(&arguments.run, arguments.quant.model_options())
            .calibrated_on(calibration)
            .run(Attacked { arguments: &arguments, out: &out, share })
    })
}

/// The folder in that of the results where attacks are kept.
const ATTACKS: &str = "attacks";

struct Attacked<'a> {
    arguments: &'a Arguments,
    out: &'a Path,
    share: Share,
}

impl Command for Attacked<'_> {
    fn reported(&self, _: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        Ok(vec![self.arguments.input.reported(QuestionSet::HeldOut)?])
    }

    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments: Arguments { run, input, bits, attacks, budget, .. }, out, share } = self;
        let questions = session.questions(input, QuestionSet::HeldOut)?;
        let (machine, source, folder) = (&session.machine, &questions.source, &session.folder);
        say(&share, format!("{machine}: model {}, questions {}\n", source["model"], source["questions"]));
        session.adapters.say_bare(bits);
        let plan = |bits: &BitWidth| (*bits, folder.model.transformer.uniform_plan(folder.precision(*bits)));
        let (inference, sources) = plans_and_sources(&Ladder::new(bits.iter().map(plan))?);

        let null = input.null_rule(questions.task.dataset.format)?;
        let decode = DecodeConfig { null, ..DecodeConfig::default() };
        let (window, batch_size, workers) = (input.window, input.batch, run.workers(machine));
        let reading = VictimOptions { window, batch_size, workers, decode, stop: stop_on_ctrl_c()? };
        let victim = Victim::new(&folder.model, &folder.tokenizer, &questions.task.dataset, reading)?;
        let memory = Memory::folder(
            out.join(ATTACKS),
            questions.identity.with_option("batch", batch_size).with_option("decode", format!("{decode:?}")),
        )
        .shared(share.clone());
        let options = RobustnessOptions { seed: run.seed, show: run.show(), memory, ..RobustnessOptions::default() };
        let items = questions.task.dataset.examples();
        let protocol = RobustnessProtocol::new(&victim, &items, inference, options)?;
        let built = attacks.iter().map(|attack| attack.build::<B, M>(budget.budget()));
        let built = built.collect::<Result<Vec<_>, _>>().context("`--attack-readings`")?;
        let (mut matrices, mut left) = (Vec::new(), Left::default());
        for attack in &built {
            let Some(matrix) = left.unless(protocol.matrix(attack.as_ref(), &sources))? else { continue };
            let map = MatrixMap::new(&matrix, Colour::of_stdout());
            say(&share, format!("\n{}: right answers made wrong, percent\n{map}", matrix.attack));
            matrices.push(matrix);
        }
        left.finish()?;
        if !share.concludes() {
            return Ok(());
        }
        let report = protocol.report(matrices);
        out!("\n{report}");
        let how = json!({ "source": source, "device": machine.to_string(), "quantizer": session.quantizer(),
            "budget": budget.budget() });
        let result = json!({ "run": how, "report": report });
        write_json(out.join("robustness.json"), &result)?;
        outln!("\nwrote robustness.json to {}", out.display());
        output::result(&result)
    }
}
