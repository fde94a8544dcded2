//! A whole matrix in a few figures: accuracy by what the attacker knows.
//!
//! ```text
//! clean         no attack                                             mean over the plans
//! white box     the attacker knows the plan that answers              mean over the diagonal
//! transferred   the attacker takes another plan for it                mean off the diagonal
//! drawn         the plan is drawn, the attacker guesses one           mean over the sources of one plan
//! adaptive      the plan is drawn, the attacker averages over all     the source of all plans
//! ```
//!
//! All are means over the same items of their mean over the cells, so that they, and two models, can be
//! compared item by item.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use span_reader::statistics::{Interval, mean};

use crate::robustness::protocol::matrix::{AttackMatrix, MatrixRow};
use crate::robustness::protocol::robust_accuracy::ItemScores;

/// What the attacker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threat {
    /// There is no attack.
    Clean,
    /// The plan that answers.
    WhiteBox,
    /// Another plan.
    Transferred,
    /// One of the plans, of which one is drawn for each question.
    Drawn,
    /// All plans, of which one is drawn for each question.
    Adaptive,
}

impl Threat {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Clean, Self::WhiteBox, Self::Transferred, Self::Drawn, Self::Adaptive];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::WhiteBox => "white box",
            Self::Transferred => "transferred",
            Self::Drawn => "drawn",
            Self::Adaptive => "drawn, adaptive",
        }
    }
}

/// Exact match of a model on some items: for each the mean over the cells that a [`Threat`] takes.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreatAccuracy {
    /// Item → share of the cells in which it is answered exactly.
    items: BTreeMap<String, f64>,
}

impl AttackMatrix {
    /// Exact match under a threat; `None` where the matrix has no such cell.
    ///
    /// Items that were not attacked are left out. With
    /// [`ItemChoice::All`](crate::robustness::protocol::craft::ItemChoice::All) those are only the ones that cannot be attacked.
    pub fn under(&self, threat: Threat) -> Option<ThreatAccuracy> {
        let place_of = |row: &MatrixRow| self.inference.iter().position(|label| *label == row.source);
        let mut flags: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut take = |items: &[ItemScores], exact: fn(&ItemScores) -> bool| {
            for item in items {
                flags.entry(item.id.clone()).or_default().push(f64::from(u8::from(exact(item))));
            }
        };
        for row in &self.rows {
            let own = place_of(row);
            match threat {
                Threat::Clean => row.cells.iter().for_each(|cell| take(&cell.items, |item| item.clean_exact)),
                Threat::WhiteBox | Threat::Transferred => {
                    for (place, cell) in row.cells.iter().enumerate() {
                        let is_own = own == Some(place);
                        if own.is_some() && is_own == (threat == Threat::WhiteBox) {
                            take(&cell.items, |item| item.attacked_exact);
                        }
                    }
                }
                Threat::Drawn | Threat::Adaptive => {
                    if let Some(random) = &row.random_precision
                        && own.is_some() == (threat == Threat::Drawn)
                    {
                        take(&random.sampled.items, |item| item.attacked_exact);
                    }
                }
            }
        }
        let items: BTreeMap<String, f64> = flags.into_iter().map(|(id, flags)| (id, mean(&flags))).collect();
        (!items.is_empty()).then_some(ThreatAccuracy { items })
    }
}

impl ThreatAccuracy {
    /// Number of items.
    pub fn n(&self) -> usize {
        self.items.len()
    }

    /// Exact match, percent, and its interval.
    pub fn exact_match(&self) -> (f64, Interval) {
        let values: Vec<f64> = self.items.values().copied().collect();
        (100.0 * mean(&values), Interval::of_mean(&values).scaled(100.0))
    }

