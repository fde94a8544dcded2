//! What the examples share: the same flags with the same meaning, and the loading behind them.

mod arguments;
mod input;
mod interrupt;
mod table;

pub use arguments::{HardeningArgs, InputArgs, PerWidth, QuantArgs, RegimeArgs, RunArgs, parse_bits};
pub use input::{Input, load_training_set, resolve_data, resolve_model};
pub use interrupt::stop_on_ctrl_c;
pub use table::{cost_table, interval, plan_table_row};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
