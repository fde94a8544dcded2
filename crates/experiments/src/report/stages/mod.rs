//! The stages of this crate: options, work, charts and text of each in a file.
//!
//! | file | what |
//! |---|---|
//! | `uniform` | one width everywhere |
//! | `low_width` | the width of the sensitivities and of the greedy search |
//! | `layers` | one block at a time |
//! | `damage` | the damage of every site at every width |
//! | `greedy` | one sub-module at a time, and the greedy search |
//! | `allocation` | exact allocations |
//! | `regimes` | training regimes |
//! | `roundings` | roundings and ranges that know the inputs |
//! | `robustness` | attacks, and training on them |
//! | `dynamic` | plans chosen at run time |
//! | `cells`, `estimates`, `site_maps` | how values are written and drawn |

pub mod allocation;
pub mod cells;
pub mod damage;
pub mod dynamic;
pub mod estimates;
pub mod greedy;
pub mod layers;
pub mod low_width;
pub mod regimes;
pub mod robustness;
pub mod roundings;
pub mod site_maps;
pub mod uniform;
