//! `certificate.json`: what an artefact costs beside its original, and what that was measured on.
//!
//! ```text
//! original, artefact   contents of all files, plan, EM and F1 with 95 % intervals, bytes, times
//! data                 content of the questions, and why they are held to be unseen
//! exact_match, f1      artefact − original with its interval, and the most that is lost, one-sided 95 %
//! mcnemar              questions that only one of the two answers
//! slices               the same in parts of the questions
//! ```
//!
//! Scores, differences and hashes are the same in every run; times, resident bytes, the machine and the names of
//! folders are of one run and are not compared.

use std::path::Path;

use content_identity::{ContentHash, Hasher};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use squad_data::QuestionScore;
use switchable_lora::precision_plan::PrecisionPlan;

use crate::certificate::file_names::CERTIFICATE;
use crate::certificate::held_out::{HeldOut, HeldOutQuestion, HeldOutRecord};
use crate::certificate::machine::{Machine, Resident};
use crate::certificate::measured_model::{MeasuredModel, Timing};
use crate::certificate::model_files::ModelFiles;
use crate::certificate::paired_loss::{PairedLoss, QuestionLoss};
use crate::certificate::slices::{BothAnswers, Slice, slices};
use crate::error::{Error, Result};
use crate::running::json_file::{read_json, write_json};
use crate::statistics::{Interval, mcnemar, mean};

const VERSION: u32 = 1;

/// What is of one run and not of the models.
const OF_A_RUN: [&str; 8] = [
    "made_by",
    "machine",
    "original.name",
    "original.resident",
    "original.timing",
    "artefact.name",
    "artefact.resident",
    "artefact.timing",
];

/// A certificate of cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    version: u32,
    /// The program that made it.
    pub made_by: String,
    /// The model that was made smaller.
    pub original: CertifiedModel,
    /// The model that was made of it.
    pub artefact: CertifiedModel,
    /// The questions.
    pub data: CertifiedData,
    /// How they were read.
    pub reading: ReadingOptions,
    /// The loss of exact match.
    pub exact_match: PairedLoss,
    /// The loss of F1.
    pub f1: PairedLoss,
    /// Questions that only one of the two answers.
    pub mcnemar: McNemar,
    /// The loss of exact match in parts of the questions.
    pub slices: Vec<Slice>,
    /// The machine that times and resident bytes are of.
    pub machine: Machine,
}

/// One side of a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedModel {
    /// What it is called, for messages.
    pub name: String,
    /// Its files.
    pub files: ModelFiles,
    /// The plan that it ran at.
    pub plan: PrecisionPlan,
    /// Questions answered exactly.
    pub exact_match: Score,
    /// Mean token overlap with the best gold answer.
    pub f1: Score,
    /// Of the scores of every question.
    pub scores: ContentHash,
    /// Bytes of weights, scales and adapters, computed.
    pub weight_bytes: usize,
    /// Bytes that its process held, measured in a process of its own.
    pub resident: Option<Resident>,
    /// Times.
    pub timing: Timing,
}

/// A mean over the questions in percent, with its 95 % interval of independent questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The mean.
    pub percent: f64,
    /// Its interval.
    pub interval: Interval,
}

/// The questions, and why they are held to be unseen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedData {
    /// What they are.
    pub content: HeldOutRecord,
    /// Why none of them is held to have made the artefact.
    pub unseen: Unseen,
    /// Questions about a paragraph that other questions were seen of; none where that is not known.
    pub of_seen_paragraphs: usize,
}

/// Why questions are held to be unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unseen {
    /// None of them is in `made_from.json` of the artefact.
    #[serde(rename = "none is in made_from.json")]
    Recorded,
    /// The artefact does not say what made it.
    #[serde(rename = "asserted by the caller")]
    Asserted,
}

/// How questions are read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadingOptions {
    /// Longest window in tokens; by default the model's positions, at most 384 each time that it holds its context.
    pub window: Option<usize>,
    /// Windows per batch.
    pub batch: usize,
    /// Questions whose null score exceeds that of the best span by more are answered with nothing; none where
    /// every question has an answer.
    pub null_threshold: Option<f32>,
}

/// Discordant questions, and whether so many more of one kind may be chance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McNemar {
    /// `b`: only the original answers them exactly.
    pub only_original: usize,
    /// `c`: only the artefact does.
    pub only_artefact: usize,
    /// Two-sided, of independent questions.
    pub p_value: f64,
}

/// A model with what was measured of it.
#[derive(Debug, Clone)]
pub struct Side {
    /// What it is called, for messages.
    pub name: String,
    /// Its files.
    pub files: ModelFiles,
    /// What it gave and took.
    pub measured: MeasuredModel,
}

/// Two models that were measured on the same questions.
#[derive(Debug, Clone)]
pub struct Comparison<'a> {
    /// The model that was made smaller.
    pub original: Side,
    /// The model that was made of it.
    pub artefact: Side,
    /// The questions.
    pub held_out: &'a HeldOut,
    /// Why they are held to be unseen.
    pub data: CertifiedData,
    /// How they were read.
    pub reading: ReadingOptions,
}

