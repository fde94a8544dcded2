//! Long work survives being killed: commands are ended by SIGKILL at random moments, started again until they are
//! done, and compared to the byte with commands that nothing interrupted.
//!
//! ```text
//! cargo build --release -p switchable-quant-examples --examples
//! target/release/examples/kill_harness --kills 12 --seed 1
//! ```
//!
//! Runs `pretrain`, `train_bank`, `greedy_search`, the same with `--ladder`, `allocate`, `dynamic_inference` and `report` on
//! small budgets, from beside itself: once each without interruption, then with `--kills` kills each. Moments are drawn from the seed over
//! the whole length of a run, so that they fall into loading, training, measuring and writing alike. Compared
//! are all files of results: plans, weights, tables, figures and reports; but for times and rates, which no
//! two runs share. Prints a line for each command and ends with exit code 1 where a byte differs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use serde_json::Value;

use command_line::finish;
use switchable_quant::data::{GeneratorConfig, Split, generate};

/// Kills long work at random moments and compares what it ends with
#[derive(Debug, Parser)]
struct Arguments {
    /// Kills of each command
    #[arg(long, default_value_t = 12, value_name = "N")]
    kills: usize,
    /// Seed of the moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Commands to kill
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "pretrain,train_bank,greedy_search,ladder,allocate,dynamic_inference,report"
    )]
    commands: Vec<String>,
    /// Folder to work in; made, and left there
    #[arg(long, default_value = "runs/kill-harness", value_name = "DIR")]
    out: PathBuf,
}

/// A command on a small budget, up to its folder of results.
struct Work {
    name: &'static str,
    flags: Vec<String>,
}

/// What came of killing a command.
#[derive(Default)]
struct Outcome {
    kills: usize,
    /// Runs that had ended before their moment came.
    ended_before: usize,
    files: usize,
}

fn main() -> ExitCode {
    finish(harness)
}

fn harness() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let data = arguments.out.join("data");
    std::fs::create_dir_all(&data)?;
    let work = work(&data)?;
    if let Some(unknown) = arguments.commands.iter().find(|name| !work.iter().any(|work| work.name == **name)) {
        bail!("`--commands {unknown}`, expected some of {}", work.map(|work| work.name).join(","));
    }
    let mut moments = Moments(arguments.seed);
    let mut kills = 0;
    for work in &work {
        let whole = arguments.out.join(format!("{}-whole", work.name));
        let is_killed = arguments.commands.iter().any(|name| name == work.name);
        // The model of `train_bank` is that of `pretrain`.
        if is_killed || (work.name == "pretrain" && arguments.commands.iter().any(|name| name == "train_bank")) {
            remove(&whole)?;
            let length = run_whole(work, &whole)?;
            if is_killed {
                let outcome = kill(work, (&whole, length), (&arguments, &mut moments))?;
                kills += outcome.kills;
                println!(
                    "{:<14} {} kills survived within {:.1} s of work, {} runs ended before theirs; {} files are the same",
                    work.name,
                    outcome.kills,
                    length.as_secs_f64(),
                    outcome.ended_before,
                    outcome.files
                );
            }
        }
    }
    println!("{kills} kills survived, every file of results as without them");
    Ok(())
}

/// The commands, their data written first.
fn work(data: &Path) -> anyhow::Result<[Work; 7]> {
    let (train, dev, text) = (data.join("train.json"), data.join("dev.json"), data.join("text.txt"));
    generate(&GeneratorConfig::new(Split::Train, 40, 1))?.write(&train)?;
    let questions = generate(&GeneratorConfig::new(Split::Dev, 10, 2))?;
    questions.write(&dev)?;
    let contexts = generate(&GeneratorConfig::new(Split::Train, 300, 3))?;
    let paragraphs = contexts.articles.iter().flat_map(|article| &article.paragraphs);
    std::fs::write(&text, paragraphs.fold(String::new(), |all, p| all + &format!("{}\n<|endoftext|>\n", p.context)))?;

    let model = data.with_file_name("pretrain-whole").join("model");
    let [train, dev, text, model] = [&train, &dev, &text, &model].map(|path| path.display().to_string());
    let work = |name, flags: &str, files: &[(&str, &str)]| {
        let mut flags: Vec<String> = flags.split_whitespace().map(ToOwned::to_owned).collect();
        flags.extend(files.iter().flat_map(|(flag, file)| [(*flag).to_owned(), (*file).to_owned()]));
        Work { name, flags }
    };
    Ok([
        work(
            "pretrain",
            "--vocabulary 400 --layers 2 --embedding 32 --heads 2 --positions 128 --steps 60 --batch 8 \
             --checkpoint-every 7 --validation-tokens 4000",
            &[("--text", &text), ("--validation", &text)],
        ),
        work(
            "train_bank",
            "--base-steps 20 --steps 24 --batch 8 --bits 32,4,2 --learned-steps --checkpoint-every 5",
            &[("--model", &model), ("--train", &train), ("--data", &dev)],
        ),
        work("greedy_search", "--limit 24 --bits 3 --tolerance 0.3", &[]),
        work("ladder", "--limit 24 --ladder 32,8,3,2 --average-bits 5 --no-adapter", &[]),
        work("allocate", "--limit 16 --bits 32,3,2 --average-bits 8,16 --swaps 3", &[]),
        // Times differ from run to run, as does what the controller thinks of them.
        work("dynamic_inference", "--limit 48 --bits 2,3,8 --untimed", &[]),
        work(
            "report",
            "--limit 12 --search-limit 12 --train-limit 60 --steps 12 --seeds 1 --swaps 1 --attack-items 2 \
             --attack-bits 32,3 --adversarial-rounds 1 --adversarial-items 2 --adversarial-steps 2 --bits 32,3 \
             --contestants joint",
            &[],
        ),
    ])
}

