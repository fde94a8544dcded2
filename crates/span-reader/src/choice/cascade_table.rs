//! What every plan answers to the same questions, and what a cascade of them would give.
//!
//! ```text
//! stage(q)  = the first k with confidence_k(q) ≥ threshold_k, else the last
//! BitOps(q) = tokens(q) · Σ over k ≤ stage(q) of BitOps per token of plan k
//! ```
//!
//! Tokens are those of all windows of a question, padding left out. A question that escalates has paid
//! for every stage that it went through.

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Decoded, Predictions, QuestionScore, evaluate};
use switchable_lora::precision_plan::PrecisionPlan;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use super::calibration::expected_calibration_error;
use super::span_scores::{SpanScores, refuse_no_answer};
use super::temperature::Temperature;
use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::evaluation::accuracy::Accuracy;
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reader::Reader;
use crate::evaluation::reading::ReadingTask;

/// A plan with the temperature of its confidences.
#[derive(Debug, Clone, PartialEq)]
pub struct CascadeStage {
    /// The plan.
    pub plan: SitePlan,
    /// Divides its scores.
    pub temperature: Temperature,
}

/// One plan on all questions of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanAnswers {
    /// The plan.
    pub plan: PrecisionPlan,
    /// Bit operations of the sites and of their adapters per token.
    pub bit_ops_per_token: f64,
    /// Accuracy where every question is answered under this plan.
    pub accuracy: Accuracy,
    /// The temperature of the confidences.
    pub temperature: Temperature,
    /// Expected calibration error at a temperature of 1.
    pub calibration_error_before: f64,
    /// Expected calibration error at the temperature.
    pub calibration_error: f64,
    /// Calibrated confidence of each answer; not saved.
    #[serde(skip)]
    pub confidences: Vec<f64>,
}

/// One plan on the questions of a table as it is saved and known again: what a saved [`PlanAnswers`] has not
/// stands beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanReading {
    answers: PlanAnswers,
    /// Scores of the questions.
    scores: Vec<QuestionScore>,
    /// Confidences of the answers.
    confidences: Vec<f64>,
    /// Tokens of the questions.
    tokens: Vec<usize>,
}

impl PlanReading {
    /// Reads the questions under a plan and fits its temperature to them.
    ///
    /// # Errors
    ///
    /// When there is no question, an adapter is missing, or the work is stopped.
    pub fn calibrated<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        task: &ReadingTask,
        plan: &SitePlan,
        options: &EvaluateOptions,
    ) -> Result<Self> {
        Self::read(&Reader { model, options }, task, plan, Temperature::fit)
    }

    /// Reads the questions under a plan, with a temperature from elsewhere.
    ///
    /// # Errors
    ///
    /// When an adapter is missing, or the work is stopped.
    pub fn measured<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        task: &ReadingTask,
        stage: &CascadeStage,
        options: &EvaluateOptions,
    ) -> Result<Self> {
        Self::read(&Reader { model, options }, task, &stage.plan, |_, _| Ok(stage.temperature))
    }

    fn read<B: QuantBackend, M: SwitchableModel<B>>(
        reader: &Reader<'_, B, M>,
        task: &ReadingTask,
        plan: &SitePlan,
        temperature: impl FnOnce(&[SpanScores], &[f64]) -> Result<Temperature>,
    ) -> Result<Self> {
        refuse_no_answer(reader.options)?;
        let questions = reader.read(&task.features, task.special.pad, plan)?.questions;
        let tokens = questions.iter().map(|question| question.tokens).collect();
        let spans = questions.iter().enumerate();
        let spans: Vec<SpanScores> =
            spans.map(|(example, read)| SpanScores::new(&task.features, example, read)).collect();
        let decoded: Vec<Decoded> = questions.into_iter().map(|read| read.decoded).collect();
        let mut accuracy = accuracy_of(task, &decoded)?;
        let right: Vec<f64> = accuracy.scores.iter().map(|score| score.exact).collect();
        let temperature = temperature(&spans, &right)?;
        let at = |temperature| spans.iter().map(|spans| spans.confidence(temperature)).collect::<Vec<f64>>();
        let confidences = at(temperature);
        let scores = std::mem::take(&mut accuracy.scores);
        let body = &reader.model.transformer;
        let answers = PlanAnswers {
            plan: body.named_plan(plan),
            bit_ops_per_token: Cost::of(body, plan).bit_ops_per_token,
            temperature,
            calibration_error_before: expected_calibration_error(&at(Temperature::ONE), &right),
            calibration_error: expected_calibration_error(&confidences, &right),
            accuracy,
            confidences: Vec::new(),
        };
        Ok(Self { answers, scores, confidences, tokens })
    }

    /// The temperature of the confidences.
    pub fn temperature(&self) -> Temperature {
        self.answers.temperature
    }

    /// The answers with all that belongs to them.
    fn whole(self) -> PlanAnswers {
        let Self { mut answers, scores, confidences, .. } = self;
        answers.accuracy.scores = scores;
        PlanAnswers { confidences, ..answers }
    }
}

