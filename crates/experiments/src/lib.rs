//! Training, evaluation and bit-width search for switchable GPT-2 models.
//!
//! | file | what |
//! |---|---|
//! | `train/` | [`train()`](train::train): AdamW, regimes, checkpoints, exact resume (D6 of the study) |
//! | `banks/` | [`train_bank`]: one adapter per width on a frozen base; regimes against one another (D7) |
//! | `evaluation/` | [`Evaluator`]: EM, F1, loss and divergence of a plan, re-using what did not change |
//! | `search/` | [`uniform_sweep`], [`sensitivity()`], [`greedy_search`], [`DamageTable`] (D1 to D5) |
//! | `dynamic/` | [`PrecisionController`], [`ConfidenceCascade`]: the plan chosen at run time (D9) |
//! | [`robustness`] | attacks, and the attack × inference matrix (D8) |
//! | [`report`] | the whole study, resumable: JSON parts, figures, Markdown (D10) |
//! | `cost` | [`Cost`]: memory in four figures, average bits, BitOps, bytes of the KV cache |
//! | `statistics` | intervals and paired comparisons |
//! | `running/` | JSON files, bars, results known from before, Ctrl-C, several batches at once |
//!
//! # Should I use this crate?
//!
//! Use it to train adapter banks and to search plans. To run a model under a given plan `gpt2-model`
//! is enough.

mod banks;
mod cost;
mod dynamic;
mod error;
mod evaluation;
pub mod report;
pub mod robustness;
mod running;
mod search;
pub mod statistics;
pub mod train;

pub use banks::bank::{BankConfig, BankOverrides, BuildRegime, train_bank, train_bank_with, train_base};
pub use banks::precision_range::{PrecisionRange, WidthProgress, precision_range_test};
pub use banks::regime_comparison::{
    Contestant, RegimeRun, SeededMean, WidthAccuracy, exact_match_difference, mean_exact_match, run_contestant,
    steps_within, training_bit_ops,
};
pub use cost::{Bytes, Cost, macs_per_token, plan_bytes, site_bytes};
pub use dynamic::{
    CalibratedCascade, CascadeAnswer, CascadeCurve, CascadeOutcome, CascadePoint, CascadeRun, CascadeStage,
    CascadeTable, CascadeTarget, ConfidenceCascade, FrontPoint, LatencyConditions, LatencyOptions, MeasuredCascade,
    MeasuredFront, ModelFingerprint, Pick, PlanAnswers, PlanRequest, PrecisionController, ResidentBytes, SpanScores,
    StageWork, StaticPoint, Temperature, ThresholdChoice, expected_calibration_error, nested_model,
};
pub use error::{Error, Result};
pub use evaluation::accuracy::Accuracy;
pub use evaluation::answer::answer;
pub use evaluation::evaluate::{EvaluateOptions, Evaluator, KeptStates};
pub use evaluation::floor::Bounds;
pub use evaluation::logits_file::write_logits;
pub use evaluation::reading::{BatchTensors, ReadingTask};
pub use evaluation::work::Work;
pub use running::artefact::{read_json, write_json, write_text};
pub use running::progress::{Progress, ShowProgress};
pub use running::remember::Remember;
pub use running::stop::StopFlag;
pub use running::workers::Workers;
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
pub use statistics::{Interval, PairedComparison};
pub use train::{
    Branch, Cascade, Cycle, Cyclic, Distance, Joint, Ladder, LayerDropout, Objective, Protection, Random, Regime,
    RegimeConfig, RegimeKind, Schedule, Single, SpanTask, Specialisation, Specialised, Static, TextTask, TrainConfig,
    TrainOutcome, TrainRun, TrainTask, text_loss, train,
};
