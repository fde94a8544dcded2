//! Training of a model or of its adapter bank.
//!
//! | file | what |
//! |---|---|
//! | `config` | what a run does, and the checks of it |
//! | `schedule` | learning rate over the steps |
//! | `task` | what is trained on; `span_task` questions, `text_task` running text |
//! | `branch` | the passes of a step and how their losses combine |
//! | `regimes` | which passes a step runs; `ladder` the plans they choose from |
//! | `gradients` | sums, norms and conflicts of gradients |
//! | `step_sizes` | updates of learned steps |
//! | `checkpoint` | state on disk, exact resume |
//! | `trainer` | the loop |

mod branch;
mod checkpoint;
mod config;
mod gradients;
mod ladder;
mod regimes;
mod schedule;
mod span_task;
mod step_sizes;
mod task;
mod text_task;
mod trainer;

pub(crate) use checkpoint::first_difference;

pub use branch::{Branch, Distance, Protection, Teacher};
pub use config::TrainConfig;
pub use ladder::{Ladder, Rung};
pub use regimes::{
    Cascade, Cycle, Cyclic, Joint, LayerDropout, Random, Regime, RegimeConfig, RegimeKind, Single, Specialisation,
    Specialised, Static,
};
pub use schedule::Schedule;
pub use span_task::{Objective, SpanTask};
pub use task::{TaskOutput, TrainTask};
pub use text_task::{TextBatch, TextTask, text_loss};
pub use trainer::{TrainOutcome, TrainRun, train};
