//! Plans of one model with what they were measured to give and to cost.
//!
//! ```text
//! q dominates p:  bytes, BitOps and latency of q are no greater, its exact match is no less,
//!                 and one of them is better
//! ```

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::precision_plan::PrecisionPlan;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use super::fingerprint::ModelFingerprint;
use super::latency::{LatencyConditions, LatencyOptions, median_milliseconds};
use crate::cost::{Cost, embedding_bytes, plan_adapter_bytes, plan_bytes};
use crate::error::{Error, Result};
use crate::evaluation::accuracy::Accuracy;
use crate::evaluation::evaluate::Evaluator;
use crate::running::json_file::{read_json, write_json};
use crate::statistics::Interval;

/// The version of the file. The first one named models by SHA-256 and left adapters out of BitOps.
const VERSION: u32 = 3;

/// The version whose bytes are of the weights alone. It is read, and its adapters are added where its model is
/// at hand.
const OF_WEIGHTS_ALONE: u32 = 2;

/// A plan with what it was measured to give and to cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontPoint {
    /// The plan.
    pub plan: PrecisionPlan,
    /// Bytes of the sites packed at the plan's own widths and of the adapters that they use, as
    /// [`plan_bytes`] counts them. A nested memory keeps its 8-bit codes whatever the plan.
    pub site_bytes: usize,
    /// Bytes of the embeddings and the output matrix under the plan, where a plan of the front quantises one of
    /// them; 0 where they are at full precision in all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub embedding_bytes: usize,
    /// Mean width of the weights in bits, weighted by parameters.
    pub average_bits: f64,
    /// Bit operations of the sites and of their adapters per token.
    pub bit_ops_per_token: f64,
    /// Questions answered exactly, percent.
    pub exact_match: f64,
    /// 95 % interval of the exact match, percent.
    pub exact_match_interval: Interval,
    /// Mean token overlap with the best gold answer, percent.
    pub f1: f64,
    /// Median time of one question in milliseconds, under [`MeasuredFront::latency_conditions`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

/// What the plan costs: `3.0 bits, 81920 bytes, 4.12 ms`.
impl fmt::Display for FrontPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} bits, {} bytes", self.average_bits, self.bytes())?;
        self.latency_ms.map_or(Ok(()), |milliseconds| write!(f, ", {milliseconds:.2} ms"))
    }
}

/// Plans measured on one model and one set of questions.
///
/// It is plain JSON, see [`save`](Self::save). What is read is checked, and
/// [`PrecisionController`](super::controller::PrecisionController) checks it against its model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredFront {
    version: u32,
    model: ModelFingerprint,
    n: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latency: Option<LatencyConditions>,
    points: Vec<FrontPoint>,
    #[serde(default)]
    dominated: Vec<FrontPoint>,
}

