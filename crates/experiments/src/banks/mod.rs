//! Adapter banks trained and compared.
//!
//! | file | what |
//! |---|---|
//! | `bank` | one adapter per width on a frozen base |
//! | `bank_accuracy` | accuracy of a bank, width by width |
//! | `contestants` | the contestants of a comparison, as data |
//! | `regime_comparison` | regimes against one another |
//! | `precision_range` | the lowest width that still learns |
//! | `validation` | accuracy of every width while a bank is trained |
//! | `training_cost` | BitOps of a training, and the steps that fit into some |

pub mod bank;
pub mod bank_accuracy;
pub mod contestants;
pub mod learned_grid;
pub mod precision_range;
pub mod regime_comparison;
pub mod sharing;
pub mod training_cost;
pub mod validation;
