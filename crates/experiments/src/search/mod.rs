//! Which widths a model can afford, and where.
//!
//! | file | what |
//! |---|---|
//! | `uniform` | one width everywhere, and where accuracy meets size |
//! | `sensitivity`, `harm_order`, `heat_map` | one part changed at a time |
//! | `greedy` | site after site until a tolerance or a size is reached |
//! | `ladder` | one site one rung lower at a time, down a ladder of widths |
//! | `allocation` | bits per site under a byte budget, exact |
//! | `estimates` | what all sites cost at all precisions, from one backward pass for each question |
//! | `rivals` | a plan beside one width everywhere |
//! | `rounding_table` | roundings and ranges beside each other |
//! | `cascade` | plans read one by one for a cascade of them |
//! | `text` | what searches found as lines of text |

pub mod allocation;
pub mod cascade;
pub mod estimates;
pub mod greedy;
pub mod harm_order;
pub mod heat_map;
pub mod ladder;
pub mod rivals;
pub mod rounding_table;
pub mod sensitivity;
pub mod text;
pub mod uniform;