    /// Exact match of this one minus that of another on the items that both have, percent points, and
    /// its interval; `None` where there is no such item.
    pub fn minus(&self, other: &Self, seed: u64) -> Option<(f64, Interval)> {
        let differences: Vec<f64> =
            self.items.iter().filter_map(|(id, value)| Some(value - other.items.get(id)?)).collect();
        if differences.is_empty() {
            return None;
        }
        Some((100.0 * mean(&differences), Interval::of_difference(&differences, seed).scaled(100.0)))
    }
}

#[cfg(test)]
mod tests {
    use squad_data::QuestionScore;

    use super::*;
    use crate::robustness::protocol::craft::CraftSummary;
    use crate::robustness::protocol::matrix::RandomPrecision;
    use crate::robustness::protocol::robust_accuracy::RobustAccuracy;

    /// A cell over two items: flags when clean and when attacked.
    fn cell(clean: [bool; 2], attacked: [bool; 2]) -> RobustAccuracy {
        let scores = |flags: [bool; 2]| {
            let score = |(id, flag): (usize, bool)| QuestionScore {
                id: id.to_string(),
                exact: f64::from(u8::from(flag)),
                f1: f64::from(u8::from(flag)),
                has_answer: true,
            };
            flags.into_iter().enumerate().map(score).collect::<Vec<_>>()
        };
        RobustAccuracy::new(&scores(clean), &scores(attacked), 0)
    }

    fn row(source: &str, cells: [[bool; 2]; 2], sampled: [bool; 2]) -> MatrixRow {
        let cells: Vec<_> = cells.into_iter().map(|attacked| cell([true, true], attacked)).collect();
        let random = RandomPrecision {
            mean_clean_exact_match: 100.0,
            mean_attacked_exact_match: 0.0,
            mean_clean_f1: 100.0,
            mean_attacked_f1: 0.0,
            mean_success_rate: None,
            sampled: cell([true, true], sampled),
            drawn: vec![0, 0],
        };
        let craft = CraftSummary {
            items: 2,
            not_chosen: 0,
            unattackable: BTreeMap::new(),
            attacked: 2,
            mean_queries: 0.0,
            mean_seconds: 0.0,
            mean_characters: 0.0,
            mean_words: 0.0,
        };
        MatrixRow { source: source.into(), craft, cells, others: vec![], random_precision: Some(random) }
    }

    fn matrix() -> AttackMatrix {
        let rows = vec![
            row("32", [[false, false], [true, false]], [true, false]),
            row("4", [[true, true], [false, true]], [true, true]),
            row("all", [[false, false], [false, false]], [false, true]),
        ];
        let inference = vec!["32".into(), "4".into()];
        AttackMatrix { attack: "test".into(), settings: serde_json::Value::Null, inference, others: vec![], rows }
    }

    #[test]
    fn each_threat_takes_its_own_cells() {
        let matrix = matrix();
        let exact = |threat| matrix.under(threat).unwrap().exact_match().0;
        let expected = [(Threat::Clean, 100.0), (Threat::WhiteBox, 25.0), (Threat::Transferred, 75.0)];
        for (threat, expected) in expected.into_iter().chain([(Threat::Drawn, 75.0), (Threat::Adaptive, 50.0)]) {
            assert!((exact(threat) - expected).abs() < 1e-9, "{threat:?}: {}", exact(threat));
            assert_eq!(matrix.under(threat).unwrap().n(), 2);
        }
    }

    #[test]
    fn a_matrix_without_such_cells_has_no_accuracy() {
        let mut matrix = matrix();
        matrix.rows.truncate(2);
        assert_eq!(matrix.under(Threat::Adaptive), None);
        matrix.rows.clear();
        assert_eq!(matrix.under(Threat::Clean), None);
    }

    #[test]
    fn differences_are_paired_item_by_item() {
        let matrix = matrix();
        let [clean, white] = [Threat::Clean, Threat::WhiteBox].map(|threat| matrix.under(threat).unwrap());
        let (difference, interval) = white.minus(&clean, 0).unwrap();
        assert!((difference + 75.0).abs() < 1e-9);
        assert!(interval.low <= difference && difference <= interval.high);
    }
}
