//! Attacked questions as files, and what any other model answers to them.
//!
//! ```text
//! clean.json                  every item as it is
//! ATTACK-SOURCE.json          the items that ATTACK edited, made on SOURCE; SQuAD v1.1, each question under its own id
//!
//! cell of another model       robust accuracy of its predictions: those on clean.json against those on ATTACK-SOURCE.json
//! ```
//!
//! A model that is none of the plans has no row of its own, so that its cells show how attacks transfer to it. They are no
//! part of the means over plans and of inference at a drawn precision.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use squad_data::{Dataset, Predictions, QuestionScore, evaluate};
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::robustness::attacks::attack::Attack;
use crate::robustness::protocol::craft::{AttackSource, name_of, sources_of};
use crate::robustness::protocol::matrix::{AttackMatrix, RobustnessProtocol};
use crate::robustness::protocol::robust_accuracy::RobustAccuracy;
use crate::robustness::victim::model_under_attack::dataset_of;

/// What the items are called as they are.
pub const CLEAN: &str = "clean";

/// What an attack made of the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttackedSet {
    /// What its file is called, without an ending.
    pub name: String,
    /// The questions that were edited, with their ids and where their answers stand now; none where no item was attacked.
    pub questions: Dataset,
}

/// The names of what an attack makes of each source: what [`RobustnessProtocol::attacked_sets`] gives.
pub fn set_names<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    attack: &dyn Attack<B, M>,
    sources: &[AttackSource],
) -> Vec<String> {
    sources_of(attack, sources).iter().map(|source| name_of(&attack.name(), &source.label)).collect()
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> RobustnessProtocol<'_, B, M> {
    /// The items as they are.
    pub fn clean_set(&self) -> Dataset {
        dataset_of(self.items)
    }

    /// What an attack made of the items on each row of its matrix: found again, or made again where nothing is kept.
    ///
    /// # Errors
    ///
    /// As [`RobustnessProtocol::craft`].
    pub fn attacked_sets(&self, attack: &dyn Attack<B, M>, sources: &[AttackSource]) -> Result<Vec<AttackedSet>> {
        let made = |source: &AttackSource| {
            let crafted = self.craft(attack, source)?;
            let name = name_of(&crafted.attack, &crafted.source);
            Ok(AttackedSet { name, questions: dataset_of(&crafted.adversarial_examples(self.items)) })
        };
        sources_of(attack, sources).iter().map(made).collect()
    }
}

/// What another model answered to the items and to what attacks made of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherModel {
    label: String,
    /// Set → predictions and their file.
    answers: BTreeMap<String, (PathBuf, Predictions)>,
}

impl OtherModel {
    /// Reads the predictions of a model from a folder: `SET.json`, or `SET/predictions.json` as `evaluate --out SET` writes it,
    /// for [`CLEAN`] and each of `sets`.
    ///
    /// # Errors
    ///
    /// When a file is missing or holds no predictions.
    pub fn read(label: &str, folder: &Path, sets: &[String]) -> Result<Self> {
        let read = |set: &str| {
            let nested = folder.join(set).join("predictions.json");
            let file = if nested.is_file() { nested } else { folder.join(format!("{set}.json")) };
            let predictions = Predictions::read(&file)?;
            Ok((set.to_owned(), (file, predictions)))
        };
        let sets = [CLEAN].into_iter().chain(sets.iter().map(String::as_str));
        Ok(Self { label: label.to_owned(), answers: sets.map(read).collect::<Result<_>>()? })
    }

    /// What it is called.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Scores of its answers to some questions.
    fn scores(&self, set: &str, questions: &Dataset) -> Result<Vec<QuestionScore>> {
        let (file, predictions) = self.answers.get(set).ok_or_else(|| {
            Error::option("predictions", format!("none of `{set}` by {}", self.label), "those of every set")
        })?;
        if let Some(question) = questions.questions().find(|question| predictions.get(&question.id).is_none()) {
            return Err(squad_data::Error::Field {
                path: file.clone(),
                field: question.id.clone(),
                expected: format!("an answer to this question of {set}.json"),
                got: "nothing".into(),
            }
            .into());
        }
        Ok(evaluate(questions, predictions)?.scores)
    }
}

impl AttackMatrix {
    /// The matrix with a column for another model, by its answers to the same items.
    ///
    /// `clean` are the items, `sets` what the attack made of them, one for each row.
    ///
    /// # Errors
    ///
    /// When a question has no answer, or the label is that of another column.
    ///
    /// # Panics
    ///
    /// When the sets are not those of the rows.
    pub fn with_model(mut self, other: &OtherModel, clean: &Dataset, sets: &[AttackedSet], seed: u64) -> Result<Self> {
        if self.inference.iter().chain(&self.others).any(|label| *label == other.label) {
            return Err(Error::option("label", &other.label, "one that no plan and no other model has"));
        }
        assert_eq!(self.rows.len(), sets.len(), "a set for each row");
        let clean: BTreeMap<String, QuestionScore> =
            other.scores(CLEAN, clean)?.into_iter().map(|score| (score.id.clone(), score)).collect();
        for (row, set) in self.rows.iter_mut().zip(sets) {
            assert_eq!(set.name, name_of(&self.attack, &row.source), "the set of the row");
            if set.questions.is_empty() {
                continue;
            }
            let attacked = other.scores(&set.name, &set.questions)?;
            let clean: Vec<QuestionScore> = attacked.iter().map(|score| clean[&score.id].clone()).collect();
            row.others.push(RobustAccuracy::new(&clean, &attacked, seed));
        }
        self.others.push(other.label.clone());
        Ok(self)
    }
}
