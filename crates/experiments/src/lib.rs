//! Training, evaluation and bit-width search for models of switchable layers.
//!
//! | where | what |
//! |---|---|
//! | [`train`] | [`train()`](train::trainer::train): AdamW, regimes, checkpoints, exact resume (D6 of the study) |
//! | [`banks`] | [`train_bank`]: one adapter per width on a frozen base; regimes against one another (D7) |
//! | [`search`] | [`uniform_sweep`], [`sensitivity()`], [`greedy_search`], [`DamageTable`] (D1 to D5) |
//! | [`robustness`] | attacks, and the attack × inference matrix (D8) |
//! | [`report`] | the whole study, resumable: JSON parts, figures, Markdown (D10) |
//! | [`workbench`] | [`Workbench`]: model, data, settings and memory of a study |
//! | [`running`] | results known from before, bars |
//!
//! # Should I use this crate?
//!
//! Use it to train adapter banks and to search plans. To answer questions under a given plan
//! `span-reader` is enough.

pub mod banks;
pub mod error;
pub mod report;
pub mod robustness;
pub mod running;
pub mod search;
pub mod train;
pub mod workbench;

pub use banks::bank::{BankConfig, train_bank, train_base};
pub use error::{Error, Result};
pub use report::section::{Chart, Section};
pub use report::stage::Stage;
pub use report::study::{StudyConfig, run_study};
pub use robustness::attacks::attack::Attack;
pub use running::memory::Memory;
pub use running::progress::{Progress, ShowProgress};
pub use search::allocation::damage::{DamageOptions, DamageTable, measure_damage};
pub use search::greedy::{GreedyOptions, GreedyStart, greedy_search};
pub use search::sensitivity::{Part, SensitivityOptions, sensitivity};
pub use search::uniform::uniform_sweep;
pub use train::config::TrainConfig;
pub use train::regimes::Regime;
pub use train::trainer::{TrainRun, Training, train};
pub use workbench::{RunSettings, StudyData, Workbench};
