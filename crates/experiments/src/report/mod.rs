//! The whole study as JSON files, figures and one report, in Markdown and in HTML.
//!
//! | where | what |
//! |---|---|
//! | `stage` | [`Stage`](stage::Stage): one analysis with its options, work, charts and text |
//! | `stages/` | the stages of this crate, a file each |
//! | `study` | [`run_study`](study::run_study): a list of stages on one model |
//! | `html` | the report as one page that needs no network |
//! | `lost_questions` | questions that a plan loses, with their paragraphs |
//! | `section`, `layout` | what a stage adds to a report, and how that is laid out |

pub mod html;
pub mod layout;
pub mod lost_questions;
pub mod section;
pub mod stage;
pub mod stages;
pub mod study;
