//! The whole study as JSON files, figures and one Markdown report (D10 of the study).
//!
//! | file | what |
//! |---|---|
//! | `stage` | [`Stages`]: parts of long work, each saved when it is done |
//! | `study` | [`run_study`]: every analysis on one model |
//! | `pictures` | [`write_figures`]: the PNG files |
//! | `markdown` | [`markdown`]: the text, with every figure's n and interval |

mod markdown;
mod pictures;
mod stage;
mod study;

pub use markdown::{Heading, markdown};
pub use pictures::write_figures;
pub use stage::Stages;
pub use study::{
    AllocationStudy, GreedyStudy, RegimeResults, RegimeStudy, ReportedPlan, Study, StudyConfig, StudyData, StudyRun,
    run_study,
};
