//! The whole study as JSON files, figures and one Markdown report.
//!
//! | where | what |
//! |---|---|
//! | `stage` | [`Stage`](stage::Stage): one analysis with its options, work, charts and text |
//! | `stages/` | the stages of this crate, a file each |
//! | `study` | [`run_study`](study::run_study): a list of stages on one model |
//! | `section`, `layout` | what a stage adds to a report, and how that is laid out |

pub mod layout;
pub mod section;
pub mod stage;
pub mod stages;
pub mod study;
