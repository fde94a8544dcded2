//! What long work needs.
//!
//! | file | what |
//! |---|---|
//! | `memory` | [`Memory`](memory::Memory): results known from before |
//! | `identity` | whether what is kept belongs to the run at hand |
//! | `outputs` | [`Outputs`](outputs::Outputs): results of this process, each made once |
//! | `progress` | [`Progress`](progress::Progress): bars and lines |

pub mod identity;
pub mod memory;
pub mod outputs;
pub mod progress;
