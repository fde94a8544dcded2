//! What the steps of a training cost, forward passes only.
//!
//! ```text
//! training BitOps = Σ_steps Σ_branches BitOps(plan of the branch)        per token
//! ```
//!
//! BitOps of a plan are those of [`plan_bit_ops`]: adapters count, at each site by the rank that its adapter
//! of that width has there, so that a step at 2 bits costs more beside an adapter than without.

use std::fmt;

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::cost::plan_bit_ops;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::banks::bank::{BankConfig, Init};
use crate::error::{Error, Result};
use crate::train::ladder::Ladder;
use crate::train::regimes::Regime;
use crate::train::regimes::config::RegimeConfig;
use crate::train::regimes::table::Regimes;

/// BitOps per token of a forward pass under a plan.
pub struct PassCost<'a>(Box<dyn Fn(&SitePlan) -> f64 + 'a>);

impl fmt::Debug for PassCost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassCost").finish_non_exhaustive()
    }
}

impl<'a> PassCost<'a> {
    /// On a model with the adapters that it has.
    pub fn of<B: QuantBackend, M: SwitchableModel<B>>(model: &'a M) -> Self {
        Self(Box::new(|plan| plan_bit_ops(model, plan)))
    }

    /// On a model with the adapters that a bank is to give it.
    ///
    /// # Errors
    ///
    /// When an adapter does not fit.
    pub fn of_bank<B: QuantBackend, M: SwitchableModel<B> + 'a>(bank: &BankConfig, model: &M) -> Result<Self> {
        let mut model = model.clone();
        bank.give_to(&mut model, Init::Shapes)?;
        Ok(Self(Box::new(move |plan| plan_bit_ops(&model, plan))))
    }

    /// BitOps per token of the passes of one step.
    fn step(&self, regime: &dyn Regime, step: usize) -> f64 {
        regime.branches(step).iter().map(|branch| (self.0)(&branch.plan)).sum()
    }

    /// BitOps per token over a run of so many steps.
    pub fn training(&self, regime: &dyn Regime, steps: usize) -> f64 {
        (0..steps).map(|step| self.step(regime, step)).sum()
    }

    /// The most steps of a regime that cost no more BitOps than a budget.
    ///
    /// A longer run can cost less than a shorter one: the cycles of a cyclic regime get longer with its run,
    /// and the widths nearest to a longer ramp can be lower ones. So every length is looked at, down from the
    /// one that fits if every step costs what the cheapest of the first ones does.
    ///
    /// # Errors
    ///
    /// When not even the fewest steps fit, or the regime refuses its ladder.
    pub fn steps_within(
        &self,
        regimes: &Regimes,
        regime: &RegimeConfig,
        ladder: &Ladder,
        budget: f64,
    ) -> Result<usize> {
        const PROBE: usize = 64;
        let regime = &regime.of_equal_cost();
        let least = regimes.least_steps(regime)?;
        let build = |steps: usize| regimes.build(regime, ladder, steps);

        let probe = least.max(PROBE);
        let probed = build(probe)?;
        let cheapest = (0..probe).map(|step| self.step(&*probed, step)).fold(f64::INFINITY, f64::min);
        let mut longest = ((budget / cheapest) as usize).max(least);
        while longest >= least {
            // Runs of other lengths that have the same steps are looked at together.
            let run = build(longest)?;
            let parameters = run.parameters();
            let mut shortest = longest;
            while shortest > least && build(shortest - 1)?.parameters() == parameters {
                shortest -= 1;
            }
            let (mut fitting, mut spent) = (None, self.training(&*run, shortest));
            for steps in shortest..=longest {
                if spent > budget {
                    break;
                }
                fitting = Some(steps);
                spent += self.step(&*run, steps);
            }
            if let Some(steps) = fitting {
                return Ok(steps);
            }
            longest = shortest - 1;
        }
        let got = format!("{budget:.3e} BitOps per token");
        let first = self.training(&*build(least)?, least);
        Err(Error::option("budget", got, format!("at least {first:.3e}, that of {least} steps")))
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use gpt2_model::{Gpt2, Gpt2Config};
    use quant_kernels::spec::bit_width::BitWidth;
    use switchable_lora::lora_config::LoraConfig;
    use switchable_lora::placement::Placement;
    use switchable_lora::site_precision::SitePrecision;
    use switchable_model::config::ModelConfig as _;
    use switchable_model::model_weights::ModelWeights as _;
    use switchable_model::options::ModelOptions;

    use super::*;
    use crate::train::regimes::config::RegimeKind;

    /// 36,864 weights; an adapter of rank 1 at every site is 3 · (128 + 64 + 160 + 160) = 1,536 numbers.
    const WEIGHTS: f64 = 36_864.0;
    const RANK_1: f64 = 1_536.0;

    fn model() -> Gpt2<Flex> {
        Gpt2::random(&Gpt2Config::new(97, 64, 32, 3, 4), &ModelOptions::default(), 1, &FlexDevice).unwrap()
    }

    fn bank(ranks: &[(u8, usize)]) -> BankConfig {
        let adapters = ranks
            .iter()
            .map(|&(bits, rank)| (BitWidth::new(bits).unwrap(), LoraConfig::new(rank, 4.0).unwrap()))
            .collect();
        BankConfig { adapters, ..BankConfig::new(&[], LoraConfig::new(1, 4.0).unwrap(), 1) }
    }

    fn ladder(widths: &[u8], precision: impl Fn(SitePrecision) -> SitePrecision) -> Ladder {
        let sites = Gpt2Config::new(97, 64, 32, 3, 4).sites();
        let rungs = widths.iter().map(|&bits| {
            let bits = BitWidth::new(bits).unwrap();
            (bits, SitePlan::uniform(&sites, precision(SitePrecision::uniform(bits))))
        });
        Ladder::new(rungs).unwrap()
    }

    #[test]
    fn bit_ops_are_those_of_the_plans_that_are_run() {
        let (model, ladder) = (model(), ladder(&[4, 8, 16, 32], |precision| precision));
        let of = |kind, steps| {
            let regime = RegimeConfig::of(kind).build(&ladder, steps).unwrap();
            PassCost::of(&model).training(&*regime, steps) / (WEIGHTS * 32.0)
        };
        // Widths of static: 4 + 8 + 16 + 32; of joint the same in every step; triangular 4, 8, 16, 32, 16, 8.
        assert!((of(RegimeKind::Static, 8) - 120.0).abs() < 1e-9);
        assert!((of(RegimeKind::Joint, 3) - 180.0).abs() < 1e-9);
        assert!((of(RegimeKind::Triangular, 12) - 168.0).abs() < 1e-9);
    }

    #[test]
    fn the_adapters_of_each_width_count_at_their_own_rank_and_where_they_are_added() {
        let model = model();
        let bank = bank(&[(4, 3), (8, 1), (32, 2)]);
        let cost = PassCost::of_bank(&bank, &model).unwrap();
        let of = |precision: fn(SitePrecision) -> SitePrecision, kind, steps| {
            let regime = RegimeConfig::of(kind).build(&ladder(&[4, 8, 32], precision), steps).unwrap();
            cost.training(&*regime, steps)
        };
        let weights = (4.0 + 8.0 + 32.0) * 32.0 * WEIGHTS;
        // 32 by 32 beside the weights, each of three widths twice; in a step of joint each once.
        let adapters = (3.0 + 1.0 + 2.0) * 1024.0 * RANK_1;
        assert!((of(|p| p, RegimeKind::Static, 6) - 2.0 * (weights + adapters)).abs() < 1e-3);
        assert!((of(|p| p, RegimeKind::Joint, 1) - (weights + adapters)).abs() < 1e-3);
        // Merged into a quantised weight an adapter is no product of its own; at 32 bits it is.
        let merged = of(|p| p.with_placement(Placement::Merged), RegimeKind::Static, 3);
        assert!((merged - weights - 2.0 * 1024.0 * RANK_1).abs() < 1e-3);
        assert!((of(SitePrecision::without_adapter, RegimeKind::Static, 3) - weights).abs() < 1e-3);
        let base = PassCost::of_bank(&BankConfig { trains: crate::banks::bank::Trains::Base, ..bank }, &model).unwrap();
        let regime = RegimeConfig::default().build(&ladder(&[4, 8, 32], |p| p), 3).unwrap();
        assert!((base.training(&*regime, 3) - weights).abs() < 1e-3, "a base alone has no adapters");
    }

    #[test]
    fn only_sites_that_have_an_adapter_pay_for_it() {
        let mut model = model();
        // h.0.attn.c_attn is [32, 96].
        let site = model.sites().iter().next().unwrap();
        model.site_mut(site).init_adapter(BitWidth::B4, &LoraConfig::new(2, 4.0).unwrap(), 1).unwrap();
        let regime = RegimeConfig::default().build(&ladder(&[4], |precision| precision), 5).unwrap();
        let expected = 5.0 * (WEIGHTS * 4.0 * 32.0 + 2.0 * (32.0 + 96.0) * 1024.0);
        assert!((PassCost::of(&model).training(&*regime, 5) - expected).abs() < 1e-3);
    }

    /// Every length up to `most` that fits a budget, each run built and summed for itself.
    fn most_by_trying_all(
        cost: &PassCost<'_>,
        regime: &RegimeConfig,
        ladder: &Ladder,
        budget: f64,
        most: usize,
    ) -> Option<usize> {
        let fits = |&steps: &usize| cost.training(&*regime.build(ladder, steps).unwrap(), steps) <= budget;
        (regime.least_steps()..=most).rev().find(fits)
    }

    #[test]
    fn steps_within_a_budget_are_the_most_that_fit() {
        let (model, regimes) = (model(), Regimes::default());
        let adapted = bank(&[(2, 8), (3, 1), (4, 8), (8, 2), (16, 1), (32, 8)]);
        let costs = [PassCost::of(&model), PassCost::of_bank(&adapted, &model).unwrap()];
        let mut differ = 0;
        for widths in [vec![4, 8, 16, 32], vec![2, 3, 4, 32], vec![2, 32]] {
            let ladder = ladder(&widths, |precision| precision);
            for static_steps in [1, 17, 40] {
                let paid = RegimeConfig::default().build(&ladder, static_steps).unwrap();
                // Of several lengths one is enough for the second cost, as each takes its time.
                let costs = &costs[..if static_steps == 17 { 2 } else { 1 }];
                for kind in RegimeKind::ALL {
                    let regime = RegimeConfig { layer_dropout: static_steps % 2, ..RegimeConfig::of(kind.clone()) };
                    let within = |cost: &PassCost<'_>| {
                        let budget = cost.training(&*paid, static_steps);
                        let steps = cost.steps_within(&regimes, &regime, &ladder, budget).ok();
                        let expected = most_by_trying_all(cost, &regime, &ladder, budget, 20 * static_steps);
                        assert_eq!(steps, expected, "{kind}, {widths:?}, {static_steps} static steps");
                        steps
                    };
                    let found: Vec<_> = costs.iter().map(within).collect();
                    differ += usize::from(found[0] != found[found.len() - 1]);
                }
            }
        }
        assert!(differ > 0, "adapters change what equal BitOps are");
        let all = ladder(&[4, 8, 16, 32], |precision| precision);
        assert!(costs[0].steps_within(&regimes, &RegimeConfig::default(), &all, 1.0).is_err());
    }

    #[test]
    fn a_longer_cyclic_run_can_fit_where_a_shorter_one_does_not() {
        let (model, ladder) = (model(), ladder(&[2, 3, 4, 32], |precision| precision));
        let cost = PassCost::of(&model);
        let budget = cost.training(&*RegimeConfig::default().build(&ladder, 64).unwrap(), 64);
        let cyclic = RegimeConfig::of(RegimeKind::Cyclic);
        assert_eq!(cost.steps_within(&Regimes::default(), &cyclic, &ladder, budget).unwrap(), 52);
    }
}
