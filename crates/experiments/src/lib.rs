#![doc = include_str!("../README.md")]

pub mod banks;
pub mod document_losses;
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
