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
//! attacks is part of the `report` example. `attacked/` holds what each attack made of the questions, as files of SQuAD: any
//! model may answer them, and `--predictions NAME=DIR` puts its answers into the matrices beside the widths. Several processes do its items by `--items`, `--run-item` and `--merge`: each
//! attack on each width, tried on all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::json;

use command_line::arguments::items::{Folders, ItemArgs, say};
use command_line::arguments::{
    attack_budget::AttackBudgetArgs, input::InputArgs, quant::QuantArgs, run::RunArgs, widths::parse_bits,
};
use command_line::reported::Reported;
use command_line::session::{Command, Session};
use command_line::{finish, out, outln, output, stop_on_ctrl_c, usage};
use switchable_quant::data::{Dataset, DecodeConfig, TextTokenizer};
use switchable_quant::default_model::QuestionSet;
use switchable_quant::experiments::robustness::attacks::attack_kind::AttackKind;
use switchable_quant::experiments::robustness::hardening::adversarial_study::plans_and_sources;
use switchable_quant::experiments::robustness::protocol::attack_report::MatrixMap;
use switchable_quant::experiments::robustness::protocol::attacked_set::{AttackedSet, CLEAN, OtherModel, set_names};
use switchable_quant::experiments::robustness::protocol::craft::RobustnessOptions;
use switchable_quant::experiments::robustness::protocol::matrix::{AttackMatrix, RobustnessProtocol};
use switchable_quant::experiments::robustness::victim::model_under_attack::{Victim, VictimOptions};
use switchable_quant::experiments::running::memory::Memory;
use switchable_quant::experiments::running::share::{Left, Share};
use switchable_quant::experiments::search::heat_map::Colour;
use switchable_quant::experiments::train::ladder::Ladder;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::reader::running::json_file::write_json;
use switchable_quant::reader::running::results_folder::prepare_folder;
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
    /// Answers of another model to the files in attacked/ of an earlier run with the same flags, as a further column: DIR
    /// holds SET.json, or SET/predictions.json, for each SET.json there
    #[arg(long, value_name = "NAME=DIR", value_parser = parse_other)]
    predictions: Vec<(String, PathBuf)>,
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
    crate::allocator::keep_freed_memory();
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
/// The folder in that of the results for questions as attacks made them.
const ATTACKED: &str = "attacked";

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
        let Arguments { run, input, bits, attacks, budget, .. } = self.arguments;
        let (out, share) = (self.out, self.share);
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
        let sets: Vec<String> = built.iter().flat_map(|attack| set_names(attack.as_ref(), &sources)).collect();
        let dir = out.join(ATTACKED);
        let others = if share.concludes() { self.arguments.others(&dir, &sets)? } else { Vec::new() };
        let mut sets = AttackedSets { dir, clean: protocol.clean_set(), others, written: 0 };
        let (mut matrices, mut left) = (Vec::new(), Left::default());
        for attack in &built {
            let Some(mut matrix) = left.unless(protocol.matrix(attack.as_ref(), &sources))? else { continue };
            if share.concludes() {
                matrix = sets.add(&protocol.attacked_sets(attack.as_ref(), &sources)?, matrix, run.seed)?;
            }
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
        outln!("\nwrote robustness.json and {} files of questions in {ATTACKED}/ to {}", sets.written, out.display());
        output::result(&result)
    }
}

/// What attacks made of the questions, written as it comes, and the models that answered it.
struct AttackedSets {
    dir: PathBuf,
    clean: Dataset,
    others: Vec<OtherModel>,
    written: usize,
}

impl AttackedSets {
    /// Writes what an attack made, and gives its matrix with a column for each other model.
    fn add(&mut self, sets: &[AttackedSet], matrix: AttackMatrix, seed: u64) -> anyhow::Result<AttackMatrix> {
        if self.written == 0 {
            prepare_folder(&self.dir)?;
            self.write(CLEAN, &self.clean)?;
            self.written = 1;
        }
        for set in sets.iter().filter(|set| !set.questions.is_empty()) {
            self.write(&set.name, &set.questions)?;
            self.written += 1;
        }
        let with = |matrix: AttackMatrix, other| matrix.with_model(other, &self.clean, sets, seed);
        Ok(self.others.iter().try_fold(matrix, with)?)
    }

    /// Writes questions. Where others have answered what is there, it must be the same.
    fn write(&self, name: &str, questions: &Dataset) -> anyhow::Result<()> {
        let path = file_of(&self.dir, name);
        if !self.others.is_empty() {
            ensure!(
                path.is_file() && Dataset::read(&path)? == *questions,
                "{}: `--predictions` are answers to other questions than the attacks make now; answer those that the same \
                 command writes without the flag",
                path.display()
            );
        }
        Ok(questions.write(path)?)
    }
}

impl Arguments {
    /// The models of `--predictions`, with what they answered to the questions in `attacked`.
    fn others(&self, attacked: &Path, sets: &[String]) -> anyhow::Result<Vec<OtherModel>> {
        let there: Vec<String> = sets.iter().filter(|set| file_of(attacked, set).is_file()).cloned().collect();
        if !self.predictions.is_empty() && !file_of(attacked, CLEAN).is_file() {
            return Err(usage(format!(
                "`--predictions` are answers to the questions in {}, where there are none: make them first by the same command \
                 without this flag",
                attacked.display()
            )));
        }
        let mut others: Vec<OtherModel> = Vec::new();
        for (label, folder) in &self.predictions {
            let is_width = self.bits.iter().any(|bits| bits.to_string() == *label);
            if is_width || ["mean", "sampled"].contains(&label.as_str()) || others.iter().any(|o| o.label() == label) {
                return Err(usage(format!(
                    "`--predictions {label}=…`: another column is called {label}, expected a name of its own"
                )));
            }
            others.push(OtherModel::read(label, folder, &there).with_context(|| format!("--predictions {label}"))?);
        }
        Ok(others)
    }
}

/// The file of a set in a folder of them.
fn file_of(dir: &Path, set: &str) -> PathBuf {
    dir.join(format!("{set}.json"))
}

fn parse_other(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !folder.is_empty() => Ok((name.to_owned(), folder.into())),
        _ => Err("expected NAME=DIR".to_owned()),
    }
}