impl MeasuredFront {
    /// Evaluates plans on the questions of an evaluator.
    ///
    /// # Errors
    ///
    /// When there is no plan, an adapter is missing, or the work is stopped.
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        evaluator: &Evaluator<'_, B, M>,
        plans: &[SitePlan],
    ) -> Result<Self> {
        if plans.is_empty() {
            return Err(Error::option("plans", "empty", "at least one plan"));
        }
        let model = evaluator.model();
        let point = |plan: &SitePlan| Ok(FrontPoint::new(&model.transformer, plan, &evaluator.evaluate(plan)?));
        let points = plans.iter().map(point).collect::<Result<_>>()?;
        Ok(Self::of_points(model, evaluator.task().dataset().len(), points))
    }

    /// Points of a model, all measured on the same so many questions.
    pub(super) fn of_points<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        n: usize,
        mut points: Vec<FrontPoint>,
    ) -> Self {
        if points.iter().all(|point| !quantises_embeddings(&model.transformer, &point.plan)) {
            for point in &mut points {
                point.embedding_bytes = 0;
            }
        }
        let model = ModelFingerprint::of(model);
        Self { version: VERSION, model, n, latency: None, points, dominated: Vec::new() }
    }

    /// The same with the time of every plan on the device at hand, in place of times measured before.
    ///
    /// # Errors
    ///
    /// When the front is of another model, the options are out of range, or the work is stopped.
    pub fn with_latencies<B: QuantBackend, M: SwitchableModel<B>>(
        mut self,
        evaluator: &Evaluator<'_, B, M>,
        options: &LatencyOptions,
    ) -> Result<Self> {
        self = self.of_model(evaluator.model())?;
        let body = &evaluator.model().transformer;
        let all = || self.points.iter().chain(&self.dominated);
        let plans = all().map(|point| Ok(body.resolve(&point.plan)?)).collect::<Result<Vec<SitePlan>>>()?;
        let (conditions, times) = median_milliseconds(evaluator, &plans, options)?;
        for (point, time) in self.points.iter_mut().chain(&mut self.dominated).zip(times) {
            point.latency_ms = Some(time);
        }
        self.latency = Some(conditions);
        Ok(self)
    }

    /// The same with the dominated points set aside: they stay listed under
    /// [`dominated`](Self::dominated), and no controller picks them.
    pub fn without_dominated(mut self) -> Self {
        // Also those that were set aside by other costs.
        self.points.append(&mut self.dominated);
        let all = self.points.clone();
        (self.dominated, self.points) =
            self.points.into_iter().partition(|point| all.iter().any(|other| other.dominates(point)));
        self
    }

    /// The points that a controller picks from.
    pub fn points(&self) -> &[FrontPoint] {
        &self.points
    }

    /// The points that were set aside.
    pub fn dominated(&self) -> &[FrontPoint] {
        &self.dominated
    }

    /// The model that was measured.
    pub fn model(&self) -> &ModelFingerprint {
        &self.model
    }

    /// Number of questions that every point was measured on.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Where and on how many questions the times were measured; `None` where they were not.
    pub fn latency_conditions(&self) -> Option<&LatencyConditions> {
        self.latency.as_ref()
    }

    /// Writes the front as JSON, whole or not at all.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_json(path, self)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// In a file of version 2 the bytes are those of the weights alone; the adapters are added as soon as its
    /// model is at hand, in [`PrecisionController::new`](super::controller::PrecisionController::new) and
    /// [`with_latencies`](Self::with_latencies).
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is not a front of this version, has a field that is not known, or
    /// a number out of its range; the error names the field.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let front: Self = read_json(path)?;
        front.check().map_err(|error| error.in_file(path))?;
        Ok(front)
    }

    /// Checks every number against its range.
    pub(super) fn check(&self) -> Result<()> {
        if ![OF_WEIGHTS_ALONE, VERSION].contains(&self.version) {
            let expected = format!("{VERSION}: a front of another version names models otherwise; measure it anew");
            return Err(Error::option("version", self.version, expected));
        }
        if self.points.is_empty() {
            return Err(Error::option("points", "empty", "at least one point"));
        }
        if self.n == 0 {
            return Err(Error::option("n", 0, "at least one question"));
        }
        self.points.iter().chain(&self.dominated).try_for_each(|point| point.check(self.latency.is_some()))
    }

    /// The front with adapters in all of its bytes, if it is of a model and its points cost there what it says.
    ///
    /// # Errors
    ///
    /// As [`check_model`](Self::check_model).
    pub(super) fn of_model<B: QuantBackend, M: SwitchableModel<B>>(
        mut self,
        model: &ForQuestionAnswering<B, M>,
    ) -> Result<Self> {
        self.check_model(model)?;
        if self.version == VERSION {
            return Ok(self);
        }
        let body = &model.transformer;
        for point in self.points.iter_mut().chain(&mut self.dominated) {
            point.site_bytes += plan_adapter_bytes(body, &body.resolve(&point.plan)?);
        }
        self.version = VERSION;
        // What was dominated by bytes of weights need not be by all bytes.
        if self.dominated.is_empty() { Ok(self) } else { Ok(self.without_dominated()) }
    }

    /// Checks that the front is of a model, and that its points cost there what it says.
    ///
    /// # Errors
    ///
    /// When the model is another, which the error names beside the front's, or a point's plan is not
    /// one of the model or costs something else.
    fn check_model<B: QuantBackend, M: SwitchableModel<B>>(&self, model: &ForQuestionAnswering<B, M>) -> Result<()> {
        let fingerprint = ModelFingerprint::of(model);
        if fingerprint != self.model {
            return Err(Error::OtherModel { front: self.model.to_string(), model: fingerprint.to_string() });
        }
        let body = &model.transformer;
        let all = || self.points.iter().chain(&self.dominated);
        let counts_embeddings = all().any(|point| quantises_embeddings(body, &point.plan));
        for point in all() {
            let plan = body.resolve(&point.plan)?;
            let cost = Cost::of(body, &plan);
            let not_counted = if self.version == OF_WEIGHTS_ALONE { plan_adapter_bytes(body, &plan) } else { 0 };
            let bytes = plan_bytes(body, &plan) - not_counted;
            let of_embeddings = if counts_embeddings { embedding_bytes(body, &plan) } else { 0 };
            if point.embedding_bytes != of_embeddings {
                let expected = format!("{of_embeddings}, the bytes of its plan");
                return Err(Error::option("embedding_bytes", point.embedding_bytes, expected));
            }
            if point.site_bytes != bytes {
                return Err(Error::option("site_bytes", point.site_bytes, format!("{bytes}, the bytes of its plan")));
            }
            for (field, got, expected) in [
                ("average_bits", point.average_bits, cost.average_bits),
                ("bit_ops_per_token", point.bit_ops_per_token, cost.bit_ops_per_token),
            ] {
                // The order of the sums is the same, and so are all their bits.
                if got.to_bits() != expected.to_bits() {
                    return Err(Error::option(field, got, format!("{expected}, that of its plan")));
                }
            }
        }
        Ok(())
    }
}

