//! How values are written.

use span_reader::evaluation::accuracy::Accuracy;
use span_reader::statistics::PairedComparison;

/// Exact match with its interval.
pub(crate) fn em(accuracy: &Accuracy) -> String {
    let interval = accuracy.exact_match_interval;
    format!("{:.1} [{:.1}, {:.1}]", accuracy.exact_match, interval.low, interval.high)
}

/// F1 with its interval.
pub(crate) fn f1(accuracy: &Accuracy) -> String {
    format!("{:.1} [{:.1}, {:.1}]", accuracy.f1, accuracy.f1_interval.low, accuracy.f1_interval.high)
}

/// A paired difference in percent points, and whether it is noise.
pub(crate) fn points(comparison: &PairedComparison) -> String {
    let [by, low, high] =
        [comparison.difference, comparison.interval.low, comparison.interval.high].map(|share| 100.0 * share);
    let noise = if comparison.is_noise() { ", noise" } else { "" };
    format!("{by:+.1} [{low:+.1}, {high:+.1}]{noise}")
}

/// A share as percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
