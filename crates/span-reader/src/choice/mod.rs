//! Plans chosen while the model serves: by a budget, or by the confidence of the answer.
//!
//! ```text
//! controller   request → the best measured plan that fits
//! cascade      answer at few bits; where the calibrated confidence is below a threshold, at more
//! ```
//!
//! | file | what |
//! |---|---|
//! | `front`, `latency`, `fingerprint` | [`MeasuredFront`](front::MeasuredFront): plans with what they give and cost, of one model |
//! | `controller` | [`PrecisionController`](controller::PrecisionController): the plan for a budget or a target |
//! | `resident` | [`ResidentBytes`](resident::ResidentBytes): one memory for all widths against one model for each |
//! | `span_scores`, `temperature`, `calibration` | [`SpanScores`](span_scores::SpanScores): the probability of an answer; [`Temperature`](temperature::Temperature) and its fit |
//! | `cascade` | [`ConfidenceCascade`](cascade::ConfidenceCascade): escalation, batch by batch or one question |
//! | `prompt` | [`Prompt`](prompt::Prompt): questions asked one at a time |
//! | `cascade_table`, `thresholds` | [`CascadeTable`](cascade_table::CascadeTable): all plans on the same questions; thresholds for a target |
//! | `measured_cascade` | [`CalibratedCascade`](measured_cascade::CalibratedCascade): all of it on some plans, to [`MeasuredCascade`](measured_cascade::MeasuredCascade) |
//! | `cascade_curve` | [`CascadeCurve`](cascade_curve::CascadeCurve): accuracy for BitOps against every plan alone |

pub mod calibration;
pub mod cascade;
pub mod cascade_curve;
pub mod cascade_table;
pub mod controller;
pub mod fingerprint;
pub mod front;
pub mod latency;
pub mod measured_cascade;
pub mod prompt;
pub mod resident;
pub mod span_scores;
pub mod temperature;
pub mod thresholds;