/// What plans answer to the same questions.
#[derive(Debug, Clone, PartialEq)]
pub struct CascadeTable {
    tokens: Vec<usize>,
    plans: Vec<PlanAnswers>,
}

/// What a cascade gives on the questions of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CascadeOutcome {
    /// The confidence below which each stage but the last escalates.
    pub thresholds: Vec<f64>,
    /// Accuracy over all questions.
    pub accuracy: Accuracy,
    /// Mean bit operations of the sites and their adapters for a question, all its stages together.
    pub bit_ops_per_question: f64,
    /// Questions that each stage read.
    pub reached: Vec<usize>,
}

impl CascadeOutcome {
    /// The thresholds to two significant digits, `1, 0.15, 3.2e-5`; `none` for a single plan.
    pub fn thresholds_text(&self) -> String {
        let shown = |&threshold: &f64| match threshold {
            0.0 | 1.0 => format!("{threshold}"),
            _ if threshold < 1e-3 => format!("{threshold:.1e}"),
            _ if threshold < 0.01 => format!("{threshold:.4}"),
            _ if threshold < 0.1 => format!("{threshold:.3}"),
            _ => format!("{threshold:.2}"),
        };
        let shown: Vec<String> = self.thresholds.iter().map(shown).collect();
        if shown.is_empty() { "none".into() } else { shown.join(", ") }
    }
}

