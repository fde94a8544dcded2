//! Training of a model or of its adapter bank.
//!
//! | file | what |
//! |---|---|
//! | `config` | what a run does, and the checks of it |
//! | `schedule`, `objective` | learning rate over the steps; weights of the losses |
//! | `task` | what is trained on; `span_task` spans, `answer_task` answers behind prompts, `text_task` running text |
//! | `epochs` | the order in which a run sees its items |
//! | `perplexity` | how well a model foretells a text |
//! | `branch` | the passes of a step and how their losses combine |
//! | `regimes` | which passes a step runs; `ladder` the plans they choose from |
//! | `gradients` | sums, norms and conflicts of gradients |
//! | `replicas` | copies of the model on further devices |
//! | `step_sizes` | updates of learned steps |
//! | `checkpoint` | state on disk, exact resume; `model_identity` what the model must be |
//! | `trainer` | the loop |

pub mod answer_task;
pub mod branch;
mod checkpoint;
pub mod config;
mod epochs;
mod gradients;
pub mod ladder;
mod model_identity;
pub mod objective;
pub mod perplexity;
pub mod regimes;
mod replicas;
pub mod schedule;
pub mod span_task;
mod step_sizes;
pub mod task;
pub mod text_task;
pub mod trainer;