/// Only the version, so that a newer file is told from a damaged one.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Certificate {
    /// Compares two models that were measured on the same questions.
    ///
    /// # Errors
    ///
    /// When one of them was measured on other questions.
    pub fn new(comparison: Comparison<'_>) -> Result<Self> {
        let Comparison { original, artefact, held_out, data, reading } = comparison;
        for side in [&original, &artefact] {
            check_questions(side, held_out)?;
        }
        let machine = artefact.measured.machine.clone();
        let losses = |value: fn(&QuestionScore) -> f64| {
            let (first, second) = (&original.measured.scores, &artefact.measured.scores);
            let loss = |at: usize| value(&first[at]) - value(&second[at]);
            let question = |(at, question): (usize, &HeldOutQuestion)| QuestionLoss {
                loss: loss(at),
                paragraph: question.context,
            };
            held_out.by_content().map(question).collect::<Vec<_>>()
        };
        let exact = losses(|score| score.exact);
        let both: Vec<BothAnswers<'_>> = held_out
            .by_content()
            .zip(&exact)
            .map(|((at, question), loss)| BothAnswers {
                example: &question.example,
                has_answer: original.measured.scores[at].has_answer,
                original: original.measured.scores[at].exact,
                artefact: artefact.measured.scores[at].exact,
                loss: *loss,
            })
            .collect();
        let only_original = exact.iter().filter(|question| question.loss > 0.5).count();
        let only_artefact = exact.iter().filter(|question| question.loss < -0.5).count();
        let p_value = mcnemar(only_original, only_artefact);
        Ok(Self {
            version: VERSION,
            made_by: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            exact_match: PairedLoss::new(&exact),
            f1: PairedLoss::new(&losses(|score| score.f1)),
            mcnemar: McNemar { only_original, only_artefact, p_value },
            slices: slices(&both),
            original: CertifiedModel::new(original, held_out),
            artefact: CertifiedModel::new(artefact, held_out),
            data,
            reading,
            machine,
        })
    }

    /// Writes `certificate.json` into a folder.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<()> {
        write_json(dir.as_ref().join(CERTIFICATE), self)
    }

    /// Reads `certificate.json` of a folder.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged or of a newer version.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(CERTIFICATE);
        let Versioned { version } = read_json(&path)?;
        if version != VERSION {
            return Err(Error::Version { path, got: version, known: VERSION });
        }
        read_json(&path)
    }

    /// Checks questions and why they are held to be unseen against those of the certificate, before anything is
    /// computed.
    ///
    /// # Errors
    ///
    /// [`Error::CertificateDiffers`] with the first difference.
    pub fn check_data(&self, data: &CertifiedData) -> Result<()> {
        first_difference("data", &to_value(&self.data)?, &to_value(data)?)
    }

    /// Checks that another run gave the same certificate, but for times, resident bytes, the machine and names.
    ///
    /// # Errors
    ///
    /// [`Error::CertificateDiffers`] with the first field that differs.
    pub fn check_same(&self, again: &Self) -> Result<()> {
        first_difference("", &to_value(self)?, &to_value(again)?)
    }
}

impl CertifiedModel {
    fn new(side: Side, held_out: &HeldOut) -> Self {
        let Side { name, files, measured } = side;
        let in_order = |value: fn(&QuestionScore) -> f64| {
            held_out.by_content().map(|(at, _)| value(&measured.scores[at])).collect::<Vec<f64>>()
        };
        let (exact, f1) = (in_order(|score| score.exact), in_order(|score| score.f1));
        let right = exact.iter().filter(|score| **score > 0.5).count();
        let mut hasher = Hasher::default();
        for ((_, question), (exact, f1)) in held_out.by_content().zip(exact.iter().zip(&f1)) {
            hasher.bytes("question", question.content.to_string().as_bytes());
            hasher.numbers("scores", [exact.to_bits(), f1.to_bits()].into_iter());
        }
        Self {
            name,
            files,
            plan: measured.plan,
            exact_match: Score {
                percent: 100.0 * right as f64 / exact.len() as f64,
                interval: Interval::wilson(right, exact.len()).scaled(100.0),
            },
            f1: Score { percent: 100.0 * mean(&f1), interval: Interval::of_mean(&f1).scaled(100.0) },
            scores: hasher.finish(),
            weight_bytes: measured.weight_bytes,
            resident: measured.resident,
            timing: measured.timing,
        }
    }
}

/// Scores are of the questions, in their order.
fn check_questions(side: &Side, held_out: &HeldOut) -> Result<()> {
    let scores = &side.measured.scores;
    let other = held_out
        .by_content()
        .find(|(at, question)| scores.get(*at).is_none_or(|score| score.id != question.example.id));
    if scores.len() == held_out.len() && other.is_none() {
        return Ok(());
    }
    let what = other.map_or_else(|| scores.len().to_string(), |(_, question)| format!("`{}`", question.example.id));
    Err(Error::option(
        "scores",
        format!("of other questions ({what})"),
        format!("those of the {} held out", held_out.len()),
    ))
}

fn to_value(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|source| Error::json(CERTIFICATE, source))
}

fn first_difference(field: &str, was: &Value, is: &Value) -> Result<()> {
    if OF_A_RUN.contains(&field) || was == is {
        return Ok(());
    }
    let inner = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    match (was, is) {
        (Value::Object(first), Value::Object(second)) => {
            let added = second.keys().filter(|name| !first.contains_key(*name));
            for name in first.keys().chain(added) {
                let of = |object: &serde_json::Map<String, Value>| object.get(name).cloned().unwrap_or_default();
                first_difference(&inner(name), &of(first), &of(second))?;
            }
            Ok(())
        }
        (Value::Array(first), Value::Array(second)) if first.len() == second.len() => {
            let pairs = first.iter().zip(second).enumerate();
            pairs.into_iter().try_for_each(|(i, (was, is))| first_difference(&format!("{field}[{i}]"), was, is))
        }
        _ => Err(Error::CertificateDiffers { field: field.to_owned(), was: was.to_string(), is: is.to_string() }),
    }
}

#[cfg(test)]
mod tests;
