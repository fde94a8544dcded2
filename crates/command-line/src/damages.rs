//! The damage of the sites that allocations are solved from: measured, or estimated and measured where it decides.

use std::fmt::Write as _;

use serde_json::{Value, json};

use switchable_quant::experiments::Result;
use switchable_quant::experiments::running::memory::{Memory, Parts};
use switchable_quant::experiments::running::share::Left;
use switchable_quant::experiments::search::allocation::budgets::{BudgetOptions, RefinedAllocation};
use switchable_quant::experiments::search::allocation::damage::{
    DamageOptions, DamageTable, damage_names, measure_damage,
};
use switchable_quant::experiments::search::allocation::equal_bytes::{AgainstGreedy, GreedyPath};
use switchable_quant::experiments::search::allocation::pareto::Allocation;
use switchable_quant::experiments::search::estimates::estimate_damage;
use switchable_quant::experiments::search::estimates::settle::SettleOptions;
use switchable_quant::experiments::search::estimates::validation::EstimateValidation;
use switchable_quant::experiments::search::sensitivity::sensitivity_names;
use switchable_quant::experiments::search::text::validation_text;
use switchable_quant::kernels::{QuantAutodiffBackend, QuantBackend};
use switchable_quant::reader::Evaluator;
use switchable_quant::transformer::model::{SwitchableModel, TrainableModel};
use switchable_quant::transformer::site_plan::SitePlan;

/// Where damage comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageSource {
    /// Every site is evaluated at every precision.
    Measured,
    /// One backward pass for each window, nothing else.
    Estimated,
    /// The same, then evaluations of what decides at the budgets.
    EstimatedFirst,
}

/// The damage of the sites.
#[derive(Debug, Clone, PartialEq)]
pub struct Damages {
    /// What is known of every site.
    pub whole: DamageTable,
    /// What the allocation of each budget is solved from.
    pub of_budgets: Vec<DamageTable>,
}

/// What damage is of.
#[derive(Debug)]
pub struct DamageWork<'a> {
    /// The plan that sites are changed from.
    pub reference: &'a SitePlan,
    /// The choices.
    pub options: DamageOptions,
    /// Budgets in bytes.
    pub budgets: &'a [usize],
    /// What is known from before.
    pub memory: &'a Memory,
}

impl DamageWork<'_> {
    /// The damage from a source, known or found.
    ///
    /// # Errors
    ///
    /// As [`measure_damage`] and [`estimate_damage`].
    pub fn from_source<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B::InnerBackend, M::InnerModule>,
        source: DamageSource,
    ) -> Result<Damages> {
        let Self { reference, options, budgets, memory } = self;
        if source == DamageSource::Measured {
            let sites = memory.parts("sites", Value::Null);
            let how = DamageOptions { known: sites.clone(), ..options.clone() };
            let names = damage_names(&evaluator.model().transformer, &how);
            let whole = memory
                .gather("damage", &Value::Null, &[(&sites, &names)], || measure_damage(evaluator, reference, &how))?;
            sites.forget()?;
            return Ok(Damages { of_budgets: vec![whole.clone(); budgets.len()], whole });
        }
        let estimates = self.estimates::<B, M>(evaluator)?;
        if source == DamageSource::Estimated {
            return Ok(Damages { of_budgets: vec![estimates.clone(); budgets.len()], whole: estimates });
        }
        let known = memory.parts("measured", Value::Null);
        let how = SettleOptions { budgets: budgets.to_vec(), show: options.show, known };
        let of_budgets = estimates.settle(evaluator, reference, &how)?;
        Ok(Damages { whole: estimates.with_measured(&of_budgets), of_budgets })
    }

    /// Estimates beside a table that was measured, as text and as JSON.
    ///
    /// # Errors
    ///
    /// As [`estimate_damage`].
    pub fn validated<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B::InnerBackend, M::InnerModule>,
        measured: &DamageTable,
    ) -> Result<(String, Value)> {
        let estimates = self.estimates::<B, M>(evaluator)?;
        let found: EstimateValidation = measured.validate(&estimates, self.budgets)?;
        Ok((validation_text(&found), json!(found)))
    }

    /// The greedy search from the reference beside the allocations of a table, known or found: its sites are measured apart
    /// from one another.
    ///
    /// # Errors
    ///
    /// As [`DamageTable::against_greedy`].
    pub fn against_greedy<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        table: &DamageTable,
        towards: &GreedyPath,
    ) -> Result<AgainstGreedy> {
        let alone = table.sites_alone(towards);
        let names = sensitivity_names(self.reference.sites(), &alone);
        self.memory.gather("against-greedy", &json!({ "low": towards.low }), &[(&alone.known, &names)], || {
            table.against_greedy(evaluator, self.reference, towards)
        })
    }

    fn estimates<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B::InnerBackend, M::InnerModule>,
    ) -> Result<DamageTable> {
        let known = Parts::new(self.memory.clone(), Value::Null);
        let how = DamageOptions { known, ..self.options.clone() };
        estimate_damage::<B, M>(evaluator, self.reference, &how)
    }
}

impl Damages {
    /// The allocation of each budget.
    ///
    /// # Errors
    ///
    /// When a budget is smaller than every plan.
    pub fn solved(&self, budgets: &[usize]) -> Result<Vec<Allocation>> {
        self.of_budgets.iter().zip(budgets).map(|(table, &budget)| table.best_under(budget)).collect()
    }

    /// The allocation of each budget, evaluated and refined by swaps, as the options say beside the budgets.
    ///
    /// # Errors
    ///
    /// As [`DamageTable::refined_at`]; where processes share the work, when any budget is left to another.
    pub fn refined<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        (reference, budgets): (&SitePlan, &[usize]),
        options: &BudgetOptions,
    ) -> Result<Vec<RefinedAllocation>> {
        let (mut all, mut left) = (Vec::with_capacity(budgets.len()), Left::default());
        for (table, &budget) in self.of_budgets.iter().zip(budgets) {
            let how = BudgetOptions { budgets: vec![budget], ..options.clone() };
            all.extend(left.unless(table.refined_at(evaluator, reference, &how))?.unwrap_or_default());
        }
        left.finish()?;
        Ok(all)
    }

    /// How much of it was evaluated.
    pub fn text(&self) -> String {
        let all: usize = self.whole.sites.iter().map(|row| row.choices.len()).sum();
        let estimated = self.whole.estimated();
        let mut text = String::new();
        if estimated > 0 {
            let measured = all - estimated;
            _ = writeln!(text, "{estimated} of {all} damages are estimated, {measured} that decide are measured");
        }
        text
    }
}
