//! Training of a model or of its adapter bank.
//!
//! | file | what |
//! |---|---|
//! | `config` | what a run does, and the checks of it |
//! | `schedule` | learning rate over the steps |
//! | `regime` | which plans a step trains |
//! | `objective` | the loss |
//! | `gradients` | sums and norms of gradients |
//! | `checkpoint` | state on disk, exact resume |
//! | `trainer` | the loop |

mod checkpoint;
mod config;
mod gradients;
mod objective;
mod regime;
mod schedule;
mod trainer;

pub use config::TrainConfig;
pub use objective::{Objective, StepLoss};
pub use regime::{Regime, Single, Static};
pub use schedule::Schedule;
pub use trainer::{TrainOutcome, TrainRun, train};