/// Whether a plan of a model says of an embedding that it is quantised.
fn quantises_embeddings<B: QuantBackend, M: SwitchableModel<B>>(body: &M, plan: &PrecisionPlan) -> bool {
    body.sites().embedding_names().iter().any(|name| !plan.embedding(name).weights.is_full())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_zero(bytes: &usize) -> bool {
    *bytes == 0
}

impl FrontPoint {
    /// What a plan of a model gives and costs.
    pub(super) fn new<B: QuantBackend, M: SwitchableModel<B>>(body: &M, plan: &SitePlan, accuracy: &Accuracy) -> Self {
        let cost = Cost::of(body, plan);
        Self {
            plan: body.named_plan(plan),
            site_bytes: plan_bytes(body, plan),
            embedding_bytes: embedding_bytes(body, plan),
            average_bits: cost.average_bits,
            bit_ops_per_token: cost.bit_ops_per_token,
            exact_match: accuracy.exact_match,
            exact_match_interval: accuracy.exact_match_interval,
            f1: accuracy.f1,
            latency_ms: None,
        }
    }

    /// Bytes of all that the plans of the front may differ in: sites, their adapters, and embeddings where a plan
    /// quantises them.
    pub fn bytes(&self) -> usize {
        self.site_bytes + self.embedding_bytes
    }

    fn check(&self, is_timed: bool) -> Result<()> {
        let Interval { low, high } = self.exact_match_interval;
        let percents = [
            ("exact_match", self.exact_match),
            ("exact_match_interval.low", low),
            ("exact_match_interval.high", high),
            ("f1", self.f1),
        ];
        for (field, percent) in percents {
            if !(0.0..=100.0).contains(&percent) {
                return Err(Error::option(field, percent, "0 to 100 percent"));
            }
        }
        if !self.exact_match_interval.contains(self.exact_match) {
            let expected = format!("an interval that holds {}", self.exact_match);
            return Err(Error::option("exact_match_interval", format!("{low} to {high}"), expected));
        }
        if self.latency_ms.is_some_and(|time| !time.is_finite() || time <= 0.0) {
            let got = self.latency_ms.unwrap_or(f64::NAN);
            return Err(Error::option("latency_ms", got, "a finite number above 0"));
        }
        if self.latency_ms.is_some() != is_timed {
            let (got, expected) = if is_timed { ("missing", "a time") } else { ("a time", "none without `latency`") };
            return Err(Error::option("latency_ms", got, expected));
        }
        Ok(())
    }

    fn dominates(&self, other: &Self) -> bool {
        let latencies = self.latency_ms.zip(other.latency_ms).unwrap_or((0.0, 0.0));
        let pairs = [
            (self.bytes() as f64, other.bytes() as f64),
            (self.bit_ops_per_token, other.bit_ops_per_token),
            latencies,
            (-self.exact_match, -other.exact_match),
        ];
        pairs.iter().all(|(a, b)| a <= b) && pairs.iter().any(|(a, b)| a < b)
    }
}
