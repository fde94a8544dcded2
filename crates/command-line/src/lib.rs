//! What the commands share: the same flags with the same meaning, and the loading behind them.

pub mod adapter_place;
pub mod answering;
pub mod arguments;
pub mod artefact;
pub mod calibration;
mod command_again;
mod command_words;
pub mod contents;
pub mod damages;
mod ending;
pub mod files;
pub mod finished;
mod interrupt;
pub mod ladder;
pub mod logits;
mod made_folders;
pub mod measured_apart;
pub mod mixed_heads;
pub mod model_argument;
pub mod next_command;
pub mod output;
pub mod reported;
pub mod session;
pub mod study_file;
pub mod text_stream;

pub use command_again::command_again;
pub use ending::{Ended, Usage, finish, usage};
pub use interrupt::{resumable, stop_on_ctrl_c, stoppable};

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/GUIDES.md")]
struct Guides;
