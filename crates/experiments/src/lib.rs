//! Training, evaluation and bit-width search for switchable GPT-2 models.
//!
//! | file | what |
//! |---|---|
//! | `reading` | [`ReadingTask`]: questions cut into windows, batches as tensors |
//! | `bank` | [`train_bank`]: one adapter per width on a frozen base |
//! | `answer` | [`answer()`]: one question about one text |
//! | `train` | [`train()`](train::train): AdamW, regimes, checkpoints, exact resume |
//! | `evaluate`, `accuracy` | [`Evaluator`]: EM, F1 and loss of a plan, re-using what did not change |
//! | `uniform`, `sensitivity`, `greedy` | one width everywhere; the study's D2, D3 and D4 |
//! | `robustness` | [`robustness`]: attacks, and the attack × inference matrix (D8) |
//! | `cost` | [`Cost`]: memory in four figures, average bits, BitOps |
//! | `heat_map` | blocks × sub-modules in the terminal |
//! | `statistics` | intervals and paired comparisons |
//! | `artefact`, `progress`, `stop`, `workers` | JSON files, bars, Ctrl-C, several batches at once |
//!
//! # Should I use this crate?
//!
//! Use it to train adapter banks and to search plans. To run a model under a given plan `gpt2-model`
//! is enough.

mod accuracy;
mod answer;
mod artefact;
mod bank;
mod cost;
mod error;
mod evaluate;
mod greedy;
mod heat_map;
mod logits_file;
mod progress;
mod reading;
pub mod robustness;
mod sensitivity;
pub mod statistics;
mod stop;
pub mod train;
mod uniform;
mod workers;

pub use accuracy::Accuracy;
pub use answer::answer;
pub use artefact::{read_json, write_json};
pub use bank::{BankConfig, train_bank, train_base};
pub use cost::{Bytes, Cost, macs_per_token};
pub use error::{Error, Result};
pub use evaluate::{EvaluateOptions, Evaluator, KeptStates};
pub use greedy::{Flip, GreedyOptions, GreedyResult, check_tolerance, greedy_search};
pub use heat_map::{Colour, HeatMap};
pub use logits_file::write_logits;
pub use progress::{Progress, ShowProgress};
pub use reading::{BatchTensors, ReadingTask};
pub use sensitivity::{Effect, Part, Sensitivity, SensitivityOptions, sensitivity};
pub use statistics::{Interval, PairedComparison};
pub use stop::StopFlag;
pub use train::{Objective, Regime, Schedule, Single, Static, TrainConfig, TrainOutcome, TrainRun};
pub use uniform::{UniformRow, uniform_sweep};
pub use workers::Workers;
