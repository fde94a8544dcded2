//! What searches found as lines of text.

use std::fmt::Write as _;

use quant_kernels::spec::bit_width::BitWidth;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::statistics::Interval;
use span_reader::text::{p_value, plan_row, points, verdict};

use crate::search::allocation::budgets::RefinedAllocation;
use crate::search::allocation::equal_bytes::EqualBytes;
use crate::search::estimates::validation::{EstimateValidation, RankCorrelation, Regret, ValidatedCell};
use crate::search::greedy::{GreedyResult, least_right_answers};
use crate::search::heat_map::HeatMap;
use crate::search::sensitivity::Sensitivity;
use crate::search::uniform::UniformRow;

/// Every width, and whether it costs more than the noise.
pub fn uniform_text(rows: &[UniformRow]) -> String {
    let mut text = "\nthe same width everywhere\n".to_owned();
    for row in rows {
        let width = row.precision.weights;
        let adapter = match (row.precision.adapter, row.bare_sites) {
            (None, _) => "without adapter".to_owned(),
            (Some(_), 0) => "with adapter".to_owned(),
            (Some(_), bare) => format!("with adapter, {bare} sites without"),
        };
        let verdict = if row.is_costly() { "  costs more than the noise" } else { "" };
        let label = format!("{width:>2} bits {adapter}");
        let _ = writeln!(text, "{}{verdict}", plan_row(&label, &row.accuracy, f64::from(width.bits())));
    }
    text
}

/// A line where so few answers are right that a tolerance lets none of them be lost; empty else.
pub fn tolerance_text(tolerance: f64, reference: &Accuracy) -> String {
    let right = (reference.exact_match / 100.0 * reference.n as f64).round() as usize;
    let least = least_right_answers(tolerance);
    if right >= least {
        return String::new();
    }
    format!(
        "{n} questions are too few for a tolerance of {tolerance}: {right} are answered rightly, so that one answer is \
         more than may be lost and the first flip that costs one ends the search. It takes {least} right answers.\n",
        n = reference.n
    )
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
    let low = sites.changed_to.weights;
    let [embeddings, linear]: [Vec<&str>; 2] = [true, false].map(|of_embeddings| {
        let effects = sites
            .effects
            .iter()
            .filter(|effect| effect.site().is_some_and(|site| site.block.is_none()) == of_embeddings);
        effects.map(|effect| effect.name.as_str()).collect()
    });
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
    let flipped = |names: &[&str]| result.flipped.iter().filter(|name| names.contains(&name.as_str())).count();
    let (total, kept) = (linear.len(), flipped(&linear));
    let _ = writeln!(text, "\n{kept} of {total} sites run at {low} bits.");
    if let Some(bits) = sites.embeddings {
        let (kept, all) = (flipped(&embeddings), embeddings.len());
        let _ = writeln!(text, "{kept} of {all} embeddings run at {bits} bits.");
    }
    if result.threshold.is_none() {
        return text;
    }
    if result.reference.exact_match == 0.0 {
        let _ = writeln!(
            text,
            "The model answers nothing exactly at {high} bits, so there is nothing to lose: no site is flipped."
        );
    } else if kept == total {
        let _ = writeln!(
            text,
            "{low} bits everywhere stay within the tolerance: this width costs too little to need a search."
        );
    }
    text
}

/// The allocation of every budget, before and after its swaps.
pub fn budgets_text(rows: &[RefinedAllocation]) -> String {
    let mut text = String::new();
    for RefinedAllocation { budget, verified, refinement, plan } in rows {
        let exact = plan_row(&format!("exact, {budget} bytes"), &verified.accuracy, verified.allocation.average_bits);
        let refined = plan_row("  refined by swaps", &refinement.accuracy, plan.average_weight_bits());
        let _ = writeln!(text, "{exact}\n{refined}");
    }
    text
}

/// Exact allocations against a greedy path, on `n` questions.
pub fn equal_bytes_text(rows: &[EqualBytes], n: usize) -> String {
    let mut text = format!("exact minus greedy at equal bytes, percent points of exact match, n = {n}\n");
    for EqualBytes { bytes, comparison, .. } in rows {
        let (by, p, verdict) = (points(comparison), p_value(comparison.p_value), verdict(comparison));
        let _ = writeln!(text, "{bytes:>12} bytes  {by}  p = {p}: {verdict}");
    }
    text
}

/// How far estimates agree with measurements, and where they err most.
pub fn validation_text(validation: &EstimateValidation) -> String {
    let row = |label: &str, found: &RankCorrelation| {
        let Interval { low, high } = found.interval;
        format!("{label:<10} {:>6.3} [{low:.3}, {high:.3}]  {} cells\n", found.coefficient, found.cells)
    };
    let mut text = "\nestimated damage against measured: rank correlation, its interval over sites\n".to_owned();
    text += &row("all", &validation.all);
    for (bits, found) in &validation.by_width {
        text += &row(&format!("{bits} bits"), found);
    }
    let _ = writeln!(text, "measuring takes {:.0} times the work of estimating", validation.work_ratio);
    for Regret { budget, best, by_estimates } in &validation.regrets {
        let _ = writeln!(
            text,
            "{budget:>12} bytes  damage {by_estimates:.5} nats solved from estimates, {best:.5} from measurements"
        );
    }
    text += "farthest from what was measured:\n";
    for cell in validation.worst(5) {
        let ValidatedCell { site, bits, estimated, measured } = cell;
        let ratio = cell.ratio();
        let _ = writeln!(text, "{site:<20} {bits:>2} bits  {estimated:.3e} for {measured:.3e} nats, {ratio:.3} times");
    }
    text
}

#[cfg(test)]
mod tests {
    use squad_data::QuestionScore;

    use super::*;

    #[test]
    fn a_tolerance_finer_than_one_answer_is_named() {
        let accuracy = |right: usize, n: usize| {
            let score = |i: usize| QuestionScore {
                id: i.to_string(),
                exact: f64::from(u8::from(i < right)),
                f1: 0.0,
                has_answer: true,
            };
            Accuracy::new(100.0 * right as f64 / n as f64, 0.0, (0..n).map(score).collect(), None)
        };
        let text = tolerance_text(0.1, &accuracy(8, 8));
        assert!(text.contains("8 questions are too few for a tolerance of 0.1") && text.contains("11 right"), "{text}");
        assert!(tolerance_text(0.1, &accuracy(10, 60)).contains("10 are answered rightly"));
        assert_eq!(tolerance_text(0.1, &accuracy(11, 60)), "");
        // The line is right: of 10 answers one is too many, of 11 it is not.
        for (right, admits) in [(10, false), (11, true)] {
            let [before, after] = [right, right - 1].map(|right| accuracy(right, 60).exact_match);
            assert_eq!(after > (1.0 - 0.1) * before, admits);
        }
    }
}
