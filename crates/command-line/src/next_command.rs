//! The command that mostly follows on one that is done.

use std::path::Path;

use switchable_quant::reader::artefact::target::ArtefactTarget;

use crate::arguments::{answers::AnswerArgs, input::InputArgs, run::RunArgs};
use crate::command_words::{PROGRAM, has_subcommands, quoted};

/// What the commands are called as subcommands, where that is not the name of the example with `-` for `_`.
const SUBCOMMANDS: [(&str, &str); 3] = [("greedy_search", "search"), ("pack_gpt2", "pack"), ("import_gpt2", "import")];

/// What the command of an example is called as a subcommand.
pub fn subcommand_of(example: &str) -> String {
    let named = SUBCOMMANDS.iter().find(|(name, _)| *name == example);
    named.map_or_else(|| example.replace('_', "-"), |(_, name)| (*name).to_owned())
}

/// A command and its flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextCommand {
    example: &'static str,
    flags: String,
}

impl NextCommand {
    /// A command without flags, by the name of its example.
    pub fn new(example: &'static str) -> Self {
        Self { example, flags: String::new() }
    }

    /// The same with a flag. Names in capitals stand for what the reader has.
    #[must_use]
    pub fn with(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([" ", flag, " ", &quoted(value)]);
        self
    }

    /// The same with a path.
    #[must_use]
    pub fn with_path(self, flag: &str, path: &Path) -> Self {
        let text = path.display().to_string();
        self.with(flag, &text)
    }

    /// The same with a flag where there is a value for it.
    #[must_use]
    pub fn with_any(self, flag: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(flag, value),
            None => self,
        }
    }

    /// Says it on standard error: `next: switchable-quant certify …`, as the program was called. Nothing where the run is quiet.
    pub fn say(&self, run: &RunArgs) {
        if !run.quiet {
            let program = std::env::args_os().next().unwrap_or_default();
            eprintln!("next: {}", self.called_as(Path::new(&program)));
        }
    }

    fn called_as(&self, program: &Path) -> String {
        let Self { example, flags } = self;
        if has_subcommands(program) {
            format!("{PROGRAM} {}{flags}", subcommand_of(example))
        } else {
            format!("cargo run --release --example {example} --{flags}")
        }
    }
}

/// Says what follows on a search: the proof of the artefact that it packed, or an evaluation of its plan on other questions.
/// Nothing where flags said how questions are answered, which the other command would have to be told as well.
pub fn say_next_of_search(
    run: &RunArgs,
    (input, answers): (&InputArgs, &AnswerArgs),
    packed: Option<&ArtefactTarget>,
    plan: &Path,
) {
    let is_told_how = input.adapters.is_some()
        || input.span_head.is_some()
        || input.null_threshold.is_some()
        || input.window.is_some()
        || answers.generates();
    if is_told_how {
        return;
    }
    let model = input.model.as_deref();
    // The built-in model knows questions that no search saw.
    let data = model.map(|_| "HELD-OUT");
    let next = match packed {
        Some(target) => NextCommand::new("certify").with_any("--original", model).with_path("--artefact", target.dir()),
        None => NextCommand::new("evaluate").with_any("--model", model).with_path("--plan", plan),
    };
    next.with_any("--data", data).say(run);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_as_the_program_was() {
        let next =
            NextCommand::new("greedy_search").with_path("--model", Path::new("runs/my model")).with("--data", "FILE");
        assert_eq!(
            next.called_as(Path::new("/usr/bin/switchable-quant")),
            "switchable-quant search --model 'runs/my model' --data FILE"
        );
        assert_eq!(
            next.called_as(Path::new("target/release/examples/train_bank")),
            "cargo run --release --example greedy_search -- --model 'runs/my model' --data FILE"
        );
        let none = NextCommand::new("train_bank").with_any("--model", None);
        assert_eq!(none.called_as(Path::new("switchable-quant")), "switchable-quant train-bank");
    }
}
