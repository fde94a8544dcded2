//! A cascade calibrated and measured, plan by plan.
//!
//! What is read of each plan, once on the questions that temperatures and thresholds come from and once on the
//! others, is a part of its own that is known again. Times are no part: they are of the machine at hand, and
//! are measured whenever they are asked for.

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::choice::cascade_table::{CascadeStage, CascadeTable, PlanReading};
use span_reader::choice::measured_cascade::{CalibratedCascade, MeasuredCascade};
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::running::memory::Parts;
use crate::running::progress::{Progress, ShowProgress};

/// How a cascade is calibrated and measured.
#[derive(Debug, Clone)]
pub struct CascadeSearch {
    /// How the questions are read.
    pub evaluate: EvaluateOptions,
    /// Share of the best exact match that the thresholds are to reach, 0 to 1.
    pub share: f64,
    /// Most points of the curve, at least 2.
    pub points: usize,
    /// Seed of the bootstraps.
    pub seed: u64,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Plans known from before, one by one; made from the plans and from what says how they are read.
    pub known: Parts,
}

impl CascadeSearch {
    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.share) {
            return Err(Error::option("share", self.share, "a share from 0 to 1"));
        }
        if self.points < 2 {
            return Err(Error::option("points", self.points, "at least 2"));
        }
        Ok(())
    }

    /// Reads the questions under plans, fits their temperatures, and chooses thresholds.
    ///
    /// # Errors
    ///
    /// When an option is out of its range, there is no plan, an adapter is missing, no window shows an answer,
    /// the work is stopped, or what is known from before is of something else; where processes share the work, when any plan
    /// is left to another.
    pub fn calibrate<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &ForQuestionAnswering<B, M>,
        calibration: &ReadingTask,
        plans: &[SitePlan],
    ) -> Result<CalibratedCascade> {
        self.check()?;
        let read = |plan: &SitePlan| Ok(PlanReading::calibrated(model, calibration, plan, &self.evaluate)?);
        let readings = self.readings("calibration", plans, read)?;
        Ok(CalibratedCascade::of_readings(model, plans, readings, self.share)?)
    }

    /// What a cascade gives on other questions.
    ///
    /// # Errors
    ///
    /// As [`calibrate`](Self::calibrate).
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        cascade: &CalibratedCascade,
        model: &ForQuestionAnswering<B, M>,
        evaluation: &ReadingTask,
    ) -> Result<MeasuredCascade> {
        self.check()?;
        let read = |stage: &CascadeStage| Ok(PlanReading::measured(model, evaluation, stage, &self.evaluate)?);
        let readings = self.readings("evaluation", &cascade.plans, read)?;
        Ok(cascade.measured(&CascadeTable::of_readings(readings)?, (self.points, self.seed))?)
    }

    /// Each plan read, or known from before.
    fn readings<T>(
        &self,
        name: &str,
        plans: &[T],
        read: impl Fn(&T) -> Result<PlanReading>,
    ) -> Result<Vec<PlanReading>> {
        let names: Vec<String> = (1..=plans.len()).map(|place| format!("{name}-{place}")).collect();
        let mut progress = Progress::start(name, self.known.count(&names), plans.len(), self.show);
        let readings = self.known.each(&names, |index| {
            let reading = read(&plans[index])?;
            progress.step(format!("plan {}", index + 1));
            Ok(reading)
        })?;
        progress.finish();
        Ok(readings)
    }
}
