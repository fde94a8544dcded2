//! What long work needs.
//!
//! | file | what |
//! |---|---|
//! | `memory` | [`Memory`](memory::Memory): results known from before |
//! | `computation` | what the numbers mean: a version that saved results carry |
//! | `kept_file` | how a file of it is read |
//! | `outputs` | [`Outputs`](outputs::Outputs): results of this process, each made once |
//! | `share` | [`Share`](share::Share): which part of the work a process does |
//! | `progress` | [`Progress`](progress::Progress): bars and lines |

pub mod computation;
mod kept_file;
pub mod memory;
pub mod outputs;
pub mod progress;
pub mod share;
