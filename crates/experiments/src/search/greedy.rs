//! Greedy bit-width search.
//!
//! ```text
//! start:   every site at the high precision
//! repeat:  flip the site that does least harm to the low precision
//! until:   EM ≤ (1 − tolerance) · EM(all high);  that last flip is undone
//!    or:   the plan is as small as asked for
//! ```
//!
//! The harm of a site is that of changing it alone, measured once, or measured again from each plan
//! that was accepted. Blocks that a flip leaves as they are, are not computed again. A trial is given
//! up once the questions read so far decide it ([`Bounds`]); its decision is that of all questions.

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::cost::{embedding_bytes, plan_bytes};
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::{Evaluator, KeptStates};
use span_reader::evaluation::floor::{Bounds, Floor, Trial};
use span_reader::evaluation::work::Work;
use squad_data::QuestionScore;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use crate::error::{Error, Result};
use crate::running::memory::Parts;
use crate::running::progress::{Progress, ShowProgress};
use crate::search::harm_order::HarmOrder;
use crate::search::sensitivity::{Effect, Sensitivity};

/// When the harm of the sites is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// Once, each site alone at the low precision.
    #[default]
    Once,
    /// After each accepted flip, every site that is left, from the plan reached.
    AfterEachFlip,
}

/// Where the search ends, if sites are left to flip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopAt {
    /// Before this share of the reference's exact match is lost, in (0, 1).
    Tolerance(f64),
    /// When the mean width of the weights, weighted by parameters, is no more than this in bits.
    AverageBits(f64),
    /// When the sites need no more than these bytes, as [`plan_bytes`] counts them.
    SiteBytes(usize),
}

/// How far a trial is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialLength {
    /// Until the questions read decide it.
    #[default]
    UntilDecided,
    /// Over every question, so that a rejected flip has its accuracy as well.
    Whole,
}

/// Options of the search.
///
/// | field | range | [`GreedyOptions::new`] |
/// |---|---|---|
/// | `low` | a precision the model has | given |
/// | `stop_at` | a tolerance in (0, 1), or a size that all sites at `low` reach | a tolerance of 0.1 |
/// | `ranking` | | once |
/// | `order` | | exact match |
/// | `embeddings` | a width from 2 to 16 | left alone |
/// | `trials` | | until decided |
/// | `show` | | yes |
#[derive(Debug, Clone, PartialEq)]
pub struct GreedyOptions {
    /// Precision that sites are flipped to.
    pub low: SitePrecision,
    /// Where the search ends.
    pub stop_at: StopAt,
    /// When the harm of the sites is measured.
    pub ranking: Ranking,
    /// The figure that harm is measured by.
    pub order: HarmOrder,
    /// The width that embeddings and the output matrix are flipped to; `None` leaves them alone. Where they are
    /// flipped, their bytes count in the sizes of plans.
    pub embeddings: Option<BitWidth>,
    /// How far a trial is evaluated.
    pub trials: TrialLength,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Flips known from before, one by one.
    pub known: Parts,
}

impl GreedyOptions {
    /// The study's search: ranked once by exact match, until a tenth of it is lost.
    pub fn new(low: SitePrecision) -> Self {
        Self {
            low,
            stop_at: StopAt::Tolerance(0.1),
            ranking: Ranking::default(),
            order: HarmOrder::default(),
            embeddings: None,
            trials: TrialLength::default(),
            show: ShowProgress::default(),
            known: Parts::default(),
        }
    }
}

impl GreedyOptions {
    /// What a site of a model is flipped to.
    fn low_at<B: QuantBackend, M: SwitchableModel<B>>(&self, model: &M, site: Site) -> SitePrecision {
        let low = match (site.block, self.embeddings) {
            (None, Some(bits)) => SitePrecision::uniform(bits),
            _ => self.low,
        };
        model.precision_for(site, low)
    }

    /// Bytes of what the search may change.
    fn bytes<B: QuantBackend, M: SwitchableModel<B>>(&self, model: &M, plan: &SitePlan) -> usize {
        plan_bytes(model, plan) + self.embeddings.map_or(0, |_| embedding_bytes(model, plan))
    }