impl CascadeTable {
    /// Reads the questions under every plan and fits each plan's temperature to them.
    ///
    /// These questions are for fitting and for choosing thresholds: what the choice gives is measured
    /// on others, by [`measure`](Self::measure).
    ///
    /// # Errors
    ///
    /// When there is no plan or no question, an adapter is missing, or the work is stopped.
    pub fn calibrate<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        task: &ReadingTask,
        plans: &[SitePlan],
        options: &EvaluateOptions,
    ) -> Result<(Vec<CascadeStage>, Self)> {
        let read = |plan: &SitePlan| PlanReading::calibrated(model, task, plan, options);
        let readings = plans.iter().map(read).collect::<Result<Vec<_>>>()?;
        let stage = |(plan, reading): (&SitePlan, &PlanReading)| CascadeStage {
            plan: plan.clone(),
            temperature: reading.temperature(),
        };
        let stages = plans.iter().zip(&readings).map(stage).collect();
        Ok((stages, Self::of_readings(readings)?))
    }

    /// Reads the questions under every plan, with temperatures from elsewhere.
    ///
    /// # Errors
    ///
    /// When there is no plan, an adapter is missing, or the work is stopped.
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        task: &ReadingTask,
        stages: &[CascadeStage],
        options: &EvaluateOptions,
    ) -> Result<Self> {
        let read = |stage: &CascadeStage| PlanReading::measured(model, task, stage, options);
        Self::of_readings(stages.iter().map(read).collect::<Result<_>>()?)
    }

    /// The table of plans that were read one by one.
    ///
    /// # Errors
    ///
    /// When there is none, or they are of other questions than one another.
    pub fn of_readings(readings: Vec<PlanReading>) -> Result<Self> {
        let tokens = readings.first().map(|first| first.tokens.clone());
        let tokens = tokens.ok_or_else(|| Error::option("plans", "empty", "at least one plan"))?;
        if readings.iter().any(|reading| reading.tokens != tokens) {
            return Err(Error::option("readings", "of several sets of questions", "one set for all plans"));
        }
        Ok(Self { tokens, plans: readings.into_iter().map(PlanReading::whole).collect() })
    }

    /// Number of questions.
    pub fn n(&self) -> usize {
        self.tokens.len()
    }

    /// The plans, in the order given.
    pub fn plans(&self) -> &[PlanAnswers] {
        &self.plans
    }

    /// Mean bit operations of a question when every question is answered under one plan.
    ///
    /// # Panics
    ///
    /// When there is no such plan.
    pub fn bit_ops_per_question(&self, plan: usize) -> f64 {
        self.plans[plan].bit_ops_per_token * self.tokens.iter().sum::<usize>() as f64 / self.n() as f64
    }

    /// The table of some of the plans, in the order given.
    ///
    /// # Panics
    ///
    /// When there is no such plan.
    pub fn select(&self, plans: &[usize]) -> Self {
        Self { tokens: self.tokens.clone(), plans: plans.iter().map(|&index| self.plans[index].clone()).collect() }
    }

    /// What a cascade of the plans gives with these thresholds: the same as running it.
    ///
    /// # Errors
    ///
    /// When there is not one threshold, 0 to 1, for each plan but the last, or the plans do not rise in
    /// cost.
    pub fn outcome(&self, thresholds: &[f64]) -> Result<CascadeOutcome> {
        check_stages(self.plans.iter().map(|plan| plan.bit_ops_per_token), thresholds)?;
        let mut reached = vec![0; self.plans.len()];
        let mut bit_ops = 0.0;
        let mut scores: Vec<QuestionScore> = Vec::with_capacity(self.n());
        for (question, &tokens) in self.tokens.iter().enumerate() {
            let stage = self.stage(question, thresholds);
            for (plan, reached) in self.plans.iter().zip(&mut reached).take(stage + 1) {
                bit_ops += tokens as f64 * plan.bit_ops_per_token;
                *reached += 1;
            }
            scores.push(self.plans[stage].accuracy.scores[question].clone());
        }
        let mean =
            |value: fn(&QuestionScore) -> f64| 100.0 * scores.iter().map(value).sum::<f64>() / scores.len() as f64;
        let (exact, f1) = (mean(|score| score.exact), mean(|score| score.f1));
        Ok(CascadeOutcome {
            thresholds: thresholds.to_vec(),
            accuracy: Accuracy::new(exact, f1, scores, None),
            bit_ops_per_question: bit_ops / self.n() as f64,
            reached,
        })
    }

    /// The stage that answers a question.
    pub(super) fn stage(&self, question: usize, thresholds: &[f64]) -> usize {
        let confident = |(plan, threshold): (&PlanAnswers, &f64)| plan.confidences[question] >= *threshold;
        self.plans.iter().zip(thresholds).position(confident).unwrap_or(thresholds.len())
    }

    pub(super) fn tokens(&self) -> &[usize] {
        &self.tokens
    }

    /// A table of plans without models: tokens of the questions; of each plan the BitOps per token and,
    /// question by question, the confidence and whether the answer is right.
    #[cfg(test)]
    pub(super) fn of_numbers(tokens: &[usize], plans: &[(f64, &[(f64, bool)])]) -> Self {
        let plan = |(bit_ops, answers): &(f64, &[(f64, bool)])| {
            let score = |(i, (_, right)): (usize, &(f64, bool))| {
                let exact = f64::from(u8::from(*right));
                QuestionScore { id: i.to_string(), exact, f1: exact, has_answer: true }
            };
            PlanAnswers {
                plan: PrecisionPlan::default(),
                bit_ops_per_token: *bit_ops,
                accuracy: Accuracy::new(0.0, 0.0, answers.iter().enumerate().map(score).collect(), None),
                temperature: Temperature::ONE,
                calibration_error_before: 0.0,
                calibration_error: 0.0,
                confidences: answers.iter().map(|answer| answer.0).collect(),
            }
        };
        Self { tokens: tokens.to_vec(), plans: plans.iter().map(plan).collect() }
    }
}

