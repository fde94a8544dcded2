//! Plans evaluated on questions.
//!
//! | file | what |
//! |---|---|
//! | `reading` | questions cut into windows, batches as tensors |
//! | `evaluate`, `accuracy` | EM, F1 and loss of a plan, re-using what did not change |
//! | `answer_distribution` | loss against the gold span, divergence from another plan |
//! | `floor` | when part of the questions decides a trial |
//! | `work` | block passes done, and done without re-use |
//! | `answer` | one question about one text |
//! | `logits_file` | logits on disk, to compare with another implementation |

pub(crate) mod accuracy;
pub(crate) mod answer;
pub(crate) mod answer_distribution;
pub(crate) mod evaluate;
pub(crate) mod floor;
pub(crate) mod logits_file;
pub(crate) mod reading;
pub(crate) mod work;
