//! Refinement by swaps: hill climbing on what is measured, not on the additive model.
//!
//! ```text
//! repeat:  raise one site and, where the budget needs it, lower another
//! keep:    the plan if it measures less harm
//! order:   the swap of least damage by the model first
//! ```

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::work::Work;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::named_plans::NamedPlans as _;
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::running::progress::{Progress, ShowProgress};
use crate::search::allocation::damage::{DamageTable, SiteDamage};
use crate::search::allocation::pareto::{Allocation, budget_too_small};
use crate::search::harm_order::HarmOrder;

/// Options of the refinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefineOptions {
    /// Bytes that no plan may exceed.
    pub budget_bytes: usize,
    /// The figure that has to fall.
    pub order: HarmOrder,
    /// Swaps that are evaluated at most.
    pub evaluations: usize,
    /// Whether progress is shown.
    pub show: ShowProgress,
}

impl RefineOptions {
    /// Up to 100 swaps that must lower the loss.
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, order: HarmOrder::Loss, evaluations: 100, show: ShowProgress::default() }
    }
}

/// What a refinement starts from.
#[derive(Debug, Clone, Copy)]
pub struct RefineFrom<'a> {
    /// The plan that the damage was measured from.
    pub reference: &'a SitePlan,
    /// The plan to refine.
    pub start: &'a Allocation,
}

/// One site from one precision to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrecisionChange {
    /// The site.
    pub site: String,
    /// Its precision before.
    pub from: SitePrecision,
    /// Its precision after.
    pub to: SitePrecision,
}

/// A swap that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Swap {
    /// The site that gets more bytes.
    pub raised: PrecisionChange,
    /// The site that gives them, where the budget has none left.
    pub lowered: Option<PrecisionChange>,
    /// Change of the damage by the additive model, in nats.
    pub predicted: f64,
    /// Bytes of the plan with the swap.
    pub bytes: usize,
    /// Accuracy of the plan with the swap.
    pub accuracy: Accuracy,
    /// Whether the swap was kept.
    pub accepted: bool,
}

/// Result of a refinement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refinement {
    /// Accuracy of the plan that it started from.
    pub start: Accuracy,
    /// Every swap tried, in order.
    pub swaps: Vec<Swap>,
    /// Accuracy of the final plan.
    pub accuracy: Accuracy,
    /// Bytes of the final plan.
    pub bytes: usize,
    /// Work of the refinement.
    pub work: Work,
}

/// A swap that may be tried: sites and choices by position.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    raised: (usize, usize),
    lowered: Option<(usize, usize)>,
    predicted: f64,
    bytes: usize,
}