    /// Refuses a size that plans do not reach from a reference when every site is flipped.
    ///
    /// # Errors
    ///
    /// When the size is smaller; the error names the least.
    pub fn check_reachable<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &M,
        reference: &SitePlan,
    ) -> Result<()> {
        let sites = reference.sites();
        let embeddings = sites.embeddings().filter(|_| self.embeddings.is_some());
        let flipped = |plan: SitePlan, site| plan.with(site, self.low_at(model, site));
        let smallest = embeddings.chain(sites.iter()).fold(reference.clone(), flipped);
        let least = |value: String| format!("at least {value}, which every site at the low precision needs");
        let (bits, bytes) = (smallest.average_weight_bits(), self.bytes(model, &smallest));
        match self.stop_at {
            StopAt::AverageBits(most) if bits > most || most.is_nan() => {
                Err(Error::option("average_bits", most, least(bits.to_string())))
            }
            StopAt::SiteBytes(most) if bytes > most => Err(Error::option("site_bytes", most, least(bytes.to_string()))),
            _ => Ok(()),
        }
    }
}

/// One flip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// The site.
    pub site: String,
    /// Accuracy with this and all earlier accepted flips; `None` for a rejected flip that was decided
    /// before every question was read.
    pub accuracy: Option<Accuracy>,
    /// What is certain of its exact match.
    pub exact_match: Bounds,
    /// Mean width of the weights in bits, weighted by parameters.
    pub average_bits: f64,
    /// Bytes of the sites, as [`plan_bytes`] counts them, and of the embeddings where the search flips these.
    pub bytes: usize,
    /// Whether the flip was kept.
    pub accepted: bool,
}

/// A flip as it is known again: the scores of its questions, which a saved [`Accuracy`] has not, beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TriedFlip {
    /// The flip.
    flip: Flip,
    /// Scores of the questions with the flip; none where its accuracy is not known.
    scores: Vec<QuestionScore>,
    /// Work of the trial.
    work: Work,
}

impl TriedFlip {
    fn new(mut flip: Flip, work: Work) -> Self {
        let scores = flip.accuracy.as_mut().map_or_else(Vec::new, |accuracy| std::mem::take(&mut accuracy.scores));
        Self { flip, scores, work }
    }

    /// The flip whole, and its work.
    fn whole(self) -> (Flip, Work) {
        let Self { mut flip, scores, work } = self;
        if let Some(accuracy) = &mut flip.accuracy {
            accuracy.scores = scores;
        }
        (flip, work)
    }
}

/// Result of the search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GreedyResult {
    /// Accuracy with every site at the high precision.
    pub reference: Accuracy,
    /// Exact match in percent that a plan must stay above; `None` for a search by size.
    pub threshold: Option<f64>,
    /// Every flip tried, in order; of a ranking after each flip the best of each round.
    pub path: Vec<Flip>,
    /// Names of the flipped sites, in order.
    pub flipped: Vec<String>,
    /// Accuracy of the final plan.
    pub accuracy: Accuracy,
    /// Work of the search, that of the sensitivity not counted.
    pub work: Work,
}

/// What a search starts from.
#[derive(Debug, Clone)]
pub struct GreedyStart<'a, B: Backend> {
    /// The plan with every site at the high precision.
    pub reference: &'a SitePlan,
    /// What each site costs alone.
    pub sensitivity: &'a Sensitivity,
    /// The reference's states, as [`sensitivity`](crate::search::sensitivity::sensitivity) returns them.
    pub kept: KeptStates<B>,
}

