//! All attacks in one report: a table, and each matrix as a heat map.

use std::fmt;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::statistics::Interval;
use switchable_model::model::TrainableModel;

use crate::robustness::protocol::craft::{CraftSummary, ItemChoice};
use crate::robustness::protocol::matrix::{AttackMatrix, MatrixRow, RobustnessProtocol};
use crate::robustness::protocol::robust_accuracy::RobustAccuracy;
use crate::search::heat_map::{Colour, write_cell};

/// What a run of the protocol found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackReport {
    /// Items given to every attack.
    pub items: usize,
    /// Which of them are attacked.
    pub item_choice: ItemChoice,
    /// Seed of everything random.
    pub seed: u64,
    /// One matrix per attack.
    pub matrices: Vec<AttackMatrix>,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> RobustnessProtocol<'_, B, M> {
    /// Matrices with what they share.
    pub fn report(&self, matrices: Vec<AttackMatrix>) -> AttackReport {
        AttackReport { items: self.items.len(), item_choice: self.options.items, seed: self.options.seed, matrices }
    }
}

/// The table: one line per attack and source.
///
/// Success and drops are those of the cell whose plan has the source's label, that is the white-box
/// case; where there is none, as for an attack on all plans at once, those of inference at a sampled
/// precision.
impl fmt::Display for AttackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let choice = match self.item_choice {
            ItemChoice::CorrectWhenClean => "those that the source answers exactly when clean",
            ItemChoice::All => "all",
        };
        writeln!(f, "{} items; attacked are {choice}; seed {}", self.items, self.seed)?;
        writeln!(
            f,
            "{:<18} {:<8} {:>4} {:>12} {:>6}  {:<22} {:<26} {:<26} {:>8} {:>7} {:>6} {:>6}",
            "attack",
            "source",
            "n",
            "unattackable",
            "tried",
            "success %",
            "EM drop, points",
            "F1 drop, points",
            "queries",
            "seconds",
            "chars",
            "words"
        )?;
        for matrix in &self.matrices {
            for row in &matrix.rows {
                write_line(f, matrix, row)?;
            }
        }
        let reasons = self.matrices.iter().flat_map(|m| m.rows.iter().map(move |row| (m, row)));
        for (matrix, row) in reasons {
            for (reason, n) in &row.craft.unattackable {
                writeln!(f, "{} on {}: {n} unattackable: {reason}", matrix.attack, row.source)?;
            }
        }
        Ok(())
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, matrix: &AttackMatrix, row: &MatrixRow) -> fmt::Result {
    let CraftSummary { attacked, unattackable, mean_queries, mean_seconds, mean_characters, mean_words, .. } =
        &row.craft;
    let own = matrix.inference.iter().position(|label| *label == row.source);
    let sampled = row.random_precision.as_ref().map(|random| &random.sampled);
    let (tried, cell) = match own.and_then(|own| row.cells.get(own)) {
        Some(cell) => (row.source.as_str(), Some(cell)),
        None => ("random", sampled),
    };
    let with_interval = |value: f64, low: f64, high: f64| format!("{value:.1} [{low:.1}, {high:.1}]");
    let mut columns = [const { String::new() }; 3];
    if let Some(cell) = cell {
        let (success, exact) = (cell.success_interval, cell.exact_match_drop);
        columns = [
            cell.success_rate
                .map_or_else(|| "nothing right".into(), |rate| with_interval(rate, success.low, success.high)),
            with_interval(100.0 * exact.difference, 100.0 * exact.interval.low, 100.0 * exact.interval.high),
            with_interval(cell.f1_drop, cell.f1_drop_interval.low, cell.f1_drop_interval.high),
        ];
    }
    let [success, exact, f1] = columns;
    let unattackable: usize = unattackable.values().sum();
    writeln!(
        f,
        "{:<18} {:<8} {attacked:>4} {unattackable:>12} {tried:>6}  {success:<22} {exact:<26} {f1:<26} \
         {mean_queries:>8.1} {mean_seconds:>7.2} {mean_characters:>6.1} {mean_words:>6.1}",
        matrix.attack, row.source
    )
}

/// Success rates of a matrix with 95 % intervals, percent: sources down, plans across, then inference
/// at random precision, the mean over plans and as sampled, then other models.
#[derive(Debug, Clone, Copy)]
pub struct MatrixMap<'a> {
    matrix: &'a AttackMatrix,
    colour: Colour,
}

impl<'a> MatrixMap<'a> {
    /// A map of a matrix.
    pub fn new(matrix: &'a AttackMatrix, colour: Colour) -> Self {
        Self { matrix, colour }
    }
}

impl fmt::Display for MatrixMap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10}", "made on")?;
        let AttackMatrix { inference, others, .. } = self.matrix;
        let labels = inference.iter().map(String::as_str).chain(["mean", "sampled"]);
        for label in labels.chain(others.iter().map(String::as_str)) {
            write!(f, " {label:>16} ")?;
        }
        writeln!(f, "     n")?;
        for row in &self.matrix.rows {
            write!(f, "{:<10}", row.source)?;
            let with_interval = |cell: &RobustAccuracy| {
                let Interval { low, high } = cell.success_interval;
                (cell.success_rate, format!(" [{low:>3.0}, {high:>3.0}]"))
            };
            let mut cells: Vec<_> = row.cells.iter().map(with_interval).collect();
            if let Some(random) = &row.random_precision {
                // The plans share their items, so there is no interval of this mean.
                cells.push((random.mean_success_rate, String::new()));
                cells.push(with_interval(&random.sampled));
            }
            cells.extend(row.others.iter().map(with_interval));
            for (rate, interval) in cells {
                let text = rate.map_or_else(|| "-".into(), |rate| format!("{rate:.1}{interval}"));
                write_cell(f, self.colour, &format!("{text:>16}"), rate.unwrap_or(0.0) / 100.0)?;
            }
            writeln!(f, " {:>5}", row.craft.attacked)?;
        }
        Ok(())
    }
}
