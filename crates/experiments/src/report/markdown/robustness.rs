//! The section on attacks.

use std::fmt::Write as _;

use span_reader::statistics::Interval;

use crate::report::robustness::RobustnessResults;
use crate::robustness::hardening::adversarial_study::Hardening;
use crate::robustness::protocol::matrix::AttackMatrix;
use crate::robustness::protocol::robust_accuracy::RobustAccuracy;
use crate::robustness::protocol::threat::{Threat, ThreatAccuracy};

pub(super) fn robustness_text(results: &RobustnessResults) -> String {
    let mut text =
        "Every attack is made on the width of its row and tried on the width of its column; `all` is made on \
                    all widths at once. Attacked are the questions that the width of the row answers exactly. Share of \
                    right answers made wrong, percent; `mean` over the widths, `drawn` with a width drawn for each \
                    question.\n"
            .to_string();
    for matrix in &results.matrices {
        text += &matrix_text(matrix);
    }
    text
}

/// Training on attacks: its figure stands before it.
pub(super) fn hardening_text(results: &RobustnessResults, seed: u64) -> String {
    let hardened = &results.hardened;
    let Some(first) = hardened.first() else { return String::new() };
    let mut text = format!(
        "The model as it is and after training on `{}` of itself, at the highest width (`{}`) or at a width drawn for \
         each round (`{}`). Exact match of all attacked questions without adapters: clean; attacked where the attacker \
         knows the width; where he takes another for it; where the width is drawn and he guesses one; where it is drawn \
         and he averages over all.\n\n",
        first.matrix.attack,
        Hardening::Adversarial,
        Hardening::RandomPrecision
    );
    let header = |text: &mut String| {
        let _ = write!(text, "| model |");
        for threat in Threat::ALL {
            let _ = write!(text, " {} |", threat.name());
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(Threat::ALL.len()));
    };
    header(&mut text);
    for model in hardened {
        let _ = write!(text, "| {} |", model.hardening);
        for threat in Threat::ALL {
            let cell = model.matrix.under(threat).map(|under| {
                let (value, interval) = under.exact_match(seed);
                format!("{value:.1} [{:.1}, {:.1}], n = {}", interval.low, interval.high, under.n())
            });
            let _ = write!(text, " {} |", cell.unwrap_or_else(|| "–".into()));
        }
        text += "\n";
    }
    text += "\nOne model minus another, item by item, percent points:\n\n";
    header(&mut text);
    let pairs =
        hardened.iter().enumerate().flat_map(|(index, to)| hardened[..index].iter().map(move |from| (to, from)));
    for (to, from) in pairs {
        let _ = write!(text, "| {} − {} |", to.hardening, from.hardening);
        for threat in Threat::ALL {
            let under = [to, from].map(|model| model.matrix.under(threat));
            let _ = write!(text, " {} |", difference(&under, seed));
        }
        text += "\n";
    }
    text
}

fn difference([of, from]: &[Option<ThreatAccuracy>; 2], seed: u64) -> String {
    let difference = of.as_ref().zip(from.as_ref()).and_then(|(of, from)| of.minus(from, seed));
    difference.map_or_else(
        || "–".into(),
        |(by, interval)| {
            let noise = if interval.contains(0.0) { ", noise" } else { "" };
            format!("{by:+.1} [{:+.1}, {:+.1}]{noise}", interval.low, interval.high)
        },
    )
}

fn matrix_text(matrix: &AttackMatrix) -> String {
    let mut text = format!("\n`{}`:\n\n| made on | n | unattackable |", matrix.attack);
    for label in &matrix.inference {
        let _ = write!(text, " {label} |");
    }
    text += " mean | drawn | EM drop, drawn | queries | words changed |\n";
    let _ = writeln!(text, "|---|---|---|{}---|---|---|---|---|", "---|".repeat(matrix.inference.len()));
    for row in &matrix.rows {
        let unattackable: usize = row.craft.unattackable.values().sum();
        let _ = write!(text, "| {} | {} | {unattackable} |", row.source, row.craft.attacked);
        let empty = matrix.inference.len() - row.cells.len();
        for cell in &row.cells {
            let _ = write!(text, " {} |", success(cell));
        }
        text += &" – |".repeat(empty);
        match &row.random_precision {
            Some(random) => {
                let mean = random.mean_success_rate.map_or("–".into(), |rate| format!("{rate:.1}"));
                let drop = &random.sampled.exact_match_drop;
                let Interval { low, high } = drop.interval.scaled(100.0);
                let by = 100.0 * drop.difference;
                let _ = write!(text, " {mean} | {} | {by:+.1} [{low:+.1}, {high:+.1}] |", success(&random.sampled));
            }
            None => text += " – | – | – |",
        }
        let _ = writeln!(text, " {:.1} | {:.1} |", row.craft.mean_queries, row.craft.mean_words);
    }
    text
}

fn success(cell: &RobustAccuracy) -> String {
    let Interval { low, high } = cell.success_interval;
    cell.success_rate.map_or_else(|| "–".into(), |rate| format!("{rate:.1} [{low:.0}, {high:.0}]"))
}