/// Searches from a reference plan in the order of the sensitivity of its sites.
///
/// # Errors
///
/// When the tolerance is outside (0, 1), all sites at the low precision are larger than asked for,
/// the sensitivity is not one of single sites, an adapter is missing, the work is stopped, or what is
/// known from before is of something else.
pub fn greedy_search<B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &Evaluator<'_, B, M>,
    start: GreedyStart<'_, B>,
    options: &GreedyOptions,
) -> Result<(GreedyResult, SitePlan)> {
    let GreedyStart { reference, sensitivity, kept } = start;
    let sites: Option<Vec<Site>> = sensitivity.by_harm(options.order).into_iter().map(Effect::site).collect();
    let sites = sites.ok_or_else(|| Error::option("sensitivity", "of blocks", "the sensitivity of single sites"))?;
    let full = &sensitivity.reference;
    let threshold = threshold(options.stop_at, full)?;
    let floor = threshold.map(Floor::Above);
    let (search, names) = (Search { evaluator, options }, reference.sites());
    options.check_reachable(&evaluator.model().transformer, reference)?;

    let mut progress = Progress::start("greedy search", 0, sites.len(), options.show);
    let (mut plan, mut accuracy, mut left) = (reference.clone(), full.clone(), sites);
    // States of the plan of that many flips.
    let (mut kept, mut kept_flips) = (kept, 0);
    let (mut path, mut flipped, mut work) = (Vec::<Flip>::new(), Vec::new(), Work::default());
    while !left.is_empty() && !search.is_small_enough(&plan) {
        // The first round from the reference is what the sensitivity measured.
        let is_measured = path.is_empty() && sensitivity.changed_to == options.low;
        let mut states_of_trial = None;
        let tried = options.known.recall(&format!("flip-{:03}", path.len() + 1), || {
            if kept_flips < flipped.len() {
                // The flips since are known from before; their states are not.
                kept = search.states_of(&kept, &plan)?;
                kept_flips = flipped.len();
            }
            let before = evaluator.work();
            let ranked = if is_measured { Ranking::Once } else { options.ranking };
            let round = Round { kept: &kept, plan: &plan, left: &left, ranking: ranked };
            let (flip, states) = search.flip(&round, floor)?;
            states_of_trial = states;
            Ok(TriedFlip::new(flip, evaluator.work() - before))
        })?;
        let (flip, work_of_flip) = tried.whole();
        let place = left.iter().position(|&site| names.name(site) == flip.site);
        let place = place.ok_or_else(|| Error::option("site", &flip.site, "a site that is not flipped yet"))?;
        let site = left.remove(place);
        progress.step(format!("{} EM {:.1} at {:.1} bits", flip.site, flip.exact_match.high, flip.average_bits));
        work += work_of_flip;
        path.push(flip.clone());
        let Flip { accuracy: Some(tried), accepted: true, .. } = flip else { break };
        (plan, accuracy) = (plan.with(site, search.low(site)), tried);
        flipped.push(flip.site);
        if let Some(states) = states_of_trial {
            (kept, kept_flips) = (states, flipped.len());
        }
    }
    progress.finish();
    Ok((GreedyResult { reference: full.clone(), threshold, path, flipped, accuracy, work }, plan))
}

/// Where a search is.
#[derive(Clone, Copy)]
struct Round<'r, B: Backend> {
    /// States of the plan, or of one that it departs from.
    kept: &'r KeptStates<B>,
    plan: &'r SitePlan,
    /// Sites that are left, in their order.
    left: &'r [Site],
    /// Whether their order is measured again.
    ranking: Ranking,
}

struct Search<'s, 'a, B: QuantBackend, M: SwitchableModel<B>> {
    evaluator: &'s Evaluator<'a, B, M>,
    options: &'s GreedyOptions,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Search<'_, '_, B, M> {
    /// What a site is flipped to.
    fn low(&self, site: Site) -> SitePrecision {
        self.options.low_at(&self.evaluator.model().transformer, site)
    }

    /// Bytes of what the search may change.
    fn bytes(&self, plan: &SitePlan) -> usize {
        self.options.bytes(&self.evaluator.model().transformer, plan)
    }

