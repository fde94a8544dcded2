//! Accuracy of every width of a bank while it is trained, step after step.
//!
//! Nothing is chosen by it: it shows when a width has learnt what it learns, and whether widths that share something pull at
//! each other.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::AutodiffModule as _;
use serde::{Deserialize, Serialize};

use charts::{Axis, LineChart, Point, Series};
use content_identity::ContentHash;
use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::question_task::TaskRef;
use span_reader::statistics::Interval;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::{SwitchableModel as _, TrainableModel};
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};

/// Accuracies of the widths of a bank while it was trained, in the folder of the run: a [`ValidationRow`] a line.
pub const VALIDATION: &str = "validation.jsonl";

/// When and on what a bank is looked at.
#[derive(Debug, Clone)]
pub struct Validation<'a> {
    /// Steps from one look to the next; the last step is looked at as well.
    pub every: usize,
    /// Questions that are not trained on.
    pub questions: TaskRef<'a>,
    /// How they are read.
    pub options: EvaluateOptions,
}

/// A width after some steps: one line of `validation.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ValidationRow {
    /// Steps done.
    pub step: usize,
    /// The width.
    pub bits: BitWidth,
    /// Exact match, percent.
    pub exact_match: f64,
    /// Its 95 % interval.
    pub exact_match_interval: Interval,
    /// F1, percent.
    pub f1: f64,
    /// Mean loss of the gold answers, nats.
    pub loss: Option<f64>,
    /// Questions.
    pub n: usize,
    /// The hash of the questions and of how they are asked.
    pub questions: ContentHash,
}

impl Validation<'_> {
    /// Measures every precision after some steps and adds its rows to [`VALIDATION`] in a folder, unless they are there: a
    /// run goes on from a step that was looked at before. Rows of that step and of later ones, which a run that was killed
    /// has left, go.
    ///
    /// # Errors
    ///
    /// When the file is damaged, of other questions or cannot be written, or as [`Evaluator::evaluate`].
    pub fn look<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        dir: &Path,
        step: usize,
        model: &ForQuestionAnswering<B, M>,
        precisions: &[SitePrecision],
    ) -> Result<()> {
        let (file, questions) = (dir.join(VALIDATION), self.questions.content());
        let known = read_rows(&file)?;
        if known.iter().any(|row| row.questions != questions) {
            let reason =
                "its rows are of other questions, or of another number of them: look at the same again, or take the \
                          file away, and what was seen before is lost"
                    .into();
            return Err(Error::Checkpoint { path: file, reason });
        }
        if known.iter().filter(|row| row.step == step).count() == precisions.len() {
            return Ok(());
        }
        let plain = model.valid();
        let device = plain.transformer.device();
        let evaluator = Evaluator::new(&plain, self.questions, self.options.clone(), &device)?;
        let row = |precision: &SitePrecision| {
            let found = evaluator.evaluate(&plain.transformer.uniform_plan(*precision))?;
            Ok(ValidationRow {
                step,
                bits: precision.weights,
                exact_match: found.exact_match,
                exact_match_interval: found.exact_match_interval,
                f1: found.f1,
                loss: found.loss,
                n: found.n,
                questions,
            })
        };
        let mut rows = precisions.iter().map(row).collect::<Result<Vec<_>>>()?;
        rows.sort_by_key(|row| row.bits);
        add_rows(&file, known, &rows)
    }
}

/// The rows of a file, in its order; none where there is no file.
///
/// # Errors
///
/// When the file cannot be read, or a line is none of a row, which is named.
pub fn read_rows(file: &Path) -> Result<Vec<ValidationRow>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(file).map_err(|error| Error::io(file, error))?;
    let row = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let reason = format!("line {}: {error}; mend it, or take the file away", index + 1);
            Error::Checkpoint { path: file.to_owned(), reason }
        })
    };
    text.lines().enumerate().map(row).collect()
}

/// Adds the rows of a step to those that a file holds before that step.
fn add_rows(file: &Path, mut known: Vec<ValidationRow>, rows: &[ValidationRow]) -> Result<()> {
    let Some(step) = rows.first().map(|row| row.step) else { return Ok(()) };
    known.retain(|row| row.step < step);
    let mut text = String::new();
    for row in known.iter().chain(rows) {
        text += &serde_json::to_string(row).map_err(|error| Error::json(file, error))?;
        text.push('\n');
    }
    Ok(whole_files::write(file, text.as_bytes())?)
}

/// The exact match of every width over the steps.
pub fn validation_chart(rows: &[ValidationRow]) -> LineChart {
    let mut by_width: BTreeMap<BitWidth, Vec<Point>> = BTreeMap::new();
    for row in rows {
        let interval = charts::Interval { low: row.exact_match_interval.low, high: row.exact_match_interval.high };
        let y = charts::Estimate::new(row.exact_match, interval);
        by_width.entry(row.bits).or_default().push(Point { x: row.step as f64, y });
    }
    let series = by_width.into_iter().map(|(bits, points)| Series::new(format!("{bits} bits"), points));
    LineChart {
        title: "Exact match while the bank is trained".into(),
        subtitle: rows.first().map_or_else(String::new, |row| format!("n = {} questions", row.n)),
        x: Axis::new("steps", ""),
        y: Axis::new("exact match", "%"),
        series: series.collect(),
        ..LineChart::default()
    }
}

#[cfg(test)]
mod tests {
    use charts::Figure as _;

    use super::*;

    fn row(step: usize, bits: BitWidth) -> ValidationRow {
        let exact_match_interval = Interval { low: 10.0, high: 60.0 };
        let questions = ContentHash::of_bytes(b"questions");
        ValidationRow {
            step,
            bits,
            exact_match: 30.0,
            exact_match_interval,
            f1: 40.0,
            loss: Some(1.5),
            n: 12,
            questions,
        }
    }

    #[test]
    fn rows_of_steps_that_are_done_again_take_the_place_of_those_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(VALIDATION);
        let add = |rows: &[ValidationRow]| add_rows(&file, read_rows(&file)?, rows);
        assert!(read_rows(&file).unwrap().is_empty());
        for step in [0, 10, 20] {
            add(&[row(step, BitWidth::B2), row(step, BitWidth::B4)]).unwrap();
        }
        add(&[row(10, BitWidth::B2), row(10, BitWidth::B4)]).unwrap();
        add(&[]).unwrap();
        let steps: Vec<usize> = read_rows(&file).unwrap().iter().map(|row| row.step).collect();
        assert_eq!(steps, [0, 0, 10, 10]);
        assert_eq!(read_rows(&file).unwrap()[3], row(10, BitWidth::B4));
        assert!(validation_chart(&read_rows(&file).unwrap()).png().unwrap().starts_with(b"\x89PNG"));

        let torn = std::fs::read_to_string(&file).unwrap() + "{\"step\": 1}\n";
        std::fs::write(&file, &torn).unwrap();
        let message = add(&[row(30, BitWidth::B2)]).unwrap_err().to_string();
        assert!(message.contains("validation.jsonl") && message.contains("line 5: missing field `bits`"), "{message}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), torn, "nothing is lost");
    }
}