impl DamageTable {
    /// Exchanges bits between sites as long as the measured harm falls.
    ///
    /// No plan exceeds the budget, and the final one measures no more harm than the first on the
    /// evaluator's questions.
    ///
    /// # Errors
    ///
    /// When the first plan exceeds the budget or has a precision that the table has not; when an
    /// adapter is missing, or the work is stopped.
    pub fn refine_by_swaps<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        RefineFrom { reference, start }: RefineFrom<'_>,
        options: &RefineOptions,
    ) -> Result<(Refinement, SitePlan)> {
        let before = evaluator.work();
        let mut plan = evaluator.model().transformer.resolve(&start.plan)?;
        let body = &evaluator.model().transformer;
        let mut picks = self.picks_of(body, &plan)?;
        let mut bytes = self.bytes_of(&picks);
        if bytes > options.budget_bytes {
            return Err(budget_too_small(options.budget_bytes, bytes));
        }
        let (_, kept) = evaluator.evaluate_keeping(None, reference)?;
        let (first, mut kept) = evaluator.evaluate_keeping(Some(&kept), &plan)?;
        let mut accuracy = first.clone();
        let mut seen = HashSet::from([picks.clone()]);
        let mut candidates = self.candidates(&picks, options.budget_bytes).into_iter();
        let mut swaps: Vec<Swap> = Vec::new();
        let mut progress = Progress::start("swaps", 0, options.evaluations, options.show);
        while swaps.len() < options.evaluations {
            let Some(candidate) = candidates.next() else { break };
            let mut trial_picks = picks.clone();
            let mut trial = plan.clone();
            for (site, pick) in std::iter::once(candidate.raised).chain(candidate.lowered) {
                trial_picks[site] = pick;
                let row = &self.sites[site];
                trial.set(row.site, body.implicit_at(row.site, &row.choices[pick].precision));
            }
            if !seen.insert(trial_picks.clone()) {
                continue;
            }
            let (tried, states) = evaluator.evaluate_keeping(Some(&kept), &trial)?;
            let accepted = options.order.compare(&tried, &accuracy).is_lt();
            let change = |(site, to)| self.change(site, picks[site], to);
            let swap = Swap {
                raised: change(candidate.raised),
                lowered: candidate.lowered.map(change),
                predicted: candidate.predicted,
                bytes: candidate.bytes,
                accuracy: tried.clone(),
                accepted,
            };
            progress.step(format!("{} EM {:.1}", swap.raised.site, tried.exact_match));
            swaps.push(swap);
            if accepted {
                (plan, picks, bytes, accuracy, kept) = (trial, trial_picks, candidate.bytes, tried, states);
                candidates = self.candidates(&picks, options.budget_bytes).into_iter();
            }
        }
        progress.finish();
        Ok((Refinement { start: first, swaps, accuracy, bytes, work: evaluator.work() - before }, plan))
    }

    /// The choice that a plan takes at every site.
    pub(crate) fn picks_of<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &M,
        plan: &SitePlan,
    ) -> Result<Vec<usize>> {
        let pick = |row: &SiteDamage| {
            let precision = plan.get(row.site);
            let implicit = |precision: &SitePrecision| model.implicit_at(row.site, precision);
            let found = row.choices.iter().position(|choice| implicit(&choice.precision) == implicit(&precision));
            let got = || format!("{} at {} bits", self.name(row.site), precision.weights);
            found.ok_or_else(|| Error::option("plan", got(), "precisions that the damage table has"))
        };
        self.sites.iter().map(pick).collect()
    }

    fn bytes_of(&self, picks: &[usize]) -> usize {
        self.sites.iter().zip(picks).map(|(site, pick)| site.choices[*pick].bytes).sum()
    }

    fn change(&self, site: usize, from: usize, to: usize) -> PrecisionChange {
        let row = &self.sites[site];
        PrecisionChange { site: self.name(row.site), from: row.choices[from].precision, to: row.choices[to].precision }
    }

    /// Swaps within the budget, the least damage by the model first.
    fn candidates(&self, picks: &[usize], budget: usize) -> Vec<Candidate> {
        let bytes = self.bytes_of(picks);
        let (mut raises, mut lowers) = (Vec::new(), Vec::new());
        for (site, row) in self.sites.iter().enumerate() {
            let now = &row.choices[picks[site]];
            for (pick, choice) in row.choices.iter().enumerate() {
                let damage = choice.by(self.measure) - now.by(self.measure);
                if choice.bytes > now.bytes {
                    raises.push((site, pick, damage, choice.bytes - now.bytes));
                } else if choice.bytes < now.bytes {
                    lowers.push((site, pick, damage, now.bytes - choice.bytes));
                }
            }
        }
        let mut candidates = Vec::new();
        for &(site, pick, damage, more) in &raises {
            let raised = (site, pick);
            if bytes + more <= budget {
                candidates.push(Candidate { raised, lowered: None, predicted: damage, bytes: bytes + more });
            }
            for &(other, lower, change, less) in &lowers {
                let after = bytes + more - less;
                if other != site && after <= budget {
                    let lowered = Some((other, lower));
                    candidates.push(Candidate { raised, lowered, predicted: damage + change, bytes: after });
                }
            }
        }
        // Stable: equals stay in the order of the forward pass.
        candidates.sort_by(|a, b| a.predicted.total_cmp(&b.predicted));
        candidates
    }
}
