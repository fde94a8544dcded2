//! Accuracies, comparisons and costs as lines of text.

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::spec::rotation::Rotation;
use switchable_lora::quantisation_settings::QuantisationSettings;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;
use switchable_model::width_heads::HeadChoice;

use crate::cost::{Bytes, Cost};
use crate::error::Result;
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

/// What a plan is called in a row: its width where it has one, and which sites have an adapter.
///
/// `4 bits, with adapters`, `plan, 30 of 48 sites with adapters`, `2 bits, without adapters`.
pub fn plan_label(plan: &SitePlan) -> String {
    let precisions: Vec<SitePrecision> = plan.iter().map(|(_, precision)| precision).collect();
    let uniform = precisions.first().filter(|first| precisions.iter().all(|other| other.weights == first.weights));
    let name = uniform.map_or_else(|| "plan".to_owned(), |first| format!("{} bits", first.weights));
    let adapters = match precisions.iter().filter(|precision| precision.adapter.is_some()).count() {
        0 => "without adapters".to_owned(),
        some if some == precisions.len() => "with adapters".to_owned(),
        some => format!("{some} of {} sites with adapters", precisions.len()),
    };
    format!("{name}, {adapters}")
}

/// How a plan quantises the sites of a model, a line for each way that some of them share.
pub fn quantisers_text<B: QuantBackend, M: SwitchableModel<B>>(model: &M, plan: &SitePlan) -> String {
    let mut ways: Vec<(String, usize)> = Vec::new();
    for (site, precision) in plan.iter() {
        let said = model.site(site).explicit(&precision);
        let QuantisationSettings { weight, activation, placement, .. } = model.site(site).quantisation(&precision);
        let mut parts = Vec::new();
        if !precision.weights.is_full() {
            let rounding = said.rounding.map_or_else(String::new, |rounding| format!(" {rounding}"));
            parts.push(format!("weights {weight}{rounding}"));
        }
        if !precision.activations.is_full() {
            parts.push(format!("activations {activation}"));
        }
        if let Some(rotation) = said.rotation.filter(|rotation| *rotation != Rotation::None && !parts.is_empty()) {
            parts.push(format!("rotation {rotation}"));
        }
        if precision.adapter.is_some() {
            parts.push(format!("adapters {placement}"));
        }
        if let Some(shared) = precision.shared {
            parts.push(format!("with that of {shared} bits"));
        }
        let way = if parts.is_empty() { "full precision".to_owned() } else { parts.join(", ") };
        match ways.iter_mut().find(|(known, _)| *known == way) {
            Some((_, sites)) => *sites += 1,
            None => ways.push((way, 1)),
        }
    }
    let sites = ways.iter().fold(String::new(), |text, (way, sites)| text + &format!("{sites:>3} sites: {way}\n"));
    let embeddings = plan.embeddings().filter(|(_, precision)| !precision.weights.is_full());
    embeddings.fold(sites, |text, (site, precision)| {
        let name = model.sites().name(site);
        let QuantisationSettings { weight, .. } = model.embedding_site(site).quantisation(&precision);
        text + &format!("{name:>9}: {} bits, {weight} by row\n", precision.weights)
    })
}

/// Which span head answers under a plan, as a line; nothing where there is but one.
///
/// # Errors
///
/// Those of [`ForQuestionAnswering::head_of`].
pub fn head_text<B: QuantBackend, M: SwitchableModel<B>>(
    model: &ForQuestionAnswering<B, M>,
    plan: &SitePlan,
) -> Result<String> {
    let head = model.head_of(plan)?;
    if model.head_widths().is_empty() && plan.span_head().is_none() {
        return Ok(String::new());
    }
    Ok(match head {
        HeadChoice::Base => "span head  that of the base\n".to_owned(),
        HeadChoice::Width(bits) => format!("span head  that of the adapters of {bits} bits\n"),
    })
}

/// The four memory figures of a plan.
pub fn cost_table(cost: &Cost) -> String {
    let row = |label: &str, b: Bytes| {
        let kib = |bytes: usize| format!("{:.1} KiB", bytes as f64 / 1024.0);
        format!("  {label:<44} {:>14} of {:>14}  saved {:>5.1} %\n", kib(b.bytes), kib(b.baseline), 100.0 * b.saved)
    };
    let embeddings = if cost.embeddings.bytes < cost.embeddings.baseline {
        row("embeddings with their scales, against fp32", cost.embeddings)
    } else {
        String::new()
    };
    row("quantised matrices alone, against fp32", cost.sites)
        + &embeddings
        + &row("whole model against fp32", cost.whole_vs_fp32)
        + &row("whole model against fp16", cost.whole_vs_fp16)
        + &row("stored: packed, with scales and adapters", cost.stored)
        + &format!(
            "  {:<44} {:>14}\n",
            "adapters that the plan uses",
            format!("{:.1} KiB", cost.adapters as f64 / 1024.0)
        )
}

/// `-10.3 [-12.1, -8.6]`, in percent points.
pub fn points(comparison: &PairedComparison) -> String {
    points_within(100.0 * comparison.difference, in_points(comparison.interval))
}

/// `-10.3 [-12.1, -8.6]`, of a difference and its interval in percent points.
pub fn points_within(difference: f64, interval: Interval) -> String {
    format!("{difference:+.1} {}", bounds(interval))
}

/// `[-12.1, -8.6]`
pub fn bounds(Interval { low, high }: Interval) -> String {
    format!("[{low:+.1}, {high:+.1}]")
}

/// An interval of shares in percent points.
pub fn in_points(shares: Interval) -> Interval {
    Interval { low: 100.0 * shares.low, high: 100.0 * shares.high }
}

/// A bound rounded up: what is printed is no less than what holds; never below 0.
pub fn at_most(bound: f64) -> String {
    format!("{:.1}", ((bound.max(0.0) * 10.0 - 1e-9).ceil() / 10.0).abs())
}

/// `0.031`; `2.99e-36` below a thousandth.
pub fn p_value(p: f64) -> String {
    match p {
        0.0 => "0".to_owned(),
        _ if p < 1e-3 => format!("{p:.2e}"),
        _ => format!("{p:.3}"),
    }
}

/// Whether a difference is one.
pub fn verdict(comparison: &PairedComparison) -> &'static str {
    if comparison.is_noise() { "inside the noise" } else { "outside the noise" }
}

/// A difference with its interval, its p value and what they mean.
pub fn difference(comparison: &PairedComparison) -> String {
    format!("difference {} points, p = {}: {}", points(comparison), p_value(comparison.p_value), verdict(comparison))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_printed_no_lower_than_it_holds() {
        for (bound, printed) in [(0.91, "1.0"), (0.9, "0.9"), (0.0, "0.0"), (-0.3, "0.0"), (14.02, "14.1")] {
            assert_eq!(at_most(bound), printed);
        }
    }

    #[test]
    fn probabilities_have_three_digits_whatever_their_size() {
        for (p, printed) in [(1.0, "1.000"), (0.91, "0.910"), (0.0314, "0.031"), (2.99e-36, "2.99e-36"), (0.0, "0")] {
            assert_eq!(p_value(p), printed);
        }
    }
}
