//! Training, evaluation and bit-width search for switchable GPT-2 models.
//!
//! | file | what |
//! |---|---|
//! | `train/` | [`train()`](train::train): AdamW, regimes, checkpoints, exact resume (D6 of the study) |
//! | `banks/` | [`train_bank`]: one adapter per width on a frozen base; regimes against one another (D7) |
//! | `search/` | [`uniform_sweep`], [`sensitivity()`], [`greedy_search`], [`DamageTable`] (D1 to D5) |
//! | [`robustness`] | attacks, and the attack × inference matrix (D8) |
//! | [`report`] | the whole study, resumable: JSON parts, figures, Markdown (D10) |
//! | `running/` | bars, results known from before |
//!
//! # Should I use this crate?
//!
//! Use it to train adapter banks and to search plans. To run a model under a given plan `gpt2-model`
//! is enough.

mod banks;
mod error;
pub mod report;
pub mod robustness;
mod running;
mod search;
pub use span_reader::statistics;
pub mod train;

pub use banks::bank::{BankConfig, BankOverrides, BuildRegime, train_bank, train_bank_with, train_base};
pub use banks::precision_range::{PrecisionRange, WidthProgress, precision_range_test};
pub use banks::regime_comparison::{
    Contestant, RegimeRun, SeededMean, WidthAccuracy, exact_match_difference, mean_exact_match, run_contestant,
    steps_within, training_bit_ops,
};
pub use error::{Error, Result};
pub use running::progress::{Progress, ShowProgress};
pub use running::remember::Remember;
pub use search::allocation::{
    Allocation, Damage, DamageMeasure, DamageOptions, DamageTable, EqualBytes, PrecisionChange, RefineOptions,
    Refinement, SiteDamage, Swap, Verified, measure_damage, measure_damage_remembering,
};
pub use search::greedy::{
    Flip, GreedyOptions, GreedyResult, Ranking, StopAt, TrialLength, TriedFlip, check_tolerance, greedy_search,
    greedy_search_remembering,
};
pub use search::harm_order::HarmOrder;
pub use search::heat_map::{Colour, HeatMap};
pub use search::sensitivity::{Effect, Part, Sensitivity, SensitivityOptions, sensitivity, sensitivity_remembering};
pub use search::uniform::{
    Crossing, CurvePoint, UniformPoint, UniformRow, crossing, normalised_curves, sweep_precisions, uniform_sweep,
};
pub use span_reader::choice::calibration::expected_calibration_error;
pub use span_reader::choice::cascade::{CascadeAnswer, CascadeRun, ConfidenceCascade, StageWork};
pub use span_reader::choice::cascade_curve::{CascadeCurve, CascadePoint, StaticPoint};
pub use span_reader::choice::cascade_table::{CascadeOutcome, CascadeStage, CascadeTable, PlanAnswers};
pub use span_reader::choice::controller::{Pick, PlanRequest, PrecisionController};
pub use span_reader::choice::fingerprint::ModelFingerprint;
pub use span_reader::choice::front::{FrontPoint, MeasuredFront};
pub use span_reader::choice::latency::{LatencyConditions, LatencyOptions};
pub use span_reader::choice::measured_cascade::{CalibratedCascade, MeasuredCascade};
pub use span_reader::choice::resident::ResidentBytes;
pub use span_reader::choice::span_scores::SpanScores;
pub use span_reader::choice::temperature::Temperature;
pub use span_reader::choice::thresholds::{CascadeTarget, ThresholdChoice};
pub use span_reader::cost::{Bytes, Cost, macs_per_token, plan_bytes, site_bytes};
pub use span_reader::evaluation::accuracy::Accuracy;
pub use span_reader::evaluation::answer::answer;
pub use span_reader::evaluation::evaluate::KeptStates;
pub use span_reader::evaluation::floor::Bounds;
pub use span_reader::evaluation::logits_file::write_logits;
pub use span_reader::evaluation::options::EvaluateOptions;
pub use span_reader::evaluation::reading::{BatchTensors, ReadingTask};
pub use span_reader::evaluation::work::Work;
pub use span_reader::running::json_file::{read_json, write_json, write_text};
pub use span_reader::running::stop::StopFlag;
pub use span_reader::running::workers::Workers;
pub use span_reader::statistics::{Interval, PairedComparison};
pub use train::{
    Branch, Cascade, Cycle, Cyclic, Distance, Joint, Ladder, LayerDropout, Objective, Protection, Random, Regime,
    RegimeConfig, RegimeKind, Schedule, Single, SpanTask, Specialisation, Specialised, Static, TextTask, TrainConfig,
    TrainOutcome, TrainRun, TrainTask, text_loss, train,
};

/// Evaluates plans on a GPT-2.
pub type Evaluator<'a, B> = span_reader::evaluation::evaluate::Evaluator<'a, B, gpt2_model::Gpt2<B>>;
