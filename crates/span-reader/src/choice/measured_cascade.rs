//! A cascade of the plans that none betters, from calibration to the curve.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use super::cascade_curve::CascadeCurve;
use super::cascade_table::{CascadeOutcome, CascadeStage, CascadeTable, PlanAnswers, PlanReading};
use super::front::{FrontPoint, MeasuredFront};
use super::latency::LatencyOptions;
use super::thresholds::{CascadeTarget, ThresholdChoice};
use crate::error::{Error, Result};
use crate::evaluation::evaluate::Evaluator;
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reading::ReadingTask;
use crate::text::plan_row;

/// Plans measured, and a cascade of the best of them made ready, all on the same questions.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibratedCascade {
    /// What the plans give and cost.
    pub front: MeasuredFront,
    /// Every plan with the temperature of its confidences.
    pub plans: Vec<CascadeStage>,
    /// Which of them are stages: those that none dominates by bytes, BitOps and exact match, rising in cost.
    pub stages: Vec<usize>,
    /// Thresholds for the target accuracy.
    pub chosen: ThresholdChoice,
    table: CascadeTable,
}

/// What a cascade gives on questions that it was not calibrated on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredCascade {
    /// Thresholds over the whole range of cost, beside every plan alone.
    pub curve: CascadeCurve,
    /// The thresholds for the target accuracy, chosen on the questions of the calibration.
    pub chosen: ThresholdChoice,
    /// What those give.
    pub outcome: CascadeOutcome,
}

impl CalibratedCascade {
    /// Measures plans, fits their temperatures, and chooses thresholds that reach a share of the best
    /// exact match. Without `latency` the plans are not timed, and cost is bytes and BitOps alone.
    ///
    /// # Errors
    ///
    /// When the share is outside [0, 1], there is no plan, an adapter is missing, no window shows an
    /// answer, or the work is stopped.
    pub fn new<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        calibration: &ReadingTask,
        plans: &[SitePlan],
        share: f64,
        (options, latency): (&EvaluateOptions, Option<&LatencyOptions>),
        device: &B::Device,
    ) -> Result<Self> {
        check_share(share)?;
        let read = |plan: &SitePlan| PlanReading::calibrated(model, calibration, plan, options);
        let readings = plans.iter().map(read).collect::<Result<_>>()?;
        let cascade = Self::of_readings(model, plans, readings, share)?;
        match latency {
            Some(latency) => {
                cascade.with_latencies(&Evaluator::new(model, calibration, options.clone(), device)?, latency)
            }
            None => Ok(cascade),
        }
    }

    /// The same of plans that were read one by one, in their order; they are not timed.
    ///
    /// # Errors
    ///
    /// When the share is outside [0, 1], there is no plan, or the readings are of other plans or questions.
    pub fn of_readings<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        plans: &[SitePlan],
        readings: Vec<PlanReading>,
        share: f64,
    ) -> Result<Self> {
        check_share(share)?;
        let stage = |(plan, reading): (&SitePlan, &PlanReading)| CascadeStage {
            plan: plan.clone(),
            temperature: reading.temperature(),
        };
        let all = plans.iter().zip(&readings).map(stage).collect();
        let (body, table) = (&model.transformer, CascadeTable::of_readings(readings)?);
        let is_of_plan = |(plan, answers): (&SitePlan, &PlanAnswers)| body.named_plan(plan) == answers.plan;
        if plans.len() != table.plans().len() || !plans.iter().zip(table.plans()).all(is_of_plan) {
            return Err(Error::option("readings", "of other plans", "one of each plan, in their order"));
        }
        let points = plans.iter().zip(table.plans()).map(|(plan, read)| FrontPoint::new(body, plan, &read.accuracy));
        let front = MeasuredFront::of_points(model, table.n(), points.collect()).without_dominated();
        let is_stage = |&index: &usize| front.points().iter().any(|point| point.plan == table.plans()[index].plan);
        let mut stages: Vec<usize> = (0..plans.len()).filter(is_stage).collect();
        stages.sort_by(|&a, &b| table.bit_ops_per_question(a).total_cmp(&table.bit_ops_per_question(b)));
        let cascade = table.select(&stages);
        let best = cascade.threshold_front()?.last().map_or(0.0, |choice| choice.exact_match);
        let chosen = cascade.choose(CascadeTarget::Accuracy(share * best))?;
        Ok(Self { front, plans: all, stages, chosen, table })
    }

    /// The same with the time of every plan in the front. Stages and thresholds stay: they go by work, so that
    /// they are the same on every machine.
    ///
    /// # Errors
    ///
    /// As [`MeasuredFront::with_latencies`].
    pub fn with_latencies<B: QuantBackend, M: SwitchableModel<B>>(
        self,
        evaluator: &Evaluator<'_, B, M>,
        latency: &LatencyOptions,
    ) -> Result<Self> {
        let front = self.front.with_latencies(evaluator, latency)?.without_dominated();
        Ok(Self { front, ..self })
    }

    /// The stages of the cascade.
    pub fn stages(&self) -> Vec<CascadeStage> {
        self.stages.iter().map(|&index| self.plans[index].clone()).collect()
    }

    /// What it gives on other questions, at most `points` points of the curve.
    ///
    /// # Errors
    ///
    /// When fewer than two points are asked for, or the work is stopped.
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &ForQuestionAnswering<B, M>,
        evaluation: &ReadingTask,
        (points, seed): (usize, u64),
        options: &EvaluateOptions,
    ) -> Result<MeasuredCascade> {
        self.measured(&CascadeTable::measure(model, evaluation, &self.plans, options)?, (points, seed))
    }

    /// The same of plans that were read on other questions, with the temperatures of this cascade.
    ///
    /// # Errors
    ///
    /// When fewer than two points are asked for, or the table is of other plans.
    pub fn measured(&self, measured: &CascadeTable, (points, seed): (usize, u64)) -> Result<MeasuredCascade> {
        let curve = CascadeCurve::new(&self.table, measured, &self.stages, points, seed)?;
        let outcome = measured.select(&self.stages).outcome(&self.chosen.thresholds)?;
        Ok(MeasuredCascade { curve, chosen: self.chosen.clone(), outcome })
    }
}

