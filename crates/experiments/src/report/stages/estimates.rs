//! Results as estimates and texts of charts.

use charts::{Axis, Estimate};
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::statistics::Interval;

pub(crate) fn estimate(value: f64, Interval { low, high }: Interval) -> Estimate {
    Estimate::new(value, charts::Interval { low, high })
}

pub(crate) fn exact_match(accuracy: &Accuracy) -> Estimate {
    estimate(accuracy.exact_match, accuracy.exact_match_interval)
}

pub(crate) fn questions(accuracy: &Accuracy) -> String {
    format!("n = {} questions, 95 % intervals", accuracy.n)
}

pub(crate) fn bits_axis() -> Axis {
    Axis::new("weight width", "bits").log2().with_ticks([2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0])
}
