//! Measures the damages that decide allocations, and leaves the others estimated.
//!
//! ```text
//! r_w         the least measured / estimated damage among sites measured at width w; among all, where none is
//! optimistic  estimated · min(r_w, 1)                                      of what is not measured
//! repeat:     solve from measured and optimistic damages; measure what the plan uses and only estimates
//! until:      every damage of the plan is measured
//! ```
//!
//! The plan that it ends at has its measured damage, and every other plan is estimated too low or measured: where
//! no damage is less than its optimistic estimate, it is the plan that all damages measured would give. That they
//! are not is an assumption, drawn from the sites measured; plans are evaluated as they are in any case.

use std::collections::{BTreeMap, btree_map::Entry};

use burn::tensor::backend::Backend;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::work::Work;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::running::memory::Parts;
use crate::running::progress::{Progress, ShowProgress};
use crate::running::share::Left;
use crate::search::allocation::damage::{Damage, DamageTable, Measurement};

/// What is settled, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettleOptions {
    /// Bytes at which the plan has to be settled.
    pub budgets: Vec<usize>,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Damages known from before, one by one.
    pub known: Parts,
}

impl DamageTable {
    /// For each budget the table with the damages measured that decide its plan.
    ///
    /// A table depends on the estimates and its own budget alone, not on the other budgets or on what is known from
    /// before.
    ///
    /// # Errors
    ///
    /// When a budget is smaller than every plan, the table is of another model, or the work is stopped; where processes
    /// share the work, when any damage is left to another.
    pub fn settle<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        reference: &SitePlan,
        options: &SettleOptions,
    ) -> Result<Vec<Self>> {
        let mut measuring = Measuring { evaluator, reference, seed: self.seed, measurement: None };
        let mut left = Left::default();
        let mut progress = Progress::start("measuring what decides", 0, self.estimated(), options.show);
        let mut cells: BTreeMap<(usize, usize), (Damage, Work)> = BTreeMap::new();
        let mut tables = Vec::with_capacity(options.budgets.len());
        for &budget in &options.budgets {
            let mut settled = Settled { estimates: self, table: self.clone() };
            loop {
                let wanted = settled.estimated_in_plan(evaluator, budget)?;
                if wanted.is_empty() {
                    break;
                }
                // What the plan hangs on is measured apart from one another; the next plan hangs on all of it.
                let mut is_whole = true;
                for cell in wanted {
                    let measured = match cells.entry(cell) {
                        Entry::Occupied(known) => Some(known.get().clone()),
                        Entry::Vacant(place) => {
                            progress.step(self.cell_name(cell));
                            let measured = left.unless(self.measure(&mut measuring, cell, &options.known))?;
                            measured.map(|measured| place.insert(measured).clone())
                        }
                    };
                    if options.known.is_over() {
                        return Err(Error::Elsewhere);
                    }
                    let Some((damage, work)) = measured else {
                        is_whole = false;
                        continue;
                    };
                    settled.table.sites[cell.0].choices[cell.1] = damage;
                    settled.table.work += work;
                }
                if !is_whole {
                    break;
                }
                settled.be_optimistic();
            }
            tables.push(settled.table);
        }
        progress.finish();
        left.finish()?;
        Ok(tables)
    }

    /// The damage of a site's choice and its work, measured or known from before.
    fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        measuring: &mut Measuring<'_, '_, B, M>,
        (row, choice): (usize, usize),
        known: &Parts,
    ) -> Result<(Damage, Work)> {
        let (site, precision) = (self.sites[row].site, self.sites[row].choices[choice].precision);
        known.recall(&self.cell_name((row, choice)), || measuring.measurement()?.of_explicit(site, &precision))
    }

    /// The estimates with all that was measured in some tables that were settled from them.
    #[must_use]
    pub fn with_measured(&self, settled: &[Self]) -> Self {
        let mut table = self.clone();
        for other in settled {
            for (row, measured) in table.sites.iter_mut().zip(&other.sites) {
                for (choice, found) in row.choices.iter_mut().zip(&measured.choices) {
                    if !found.is_estimated() {
                        *choice = found.clone();
                    }
                }
            }
        }
        table
    }

    /// Number of damages that are estimated.
    pub fn estimated(&self) -> usize {
        self.sites.iter().flat_map(|row| &row.choices).filter(|choice| choice.is_estimated()).count()
    }

    fn cell_name(&self, (row, choice): (usize, usize)) -> String {
        let row = &self.sites[row];
        format!("{}-choice-{choice}-at-{}", self.name(row.site), row.choices[choice].precision.weights)
    }
}

/// A measurement whose reference is evaluated when the first damage is measured: where all are known, it is not.
struct Measuring<'m, 'a, B: Backend, M> {
    evaluator: &'m Evaluator<'a, B, M>,
    reference: &'m SitePlan,
    seed: u64,
    measurement: Option<Measurement<'m, 'a, B, M>>,
}

impl<'m, 'a, B: QuantBackend, M: SwitchableModel<B>> Measuring<'m, 'a, B, M> {
    fn measurement(&mut self) -> Result<&Measurement<'m, 'a, B, M>> {
        let measurement = match self.measurement.take() {
            Some(measurement) => measurement,
            None => Measurement::from(self.evaluator, self.reference, self.seed)?,
        };
        Ok(self.measurement.insert(measurement))
    }
}

/// A table on its way from estimates to what decides.
struct Settled<'t> {
    estimates: &'t DamageTable,
    table: DamageTable,
}

impl Settled<'_> {
    /// Positions of the damages that the best plan under a budget uses and that are estimated.
    fn estimated_in_plan<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        budget: usize,
    ) -> Result<Vec<(usize, usize)>> {
        let body = &evaluator.model().transformer;
        let plan = body.resolve(&self.table.best_under(budget)?.plan)?;
        let picks = self.table.picks_of(body, &plan)?;
        let is_estimated = |&(row, choice): &(usize, usize)| self.table.sites[row].choices[choice].is_estimated();
        Ok(picks.into_iter().enumerate().filter(is_estimated).collect())
    }

    /// Sets what is not measured to the least that the measured damages let it be.
    fn be_optimistic(&mut self) {
        let measure = self.table.measure;
        let pairs = |row: usize| self.estimates.sites[row].choices.iter().zip(&self.table.sites[row].choices);
        let mut least: BTreeMap<BitWidth, f64> = BTreeMap::new();
        for (estimate, found) in (0..self.table.sites.len()).flat_map(pairs) {
            let ratio = found.by(measure) / estimate.by(measure);
            if !found.is_estimated() && ratio.is_finite() && estimate.by(measure) > 0.0 {
                let of_width = least.entry(found.precision.weights).or_insert(1.0);
                *of_width = of_width.min(ratio.max(0.0));
            }
        }
        let of_all = least.values().copied().fold(1.0, f64::min);
        for (row, estimates) in self.table.sites.iter_mut().zip(&self.estimates.sites) {
            for (choice, estimate) in row.choices.iter_mut().zip(&estimates.choices) {
                if choice.is_estimated() {
                    *choice = estimate.scaled(least.get(&estimate.precision.weights).copied().unwrap_or(of_all));
                }
            }
        }
    }
}

impl Damage {
    fn scaled(&self, factor: f64) -> Self {
        let scaled = |nats: f64| if nats > 0.0 { nats * factor } else { nats };
        Self { loss: self.loss.map(scaled), divergence: scaled(self.divergence), ..self.clone() }
    }
}
