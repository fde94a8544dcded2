//! The work of a command as items that several processes do.
//!
//! ```text
//! COMMAND FLAGS --out DIR --items --missing     lists what can be done now, an item a line
//! COMMAND FLAGS --out DIR --run-item KEY        does one
//! COMMAND FLAGS --out DIR --merge               does the rest once all are there, or lists what is missing
//! ```
//!
//! Some items need others and are listed once those are there: whoever runs them lists, runs and lists again until nothing
//! is missing, as `scripts/distributed` does.

use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use switchable_quant::experiments::error::Error;
use switchable_quant::experiments::running::share::{Item, ItemKey, Share};

use crate::arguments::run::{RunArgs, prepare_shared, refuse_artefact};
use crate::command_words::quoted;
use crate::ending::{Ended, Usage, chain, usage};
use crate::interrupt::{resumable, was_stopped};
use crate::{out, output};

/// Exit code of a merge for which items are missing.
const INCOMPLETE: u8 = 4;
/// Exit code of an item that will never succeed as it is: `EX_DATAERR`.
const NEVER: u8 = 65;
/// Exit code of an item that may succeed at another time or place: `EX_TEMPFAIL`.
const AGAIN: u8 = 75;

/// How items are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ItemFormat {
    /// A JSON object a line: key, argv, needs, resources, done
    Lines,
    /// A command line each, for GNU parallel and xargs
    Shell,
    /// A job file for `hq job submit-file`
    HqToml,
    /// A batch script of SLURM, an array with a task for each item
    Slurm,
}

/// The work as items.
#[derive(Debug, Clone, Args)]
pub struct ItemArgs {
    /// List the items of the work, and do nothing
    #[arg(long, conflicts_with_all = ["run_item", "merge"])]
    items: bool,
    /// With --items: those alone that are not done
    #[arg(long, requires = "items")]
    missing: bool,
    /// With --items: how they are listed
    #[arg(long, value_enum, requires = "items", default_value = "lines")]
    format: ItemFormat,
    /// Do one item of the work in --out, which other processes may use at the same time. Ends with 0 when it is done or was
    /// done before, 75 when it may succeed at another time or place, 65 when it never will
    #[arg(long, value_name = "KEY", conflicts_with = "merge")]
    run_item: Option<String>,
    /// With --run-item: try again so often where model, data or --out are not there, or a file cannot be read or written
    #[arg(long, value_name = "N", requires = "run_item", default_value_t = 0)]
    retries: u32,
    /// Do what is made of the items, and write the results; ends with 4 and lists what is missing where some are not done
    #[arg(long)]
    merge: bool,
}

impl ItemArgs {
    /// The first of the flags, where one is given.
    pub fn given(&self) -> Option<&'static str> {
        let given = [(self.items, "--items"), (self.run_item.is_some(), "--run-item"), (self.merge, "--merge")];
        given.into_iter().find_map(|(is_given, flag)| is_given.then_some(flag))
    }

    /// Whether the command comes to what the work is done for: not where it lists the items, or does one.
    pub fn conclude(&self) -> bool {
        !self.items && self.run_item.is_none()
    }

    /// The folder for results; other processes may use it where the work is shared. A list writes nothing to it, and an item
    /// makes it whenever it is tried.
    ///
    /// # Errors
    ///
    /// Those of [`RunArgs::prepared_out`], as far as the flags go.
    pub fn prepared_out(&self, run: &RunArgs, default: &str) -> anyhow::Result<PathBuf> {
        if self.given().is_none() {
            return run.prepared_out(default);
        }
        let out = run.out_or(default);
        if self.items {
            refuse_artefact(&out)?;
        } else if self.merge {
            prepare_shared(&out)?;
        }
        Ok(out)
    }

    /// Runs a command on its share of the work. The items are met by every share in the same order; what the command does
    /// beyond them is for the one that [concludes](Share::concludes).
    ///
    /// A merge goes through the items first, and ends where one is missing.
    ///
    /// # Errors
    ///
    /// Those of the command, and [`Ended`] as the flags say.
    pub fn run(
        &self,
        folders: Folders<'_>,
        run: &RunArgs,
        command: impl Fn(Share) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Folders { out, kept_in } = folders;
        if let Some(flag) = self.given().filter(|_| !self.conclude() && output::is_for_programs()) {
            return Err(usage(format!(
                "`--json` does not go with `{flag}`: `--items` prints JSON lines already, and `--run-item` has no result to \
                 print"
            )));
        }
        if let Some(key) = &self.run_item {
            let key = key.parse::<ItemKey>().map_err(|error| usage(error.to_string()))?;
            return self.run_item(out, &key, command);
        }
        if self.items {
            let share = Share::listing(out);
            unless_elsewhere(command(share.clone()))?;
            let items = share.items().into_iter().filter(|item| !(self.missing && item.done));
            if self.format == ItemFormat::Slurm {
                // SLURM opens the log of a task before the task can make the folder; where it cannot be made here, the tasks
                // say so.
                _ = std::fs::create_dir_all(out);
            }
            print!("{}", listed(&items.collect::<Vec<_>>(), self.format, run, out));
            return Ok(());
        }
        resumable(kept_in, || {
            if !self.merge {
                return command(Share::all());
            }
            let share = Share::listing(out);
            unless_elsewhere(command(share.clone()))?;
            check_complete(&share)?;
            command(Share::rest())
        })
    }

    fn run_item(&self, out: &Path, key: &ItemKey, command: impl Fn(Share) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut wait = Duration::from_secs(1);
        for tried in 0.. {
            let share = Share::item(out, key.clone());
            let attempt = || -> anyhow::Result<()> {
                // What is done needs no model, and no folder that can be written.
                if key.is_done_in(out)? {
                    return Ok(());
                }
                prepare_shared(out)?;
                done(command(share.clone()), &share, key)
            };
            let Err(error) = attempt() else { return Ok(()) };
            if error.is::<Ended>() || error.is::<Usage>() {
                return Err(error);
            }
            if was_stopped(&error) {
                return Err(Ended::with(AGAIN, error));
            }
            let code = if may_succeed(&error, &share) { AGAIN } else { NEVER };
            if code == NEVER || tried == self.retries {
                return Err(Ended::with(code, error));
            }
            eprintln!("{}; trying again in {} s", chain(&error), wait.as_secs());
            sleep(wait);
            wait = (2 * wait).min(Duration::from_mins(1));
        }
        Ok(())
    }
}