/// Accuracy of answers, with one score for each question of the task.
pub(super) fn accuracy_of(task: &ReadingTask, decoded: &[Decoded]) -> Result<Accuracy> {
    let evaluation = evaluate(&task.dataset, &Predictions::from(decoded))?;
    if evaluation.scores.len() != decoded.len() {
        let expected = format!("{}, one id for each question", decoded.len());
        return Err(Error::option("ids", evaluation.scores.len(), expected));
    }
    Ok(Accuracy::new(evaluation.exact_match, evaluation.f1, evaluation.scores, None))
}

/// Checks the thresholds, and that each stage costs more than the one before.
pub(super) fn check_stages(bit_ops: impl ExactSizeIterator<Item = f64>, thresholds: &[f64]) -> Result<()> {
    if bit_ops.len() != thresholds.len() + 1 {
        let expected = format!("{}, one for each stage but the last", bit_ops.len().saturating_sub(1));
        return Err(Error::option("thresholds", format!("{} thresholds", thresholds.len()), expected));
    }
    if let Some(wrong) = thresholds.iter().find(|threshold| !(0.0..=1.0).contains(*threshold)) {
        return Err(Error::option("threshold", wrong, "0 to 1"));
    }
    let costs: Vec<f64> = bit_ops.collect();
    if let Some((first, second)) = costs.iter().zip(&costs[1..]).find(|(first, second)| first >= second) {
        return Err(Error::option("stages", format!("{first:e} BitOps before {second:e}"), "rising BitOps"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_pays_for_every_stage_it_went_through() {
        let low = [(0.9, true), (0.5, false), (0.2, false)];
        let mid = [(0.9, true), (0.8, true), (0.3, false)];
        let high = [(1.0, true), (0.1, false), (0.1, true)];
        let table = CascadeTable::of_numbers(&[10, 20, 40], &[(2.0, &low), (3.0, &mid), (8.0, &high)]);
        let outcome = table.outcome(&[0.6, 0.7]).unwrap();
        // The first stays at 2, the second pays 2 + 3, the third 2 + 3 + 8.
        assert!((outcome.bit_ops_per_question - (10.0 * 2.0 + 20.0 * 5.0 + 40.0 * 13.0) / 3.0).abs() < 1e-9);
        assert_eq!(outcome.reached, [3, 2, 1]);
        assert!((outcome.accuracy.exact_match - 100.0).abs() < 1e-9);
        // A confidence at the threshold stays.
        assert_eq!(table.outcome(&[0.5, 0.7]).unwrap().reached, [3, 1, 1]);
        let never = table.outcome(&[0.0, 0.0]).unwrap();
        assert_eq!(never.reached, [3, 0, 0]);
        assert!((never.bit_ops_per_question - table.bit_ops_per_question(0)).abs() < 1e-9);
    }

    #[test]
    fn thresholds_are_shown_to_two_digits() {
        let plan: &[(f64, bool)] = &[(0.5, true)];
        let text = |thresholds: &[f64]| {
            let plans: Vec<(f64, &[(f64, bool)])> = (0..=thresholds.len()).map(|i| (1.0 + i as f64, plan)).collect();
            CascadeTable::of_numbers(&[10], &plans).outcome(thresholds).unwrap().thresholds_text()
        };
        assert_eq!(text(&[]), "none");
        assert_eq!(text(&[1.0, 0.0, 0.149, 0.0262]), "1, 0, 0.15, 0.026");
        assert_eq!(text(&[0.00518, 3.24e-5]), "0.0052, 3.2e-5");
    }

    #[test]
    fn thresholds_and_stages_that_make_no_cascade_are_refused() {
        let message = |costs: &[f64], thresholds: &[f64]| {
            check_stages(costs.iter().copied(), thresholds).unwrap_err().to_string()
        };
        for wrong in [-0.1, 1.1, f64::NAN] {
            let message = message(&[1.0, 2.0], &[wrong]);
            assert!(message.contains("`threshold`") && message.contains("0 to 1"), "{message}");
        }
        assert!(message(&[1.0, 2.0], &[]).contains("expected 1, one for each stage but the last"));
        assert!(message(&[], &[]).contains("expected 0"));
        assert!(message(&[2.0, 2.0], &[0.5]).contains("rising BitOps"));
        check_stages([1.0].into_iter(), &[]).unwrap();
    }
}
