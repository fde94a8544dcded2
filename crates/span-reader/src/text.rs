//! Accuracies, comparisons and costs as lines of text.

use crate::cost::{Bytes, Cost};
use crate::evaluation::accuracy::Accuracy;
use crate::statistics::{Interval, PairedComparison};

/// `86.2 [84.0, 88.2]`
pub fn interval(value: f64, interval: Interval) -> String {
    format!("{value:.1} [{:.1}, {:.1}]", interval.low, interval.high)
}

/// One line of a table of plans: label, exact match, F1, average bits.
pub fn plan_row(label: &str, accuracy: &Accuracy, average_bits: f64) -> String {
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

/// `-10.3 [-12.1, -8.6]`, in percent points.
pub fn points(comparison: &PairedComparison) -> String {
    let [by, low, high] =
        [comparison.difference, comparison.interval.low, comparison.interval.high].map(|share| 100.0 * share);
    format!("{by:+.1} [{low:+.1}, {high:+.1}]")
}

/// Whether a difference is one.
pub fn verdict(comparison: &PairedComparison) -> &'static str {
    if comparison.is_noise() { "inside the noise" } else { "outside the noise" }
}

/// A difference with its interval, its p value and what they mean.
pub fn difference(comparison: &PairedComparison) -> String {
    format!("difference {} points, p = {:.2e}: {}", points(comparison), comparison.p_value, verdict(comparison))
}