/// An error that comes before the flags are known, because a file of flags cannot be read, as that of a command line: of an
/// item it may be there at another time or place.
#[must_use]
pub fn before_flags(error: anyhow::Error, line: &[OsString]) -> anyhow::Error {
    let runs_item = line.iter().any(|word| word.to_string_lossy().split('=').next() == Some("--run-item"));
    if runs_item && !error.is::<Usage>() { Ended::with(AGAIN, error) } else { error }
}

/// The folders of a command.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// That of its results, which keys are paths in.
    pub out: &'a Path,
    /// Where it keeps what is done, as it says when it is stopped.
    pub kept_in: &'a Path,
}

/// Prints what a command has found, where it is its turn to say it: standard output of a listing is the list.
pub fn say(share: &Share, text: impl Display) {
    if share.concludes() {
        out!("{text}");
    }
}

/// How an item ended: the command leaves the rest of the work.
fn done(result: anyhow::Result<()>, share: &Share, key: &ItemKey) -> anyhow::Result<()> {
    // What fails behind the item is the fault of another.
    if share.is_over() {
        return Ok(());
    }
    unless_elsewhere(result)?;
    let (code, reason) = why_not(key, &share.items());
    Err(Ended::with(code, anyhow::anyhow!("`--run-item {key}`: {reason}")))
}

/// Why an item was not done, by what was met of the work: its code, and what to say. Items that need others are met once
/// those are there, so that a key is known to be that of no item only when all that is met is done, or its file is that of
/// another item.
fn why_not(key: &ItemKey, met: &[Item]) -> (u8, String) {
    if met.iter().any(|item| item.key == *key) {
        return (AGAIN, "it needs items that are not done".to_owned());
    }
    if let Some(Item { key: own, .. }) = met.iter().find(|item| item.key.path() == key.path()) {
        return (NEVER, format!("it is an item of other work; the one of this work is `{own}`"));
    }
    if met.iter().any(|item| !item.done) {
        let reason = "no item that is known yet has this key; it may be one that needs items that are not done";
        return (AGAIN, reason.to_owned());
    }
    (NEVER, "no item of this work has this key, or it has been merged".to_owned())
}

/// Whether what has failed may succeed at another time or place: what is of files; and all that fails before the work is met,
/// where model and data are opened, which the process that listed the item had opened by the same flags.
fn may_succeed(error: &anyhow::Error, share: &Share) -> bool {
    let is_decided = |cause: &Error| {
        matches!(
            cause,
            Error::Option { .. }
                | Error::OtherRun { .. }
                | Error::OtherFormat { .. }
                | Error::OtherItem { .. }
                | Error::Damaged { .. }
        )
    };
    if error.chain().filter_map(|cause| cause.downcast_ref::<Error>()).any(is_decided) {
        return false;
    }
    share.items().is_empty() || error.chain().any(<dyn std::error::Error>::is::<std::io::Error>)
}

