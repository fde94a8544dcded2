//! The plan for a request, picked from what was measured.
//!
//! ```text
//! budget c    argmax of exact match   over the points with cost ≤ c
//! target t    argmin of bytes         over the points with exact match ≥ t
//! ```
//!
//! Costs are bytes, BitOps or milliseconds; adapters count in all of them. Ties go to fewer bytes, then fewer BitOps.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use super::front::{FrontPoint, MeasuredFront};
use crate::error::{Error, Result};

/// What is asked of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanRequest {
    /// At most so many bytes of the sites and of the adapters that they use, and of the embeddings where a plan
    /// quantises them, the most accurate.
    Bytes(usize),
    /// At most so many bit operations per token, the most accurate.
    BitOps(f64),
    /// At most so much time for a question, the most accurate.
    Latency(Duration),
    /// At least so much exact match in percent, the smallest. It is the measured share that counts:
    /// the true one lies below it half of the time.
    Accuracy(f64),
    /// The lower end of the exact match's 95 % interval is at least so many percent, the smallest.
    AccuracyForSure(f64),
}

/// Picks plans of one model by what was measured of them.
///
/// Every plan is resolved once, so that a pick is a pair of references: switching between two requests
/// changes no weight and allocates nothing.
#[derive(Debug, Clone)]
pub struct PrecisionController {
    front: MeasuredFront,
    plans: Vec<SitePlan>,
    device: String,
}

/// A point of the front and its plan, resolved for the model.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    /// What was measured.
    pub point: &'a FrontPoint,
    /// The plan to run.
    pub plan: &'a SitePlan,
}

impl PrecisionController {
    /// A controller for a model on the device of a name, see
    /// [`LatencyOptions::device`](super::latency::LatencyOptions::device).
    ///
    /// # Errors
    ///
    /// When the front was measured for another model, holds a number out of its range, or a plan that
    /// is not one of the model or costs something else there.
    pub fn new<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        front: MeasuredFront,
        device: impl Into<String>,
    ) -> Result<Self> {
        front.check()?;
        let front = front.of_model(model)?;
        let resolve = |point: &FrontPoint| Ok(model.transformer.resolve(&point.plan)?);
        let plans = front.points().iter().map(resolve).collect::<Result<_>>()?;
        Ok(Self { front, plans, device: device.into() })
    }

    /// The front.
    pub fn front(&self) -> &MeasuredFront {
        &self.front
    }

    /// All points with their plans, in the order of the front.
    pub fn picks(&self) -> impl ExactSizeIterator<Item = Pick<'_>> {
        self.front.points().iter().zip(&self.plans).map(|(point, plan)| Pick { point, plan })
    }

    /// The budget midway between the smallest and the largest plan.
    pub fn midway_bytes(&self) -> usize {
        let sizes = || self.picks().map(|pick| pick.point.bytes());
        usize::midpoint(sizes().min().unwrap_or(0), sizes().max().unwrap_or(0))
    }

    /// The plan for a request.
    ///
    /// # Errors
    ///
    /// When no plan of the front is good enough, which names the nearest; when a number of the request
    /// is out of its range; or when times are asked for that were not measured on this device.
    pub fn pick(&self, request: PlanRequest) -> Result<Pick<'_>> {
        match request {
            PlanRequest::Bytes(budget) => self.within("bytes", budget as f64, |point| point.bytes() as f64),
            PlanRequest::BitOps(budget) => self.within("bit_ops", budget, |point| point.bit_ops_per_token),
            PlanRequest::Latency(budget) => {
                self.check_device()?;
                let milliseconds = budget.as_secs_f64() * 1e3;
                self.within("latency_ms", milliseconds, |point| point.latency_ms.unwrap_or(f64::INFINITY))
            }
            PlanRequest::Accuracy(target) => {
                self.at_least("accuracy", target, ("the most that was measured", |point| point.exact_match))
            }
            PlanRequest::AccuracyForSure(target) => {
                let what = "the highest lower end of an interval that was measured";
                self.at_least("accuracy_for_sure", target, (what, |point| point.exact_match_interval.low))
            }
        }
    }

    fn check_device(&self) -> Result<()> {
        let expected = || format!("times measured on `{}`", self.device);
        match self.front.latency_conditions() {
            Some(conditions) if conditions.device == self.device => Ok(()),
            Some(conditions) => Err(Error::option("latency.device", format!("`{}`", conditions.device), expected())),
            None => Err(Error::option("latency", "missing", expected())),
        }
    }

    fn within(&self, field: &'static str, budget: f64, cost: impl Fn(&FrontPoint) -> f64) -> Result<Pick<'_>> {
        if budget.is_nan() || budget < 0.0 {
            return Err(Error::option(field, budget, "a number that is not negative"));
        }
        let affordable = self.picks().filter(|pick| cost(pick.point) <= budget);
        let by_accuracy = |a: &Pick<'_>, b: &Pick<'_>| {
            a.point.exact_match.total_cmp(&b.point.exact_match).then_with(|| smaller(b.point, a.point))
        };
        affordable.max_by(by_accuracy).ok_or_else(|| {
            let least = self.picks().map(|pick| cost(pick.point)).fold(f64::INFINITY, f64::min);
            Error::option(field, budget, format!("at least {least}, the least that was measured"))
        })
    }

    fn at_least(
        &self,
        field: &'static str,
        target: f64,
        (what, accuracy): (&str, fn(&FrontPoint) -> f64),
    ) -> Result<Pick<'_>> {
        if !(0.0..=100.0).contains(&target) {
            return Err(Error::option(field, target, "0 to 100 percent"));
        }
        let good = self.picks().filter(|pick| accuracy(pick.point) >= target);
        good.min_by(|a, b| smaller(a.point, b.point)).ok_or_else(|| {
            let most = self.picks().map(|pick| accuracy(pick.point)).fold(0.0, f64::max);
            Error::option(field, target, format!("at most {most:.2} percent, {what}"))
        })
    }
}

/// The order by bytes, then by BitOps, then by accuracy from the top.
fn smaller(a: &FrontPoint, b: &FrontPoint) -> Ordering {
    let bytes = a.bytes().cmp(&b.bytes());
    let bit_ops = bytes.then_with(|| a.bit_ops_per_token.total_cmp(&b.bit_ops_per_token));
    bit_ops.then_with(|| b.exact_match.total_cmp(&a.exact_match))
}
