//! Where a search is on its way down, and its next step.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::cost::{embedding_bytes, plan_bytes, site_bytes};
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::{Evaluator, KeptStates};
use span_reader::evaluation::floor::{Bounds, Floor, Trial};
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use crate::error::{Error, Result};
use crate::search::allocation::damage::{DamageMeasure, DamageTable, SiteDamage};
use crate::search::greedy::{StopAt, TrialLength};
use crate::search::ladder::options::{LadderOptions, LadderStart};
use crate::search::ladder::result::LadderStep;
use crate::search::ladder::site_queue::{Scored, SiteQueue};

/// What a round found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Round {
    /// The next step; `None` where no site has one left.
    pub(super) step: Option<LadderStep>,
    /// Scores that were measured on the way and stay, by site.
    pub(super) measured: BTreeMap<String, f64>,
}

/// A site with the precisions that it can still take.
struct Place {
    site: Site,
    /// From the one that it has down; each saves bytes.
    rungs: Vec<SitePrecision>,
    /// Bytes that count, of each.
    bytes: Vec<f64>,
}

/// A step that was evaluated from the plan at hand.
struct Evaluated<B: Backend> {
    place: usize,
    accuracy: Accuracy,
    states: KeptStates<B>,
}

/// The plan reached, and the scores of what may follow.
pub(super) struct Descent<'d, 'a, B: QuantBackend, M: SwitchableModel<B>> {
    evaluator: &'d Evaluator<'a, B, M>,
    options: &'d LadderOptions,
    scores: Option<&'d DamageTable>,
    places: Vec<Place>,
    queue: SiteQueue,
    plan: SitePlan,
    accuracy: Accuracy,
    /// States of the plan of `kept_steps` accepted steps.
    kept: KeptStates<B>,
    kept_steps: usize,
    steps: usize,
    /// The step found by this process, to go on from.
    found: Option<Evaluated<B>>,
}

impl<'d, 'a, B: QuantBackend, M: SwitchableModel<B>> Descent<'d, 'a, B, M> {
    pub(super) fn new(
        evaluator: &'d Evaluator<'a, B, M>,
        start: LadderStart<'d>,
        options: &'d LadderOptions,
        (accuracy, kept): (Accuracy, KeptStates<B>),
    ) -> Self {
        let sites = start.reference.sites();
        let embeddings = sites.embeddings().filter(|_| options.ladder.embeddings().is_some());
        let places = embeddings.chain(sites.iter()).map(|site| Place::new(evaluator, options, site)).collect();
        let mut descent = Self {
            evaluator,
            options,
            scores: start.scores,
            places,
            queue: SiteQueue::new(),
            plan: start.reference.clone(),
            accuracy,
            kept,
            kept_steps: 0,
            steps: 0,
            found: None,
        };
        for place in 0..descent.places.len() {
            descent.enqueue(place);
        }
        descent
    }

    /// Steps to the lowest rung everywhere.
    pub(super) fn steps_at_most(&self) -> usize {
        self.places.iter().map(|place| place.rungs.len() - 1).sum()
    }

    /// Whether a search by size is at its end.
    pub(super) fn is_small_enough(&self) -> bool {
        match self.options.stop_at {
            StopAt::Tolerance(_) => false,
            StopAt::AverageBits(most) => self.plan.average_weight_bits() <= most,
            StopAt::SiteBytes(most) => self.bytes(&self.plan) <= most,
        }
    }

