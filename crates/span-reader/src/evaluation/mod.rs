//! Plans evaluated on questions.
//!
//! | file | what |
//! |---|---|
//! | `question_task` | questions in either form: spans, or what is written behind a prompt |
//! | `reading` | questions cut into windows, batches as tensors |
//! | `prompt_task` | questions as prompts, and what is to follow them |
//! | `reader`, `options` | the loop from windows to answers |
//! | `evaluate`, `accuracy` | EM, F1 and loss of a plan |
//! | `span_evaluation` | by windows, re-using what did not change |
//! | `prompt_evaluation` | by prompts |
//! | `answer_distribution` | loss against the gold span, divergence from another plan |
//! | `floor` | when part of the questions decides a trial |
//! | `work` | block passes done, and done without re-use |
//! | `answer` | one question about one text |
//! | `logits_file` | logits on disk, to compare with another implementation |

pub mod accuracy;
pub mod answer;
pub mod answer_distribution;
pub mod evaluate;
pub mod floor;
pub mod logits_file;
pub mod options;
mod prompt_evaluation;
mod prompt_group;
pub mod prompt_task;
pub mod question_task;
pub mod reader;
pub mod reading;
mod span_evaluation;
pub mod work;
