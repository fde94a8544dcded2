//! What results are reported on: nothing may be calibrated on any of it.

use std::path::Path;

use anyhow::{Context as _, bail};

use switchable_quant::data::{Dataset, TextFiles};
use switchable_quant::reader::certificate::held_out::HeldOut;
use switchable_quant::reader::certificate::seen_data::{SeenData, SeenRole, SeenSet, paragraphs};

use crate::contents::name_of;
use crate::files::{calibration_questions, is_text};

/// What results are reported on, and what it is called.
#[derive(Debug, Clone)]
pub enum Reported {
    /// Questions of a file.
    Questions {
        /// The flag and the file.
        name: String,
        /// All of them that are used.
        dataset: Dataset,
    },
    /// Documents of running text.
    Texts {
        /// The flag and the files.
        name: String,
        /// All of them that are used.
        documents: Vec<String>,
    },
}

impl Reported {
    /// Refuses what a file to calibrate on, named first, has in common with it.
    fn check_apart(&self, file: &str, whole: &SeenData) -> anyhow::Result<()> {
        match self {
            Self::Questions { name, dataset } => {
                let held_out = HeldOut::new(dataset.clone()).with_context(|| name.clone())?;
                whole.check_unseen(&held_out).with_context(|| format!("--calibration {file} and {name}"))?;
            }
            Self::Texts { name, documents } => {
                let holds = |hash| whole.sets().iter().find(|set| set.contexts.contains(&hash));
                let is_seen = |(index, text): (usize, &String)| Some((index, paragraphs(text).find_map(holds)?));
                if let Some((index, set)) = documents.iter().enumerate().find_map(is_seen) {
                    bail!(
                        "`--calibration {file}` and {name}: a paragraph of document {} of the text that is reported on is \
                         in {}",
                        index + 1,
                        set.name
                    );
                }
            }
        }
        Ok(())
    }
}

/// Refuses files to calibrate on that hold a question or a paragraph of what is reported on anywhere, whichever windows
/// would be drawn of them. By contents: see [`SeenData::check_unseen`]. Each file is read once.
///
/// # Errors
///
/// When one does, or cannot be read; the error names both files.
pub fn check_apart(reported: &[Reported], calibration: &[String]) -> anyhow::Result<()> {
    if reported.is_empty() {
        return Ok(());
    }
    for file in calibration {
        let whole = SeenData::new(vec![whole(file)?]);
        reported.iter().try_for_each(|reported| reported.check_apart(file, &whole))?;
    }
    Ok(())
}

/// All that a file to calibrate on holds.
fn whole(file: &str) -> anyhow::Result<SeenSet> {
    let name = name_of(Path::new(file));
    if !is_text(file) {
        return Ok(SeenSet::new(SeenRole::Calibration, name, &calibration_questions(file)?)?);
    }
    // One document after another: a file of text may be larger than the memory.
    let (files, mut fault) = (TextFiles::new([file])?, None);
    let documents = files.documents().map_while(|document| document.map_err(|error| fault = Some(error)).ok());
    let whole = SeenSet::of_texts(SeenRole::Calibration, name, documents);
    fault.map_or(Ok(whole), |error| Err(error.into()))
}
