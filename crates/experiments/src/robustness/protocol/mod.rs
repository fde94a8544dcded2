//! How robustness is measured.
//!
//! | file | what |
//! |---|---|
//! | `craft` | [`Crafting`](craft::Crafting): an attack made on one plan or several, item by item |
//! | `edit_size`, `robust_accuracy` | how much was changed; the same items clean and attacked |
//! | `matrix` | [`RobustnessProtocol`](matrix::RobustnessProtocol): attacks made on each plan, tried on each |
//! | `threat` | [`Threat`](threat::Threat): a matrix in a few figures, by what the attacker knows |
//! | `attacked_set` | attacked questions as files; other models by their predictions |
//! | `attack_report` | tables and heat maps |

pub mod attack_report;
pub mod attacked_set;
pub mod craft;
pub mod edit_size;
pub mod matrix;
pub mod robust_accuracy;
pub mod threat;
