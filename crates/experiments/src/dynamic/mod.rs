//! Plans chosen while the model serves: by a budget, or by the confidence of the answer (D9 of the study).
//!
//! ```text
//! controller   request → the best measured plan that fits
//! cascade      answer at few bits; where the calibrated confidence is below a threshold, at more
//! ```
//!
//! | file | what |
//! |---|---|
//! | `front`, `latency`, `fingerprint` | [`MeasuredFront`]: plans with what they give and cost, of one model |
//! | `controller` | [`PrecisionController`]: the plan for a budget or a target |
//! | `resident` | [`nested_model`]: one memory for all widths; [`ResidentBytes`] |
//! | `span_scores`, `temperature` | [`SpanScores`]: the probability of an answer; [`Temperature`] |
//! | `cascade` | [`ConfidenceCascade`]: escalation, batch by batch or one question |
//! | `cascade_table`, `thresholds` | [`CascadeTable`]: all plans on the same questions; thresholds for a target |
//! | `measured_cascade` | [`CalibratedCascade`]: all of it on some plans, to [`MeasuredCascade`] |
//! | `cascade_curve` | [`CascadeCurve`]: accuracy for BitOps against every plan alone |

mod cascade;
mod cascade_curve;
mod cascade_table;
mod controller;
mod fingerprint;
mod front;
mod latency;
mod measured_cascade;
mod reader;
mod resident;
mod span_scores;
mod temperature;
mod thresholds;

pub use cascade::{CascadeAnswer, CascadeRun, ConfidenceCascade, StageWork};
pub use cascade_curve::{CascadeCurve, CascadePoint, StaticPoint};
pub use cascade_table::{CascadeOutcome, CascadeStage, CascadeTable, PlanAnswers};
pub use controller::{Pick, PlanRequest, PrecisionController};
pub use fingerprint::ModelFingerprint;
pub use front::{FrontPoint, MeasuredFront};
pub use latency::{LatencyConditions, LatencyOptions};
pub use measured_cascade::{CalibratedCascade, MeasuredCascade};
pub use resident::{ResidentBytes, nested_model};
pub use span_scores::SpanScores;
pub use temperature::{Temperature, expected_calibration_error};
pub use thresholds::{CascadeTarget, ThresholdChoice};
