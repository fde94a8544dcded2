//! The section on training regimes.

use std::fmt::Write as _;

use quant_kernels::BitWidth;

use crate::banks::regime_comparison::{exact_match_difference, mean_exact_match};
use crate::error::Result;
use crate::report::regimes::{CYCLIC, STATIC, labels};
use crate::report::study::Study;

pub(super) fn regimes_text(study: &Study) -> Result<String> {
    let Some(regimes) = &study.regimes else { return Ok(String::new()) };
    let Some(first) = regimes.runs.first() else { return Ok(String::new()) };
    let range = &regimes.range;
    let mut text = format!("Precision range test, {} steps at each width:\n\n", range.steps);
    text += "| bits | first loss | last loss | progress, nats |\n|---|---|---|---|\n";
    for width in &range.widths {
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.3} | {:+.3} |",
            width.bits, width.first_loss, width.last_loss, width.progress
        );
    }
    let lowest = match range.lowest {
        Some(bits) => {
            format!("\nThe lowest width with more than {} nats of progress: {bits} bits.\n\n", range.threshold)
        }
        None => format!("\nNo width makes more than {} nats of progress.\n\n", range.threshold),
    };
    text += &lowest;
    let widths: Vec<BitWidth> = first.widths.iter().map(|width| width.bits).collect();
    let header = |text: &mut String, first: &str| {
        let _ = write!(text, "| regime | {first} |");
        for bits in &widths {
            let _ = write!(text, " {bits} bits |");
        }
        let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(widths.len()));
    };
    let seeds: Vec<String> = {
        let mut seeds: Vec<u64> = regimes.runs.iter().map(|run| run.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds.iter().map(ToString::to_string).collect()
    };
    let _ = write!(
        text,
        "Exact match at each width, mean over seeds {} and {} questions; steps and forward BitOps per token of a run.\n\n",
        seeds.join(", "),
        first.widths[0].accuracy.n
    );
    header(&mut text, "steps, BitOps");
    for label in labels(&regimes.runs) {
        let of_label: Vec<_> = regimes.runs.iter().filter(|run| run.contestant.label == label).collect();
        let _ = write!(text, "| {label} | {}, {:.2e} |", of_label[0].contestant.steps, of_label[0].bit_ops);
        for &bits in &widths {
            let mean = mean_exact_match(&regimes.runs, label, bits, 0)?;
            let _ = write!(text, " {:.1} [{:.1}, {:.1}] |", mean.mean, mean.interval.low, mean.interval.high);
        }
        text += "\n";
    }
    text += "\nF1, mean over seeds:\n\n";
    header(&mut text, "final loss, nats");
    for label in labels(&regimes.runs) {
        let of_label: Vec<_> = regimes.runs.iter().filter(|run| run.contestant.label == label).collect();
        let mean = |value: &dyn Fn(&crate::RegimeRun) -> f64| {
            of_label.iter().map(|run| value(run)).sum::<f64>() / of_label.len() as f64
        };
        let _ = write!(text, "| {label} | {:.3} |", mean(&|run| run.final_loss));
        for i in 0..widths.len() {
            let _ = write!(text, " {:.1} |", mean(&|run| run.widths[i].accuracy.f1));
        }
        text += "\n";
    }
    let _ = write!(
        text,
        "\nExact match minus that of `{STATIC}`, pairs of the same seed and question, percent points:\n\n"
    );
    header(&mut text, "");
    for label in labels(&regimes.runs).into_iter().filter(|label| *label != STATIC) {
        let _ = write!(text, "| {label} | |");
        for &bits in &widths {
            let difference = exact_match_difference(&regimes.runs, STATIC, label, bits, 0)?;
            let noise = if difference.is_noise() { ", noise" } else { "" };
            let interval = difference.interval;
            let _ = write!(text, " {:+.1} [{:+.1}, {:+.1}]{noise} |", difference.mean, interval.low, interval.high);
        }
        text += "\n";
    }
    let _ = writeln!(text, "\nHeat maps: `{STATIC}` and `{CYCLIC}`, first seed, each site alone at the low width.");
    Ok(text)
}
