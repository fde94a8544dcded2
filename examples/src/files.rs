//! Files and folders behind the flags.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use switchable_quant::data::Dataset;
use switchable_quant::hub::{Hub, log_to_stderr};

/// Folder of a model: the argument itself when it is one, else downloaded by its name.
///
/// # Errors
///
/// When there is no such folder and no such name, or the download fails.
pub fn resolve_model(argument: &str) -> anyhow::Result<PathBuf> {
    if Path::new(argument).is_dir() {
        return Ok(argument.into());
    }
    Ok(Hub::from_env()?.model(argument, &mut |event| log_to_stderr(event))?)
}

/// File of a data set: the argument itself when it is one, else downloaded by its name.
///
/// # Errors
///
/// When there is no such file and no such name, or the download fails.
pub fn resolve_data(argument: &str) -> anyhow::Result<PathBuf> {
    if Path::new(argument).is_file() {
        return Ok(argument.into());
    }
    Ok(Hub::from_env()?.data(argument, &mut |event| log_to_stderr(event))?)
}

/// Refuses a folder that a command writes, where it is that of a model or of adapters that the command reads,
/// or one holds the other: what is read would be overwritten, or be mixed with what is written.
///
/// # Errors
///
/// When it is, by whatever path or link; the error names the folders.
pub fn check_apart(out: &Path, read: &[&Path]) -> anyhow::Result<()> {
    let target = resolved(out)?;
    for dir in read {
        let source = resolved(dir)?;
        ensure!(
            !target.starts_with(&source) && !source.starts_with(&target),
            "`--out` writes {}, expected a folder apart from {}, which is read",
            out.display(),
            dir.display(),
        );
    }
    Ok(())
}

/// A path without links, of which the last parts may be missing.
fn resolved(path: &Path) -> anyhow::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut there = std::path::absolute(path)?;
    loop {
        match there.canonicalize() {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |path, part| path.join(part))),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            Err(_) => match (there.parent(), there.file_name()) {
                (Some(parent), Some(name)) => {
                    missing.push(name.to_owned());
                    there = parent.to_owned();
                }
                _ => anyhow::bail!("{}: no such path", path.display()),
            },
        }
    }
}

/// One data set from several SQuAD files.
///
/// # Errors
///
/// When a file is missing or damaged.
pub fn load_training_set(files: &[PathBuf]) -> anyhow::Result<Dataset> {
    let mut whole: Option<Dataset> = None;
    for file in files {
        let dataset = Dataset::read(Path::new(file))?;
        match &mut whole {
            None => whole = Some(dataset),
            Some(whole) => whole.articles.extend(dataset.articles),
        }
    }
    whole.context("`--train` names no file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_read_is_not_written_by_any_path() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("model/adapters")).unwrap();
        std::os::unix::fs::symlink(at("model"), at("link")).unwrap();
        let model = at("model");
        let refused = ["model", "model/", "./model", "model/adapters/..", "link", "link/new/model", "model/new", "."];
        for out in refused {
            let message = check_apart(&at(out), &[&model]).expect_err(out).to_string();
            assert!(message.contains("--out") && message.contains("apart from"), "{message}");
            assert!(check_apart(&at(out), &[&at("link")]).is_err(), "{out}");
        }
        for out in ["new", "new/model", "model-2", "model/../other"] {
            check_apart(&at(out), &[&model]).unwrap();
        }
    }
}
