//! Files and folders behind the flags.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

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
