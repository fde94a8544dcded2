//! Undominated plans by dynamic programming over the sites.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::precision_plan::PrecisionPlan;
use switchable_lora::site_precision::{SitePrecision, SiteRounding};

use crate::error::{Error, Result};
use crate::search::allocation::damage::{Damage, DamageTable};

/// A plan that no other of the table betters in bytes and damage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// Bytes of the sites, as [`plan_bytes`](span_reader::cost::plan_bytes) counts them.
    pub bytes: usize,
    /// Sum of the sites' damages alone, in nats.
    pub damage: f64,
    /// Mean width of the weights in bits, weighted by parameters.
    pub average_bits: f64,
    /// The precision of every site.
    pub plan: PrecisionPlan,
}

impl DamageTable {
    /// Every undominated plan, ascending in bytes and strictly descending in damage.
    ///
    /// Empty where a site has no choice.
    ///
    /// ```
    /// use experiments::search::allocation::damage::DamageTable;
    ///
    /// # let accuracy = r#"{"exact_match": 80.0, "exact_match_interval": {"low": 72.0, "high": 86.0}, "f1": 84.0,
    /// #     "f1_interval": {"low": 78.0, "high": 90.0}, "loss": 0.7, "n": 120}"#;
    /// # let damage = |bits: u8, bytes: usize, divergence: f64| format!(r#"{{"loss": null, "divergence": {divergence},
    /// #     "precision": {{"weights": {bits}, "activations": 32, "adapter": null}}, "bytes": {bytes},
    /// #     "comparison": {{"difference": 0.0, "interval": {{"low": 0.0, "high": 0.0}}, "only_first": 0,
    /// #     "only_second": 0, "p_value": 1.0}}}}"#);
    /// # let site = |block: usize, four: f64, two: f64| format!(
    /// #     r#"{{"site": {{"block": {block}, "module": "mlp.c_fc"}}, "parameters": 8, "choices": [{}, {}]}}"#,
    /// #     damage(4, 4, four), damage(2, 2, two));
    /// # let json = format!(r#"{{"measure": "divergence", "n": 120, "seed": 0, "reference": {accuracy},
    /// #     "sites": [{}, {}], "work": {{"blocks_computed": 0, "blocks_plain": 0}}}}"#,
    /// #     site(0, 0.125, 0.5), site(1, 0.0, 0.25));
    /// // Two sites of 8 weights: damage 0.125 and 0.5 at 4 and 2 bits in the first, 0 and 0.25 in the second.
    /// let table: DamageTable = serde_json::from_str(&json)?;
    /// let front: Vec<(usize, f64)> = table.pareto_front().iter().map(|plan| (plan.bytes, plan.damage)).collect();
    /// assert_eq!(front, [(4, 0.75), (6, 0.375), (8, 0.125)]);
    /// let three_bits = table.best_under(7).unwrap();
    /// assert_eq!(three_bits.plan.get("h.1.mlp.c_fc").weights.bits(), 2);
    /// assert_eq!(three_bits.average_bits, 3.0);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn pareto_front(&self) -> Vec<Allocation> {
        let front = Front::new(&self.items());
        (0..front.len()).map(|i| self.allocation(&front, i)).collect()
    }

    /// The plan of least damage that needs no more than so many bytes.
    ///
    /// # Errors
    ///
    /// When the smallest plan needs more, which the error names, or a site has no choice.
    pub fn best_under(&self, budget_bytes: usize) -> Result<Allocation> {
        let front = Front::new(&self.items());
        let Some(smallest) = front.states().first() else {
            return Err(Error::option("choices", "empty", "at least one precision for every site"));
        };
        let within = front.states().partition_point(|state| state.bytes <= budget_bytes);
        match within.checked_sub(1) {
            Some(best) => Ok(self.allocation(&front, best)),
            None => Err(budget_too_small(budget_bytes, smallest.bytes)),
        }
    }

    /// Bytes and damage of each site's choices.
    fn items(&self) -> Vec<Vec<Item>> {
        let item = |choice: &Damage| Item { bytes: choice.bytes, damage: choice.by(self.measure) };
        self.sites.iter().map(|site| site.choices.iter().map(item).collect()).collect()
    }

    fn allocation(&self, front: &Front, index: usize) -> Allocation {
        let State { bytes, damage, .. } = front.states()[index];
        let (mut bits, mut parameters) = (0.0, 0.0);
        // Every site has an entry: the default only says what they have in common.
        let linear = self.sites.iter().filter(|site| site.site.block.is_some());
        let first = linear.into_iter().find_map(|site| site.choices.first());
        let first = first.map_or(SitePrecision::FULL, |choice| choice.precision);
        let by_method = |rounding: SiteRounding| rounding.method().unwrap_or_default().into();
        let rounding = first.rounding.map(by_method);
        let full = SitePrecision { weights: BitWidth::FULL, activations: BitWidth::FULL, rounding, ..first };
        let mut plan = PrecisionPlan::uniform(SitePrecision { adapter: None, ..full });
        for (site, pick) in self.sites.iter().zip(front.picks(index)) {
            let precision = site.choices[pick].precision;
            if site.site.block.is_some() {
                bits += site.parameters as f64 * f64::from(precision.weights.bits());
                parameters += site.parameters as f64;
            }
            plan.set(self.name(site.site), precision);
        }
        Allocation { bytes, damage, average_bits: bits / parameters, plan }
    }
}

pub(super) fn budget_too_small(budget: usize, smallest: usize) -> Error {
    Error::option("budget_bytes", budget, format!("at least {smallest}, the bytes of the smallest plan"))
}

