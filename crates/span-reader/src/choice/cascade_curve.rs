//! Accuracy for BitOps: a cascade against every plan alone.
//!
//! ```text
//! thresholds   from the front on the calibration questions
//! points       (BitOps per question, exact match) of those thresholds on other questions
//! ```

use serde::{Deserialize, Serialize};

use super::cascade_table::{CascadeOutcome, CascadeTable, PlanAnswers};
use crate::error::{Error, Result};
use crate::statistics::PairedComparison;

/// Thresholds chosen on some questions and measured on others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CascadePoint {
    /// Exact match on the questions that the thresholds were chosen on, percent.
    pub calibration_exact_match: f64,
    /// What they give on the other questions.
    pub outcome: CascadeOutcome,
    /// Exact match against that of the last stage alone, question by question.
    pub comparison: PairedComparison,
}

/// A plan alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StaticPoint {
    /// The plan and its accuracy.
    pub answers: PlanAnswers,
    /// Mean bit operations of a question.
    pub bit_ops_per_question: f64,
}

/// A cascade against every plan alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CascadeCurve {
    /// Number of questions that thresholds were chosen on.
    pub calibration_n: usize,
    /// Number of questions that were measured on.
    pub n: usize,
    /// The cascade, rising in BitOps on the calibration questions.
    pub cascade: Vec<CascadePoint>,
    /// Every plan alone.
    pub plans: Vec<StaticPoint>,
}

impl CascadeCurve {
    /// The curve of a cascade of some plans, at most `most` points of it, beside all plans.
    ///
    /// Both tables are of the same plans, on different questions.
    ///
    /// # Errors
    ///
    /// When the tables are of different plans, there are no stages, they do not rise in cost, or fewer
    /// than two points are asked for.
    ///
    /// # Panics
    ///
    /// When there is no such plan.
    pub fn new(
        calibration: &CascadeTable,
        evaluation: &CascadeTable,
        stages: &[usize],
        most: usize,
        seed: u64,
    ) -> Result<Self> {
        let plans = |table: &CascadeTable| table.plans().iter().map(|plan| plan.plan.clone()).collect::<Vec<_>>();
        if plans(calibration) != plans(evaluation) {
            return Err(Error::option("evaluation", "a table of other plans", "the plans of the calibration"));
        }
        let Some(&last) = stages.last() else { return Err(Error::option("stages", "empty", "at least one plan")) };
        if most < 2 {
            return Err(Error::option("most", most, "at least 2 points"));
        }
        let mut front = calibration.select(stages).threshold_front()?;
        if front.len() > most {
            front = (0..most).map(|rank| front[rank * (front.len() - 1) / (most - 1)].clone()).collect();
        }
        let cascade = evaluation.select(stages);
        let alone = &evaluation.plans()[last].accuracy;
        let point = |choice: &super::thresholds::ThresholdChoice| {
            let outcome = cascade.outcome(&choice.thresholds)?;
            let comparison = alone.compare(&outcome.accuracy, seed);
            Ok(CascadePoint { calibration_exact_match: choice.exact_match, outcome, comparison })
        };
        let alone = |(index, answers): (usize, &PlanAnswers)| StaticPoint {
            answers: answers.clone(),
            bit_ops_per_question: evaluation.bit_ops_per_question(index),
        };
        Ok(Self {
            calibration_n: calibration.n(),
            n: evaluation.n(),
            cascade: front.iter().map(point).collect::<Result<_>>()?,
            plans: evaluation.plans().iter().enumerate().map(alone).collect(),
        })
    }
}
