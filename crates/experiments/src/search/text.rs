//! What searches found as lines of text.

use std::fmt::Write as _;

use quant_kernels::spec::bit_width::BitWidth;
use span_reader::text::plan_row;

use crate::search::greedy::GreedyResult;
use crate::search::heat_map::HeatMap;
use crate::search::sensitivity::Sensitivity;
use crate::search::uniform::UniformRow;

/// Every width, and whether it costs more than the noise.
pub fn uniform_text(rows: &[UniformRow]) -> String {
    let mut text = "\nthe same width everywhere\n".to_owned();
    for row in rows {
        let width = row.precision.weights;
        let adapter = if row.precision.adapter.is_some() { "with adapter" } else { "without adapter" };
        let verdict = if row.is_costly() { "  costs more than the noise" } else { "" };
        let label = format!("{width:>2} bits {adapter}");
        let _ = writeln!(text, "{}{verdict}", plan_row(&label, &row.accuracy, f64::from(width.bits())));
    }
    text
}

/// What each site costs alone.
pub fn sensitivity_text(sites: &Sensitivity) -> String {
    let (bits, n) = (sites.changed_to.weights, sites.reference.n);
    let mut text = format!("\nexact match lost by each site alone at {bits} bits, percent points (n = {n})\n");
    if let Some(map) = HeatMap::new(sites) {
        let _ = write!(text, "{map}");
    }
    if sites.effects.iter().all(|effect| effect.comparison.is_noise()) {
        let _ = writeln!(text, "No site alone costs more than the noise of {n} questions.");
    }
    text
}

/// Every flip of a search from `high` bits with what it did, and how many of the sites were kept.
pub fn greedy_text(result: &GreedyResult, sites: &Sensitivity, high: BitWidth) -> String {
    let (total, low) = (sites.effects.len(), sites.changed_to.weights);
    let mut text = match result.threshold {
        Some(threshold) => format!("\ngreedy search, stops when EM ≤ {threshold:.1}\n"),
        None => "\ngreedy search, stops when the plan is small enough\n".to_owned(),
    };
    for (i, flip) in result.path.iter().enumerate() {
        let verdict = if flip.accepted { "" } else { "  undone: too much is lost" };
        let label = format!("{:>2} {}", i + 1, flip.site);
        let _ = match &flip.accuracy {
            Some(accuracy) => writeln!(text, "{}{verdict}", plan_row(&label, accuracy, flip.average_bits)),
            None => writeln!(text, "{label:<28} EM at most {:.1}{verdict}", flip.exact_match.high),
        };
    }
    let flipped = result.flipped.len();
    let _ = writeln!(text, "\n{flipped} of {total} sites run at {low} bits.");
    if result.reference.exact_match == 0.0 {
        let _ = writeln!(
            text,
            "The model answers nothing exactly at {high} bits, so there is nothing to lose: no site is flipped."
        );
    } else if flipped == total {
        let _ = writeln!(
            text,
            "{low} bits everywhere stay within the tolerance: this width costs too little to need a search."
        );
    }
    text
}
