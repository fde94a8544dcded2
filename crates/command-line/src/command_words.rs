//! Command lines as text.

use std::path::Path;

/// The program that has every command as a subcommand.
pub(crate) const PROGRAM: &str = "switchable-quant";

/// Whether a program is that one, whatever its folder.
pub(crate) fn has_subcommands(program: &Path) -> bool {
    program.file_stem().is_some_and(|name| name == PROGRAM)
}

/// The arguments of the command. What is no UTF-8 of them stands as a person reads it.
pub(crate) fn own_arguments() -> Vec<String> {
    std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// Arguments as a shell reads them.
pub(crate) fn line_of(arguments: &[String]) -> String {
    arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
}

/// An argument as a shell reads it back.
pub(crate) fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,.:/@%".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_where_a_shell_would_change_them() {
        for (argument, expected) in [
            ("--out", "--out"),
            ("runs/a-1.json", "runs/a-1.json"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quoted(argument), expected);
        }
    }
}
