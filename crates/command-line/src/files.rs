//! Files and folders behind the flags.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use switchable_quant::data::{Dataset, Error, Format, QuestionCounts, ReadDataset, WhyLeftOut};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::hub::{Hub, log_to_stderr};
use switchable_quant::transformer::gguf::is_gguf;

use crate::arguments::reading::ReadingArgs;
use crate::model_argument::check_model_folder;

/// The name of the questions that the built-in model was made for, in place of a file.
pub const GENERATED: &str = "generated";

/// Folder or GGUF file of a model: the argument itself when it is one, else downloaded by its name.
///
/// # Errors
///
/// When there is no such folder and no such name, the folder is that of something else, or the download fails.
pub fn resolve_model(argument: &str) -> anyhow::Result<PathBuf> {
    if Path::new(argument).exists() && !is_gguf(argument) {
        check_model_folder(argument.as_ref())?;
    }
    resolve_tokenizer(argument)
}

/// Folder or GGUF file of a tokenizer: the argument itself when it is one, else that of a model, downloaded by its name.
///
/// # Errors
///
/// When there is no such folder and no such name, or the download fails.
pub fn resolve_tokenizer(argument: &str) -> anyhow::Result<PathBuf> {
    if Path::new(argument).is_dir() || is_gguf(argument) {
        return Ok(argument.into());
    }
    let model = Hub::from_env()?.model(argument, &mut |event| log_to_stderr(event));
    model.with_context(|| format!("no folder `{argument}` is here, and as a name to download"))
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

/// Questions of files, and how many of them were left out and why.
#[derive(Debug, Clone)]
pub struct LoadedQuestions {
    /// The questions that are left.
    pub dataset: Dataset,
    /// Those that there were, and what became of them.
    pub counts: QuestionCounts,
}

impl From<Dataset> for LoadedQuestions {
    fn from(dataset: Dataset) -> Self {
        let counts = QuestionCounts::of(dataset.len());
        Self { dataset, counts }
    }
}

impl LoadedQuestions {
    /// The first of them.
    #[must_use]
    pub fn limited(mut self, questions: usize) -> Self {
        self.dataset = self.dataset.limited(questions);
        self.counts.leave_out(self.counts.used - self.dataset.len(), WhyLeftOut::Limit);
        self
    }

    /// These counts, and then what is left out of them on the way from all of these questions to those that
    /// are used.
    #[must_use]
    pub fn counts_with(&self, later: &QuestionCounts) -> QuestionCounts {
        let mut counts = self.counts.clone();
        for left_out in &later.left_out {
            counts.leave_out(left_out.questions, left_out.why.clone());
        }
        counts
    }
}

/// Questions of a SQuAD file; says which answers were left out or moved.
///
/// # Errors
///
/// When the file is missing or damaged; where a flag helps, the error says which.
pub fn load_questions(file: &Path, reading: ReadingArgs) -> anyhow::Result<LoadedQuestions> {
    let read = read_questions(file, reading)?;
    if read.skipped_answers + read.realigned_answers > 0 {
        let (skipped, realigned) = (read.skipped_answers, read.realigned_answers);
        eprintln!("{}: {skipped} answers left out, {realigned} moved to where their text stands", file.display());
    }
    Ok(LoadedQuestions { dataset: read.dataset, counts: read.counts })
}

/// The same where it is said of them elsewhere.
pub(crate) fn load_quietly(file: &Path, reading: ReadingArgs) -> anyhow::Result<LoadedQuestions> {
    let read = read_questions(file, reading)?;
    Ok(LoadedQuestions { dataset: read.dataset, counts: read.counts })
}

fn read_questions(file: &Path, reading: ReadingArgs) -> anyhow::Result<ReadDataset> {
    let read = Dataset::read_with(file, reading.options()).map_err(|error| {
        let hint = match &error {
            Error::AnswerOffset { .. } | Error::AnswerOffsets { .. } => {
                "`--realign` moves answers to where their text stands once, `--skip-bad-answers` leaves them out"
            }
            Error::Field { expected, .. } if expected.starts_with("only the fields") => {
                "`--ignore-unknown-fields` passes over fields that no SQuAD file has"
            }
            _ => return anyhow::Error::from(error),
        };
        anyhow::anyhow!("{error} ({hint})")
    })?;
    ensure!(!read.dataset.is_empty(), "{}: the file holds no question", file.display());
    Ok(read)
}

/// All questions of a file that a model is calibrated on.
///
/// # Errors
///
/// When the file is missing or damaged, or holds none.
pub fn calibration_questions(file: &str) -> anyhow::Result<Dataset> {
    Ok(match file {
        GENERATED => default_model::questions(QuestionSet::Train)?,
        file => load_questions(&resolve_data(file)?, ReadingArgs::default())?.dataset,
    })
}

/// A flag with its files, for messages: `--text a.txt b.txt`.
pub fn flag_of(flag: &str, files: &[PathBuf]) -> String {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    format!("{flag} {}", files.join(" "))
}

/// Whether a file is running text, and not questions.
pub fn is_text(file: &str) -> bool {
    let extension = Path::new(file).extension().unwrap_or_default();
    extension == "txt" || extension == "zst"
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
///
/// # Errors
///
/// When a part of it cannot be looked at.
pub fn resolved(path: &Path) -> anyhow::Result<PathBuf> {
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

/// One data set from several SQuAD files; of version 2.0 if one of them is.
///
/// # Errors
///
/// When a file is missing or damaged.
pub fn load_training_set(files: &[PathBuf], reading: ReadingArgs) -> anyhow::Result<LoadedQuestions> {
    let mut whole: Option<LoadedQuestions> = None;
    for file in files {
        let loaded = match file.to_str() {
            Some(GENERATED) => default_model::questions(QuestionSet::Train)?.into(),
            _ => load_questions(file, reading)?,
        };
        match &mut whole {
            None => whole = Some(loaded),
            Some(whole) => {
                whole.counts.add(loaded.counts);
                whole.dataset.articles.extend(loaded.dataset.articles);
                if loaded.dataset.format == Format::V2 {
                    whole.dataset.format = Format::V2;
                }
            }
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
