//! The command that makes a result again.

use std::path::Path;

use crate::arguments::items::without_flags;
use crate::command_words::{PROGRAM, has_subcommands, line_of, own_arguments};

/// The command that makes again what is made now: as a subcommand where it is one, else as an example of the workspace. By
/// how many processes it was made, and what they said of it on the way, is left out.
pub fn command_again(example: &str) -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = if has_subcommands(Path::new(&program)) {
        PROGRAM.to_owned()
    } else {
        format!("cargo run --release --example {example} --")
    };
    format!("{program} {}", line_of(&of_the_result(&own_arguments())))
}

/// The arguments that say what a command finds, and where it writes it.
fn of_the_result(arguments: &[String]) -> Vec<String> {
    let mut arguments = without_flags(arguments);
    arguments.retain(|argument| !["--quiet", "--json"].contains(&argument.as_str()));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_made_again_by_the_command_of_one_process() {
        let line = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let merged = line("report --seed 1 --out runs/a --quiet --merge --json");
        assert_eq!(of_the_result(&merged), line("report --seed 1 --out runs/a"));
    }
}
