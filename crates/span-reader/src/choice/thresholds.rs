//! Thresholds of a cascade for a target accuracy or a target of work.
//!
//! ```text
//! candidates of a stage   0, the middles between neighbouring confidences, 1
//! front                   all combinations, those left out that another betters in BitOps and exact match
//! target accuracy t       the cheapest of the front with exact match ≥ t
//! target BitOps c         the most accurate of the front with BitOps ≤ c
//! ```
//!
//! Where the combinations are too many, every stage keeps candidates at evenly spaced ranks. The exact
//! match of a choice is that of the questions it was made on, and so is on average too high.

use serde::{Deserialize, Serialize};

use super::cascade_table::{CascadeTable, check_stages};
use crate::error::{Error, Result};

/// Combinations of thresholds that are tried.
const MOST_COMBINATIONS: usize = 1 << 16;

/// What thresholds are chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CascadeTarget {
    /// At least so much exact match in percent, by the measured share.
    Accuracy(f64),
    /// At most so many bit operations for a question on average.
    BitOps(f64),
}

/// Thresholds, and what they give on the questions they were chosen on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThresholdChoice {
    /// The confidence below which each stage but the last escalates.
    pub thresholds: Vec<f64>,
    /// Questions answered exactly, percent.
    pub exact_match: f64,
    /// Mean bit operations of a question.
    pub bit_ops_per_question: f64,
}

impl CascadeTable {
    /// The choices that no other betters, rising in BitOps and in exact match.
    ///
    /// # Errors
    ///
    /// When the plans do not rise in cost.
    pub fn threshold_front(&self) -> Result<Vec<ThresholdChoice>> {
        let escalating = self.plans().len() - 1;
        check_stages(self.plans().iter().map(|plan| plan.bit_ops_per_token), &vec![0.0; escalating])?;
        let most = (MOST_COMBINATIONS as f64).powf(1.0 / escalating.max(1) as f64).floor() as usize;
        let candidates: Vec<Vec<f64>> =
            self.plans()[..escalating].iter().map(|plan| candidates(&plan.confidences, most)).collect();
        let mut all = Vec::new();
        let mut digits = vec![0; escalating];
        loop {
            let thresholds = digits.iter().zip(&candidates).map(|(&digit, candidates)| candidates[digit]).collect();
            all.push(self.choice(thresholds));
            // The next combination: the first digit that has room counts up, those before it begin anew.
            let Some(place) = (0..escalating).find(|&place| digits[place] + 1 < candidates[place].len()) else { break };
            digits[..place].fill(0);
            digits[place] += 1;
        }
        all.sort_by(|a, b| {
            let cost = a.bit_ops_per_question.total_cmp(&b.bit_ops_per_question);
            cost.then_with(|| b.exact_match.total_cmp(&a.exact_match))
        });
        let mut best = f64::NEG_INFINITY;
        all.retain(|choice| {
            choice.exact_match > best && {
                best = choice.exact_match;
                true
            }
        });
        Ok(all)
    }

    /// The thresholds for a target.
    ///
    /// # Errors
    ///
    /// When the target is out of its range or beyond what the cascade can do on these questions, which
    /// the error names; or the plans do not rise in cost.
    pub fn choose(&self, target: CascadeTarget) -> Result<ThresholdChoice> {
        let front = self.threshold_front()?;
        let (found, field, got, expected) = match target {
            CascadeTarget::Accuracy(percent) => {
                if !(0.0..=100.0).contains(&percent) {
                    return Err(Error::option("accuracy", percent, "0 to 100 percent"));
                }
                let most = front.last().map_or(0.0, |choice| choice.exact_match);
                let found = front.iter().find(|choice| choice.exact_match >= percent);
                (found, "accuracy", percent, format!("at most {most:.2} percent, the most that thresholds give"))
            }
            CascadeTarget::BitOps(budget) => {
                let least = front.first().map_or(0.0, |choice| choice.bit_ops_per_question);
                let found = front.iter().rfind(|choice| choice.bit_ops_per_question <= budget);
                (found, "bit_ops", budget, format!("at least {least}, those of the first stage alone"))
            }
        };
        found.cloned().ok_or_else(|| Error::option(field, got, expected))
    }

    fn choice(&self, thresholds: Vec<f64>) -> ThresholdChoice {
        let (mut right, mut bit_ops) = (0.0, 0.0);
        for (question, &tokens) in self.tokens().iter().enumerate() {
            let stage = self.stage(question, &thresholds);
            right += self.plans()[stage].accuracy.scores[question].exact;
            for plan in &self.plans()[..=stage] {
                bit_ops += tokens as f64 * plan.bit_ops_per_token;
            }
        }
        let n = self.n() as f64;
        ThresholdChoice { thresholds, exact_match: 100.0 * right / n, bit_ops_per_question: bit_ops / n }
    }
}

