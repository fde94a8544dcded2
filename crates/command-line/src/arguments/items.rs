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

use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use switchable_quant::experiments::error::Error;
use switchable_quant::experiments::running::share::{Item, ItemKey, Share};

use crate::arguments::run::RunArgs;
use crate::ending::{Ended, Usage, usage};
use crate::interrupt::{quoted, resumable, was_stopped};
use crate::out;

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
    /// done before, 75 when it may succeed another time, 65 when it never will
    #[arg(long, value_name = "KEY", conflicts_with = "merge")]
    run_item: Option<String>,
    /// With --run-item: try again so often where a file cannot be read or written
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

    /// The folder for results; other processes may use it where the work is shared.
    ///
    /// # Errors
    ///
    /// Those of [`RunArgs::prepared_out`] and [`RunArgs::shared_out`].
    pub fn prepared_out(&self, run: &RunArgs, default: &str) -> anyhow::Result<PathBuf> {
        if self.given().is_none() { run.prepared_out(default) } else { run.shared_out(default) }
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
        if let Some(key) = &self.run_item {
            let key = key.parse::<ItemKey>().map_err(|error| usage(error.to_string()))?;
            return self.run_item(out, &key, command);
        }
        if self.items {
            let share = Share::listing(out);
            unless_elsewhere(command(share.clone()))?;
            let items = share.items().into_iter().filter(|item| !(self.missing && item.done));
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
            // What is done needs no model.
            let result = key.is_done_in(out).map_err(anyhow::Error::from).and_then(|is_done| {
                let share = Share::item(out, key.clone());
                if is_done { Ok(()) } else { done(command(share.clone()), &share, key) }
            });
            let Err(error) = result else { return Ok(()) };
            if error.is::<Ended>() || error.is::<Usage>() {
                return Err(error);
            }
            let is_of_files = error.chain().any(<dyn std::error::Error>::is::<std::io::Error>);
            if was_stopped(&error) {
                return Err(Ended::with(AGAIN, error));
            }
            if !is_of_files || tried == self.retries {
                return Err(Ended::with(if is_of_files { AGAIN } else { NEVER }, error));
            }
            eprintln!("{error:#}; trying again in {} s", wait.as_secs());
            sleep(wait);
            wait = (2 * wait).min(Duration::from_mins(1));
        }
        Ok(())
    }
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
    unless_elsewhere(result)?;
    if share.is_over() {
        return Ok(());
    }
    let met = share.items().into_iter().any(|item| item.key == *key);
    let reason = if met {
        "it needs items that are not done"
    } else {
        "no item of this work has this key, or it has been merged"
    };
    Err(Ended::with(if met { AGAIN } else { NEVER }, anyhow::anyhow!("`--run-item {key}`: {reason}")))
}

/// Lists what is missing.
fn check_complete(share: &Share) -> anyhow::Result<()> {
    let missing = share.items().into_iter().filter(|item| !item.done);
    let keys: Vec<String> = missing.map(|item| item.key.to_string()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let (missing, keys) = (keys.len(), keys.join("\n  "));
    Err(Ended::with(INCOMPLETE, anyhow::anyhow!("{missing} items are missing, and what needs them:\n  {keys}")))
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
    let mut words = Vec::with_capacity(line.len() + 1);
    let mut rest = line.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--items" | "--missing" => {}
            "--format" => _ = rest.next(),
            other if other.starts_with("--format=") => {}
            other => words.push(other.to_owned()),
        }
    }
    words.extend(["--run-item".to_owned(), key.to_string()]);
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

#[cfg(test)]
mod tests {
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