impl Work {
    fn command(&self, out: &Path) -> anyhow::Result<Command> {
        let program = if self.name == "ladder" { "greedy_search" } else { self.name };
        let beside = std::env::current_exe()?.with_file_name(program);
        ensure!(beside.is_file(), "{} is not built; build the examples", beside.display());
        let mut command = Command::new(beside);
        command.args(&self.flags).args(["--quiet", "--out"]).arg(out);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// Runs a command to its end; returns how long it took.
fn run_whole(work: &Work, out: &Path) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let output = work.command(out)?.output()?;
    check(work, output.status, &String::from_utf8_lossy(&output.stderr))?;
    Ok(start.elapsed())
}

fn check(work: &Work, status: ExitStatus, errors: &str) -> anyhow::Result<()> {
    ensure!(status.success(), "{} {} ended with {status}:\n{errors}", work.name, work.flags.join(" "));
    Ok(())
}

/// Kills a command again and again, each time going on with what the one before left; whenever it is done, its
/// results are compared and it starts anew.
fn kill(
    work: &Work,
    (whole, length): (&Path, Duration),
    (arguments, moments): (&Arguments, &mut Moments),
) -> anyhow::Result<Outcome> {
    let expected = results(whole)?;
    let killed = arguments.out.join(format!("{}-killed", work.name));
    remove(&killed)?;
    let mut outcome = Outcome { files: expected.len(), ..Outcome::default() };
    while outcome.kills < arguments.kills {
        // Over the whole length in the first run, and over what is left of it in later ones, more or less.
        let moment = length.mul_f64(moments.next());
        let start = Instant::now();
        let mut child = work.command(&killed)?.spawn()?;
        let ended = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() >= moment {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let Some(status) = ended else {
            outcome.kills += 1;
            continue;
        };
        let output = child.wait_with_output()?;
        check(work, status, &String::from_utf8_lossy(&output.stderr))?;
        outcome.ended_before += 1;
        compare(work, &expected, &killed)?;
        remove(&killed)?;
    }
    run_whole(work, &killed)?;
    compare(work, &expected, &killed)?;
    Ok(outcome)
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    Ok(())
}

fn compare(work: &Work, expected: &BTreeMap<PathBuf, Vec<u8>>, killed: &Path) -> anyhow::Result<()> {
    let found = results(killed)?;
    for name in expected.keys().chain(found.keys()) {
        let [before, after] = [expected, &found].map(|files| files.get(name));
        let place = killed.join(name).display().to_string();
        ensure!(before.is_some(), "{}: {place} is left over", work.name);
        ensure!(after.is_some(), "{}: {place} is missing", work.name);
        ensure!(before == after, "{}: {place} differs from that of the run that was not killed", work.name);
    }
    Ok(())
}

/// All files of a folder by their path in it, without times and rates. What a killed process was writing
/// stays beside the results under a name of its own, and is no result.
fn results(dir: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Records of burn hold names of parameters that are drawn anew in every process; what a checkpoint
            // leads to is compared, as weights.
            if name.starts_with(".partial-") || path.extension().is_some_and(|end| end == "mpk") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let bytes = std::fs::read(&path)?;
            let bytes = match path.extension().and_then(|end| end.to_str()) {
                Some("json") => serde_json::to_vec(&untimed(serde_json::from_slice(&bytes)?))?,
                Some("jsonl") => {
                    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                    let lines = lines.map(|line| Ok(untimed(serde_json::from_slice(line)?)));
                    serde_json::to_vec(&lines.collect::<anyhow::Result<Vec<Value>>>()?)?
                }
                // The report names the command that made it, with its folder.
                Some("md") => {
                    let text = String::from_utf8(bytes)?;
                    text.lines().filter(|line| !line.contains("--out ")).collect::<Vec<_>>().join("\n").into_bytes()
                }
                _ => bytes,
            };
            files.insert(path.strip_prefix(dir)?.to_owned(), bytes);
        }
    }
    Ok(files)
}

/// A result without the times and rates in it.
fn untimed(value: Value) -> Value {
    const TIMED: [&str; 3] = ["seconds", "mean_seconds", "tokens_per_second"];
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, _)| !TIMED.contains(&name.as_str()));
            Value::Object(kept.map(|(name, value)| (name, untimed(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(untimed).collect()),
        other => other,
    }
}

/// Numbers from 0 to 1, the same for the same seed (`SplitMix64`).
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