/// The plan of least damage of a front within a budget.
///
/// # Errors
///
/// When the smallest plan of the front needs more, or the front is empty.
pub(super) fn best_of(front: &[Allocation], budget_bytes: usize) -> Result<&Allocation> {
    let smallest = front.first().map_or(usize::MAX, |smallest| smallest.bytes);
    let within = front.partition_point(|allocation| allocation.bytes <= budget_bytes);
    within.checked_sub(1).map(|best| &front[best]).ok_or_else(|| budget_too_small(budget_bytes, smallest))
}

/// One choice of a site.
#[derive(Debug, Clone, Copy)]
struct Item {
    bytes: usize,
    damage: f64,
}

/// Sites up to one of them, each at a choice.
#[derive(Debug, Clone, Copy)]
struct State {
    bytes: usize,
    damage: f64,
    /// The state of the sites before, and the choice of this one.
    parent: usize,
    pick: usize,
}

/// The undominated states after each site.
#[derive(Debug)]
struct Front {
    layers: Vec<Vec<State>>,
}

impl Front {
    fn new(sites: &[Vec<Item>]) -> Self {
        let mut layers = vec![vec![State { bytes: 0, damage: 0.0, parent: 0, pick: 0 }]];
        for items in sites {
            let before = layers.last().map_or(&[][..], Vec::as_slice);
            let mut states: Vec<State> = Vec::with_capacity(before.len() * items.len());
            for (parent, state) in before.iter().enumerate() {
                states.extend(items.iter().enumerate().map(|(pick, item)| State {
                    bytes: state.bytes + item.bytes,
                    damage: state.damage + item.damage,
                    parent,
                    pick,
                }));
            }
            layers.push(undominated(states));
        }
        Self { layers }
    }

    fn states(&self) -> &[State] {
        self.layers.last().map_or(&[], Vec::as_slice)
    }

    fn len(&self) -> usize {
        self.states().len()
    }

    /// The choice of every site in one of the final states.
    fn picks(&self, mut index: usize) -> Vec<usize> {
        let mut picks: Vec<usize> = Vec::with_capacity(self.layers.len() - 1);
        for layer in self.layers[1..].iter().rev() {
            picks.push(layer[index].pick);
            index = layer[index].parent;
        }
        picks.reverse();
        picks
    }
}

/// The states that no other betters, ascending in bytes and strictly descending in damage.
fn undominated(mut states: Vec<State>) -> Vec<State> {
    // Of equals the first stays: the order is that of the sites' choices.
    states.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.damage.total_cmp(&b.damage)));
    let mut kept: Vec<State> = Vec::new();
    for state in states {
        if kept.last().is_none_or(|last| state.damage.total_cmp(&last.damage) == Ordering::Less) {
            kept.push(state);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Every combination of choices: bytes and damage, summed in the order of the sites.
    fn all_plans(sites: &[Vec<Item>]) -> Vec<(usize, f64)> {
        sites.iter().fold(vec![(0, 0.0)], |plans, items| {
            let with = |(bytes, damage): (usize, f64)| items.iter().map(move |i| (bytes + i.bytes, damage + i.damage));
            plans.into_iter().flat_map(with).collect()
        })
    }

    fn random_sites(rng: &mut ChaCha8Rng) -> Vec<Vec<Item>> {
        let counts: Vec<usize> = (0..rng.random_range(1..=5)).map(|_| rng.random_range(1..=4)).collect();
        // Coarse damages give ties, fine ones rounding.
        let is_coarse = rng.random_bool(0.5);
        let mut item = || {
            let bytes = rng.random_range(0..=9);
            let damage = if is_coarse { f64::from(rng.random_range(-2..=3)) } else { rng.random_range(-0.3..1.0) };
            Item { bytes, damage }
        };
        counts.iter().map(|count| (0..*count).map(|_| item()).collect()).collect()
    }

    #[test]
    fn every_budget_gets_the_least_damage_of_all_plans() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for case in 0..400 {
            let sites = random_sites(&mut rng);
            let plans = all_plans(&sites);
            let front = Front::new(&sites);
            for budget in 0..=45 {
                let least = plans.iter().filter(|plan| plan.0 <= budget).map(|plan| plan.1).min_by(f64::total_cmp);
                let within = front.states().partition_point(|state| state.bytes <= budget);
                let found = within.checked_sub(1).map(|best| front.states()[best].damage);
                assert_eq!(found.map(f64::to_bits), least.map(f64::to_bits), "case {case}, budget {budget}");
            }
        }
    }

    #[test]
    fn a_front_is_strictly_monotone_and_its_picks_add_up() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..400 {
            let sites = random_sites(&mut rng);
            let front = Front::new(&sites);
            let rises = |pair: &[State]| pair[0].bytes < pair[1].bytes && pair[0].damage > pair[1].damage;
            assert!(front.states().windows(2).all(rises));
            for (i, state) in front.states().iter().enumerate() {
                let picks = front.picks(i);
                assert_eq!(picks.len(), sites.len());
                let items: Vec<Item> = sites.iter().zip(&picks).map(|(items, pick)| items[*pick]).collect();
                assert_eq!(items.iter().map(|item| item.bytes).sum::<usize>(), state.bytes);
                let damage = items.iter().fold(0.0, |sum, item| sum + item.damage);
                assert_eq!(damage.to_bits(), state.damage.to_bits());
            }
        }
    }

    #[test]
    fn a_site_without_a_choice_leaves_no_plan() {
        let front = Front::new(&[vec![Item { bytes: 1, damage: 0.0 }], Vec::new()]);
        assert_eq!(front.len(), 0);
    }
}