    /// The next flip of a plan among the sites that are left in order, and the states with it where it
    /// was read to its end.
    fn flip(&self, round: &Round<'_, B>, floor: Option<Floor>) -> Result<(Flip, Option<KeptStates<B>>)> {
        let Round { kept, plan, left, ranking } = *round;
        let (site, ranked) = match ranking {
            Ranking::AfterEachFlip => {
                let (best, accuracy) = self.least_harmful(kept, plan, left)?;
                (left[best], Some(accuracy))
            }
            Ranking::Once => (left[0], None),
        };
        let trial = plan.clone().with(site, self.low(site));
        let (accuracy, exact_match, states) = match ranked {
            Some(ranked) if floor.is_some_and(|floor| !floor.admits(ranked.exact_match)) => {
                let exact_match = Bounds::exactly(ranked.exact_match);
                (Some(ranked), exact_match, None)
            }
            // One that was ranked is known to stay above the floor.
            ranked => {
                let floor = floor.filter(|_| ranked.is_none() && self.gives_up());
                match self.evaluator.try_keeping(kept, &trial, floor)? {
                    Trial::Short(bounds) => (None, bounds, None),
                    Trial::Whole((tried, states)) => {
                        let exact_match = Bounds::exactly(tried.exact_match);
                        (Some(tried), exact_match, Some(states))
                    }
                }
            }
        };
        let model = self.evaluator.model();
        let flip = Flip {
            site: model.transformer.sites().name(site),
            accuracy,
            exact_match,
            average_bits: trial.average_weight_bits(),
            bytes: self.bytes(&trial),
            accepted: floor.is_none_or(|floor| floor.admits(exact_match.low)),
        };
        Ok((flip, states))
    }

    /// The states of a plan that differs from the one of `kept`, with the same reference.
    fn states_of(&self, kept: &KeptStates<B>, plan: &SitePlan) -> Result<KeptStates<B>> {
        match self.evaluator.try_keeping(kept, plan, None)? {
            Trial::Whole((_, states)) => Ok(states),
            Trial::Short(_) => unreachable!("without a floor every question is read"),
        }
    }

    /// Position and accuracy of the site whose flip does least harm to a plan.
    fn least_harmful(&self, kept: &KeptStates<B>, plan: &SitePlan, left: &[Site]) -> Result<(usize, Accuracy)> {
        let mut best: Option<(usize, Accuracy)> = None;
        for (i, &site) in left.iter().enumerate() {
            // A site below the best exact match cannot win; one that equals it may, by its F1.
            let floor = best.as_ref().map(|(_, best)| Floor::AtLeast(best.exact_match));
            let decides = self.gives_up() && self.options.order == HarmOrder::ExactMatch;
            let trial = plan.clone().with(site, self.low(site));
            let Trial::Whole(accuracy) = self.evaluator.try_from(kept, &trial, floor.filter(|_| decides))? else {
                continue;
            };
            let is_better = best
                .as_ref()
                .is_none_or(|(j, best)| self.options.order.compare(&accuracy, best).then(site.cmp(&left[*j])).is_lt());
            if is_better {
                best = Some((i, accuracy));
            }
        }
        Ok(best.expect("a round has a site, and the first is read to its end"))
    }

    fn gives_up(&self) -> bool {
        self.options.trials == TrialLength::UntilDecided
    }

    /// Whether a search by size is at its end.
    fn is_small_enough(&self, plan: &SitePlan) -> bool {
        match self.options.stop_at {
            StopAt::Tolerance(_) => false,
            StopAt::AverageBits(most) => plan.average_weight_bits() <= most,
            StopAt::SiteBytes(most) => self.bytes(plan) <= most,
        }
    }
}

/// Exact match that plans must stay above.
pub(crate) fn threshold(stop_at: StopAt, reference: &Accuracy) -> Result<Option<f64>> {
    match stop_at {
        StopAt::Tolerance(tolerance) => {
            check_tolerance(tolerance)?;
            Ok(Some((1.0 - tolerance) * reference.exact_match))
        }
        StopAt::AverageBits(_) | StopAt::SiteBytes(_) => Ok(None),
    }
}

/// Right answers that a tolerance needs before it lets one of them be lost: 11 for a tenth. With fewer the
/// first flip that costs a single answer ends the search.
///
/// ```text
/// right − 1 > (1 − tolerance) · right   ⇔   right > 1 / tolerance
/// ```
///
/// ```
/// use experiments::search::greedy::least_right_answers;
///
/// assert_eq!(least_right_answers(0.1), 11);
/// assert_eq!(least_right_answers(0.3), 4);
/// ```
pub fn least_right_answers(tolerance: f64) -> usize {
    (1.0 / tolerance).floor() as usize + 1
}

/// # Errors
///
/// When a tolerance is outside (0, 1).
pub fn check_tolerance(tolerance: f64) -> Result<()> {
    if tolerance > 0.0 && tolerance < 1.0 {
        Ok(())
    } else {
        Err(Error::option("tolerance", tolerance, "a number above 0 and below 1"))
    }
}
