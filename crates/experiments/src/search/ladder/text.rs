//! What a ladder search found as lines of text.

use std::fmt::Write as _;

use quant_kernels::spec::bit_width::BitWidth;
use span_reader::text::plan_row;
use switchable_model::site_plan::SitePlan;

use crate::search::ladder::result::{LadderResult, LadderStep};

/// The plans on the way at whole mean widths below 9 bits, the last one, and what became of the sites.
pub fn ladder_text(result: &LadderResult, plan: &SitePlan) -> String {
    let mut text = match result.threshold {
        Some(threshold) => format!("\nladder search, stops when EM ≤ {threshold:.1}\n"),
        None => "\nladder search, stops when the plan is small enough\n".to_owned(),
    };
    let steps: Vec<&LadderStep> = result.path.iter().filter(|step| step.accepted).collect();
    for (i, step) in steps.iter().enumerate() {
        let next = steps.get(i + 1).map(|next| next.average_bits);
        let is_last_of_its_width = next.is_none_or(|next| next.floor() < step.average_bits.floor());
        if let (Some(accuracy), true) = (&step.accuracy, is_last_of_its_width && step.average_bits < 9.0) {
            let label = format!("{:>3} {} to {}", i + 1, step.site, step.to);
            let _ = writeln!(text, "{}", plan_row(&label, accuracy, step.average_bits));
        }
    }
    let (taken, undone) = (steps.len(), result.path.len() - steps.len());
    let _ = writeln!(text, "{taken} steps, {undone} undone; {} plans evaluated", result.evaluations);
    text + &widths_text(plan)
}

/// `sites at 8 bits 2, at 4 bits 30, at 3 bits 16`
fn widths_text(plan: &SitePlan) -> String {
    let mut widths: Vec<BitWidth> = plan.iter().map(|(_, precision)| precision.weights).collect();
    widths.sort_unstable_by(|a, b| b.cmp(a));
    let counted = |same: &[BitWidth]| format!("at {} bits {}", same[0], same.len());
    let counts: Vec<String> = widths.chunk_by(|a, b| a == b).map(counted).collect();
    format!("sites {}\n", counts.join(", "))
}
