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
//! | `resident` | [`ResidentBytes`](resident::ResidentBytes): one memory for all widths against one model for each |
//! | `span_scores`, `temperature` | [`SpanScores`]: the probability of an answer; [`Temperature`] |
//! | `cascade` | [`ConfidenceCascade`]: escalation, batch by batch or one question |
//! | `cascade_table`, `thresholds` | [`CascadeTable`]: all plans on the same questions; thresholds for a target |
//! | `measured_cascade` | [`CalibratedCascade`]: all of it on some plans, to [`MeasuredCascade`] |
//! | `cascade_curve` | [`CascadeCurve`]: accuracy for BitOps against every plan alone |

pub mod cascade;
pub mod cascade_curve;
pub mod cascade_table;
pub mod controller;
pub mod fingerprint;
pub mod front;
pub mod latency;
pub mod measured_cascade;
pub mod reader;
pub mod resident;
pub mod span_scores;
pub mod temperature;
pub mod thresholds;
