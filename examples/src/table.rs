//! Text tables.

use switchable_quant::reader::cost::{Bytes, Cost};
use switchable_quant::reader::evaluation::accuracy::Accuracy;
use switchable_quant::reader::statistics::Interval;

/// `86.2 [84.0, 88.2]`
pub fn interval(value: f64, interval: Interval) -> String {
    format!("{value:.1} [{:.1}, {:.1}]", interval.low, interval.high)
}

/// One line of a table of plans: label, exact match, F1, average bits.
pub fn plan_table_row(label: &str, accuracy: &Accuracy, average_bits: f64) -> String {
    let exact = interval(accuracy.exact_match, accuracy.exact_match_interval);
    let f1 = interval(accuracy.f1, accuracy.f1_interval);
    format!("{label:<28} EM {exact:<20} F1 {f1:<20} {average_bits:>6.2} bits  n = {}", accuracy.n)
}

/// The four memory figures of a plan.
pub fn cost_table(cost: &Cost) -> String {
    let row = |label: &str, b: Bytes| {
        let kib = |bytes: usize| format!("{:.1} KiB", bytes as f64 / 1024.0);
        format!("  {label:<44} {:>14} of {:>14}  saved {:>5.1} %\n", kib(b.bytes), kib(b.baseline), 100.0 * b.saved)
    };
    row("quantised matrices alone, against fp32", cost.sites)
        + &row("whole model against fp32", cost.whole_vs_fp32)
        + &row("whole model against fp16", cost.whole_vs_fp16)
        + &row("stored: packed, with scales and adapters", cost.stored)
}