/// Lists what is missing.
fn check_complete(share: &Share) -> anyhow::Result<()> {
    let missing = share.items().into_iter().filter(|item| !item.done);
    let keys: Vec<String> = missing.map(|item| item.key.to_string()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let missing = match keys.len() {
        1 => "1 item is missing, and what needs it".to_owned(),
        several => format!("{several} items are missing, and what needs them"),
    };
    Err(Ended::with(INCOMPLETE, anyhow::anyhow!("{missing}:\n  {}", keys.join("\n  "))))
}

fn is_elsewhere(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Error::Elsewhere)))
}

fn unless_elsewhere(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if is_elsewhere(&error) => Ok(()),
        result => result,
    }
}

/// The items as their format has them.
fn listed(items: &[Item], format: ItemFormat, run: &RunArgs, out: &Path) -> String {
    let cpus = run.workers.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let line: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let argv = |item: &Item| of_item(&line, &item.key);
    let lines = |lines: &mut dyn Iterator<Item = String>| lines.fold(String::new(), |all, line| all + &line + "\n");
    match format {
        // What an item needs is there when it is listed.
        ItemFormat::Lines => lines(&mut items.iter().map(|item| {
            let (key, argv, resources) = (item.key.to_string(), argv(item), json!({ "cpus": cpus }));
            json!({ "key": key, "argv": argv, "needs": [], "resources": resources, "done": item.done }).to_string()
        })),
        ItemFormat::Shell => lines(&mut items.iter().map(|item| shell_line(&argv(item)))),
        ItemFormat::HqToml => hq_toml(&items.iter().map(argv).collect::<Vec<_>>(), cpus, out),
        ItemFormat::Slurm => slurm(&items.iter().map(argv).collect::<Vec<_>>(), cpus, out),
    }
}

/// The command line of an item: that of the listing without the flags of the listing.
fn of_item(line: &[String], key: &ItemKey) -> Vec<String> {
    let mut words = without_flags(line);
    words.extend(["--run-item".to_owned(), key.to_string()]);
    words
}

/// A command line without the [`FLAGS`] and their values.
pub(crate) fn without_flags(line: &[String]) -> Vec<String> {
    let mut words = Vec::with_capacity(line.len() + 2);
    let mut rest = line.iter();
    while let Some(word) = rest.next() {
        let flag = word.strip_prefix("--").unwrap_or_default();
        let name = flag.split('=').next().unwrap_or_default();
        if !FLAGS.contains(&name) {
            words.push(word.clone());
        } else if name == flag && WITH_VALUE.contains(&name) {
            _ = rest.next();
        }
    }
    words
}