    /// Computes the states of the plan reached where the steps to it are known from before.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        if self.kept_steps < self.steps {
            self.kept = self.evaluator.evaluate_keeping(Some(&self.kept), &self.plan)?.1;
            self.kept_steps = self.steps;
        }
        Ok(())
    }

    /// Finds the next step; the queue is as it was when it ends.
    pub(super) fn round(&mut self, floor: Option<Floor>) -> Result<Round> {
        let (mut queue, mut measured, mut evaluations) = (self.queue.clone(), BTreeMap::new(), 0);
        let mut best: Option<(f64, Evaluated<B>)> = None;
        while let Some(top) = queue.pop() {
            let name = self.name(top.site);
            // A score of this plan from a round whose step was undone is still right, but has no states to go on from.
            if let Some((_, found)) = best.take_if(|(_, found)| found.place == top.site) {
                measured.remove(&name);
                let step = self.step_to(top.site, Trial::Whole(found.accuracy.clone()), evaluations);
                self.found = Some(found);
                return Ok(Round { step: Some(step), measured });
            }
            evaluations += 1;
            let trial = self.lowered(top.site);
            let watched = floor.filter(|_| self.options.trials == TrialLength::UntilDecided);
            let (accuracy, states) = match self.evaluator.try_keeping(&self.kept, &trial, watched)? {
                Trial::Whole(whole) => whole,
                Trial::Short(bounds) => {
                    let step = self.step_to(top.site, Trial::Short(bounds), evaluations);
                    return Ok(Round { step: Some(step), measured });
                }
            };
            if floor.is_some_and(|floor| !floor.admits(accuracy.exact_match)) {
                let step = self.step_to(top.site, Trial::Whole(accuracy), evaluations);
                return Ok(Round { step: Some(LadderStep { accepted: false, ..step }), measured });
            }
            let harm = accuracy.divergence.unwrap_or(0.0) - self.accuracy.divergence.unwrap_or(0.0);
            // JSON, which rounds are kept in, has no infinity.
            let score = (harm / self.places[top.site].saves()).min(f64::MAX);
            measured.insert(name, score);
            queue.push(Scored { score, site: top.site });
            // Equals go to the site that comes first, as in the queue.
            let is_lowest = best.as_ref().is_none_or(|(lowest, found)| (score, top.site) < (*lowest, found.place));
            if is_lowest {
                best = Some((score, Evaluated { place: top.site, accuracy, states }));
            }
        }
        Ok(Round { step: None, measured })
    }

    /// Goes on from a step, found now or known from before.
    ///
    /// # Errors
    ///
    /// When the step is none that the plan has.
    pub(super) fn take(&mut self, step: &LadderStep, measured: &BTreeMap<String, f64>) -> Result<()> {
        let place = (0..self.places.len()).find(|&place| self.name(place) == step.site);
        let is_next = |&place: &usize| {
            let rungs = &self.places[place].rungs;
            rungs.len() > 1 && rungs[1].weights == step.to
        };
        let expected = || Error::option("site", &step.site, "a site with a step left");
        let place = place.filter(is_next).ok_or_else(expected)?;
        let rescored = |scored: &Scored| match measured.get(&self.name(scored.site)) {
            Some(&score) => Scored { score, ..*scored },
            None => *scored,
        };
        self.queue = self.queue.iter().filter(|scored| scored.site != place).map(rescored).collect();
        let found = self.found.take();
        let Some(accuracy) = step.accuracy.clone().filter(|_| step.accepted) else { return Ok(()) };
        (self.plan, self.accuracy) = (self.lowered(place), accuracy);
        self.steps += 1;
        self.places[place].step_down();
        if let Some(found) = found {
            (self.kept, self.kept_steps) = (found.states, self.steps);
        }
        self.enqueue(place);
        Ok(())
    }

    /// The plan reached and its accuracy.
    pub(super) fn finish(self) -> (SitePlan, Accuracy) {
        (self.plan, self.accuracy)
    }

    fn name(&self, place: usize) -> String {
        self.plan.sites().name(self.places[place].site)
    }

    /// The plan with a site one rung lower.
    fn lowered(&self, place: usize) -> SitePlan {
        let Place { site, rungs, .. } = &self.places[place];
        self.plan.clone().with(*site, rungs[1])
    }

    /// Puts a site in the queue by what its damage alone lets its next step be, if it has one.
    fn enqueue(&mut self, place: usize) {
        let at = &self.places[place];
        let Some(next) = at.rungs.get(1) else { return };
        let body = &self.evaluator.model().transformer;
        let row = self.scores.and_then(|table| table.sites.iter().find(|row| row.site == at.site));
        let damage = |row: &SiteDamage, precision: &SitePrecision| {
            let same = |have: &SitePrecision| body.implicit_at(at.site, have) == body.implicit_at(at.site, precision);
            let choice = row.choices.iter().find(|choice| same(&choice.precision));
            choice.map(|choice| choice.by(DamageMeasure::Divergence))
        };
        let harm = row.and_then(|row| Some(damage(row, next)? - damage(row, &at.rungs[0]).unwrap_or(0.0)));
        let score = harm.map_or(f64::NEG_INFINITY, |harm| harm / at.saves());
        self.queue.push(Scored { score, site: place });
    }

    /// Bytes of all that the search may change.
    fn bytes(&self, plan: &SitePlan) -> usize {
        let body = &self.evaluator.model().transformer;
        plan_bytes(body, plan) + self.options.ladder.embeddings().map_or(0, |_| embedding_bytes(body, plan))
    }

    fn step_to(&self, place: usize, trial: Trial<Accuracy>, evaluations: usize) -> LadderStep {
        let (plan, rungs) = (self.lowered(place), &self.places[place].rungs);
        let (accuracy, exact_match) = match trial {
            Trial::Whole(accuracy) => (Some(accuracy.clone()), Bounds::exactly(accuracy.exact_match)),
            Trial::Short(bounds) => (None, bounds),
        };
        LadderStep {
            site: self.name(place),
            from: rungs[0].weights,
            to: rungs[1].weights,
            accepted: accuracy.is_some(),
            accuracy,
            exact_match,
            average_bits: plan.average_weight_bits(),
            bytes: self.bytes(&plan),
            evaluations,
        }
    }
}

impl Place {
    /// A site on the highest rung, with the lower ones that save bytes.
    fn new<B: QuantBackend, M: SwitchableModel<B>>(
        evaluator: &Evaluator<'_, B, M>,
        options: &LadderOptions,
        site: Site,
    ) -> Self {
        let body = &evaluator.model().transformer;
        let count = |precision: &SitePrecision| match options.stop_at {
            StopAt::SiteBytes(_) => site_bytes(body, site, *precision) as f64,
            StopAt::Tolerance(_) | StopAt::AverageBits(_) => {
                body.sites().parameters(site) as f64 * f64::from(precision.weights.bits()) / 8.0
            }
        };
        let mut place = Self { site, rungs: Vec::new(), bytes: Vec::new() };
        for rung in options.ladder.of(body, site) {
            let bytes = count(&rung);
            if place.bytes.last().is_none_or(|last| bytes < *last) {
                place.rungs.push(rung);
                place.bytes.push(bytes);
            }
        }
        place
    }

    /// Bytes that the next step saves.
    fn saves(&self) -> f64 {
        self.bytes[0] - self.bytes[1]
    }

    fn step_down(&mut self) {
        self.rungs.remove(0);
        self.bytes.remove(0);
    }
}