/// At most so many thresholds, rising, 0 and 1 among them.
fn candidates(confidences: &[f64], most: usize) -> Vec<f64> {
    let mut sorted = confidences.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    let mut all = vec![0.0];
    all.extend(sorted.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])));
    all.push(1.0);
    let most = most.max(2);
    if all.len() <= most {
        return all;
    }
    (0..most).map(|rank| all[rank * (all.len() - 1) / (most - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Questions whose answers are right as often as their confidence says, the more so later on.
    fn table(plans: usize) -> CascadeTable {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let tokens: Vec<usize> = (0..80).map(|_| rng.random_range(20..60)).collect();
        let columns: Vec<Vec<(f64, bool)>> = (0..plans)
            .map(|plan| {
                let one = |_| {
                    let confidence = rng.random::<f64>().powf(1.0 / (1 + 2 * plan) as f64);
                    (confidence, rng.random::<f64>() < confidence)
                };
                (0..80).map(one).collect()
            })
            .collect();
        let plans: Vec<(f64, &[(f64, bool)])> =
            columns.iter().enumerate().map(|(i, column)| (2f64.powi(i as i32), &column[..])).collect();
        CascadeTable::of_numbers(&tokens, &plans)
    }

    #[test]
    fn more_accuracy_never_costs_less_and_more_work_never_harms() {
        for plans in 2..=4 {
            let table = table(plans);
            let front = table.threshold_front().unwrap();
            assert!(front.len() > 5, "{}", front.len());
            let rises = |pair: &[ThresholdChoice]| {
                pair[0].bit_ops_per_question < pair[1].bit_ops_per_question && pair[0].exact_match < pair[1].exact_match
            };
            assert!(front.windows(2).all(rises));
            for choice in &front {
                let outcome = table.outcome(&choice.thresholds).unwrap();
                assert!((outcome.accuracy.exact_match - choice.exact_match).abs() < 1e-9);
                assert!((outcome.bit_ops_per_question - choice.bit_ops_per_question).abs() < 1e-9);
                assert_eq!(&table.choose(CascadeTarget::Accuracy(choice.exact_match)).unwrap(), choice);
                assert_eq!(&table.choose(CascadeTarget::BitOps(choice.bit_ops_per_question)).unwrap(), choice);
            }
        }
    }

    #[test]
    fn no_threshold_of_two_stages_is_better_than_the_chosen_one() {
        let table = table(2);
        for target in [50.0, 60.0, 70.0] {
            let chosen = table.choose(CascadeTarget::Accuracy(target)).unwrap();
            for step in 0..=1000 {
                let other = table.outcome(&[f64::from(step) / 1000.0]).unwrap();
                let is_good = other.accuracy.exact_match >= target;
                assert!(!is_good || other.bit_ops_per_question >= chosen.bit_ops_per_question - 1e-9, "{step}");
            }
        }
    }

    #[test]
    fn targets_out_of_reach_are_refused_with_what_can_be_reached() {
        let table = table(2);
        let most = table.threshold_front().unwrap().last().unwrap().exact_match;
        let message = table.choose(CascadeTarget::Accuracy(99.9)).unwrap_err().to_string();
        assert!(message.contains(&format!("at most {most:.2}")), "{message}");
        let message = table.choose(CascadeTarget::BitOps(1.0)).unwrap_err().to_string();
        assert!(message.contains("first stage"), "{message}");
        for wrong in [-1.0, 101.0, f64::NAN] {
            let message = table.choose(CascadeTarget::Accuracy(wrong)).unwrap_err().to_string();
            assert!(message.contains("0 to 100"), "{message}");
        }
    }

    #[test]
    fn candidates_lie_between_confidences_and_are_thinned_by_rank() {
        assert_eq!(candidates(&[0.5, 0.25, 0.5], 10), [0.0, 0.375, 1.0]);
        let many: Vec<f64> = (0..100).map(|i| f64::from(i) / 100.0).collect();
        let thinned = candidates(&many, 5);
        assert_eq!(thinned.len(), 5);
        assert!(thinned.is_sorted());
        assert_eq!([thinned[0].to_bits(), thinned[4].to_bits()], [0f64.to_bits(), 1f64.to_bits()]);
    }
}
