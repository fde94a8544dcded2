//! Plans evaluated on questions.
//!
//! | file | what |
//! |---|---|
//! | `reading` | questions cut into windows, batches as tensors |
//! | `reader`, `options` | the loop from windows to answers |
//! | `evaluate`, `accuracy` | EM, F1 and loss of a plan, re-using what did not change |
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
pub mod reader;
pub mod reading;
pub mod work;