fn check_share(share: f64) -> Result<()> {
    if (0.0..=1.0).contains(&share) { Ok(()) } else { Err(Error::option("share", share, "a share from 0 to 1")) }
}

impl MeasuredCascade {
    /// Every plan alone and every point of the curve, then the chosen thresholds; `widths` are those of the
    /// plans, which are uniform. The width of a cascade is that at which one plan would do its work.
    pub fn table(&self, widths: &[BitWidth]) -> String {
        let mut text = String::new();
        for (plan, width) in self.curve.plans.iter().zip(widths) {
            let answers = &plan.answers;
            let is_bare = answers.plan.entries().all(|(_, precision)| precision.adapter.is_none());
            let adapter = if is_bare { ", no adapter" } else { "" };
            let row = plan_row(&format!("{width} bits alone{adapter}"), &answers.accuracy, f64::from(width.bits()));
            let (before, after) = (answers.calibration_error_before, answers.calibration_error);
            let work = plan.bit_ops_per_question;
            let _ = writeln!(text, "{row}  {work:.3e} BitOps  calibration error {before:.3} → {after:.3}");
        }
        let first = self.curve.plans.iter().zip(widths).next();
        let per_bit = first.map_or(f64::NAN, |(plan, width)| plan.bit_ops_per_question / f64::from(width.bits()));
        let of_curve = self.curve.cascade.iter().map(|point| ("cascade", &point.outcome));
        for (name, point) in of_curve.chain([("chosen", &self.outcome)]) {
            let label = format!("{name} {}", point.thresholds_text());
            let row = plan_row(&label, &point.accuracy, point.bit_ops_per_question / per_bit);
            let _ = writeln!(text, "{row}  {:.3e} BitOps", point.bit_ops_per_question);
        }
        text
    }
}
