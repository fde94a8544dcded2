//! How long attacks search.

use clap::{Args, ValueEnum};

use switchable_quant::experiments::robustness::attacks::budget::{AttackBudget, SearchEnd};

use crate::arguments::count::parse_count;

/// How long attacks search.
#[derive(Debug, Clone, Copy, Args)]
pub struct AttackBudgetArgs {
    /// Where an attack that searches ends: at the first edit that is answered wrongly, or at its last step; then each item has
    /// the same chances, and the strongest edit that was read is tried at the other widths
    #[arg(long, value_enum, default_value = "first-success", value_name = "first-success|last-step")]
    pub attack_end: AttackEnd,
    /// Times that an attack may ask the model about an item, under each of its plans; by default as many as its steps take; at least
    /// 2 where it goes by gradients, one of them for the gradient
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub attack_readings: Option<usize>,
}

/// Where an attack that searches ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttackEnd {
    /// At the first edit that is answered wrongly
    FirstSuccess,
    /// At its last step
    LastStep,
}

impl AttackBudgetArgs {
    /// The budget that the flags name.
    pub fn budget(self) -> AttackBudget {
        let end = match self.attack_end {
            AttackEnd::FirstSuccess => SearchEnd::FirstSuccess,
            AttackEnd::LastStep => SearchEnd::LastStep,
        };
        AttackBudget { end, readings: self.attack_readings }
    }
}