fn shell_line(argv: &[String]) -> String {
    argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A job file of `HyperQueue`: `hq job submit-file FILE`.
fn hq_toml(items: &[Vec<String>], cpus: usize, out: &Path) -> String {
    let text = |word: &str| toml::Value::from(word).to_string();
    let mut file = format!("name = {}\n", text(&format!("items of {}", out.display())));
    for (id, argv) in items.iter().enumerate() {
        let command = argv.iter().map(|word| text(word)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(file, "\n[[task]]\nid = {id}\ncommand = [{command}]\ncrash_limit = 5");
        let _ = writeln!(file, "[[task.request]]\nresources = {{ \"cpus\" = \"{cpus}\" }}");
    }
    file
}

/// A batch script of SLURM: `sbatch FILE`.
fn slurm(items: &[Vec<String>], cpus: usize, out: &Path) -> String {
    let Some(last) = items.len().checked_sub(1) else { return String::new() };
    let logs = out.join("item-%a.log");
    let mut script = format!(
        "#!/bin/bash\n#SBATCH --array=0-{last}\n#SBATCH --cpus-per-task={cpus}\n#SBATCH --output={}\n#SBATCH --requeue\nitems=(\n",
        quoted(&logs.to_string_lossy())
    );
    for argv in items {
        let _ = writeln!(script, "  {}", quoted(&shell_line(argv)));
    }
    script + ")\neval \"exec ${items[$SLURM_ARRAY_TASK_ID]}\"\n"
}

/// The words that list, run or merge items, which no study file keeps.
pub const FLAGS: [&str; 6] = ["items", "missing", "format", "run-item", "retries", "merge"];
/// Those of them that a value stands behind.
const WITH_VALUE: [&str; 3] = ["format", "run-item", "retries"];

#[cfg(test)]
mod tests {
    use switchable_quant::experiments::running::memory::Memory;

    use super::*;

    const KEY: &str = "cells/cell-001@0123456789abcdef";

    fn argv(key: &ItemKey) -> Vec<String> {
        let line = ["report", "--model", "my model", "--items", "--missing", "--format", "slurm", "--format=lines"];
        of_item(&line.map(str::to_owned), key)
    }

    #[test]
    fn an_item_is_run_by_the_line_that_listed_it() {
        let key: ItemKey = KEY.parse().unwrap();
        assert_eq!(argv(&key), ["report", "--model", "my model", "--run-item", KEY]);
        assert_eq!(shell_line(&argv(&key)), format!("report --model 'my model' --run-item {KEY}"));
    }

    #[test]
    fn a_command_line_is_left_without_the_flags_of_items() {
        for (line, expected) in [
            ("report --merge --seed 1", "report --seed 1"),
            ("report --run-item a@b --retries=3 --retries 4 --out x", "report --out x"),
            ("report --format-of y --merge", "report --format-of y"),
        ] {
            let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(without_flags(&line).join(" "), expected);
        }
        // A flag that `ItemArgs` comes to have is one of them.
        let command = ItemArgs::augment_args(clap::Command::new("command"));
        let given = command.get_arguments().map(|flag| (flag.get_long(), flag.get_action().takes_values()));
        let expected = FLAGS.map(|name| (Some(name), WITH_VALUE.contains(&name)));
        assert_eq!(given.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_known_of_the_work_says_whether_a_key_may_be_one_of_it() {
        let item = |key: &str, done| Item { key: key.parse().unwrap(), done };
        let of_other_work = KEY.replace("0123", "4567");
        let other = "cells/cell-002@0123456789abcdef";
        for (met, code, expected) in [
            (vec![item(KEY, false)], AGAIN, "needs items that are not done"),
            (vec![item(other, false)], AGAIN, "needs items that are not done"),
            (vec![item(other, true)], NEVER, "no item of this work"),
            (vec![], NEVER, "no item of this work"),
            (vec![item(other, false), item(&of_other_work, false)], NEVER, of_other_work.as_str()),
        ] {
            let (found, reason) = why_not(&KEY.parse().unwrap(), &met);
            assert!(found == code && reason.contains(expected), "{met:?}: {found} {reason}");
        }
    }

    #[test]
    fn what_fails_before_the_work_is_met_may_succeed_and_what_is_decided_never_does() {
        use anyhow::Context as _;
        let dir = tempfile::tempdir().unwrap();
        let unmet = Share::item(dir.path(), KEY.parse().unwrap());
        let met = Share::listing(dir.path());
        let memory = Memory::folder(dir.path(), serde_json::Value::Null).shared(met.clone());
        assert!(memory.recall::<i32>("cell", &serde_json::Value::Null, || Ok(1)).is_err() && met.items().len() == 1);
        let of_files = || Err::<(), _>(std::io::Error::other("no mount")).context("the model").unwrap_err();
        assert!(may_succeed(&of_files(), &unmet) && may_succeed(&of_files(), &met));
        let truncated = || anyhow::anyhow!("model.safetensors ends too early");
        assert!(may_succeed(&truncated(), &unmet) && !may_succeed(&truncated(), &met));
        // Bytes that are no text are an error of files to the system, and decided all the same.
        std::fs::write(dir.path().join("cells.json"), b"\xff").unwrap();
        let damaged = || ItemKey::is_done_in(&"cells@0123456789abcdef".parse().unwrap(), dir.path()).unwrap_err();
        assert!(!may_succeed(&damaged().into(), &unmet), "{}", damaged());
    }

    #[test]
    fn what_is_missing_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let share = Share::listing(dir.path());
        let memory = Memory::folder(dir.path(), serde_json::Value::Null).shared(share.clone());
        for (name, expected) in [("a", "1 item is missing, and what needs it:\n  a@"), ("b", "2 items are missing")] {
            assert!(memory.recall::<i32>(name, &serde_json::Value::Null, || Ok(1)).is_err());
            let message = check_complete(&share).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn engines_read_their_files() {
        let key: ItemKey = KEY.parse().unwrap();
        let items = [argv(&key), argv(&key)];
        let job: toml::Table = hq_toml(&items, 2, Path::new("runs/a \"b\"")).parse().unwrap();
        let tasks = job["task"].as_array().unwrap();
        assert_eq!((tasks.len(), tasks[1]["command"][4].as_str()), (2, Some(KEY)));
        assert_eq!(tasks[1]["request"][0]["resources"]["cpus"].as_str(), Some("2"));
        let script = slurm(&items, 2, Path::new("runs"));
        assert!(script.contains("--array=0-1\n") && script.starts_with("#!/bin/bash\n"), "{script}");
        assert_eq!(slurm(&[], 2, Path::new("runs")), "");
    }
}
