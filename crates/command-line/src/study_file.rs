//! The flags of a command as a file.
//!
//! ```toml
//! # report --config study.toml
//! model = "models/english"
//! data = "models/english/squad/held-out.json"
//! steps = 240
//! train = ["a.json", "b.json"]
//! no-robustness = true
//! ```
//!
//! A key is a flag without its dashes. What stands on the command line takes the place of what the file says; what neither says
//! is the default. Paths are of the folder that the command runs in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command, Parser, parser::ValueSource};
use toml::{Table, Value};

use crate::arguments::items;
use crate::ending::usage;
use crate::output;

/// The flag that names the file.
const CONFIG: &str = "config";

/// Flags that say where and how a command runs, and nothing of what it finds.
const OF_THE_RUN: [&str; 6] = [CONFIG, "out", "quiet", "json", "help", "version"];

/// The arguments of a command that may name a file of flags, and the file that runs it again.
#[derive(Debug)]
pub struct Study<A> {
    /// What the command line and the file say.
    pub arguments: A,
    /// All of it as such a file, defaults too.
    pub text: String,
}

/// Reads command line and file.
///
/// # Errors
///
/// When the file is missing or no TOML, or has a key that is no flag or a value that the flag does not take. A command line
/// that is wrong ends the program, as clap has it.
pub fn read<A: Parser>(line: impl IntoIterator<Item = OsString>) -> anyhow::Result<Study<A>> {
    let command = output::definition::<A>();
    let mut line: Vec<OsString> = line.into_iter().collect();
    if let Some(path) = config_of(&line) {
        let path = Path::new(&path);
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let table: Table = text.parse().map_err(|error| usage(format!("{}: {error}", path.display())))?;
        let said = flags(&command, &table, &line).map_err(|error| usage(format!("{}: {error}", path.display())))?;
        line.extend(said);
    }
    let matches = command.clone().get_matches_from(line);
    let arguments = output::read(&matches).unwrap_or_else(|error| error.exit());
    Ok(Study { arguments, text: text_of(&command, &matches) })
}

/// What stands behind `--config`.
fn config_of(line: &[OsString]) -> Option<OsString> {
    let flag = format!("--{CONFIG}");
    let index = line.iter().position(|word| is_flag(word, CONFIG))?;
    let word = line[index].to_string_lossy();
    match word.strip_prefix(&format!("{flag}=")) {
        Some(value) => Some(value.into()),
        None => line.get(index + 1).cloned(),
    }
}

