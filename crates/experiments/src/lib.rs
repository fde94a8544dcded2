//! Training, evaluation and bit-width search for switchable GPT-2 models.
//!
//! | file | what |
//! |---|---|
//! | `reading` | [`ReadingTask`]: questions cut into windows, batches as tensors |
//! | `bank` | [`train_bank`]: one adapter per width on a frozen base |
//! | `answer` | [`answer()`]: one question about one text |
//! | `train` | [`train()`](train::train): AdamW, regimes, checkpoints, exact resume |
//! | `evaluate`, `accuracy` | [`Evaluator`]: EM, F1 and loss of a plan, re-using what did not change |
//! | `answer_distribution` | loss against the gold span, divergence from another plan |
//! | `harm_order` | [`HarmOrder`]: which of two plans does less harm |
//! | `floor` | [`Bounds`]: when part of the questions decides a trial |
//! | `uniform`, `sensitivity`, `greedy` | the study's D1; D2 and D3; D4 |
//! | `allocation/` | [`DamageTable`]: damage of each site alone, the Pareto front, verified and refined (D5) |
//! | `dynamic/` | [`PrecisionController`], [`ConfidenceCascade`]: the plan chosen at run time (D9) |
//! | `regime_comparison`, `precision_range` | regimes against one another (D7); the lowest width that still learns |
//! | `robustness` | [`robustness`]: attacks, and the attack × inference matrix (D8) |
//! | `cost` | [`Cost`]: memory in four figures, average bits, BitOps, bytes of the KV cache |
//! | `work` | [`Work`]: block passes done, and done without re-use |
//! | `heat_map` | blocks × sub-modules in the terminal |
//! | [`figures`] | line charts, bar charts and heat maps as PNG files |
//! | [`report`] | the whole study, resumable: JSON parts, figures, Markdown (D10) |
//! | `statistics` | intervals and paired comparisons |
//! | `artefact`, `progress`, `stop`, `workers` | JSON files, bars, Ctrl-C, several batches at once |
//!
//! # Should I use this crate?
//!
//! Use it to train adapter banks and to search plans. To run a model under a given plan `gpt2-model`
//! is enough.

mod accuracy;
mod allocation;
mod answer;
mod answer_distribution;
mod artefact;
mod bank;
mod cost;
mod dynamic;
mod error;
mod evaluate;
pub mod figures;
mod floor;
mod greedy;
mod harm_order;
mod heat_map;
mod logits_file;
mod precision_range;
mod progress;
mod reading;
mod regime_comparison;
mod remember;
pub mod report;
pub mod robustness;
mod sensitivity;
pub mod statistics;
mod stop;
pub mod train;
mod uniform;
mod work;
mod workers;

pub use accuracy::Accuracy;
pub use allocation::{
    Allocation, Damage, DamageMeasure, DamageOptions, DamageTable, EqualBytes, PrecisionChange, RefineOptions,
    Refinement, SiteDamage, Swap, Verified, measure_damage, measure_damage_remembering,
};
pub use answer::answer;
pub use artefact::{read_json, write_json, write_text};
pub use bank::{BankConfig, BankOverrides, BuildRegime, train_bank, train_bank_with, train_base};
pub use cost::{Bytes, Cost, macs_per_token, plan_bytes, site_bytes};
pub use dynamic::{
    CalibratedCascade, CascadeAnswer, CascadeCurve, CascadeOutcome, CascadePoint, CascadeRun, CascadeStage,
    CascadeTable, CascadeTarget, ConfidenceCascade, FrontPoint, LatencyConditions, LatencyOptions, MeasuredCascade,
    MeasuredFront, ModelFingerprint, Pick, PlanAnswers, PlanRequest, PrecisionController, ResidentBytes, SpanScores,
    StageWork, StaticPoint, Temperature, ThresholdChoice, expected_calibration_error, nested_model,
};
pub use error::{Error, Result};
pub use evaluate::{EvaluateOptions, Evaluator, KeptStates};
pub use floor::Bounds;
pub use greedy::{
    Flip, GreedyOptions, GreedyResult, Ranking, StopAt, TrialLength, check_tolerance, greedy_search,
    greedy_search_remembering,
};
pub use harm_order::HarmOrder;
pub use heat_map::{Colour, HeatMap};
pub use logits_file::write_logits;
pub use precision_range::{PrecisionRange, WidthProgress, precision_range_test};
pub use progress::{Progress, ShowProgress};
pub use reading::{BatchTensors, ReadingTask};
pub use regime_comparison::{
    Contestant, RegimeRun, SeededMean, WidthAccuracy, exact_match_difference, mean_exact_match, run_contestant,
    steps_within, training_bit_ops,
};
pub use remember::Remember;
pub use sensitivity::{Effect, Part, Sensitivity, SensitivityOptions, sensitivity, sensitivity_remembering};
pub use statistics::{Interval, PairedComparison};
pub use stop::StopFlag;
pub use train::{
    Branch, Cascade, Cycle, Cyclic, Distance, Joint, Ladder, LayerDropout, Objective, Protection, Random, Regime,
    RegimeConfig, RegimeKind, Schedule, Single, SpanTask, Specialisation, Specialised, Static, TextTask, TrainConfig,
    TrainOutcome, TrainRun, TrainTask, text_loss, train,
};
pub use uniform::{
    Crossing, CurvePoint, UniformPoint, UniformRow, crossing, normalised_curves, sweep_precisions, uniform_sweep,
};
pub use work::Work;
pub use workers::Workers;
