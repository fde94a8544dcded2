//! The same items clean and attacked, under one plan.
//!
//! ```text
//! success rate  = |right clean, wrong attacked| / |right clean|
//! drop          = accuracy(attacked) − accuracy(clean)            in pairs, item by item
//! ```

use serde::{Deserialize, Serialize};

use span_reader::statistics::{Interval, PairedComparison, mean};
use squad_data::QuestionScore;

/// How one item was answered, clean and attacked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemScores {
    /// The question's id.
    pub id: String,
    /// Whether the answer was right when clean.
    pub clean_exact: bool,
    /// Whether it is right when attacked.
    pub attacked_exact: bool,
    /// F1 when clean, 0 to 1.
    pub clean_f1: f64,
    /// F1 when attacked, 0 to 1.
    pub attacked_f1: f64,
}

/// Accuracy of one plan on attacked items against the same items clean, in percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RobustAccuracy {
    /// Items.
    pub n: usize,
    /// Items that are right when clean.
    pub right_when_clean: usize,
    /// Items of those that the attack makes wrong.
    pub fooled: usize,
    /// Share of those, percent; `None` when nothing is right when clean.
    pub success_rate: Option<f64>,
    /// Wilson interval of the success rate, percent.
    pub success_interval: Interval,
    /// Exact match of the clean items, percent.
    pub clean_exact_match: f64,
    /// Exact match of the attacked items, percent.
    pub attacked_exact_match: f64,
    /// Wilson interval of the exact match of the attacked items, percent.
    pub attacked_interval: Interval,
    /// Attacked minus clean, in fractions. Where all items are right when clean, it is minus the success rate,
    /// its interval included.
    pub exact_match_drop: PairedComparison,
    /// F1 of the clean items, percent.
    pub clean_f1: f64,
    /// F1 of the attacked items, percent.
    pub attacked_f1: f64,
    /// Attacked minus clean, percent points.
    pub f1_drop: f64,
    /// Interval of the difference in F1, percent points.
    pub f1_drop_interval: Interval,
    /// Item by item.
    pub items: Vec<ItemScores>,
}

impl RobustAccuracy {
    /// From the scores of the same questions, clean and attacked; the seed is that of the bootstrap.
    ///
    /// # Panics
    ///
    /// When the two are not of the same questions.
    pub fn new(clean: &[QuestionScore], attacked: &[QuestionScore], seed: u64) -> Self {
        assert!(clean.iter().map(|s| &s.id).eq(attacked.iter().map(|s| &s.id)), "scores of the same questions");
        let scores = |of: &[QuestionScore], score: fn(&QuestionScore) -> f64| of.iter().map(score).collect::<Vec<_>>();
        let exact = [clean, attacked].map(|of| scores(of, |s| s.exact));
        let f1 = [clean, attacked].map(|of| scores(of, |s| s.f1));
        let pair = |(clean, attacked): (&QuestionScore, &QuestionScore)| ItemScores {
            id: clean.id.clone(),
            clean_exact: clean.exact > 0.5,
            attacked_exact: attacked.exact > 0.5,
            clean_f1: clean.f1,
            attacked_f1: attacked.f1,
        };
        let items: Vec<ItemScores> = clean.iter().zip(attacked).map(pair).collect();
        let right_when_clean = items.iter().filter(|item| item.clean_exact).count();
        let fooled = items.iter().filter(|item| item.clean_exact && !item.attacked_exact).count();
        let right_when_attacked = items.iter().filter(|item| item.attacked_exact).count();
        let mut exact_match_drop = PairedComparison::new(&exact[0], &exact[1], seed);
        let drops: Vec<f64> = f1[0].iter().zip(&f1[1]).map(|(clean, attacked)| attacked - clean).collect();
        let success_interval = Interval::wilson(fooled, right_when_clean);
        let mut f1_drop_interval = Interval::of_difference(&drops, seed);
        if right_when_clean == items.len() && !items.is_empty() {
            // Nothing can be gained: what is lost is what the attack makes wrong.
            exact_match_drop.interval = Interval { low: -success_interval.high, high: -success_interval.low };
            let Interval { low, high } = Interval::of_mean(&f1[1]);
            f1_drop_interval = Interval { low: low - 1.0, high: high - 1.0 };
        }
        Self {
            n: items.len(),
            right_when_clean,
            fooled,
            success_rate: (right_when_clean > 0).then(|| 100.0 * fooled as f64 / right_when_clean as f64),
            success_interval: success_interval.scaled(100.0),
            clean_exact_match: 100.0 * mean(&exact[0]),
            attacked_exact_match: 100.0 * mean(&exact[1]),
            attacked_interval: Interval::wilson(right_when_attacked, items.len()).scaled(100.0),
            exact_match_drop,
            clean_f1: 100.0 * mean(&f1[0]),
            attacked_f1: 100.0 * mean(&f1[1]),
            f1_drop: 100.0 * mean(&drops),
            f1_drop_interval: f1_drop_interval.scaled(100.0),
            items,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_counted_over_the_items_that_are_right_when_clean() {
        let score = |id: usize, exact: f64, f1: f64| QuestionScore { id: id.to_string(), exact, f1, has_answer: true };
        let clean = [score(0, 1.0, 1.0), score(1, 1.0, 1.0), score(2, 1.0, 1.0), score(3, 0.0, 0.5)];
        let attacked = [score(0, 0.0, 0.5), score(1, 1.0, 1.0), score(2, 0.0, 0.0), score(3, 1.0, 1.0)];
        let both = RobustAccuracy::new(&clean, &attacked, 1);
        assert_eq!((both.n, both.right_when_clean, both.fooled), (4, 3, 2));
        assert_eq!(both.success_rate, Some(200.0 / 3.0));
        assert_eq!((both.clean_exact_match, both.attacked_exact_match), (75.0, 50.0));
        assert_eq!((both.exact_match_drop.only_first, both.exact_match_drop.only_second), (2, 1));
        assert_eq!((both.clean_f1, both.attacked_f1, both.f1_drop), (87.5, 62.5, -25.0));
        assert_eq!(RobustAccuracy::new(&clean[3..], &attacked[3..], 1).success_rate, None);

        // Of items that are all right when clean, nothing can be gained.
        let right = RobustAccuracy::new(&clean[..3], &attacked[..3], 1);
        let (drop, success) = (right.exact_match_drop.interval.scaled(100.0), right.success_interval);
        assert_eq!((drop.low, drop.high), (-success.high, -success.low));
        assert!(right.f1_drop_interval.low < right.f1_drop && right.f1_drop_interval.high <= 0.0);
    }
}