/// Whether a word is `--NAME` or `--NAME=…`.
fn is_flag(word: &OsString, name: &str) -> bool {
    let word = word.to_string_lossy();
    word.strip_prefix("--")
        .and_then(|word| word.strip_prefix(name))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// The words of a file that the line does not say itself.
fn flags(command: &Command, table: &Table, line: &[OsString]) -> Result<Vec<OsString>, String> {
    let mut words = Vec::new();
    for (key, value) in table {
        let Some(argument) = command.get_arguments().find(|argument| argument.get_long() == Some(key)) else {
            let known: Vec<&str> = command.get_arguments().filter_map(Arg::get_long).collect();
            return Err(format!("unknown key `{key}`, expected one of {}", known.join(", ")));
        };
        if !line.iter().any(|word| is_flag(word, key)) {
            words.extend(words_of(argument, key, value)?);
        }
    }
    Ok(words)
}

fn words_of(argument: &Arg, key: &str, value: &Value) -> Result<Vec<OsString>, String> {
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    let fault = |expected: &str| format!("`{key}` is {value}, expected {expected}");
    match value {
        Value::Boolean(true) if is_switch => Ok(vec![format!("--{key}").into()]),
        Value::Boolean(false) if is_switch => Ok(Vec::new()),
        _ if is_switch => Err(fault("true or false")),
        Value::Array(values) => {
            let values =
                values.iter().map(scalar).collect::<Option<Vec<_>>>().ok_or_else(|| fault("texts or numbers"))?;
            if takes_several(argument) {
                Ok(std::iter::once(format!("--{key}")).chain(values).map(OsString::from).collect())
            } else {
                Ok(vec![format!("--{key}={}", values.join(",")).into()])
            }
        }
        value => Ok(vec![format!("--{key}={}", scalar(value).ok_or_else(|| fault("a text or a number"))?).into()]),
    }
}

fn takes_several(argument: &Arg) -> bool {
    argument.get_num_args().is_some_and(|range| range.max_values() > 1)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// Every flag with its value, in the order of the names.
fn text_of(command: &Command, matches: &ArgMatches) -> String {
    let mut said: BTreeMap<&str, Value> = BTreeMap::new();
    let arguments = command.get_arguments().filter_map(|argument| Some((argument, argument.get_long()?)));
    for (argument, name) in arguments.filter(|(_, name)| !OF_THE_RUN.contains(name) && !items::FLAGS.contains(name)) {
        let id = argument.get_id().as_str();
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            if matches.value_source(id) == Some(ValueSource::CommandLine) {
                said.insert(name, Value::Boolean(true));
            }
            continue;
        }
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        let values: Vec<String> = values.map(|value| value.to_string_lossy().into_owned()).collect();
        said.insert(
            name,
            match values.as_slice() {
                [one] if !takes_several(argument) => one.as_str().into(),
                _ if takes_several(argument) => Value::Array(values.into_iter().map(Value::String).collect()),
                _ => values.join(",").into(),
            },
        );
    }
    let mut text = format!("# {} --{CONFIG} FILE --out DIR\n", command.get_name());
    text += &toml::to_string(&said).unwrap_or_else(|error| unreachable!("texts are always TOML: {error}"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command.
    #[derive(Debug, Parser, PartialEq)]
    #[command(name = "study")]
    struct Arguments {
        #[arg(long)]
        config: Option<String>,
        #[arg(long)]
        out: Option<String>,
        #[arg(long, default_value_t = 120)]
        steps: usize,
        #[arg(long, default_value = "32,4")]
        bits: String,
        #[arg(long, num_args = 1..)]
        train: Vec<String>,
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        #[arg(long)]
        tolerance: Option<f64>,
        #[arg(long)]
        no_attacks: bool,
    }

    fn read_line(line: &str) -> anyhow::Result<Study<Arguments>> {
        read(format!("study {line}").split_whitespace().map(OsString::from))
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("it is written");
        file
    }

    #[test]
    fn a_file_says_what_the_line_does_not() {
        let file = file(
            "steps = 7\nbits = [8, 2]\ntrain = [\"a b.json\", \"c.json\"]\nonly = \"uniform,greedy\"\ntolerance = 0.25\n\
             no-attacks = true\n",
        );
        let config = file.path().display();
        let Study { arguments, .. } = read_line(&format!("--config {config} --steps 9")).expect("it is read");
        assert_eq!((arguments.steps, arguments.bits.as_str(), arguments.no_attacks), (9, "8,2", true));
        assert_eq!((arguments.train.len(), arguments.tolerance), (2, Some(0.25)));
        assert_eq!(arguments.only, ["uniform", "greedy"]);
    }

    #[test]
    fn what_is_written_runs_it_again() {
        let line = "--train x.json y.json --only uniform --no-attacks --out somewhere";
        let Study { arguments, text } = read_line(line).expect("it is read");
        assert!(text.contains("steps = \"120\"") && text.contains("no-attacks = true"), "{text}");
        assert!(!text.contains("somewhere") && !text.contains("tolerance"), "{text}");
        let file = file(&text);
        let again = read_line(&format!("--config {} --out somewhere", file.path().display())).expect("it is read");
        assert_eq!(Arguments { config: None, ..again.arguments }, arguments);
        assert_eq!(again.text, text);
    }

    #[test]
    fn what_is_no_flag_is_refused_by_name() {
        for (text, expected) in [
            ("step = 7", "unknown key `step`, expected one of"),
            ("no-attacks = 1", "`no-attacks` is 1, expected true or false"),
            ("steps = true", "`steps` is true, expected a text or a number"),
            ("train = [[1]]", "`train` is [[1]], expected texts or numbers"),
            ("steps = ", "TOML parse error"),
        ] {
            let file = file(text);
            let error = read_line(&format!("--config={}", file.path().display())).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&file.path().display().to_string()), "{text}: {error}");
        }
        assert!(read_line("--config missing.toml").unwrap_err().to_string().contains("missing.toml"));
    }
}
