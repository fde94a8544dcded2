//! The whole study as JSON files, figures and one Markdown report (D10 of the study).
//!
//! | file | what |
//! |---|---|
//! | `stage` | [`Stages`]: parts of long work, each saved when it is done |
//! | `study` | [`run_study`]: every analysis on one model |
//! | `searches` | its sensitivities, damage, greedy search and exact allocation |
//! | `regimes`, `robustness`, `dynamic` | its parts on training, attacks and choice at run time |
//! | `pictures` | [`write_figures`]: the PNG files |
//! | `markdown` | [`markdown`]: the text, with every figure's n and interval |

pub mod dynamic;
pub mod markdown;
pub mod pictures;
pub mod regimes;
pub mod robustness;
pub mod searches;
pub mod stage;
pub mod study;

pub use dynamic::{DynamicResults, DynamicStudy};
pub use markdown::{Heading, markdown};
pub use pictures::{cascade_curve, write_figures};
pub use regimes::{CONTESTANTS, RegimeResults, RegimeStudy, contestant_name};
pub use robustness::{RobustnessResults, RobustnessStudy};
pub use searches::{AllocationStudy, GreedyStudy, ReportedPlan};
pub use stage::Stages;
pub use study::{Study, StudyConfig, StudyData, StudyRun, run_study};
