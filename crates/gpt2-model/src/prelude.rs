//! GPT-2 and the names that most programs need with it: `use gpt2_model::prelude::*;`.

pub use switchable_model::prelude::*;

pub use crate::Gpt2ForQuestionAnswering;
pub use crate::config::Gpt2Config;
pub use crate::model::Gpt2;
