//! Search down a ladder of widths: one site, one rung at a time.
//!
//! ```text
//! score(site)  = (KL(reference ‖ plan with the site one rung lower) − KL(reference ‖ plan)) / bytes that it saves
//! start:         every site on the highest rung, scores estimated, or not known and below all others
//! repeat:        take the site of the lowest score; a score of an earlier plan is measured again and put back;
//!                one of this plan is the next step
//! until:         the plan is as small as asked for, or no site is left
//!         or:    EM ≤ (1 − tolerance) · EM(reference):  that step is undone and the site stays where it is
//! ```
//!
//! Scores rise as the plan gets worse, mostly: a score that was measured again and is still the lowest is then the
//! lowest of all, and the others need no measurement (Minoux, *Accelerated greedy algorithms*, 1978). It is not a
//! theorem here, as damages of two sites can also cancel. Bytes are those of the codes alone, or, where the search
//! ends by [`StopAt::SiteBytes`](crate::search::greedy::StopAt::SiteBytes), all that a site takes; a rung that saves none of them is left out for its site.
//!
//! A ladder of two rungs is the study's search, [`greedy_search`]: sites in the order of their harm alone, which is
//! exact match first and not a score per byte, until the first step that costs too much.

use serde::{Deserialize, Serialize};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::floor::Floor;
use span_reader::evaluation::work::Work;
use squad_data::QuestionScore;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::running::progress::Progress;
use crate::search::greedy::{Flip, GreedyStart, greedy_search, threshold};
use crate::search::ladder::descent::{Descent, Round};
use crate::search::ladder::options::{LadderOptions, LadderStart};
use crate::search::ladder::result::{LadderResult, LadderStep};
use crate::search::sensitivity::{Part, SensitivityOptions, sensitivity};

mod descent;
pub mod options;
pub mod result;
pub mod rungs;
mod site_queue;
pub mod text;

/// Searches from the highest rung down.
///
/// # Errors
///
/// When the tolerance is outside (0, 1), the lowest rung everywhere is larger than asked for, an adapter is missing,
/// the work is stopped, or what is known from before is of something else.
pub fn ladder_search<B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &Evaluator<'_, B, M>,
    start: LadderStart<'_>,
    options: &LadderOptions,
) -> Result<(LadderResult, SitePlan)> {
    options.check_reachable(&evaluator.model().transformer, start.reference)?;
    if options.ladder.rungs().len() == 2 && options.ladder.embedding_widths().len() < 2 {
        return of_two_rungs(evaluator, start.reference, options);
    }
    let before = evaluator.work();
    let (full, kept) = evaluator.evaluate_keeping(None, start.reference)?;
    let threshold = threshold(options.stop_at, &full)?;
    let mut descent = Descent::new(evaluator, start, options, (full.clone(), kept));
    let steps = descent.steps_at_most();
    let mut progress = Progress::start("ladder search", 0, steps, options.show);
    let mut path: Vec<LadderStep> = Vec::new();
    let mut work = evaluator.work() - before;
    while !descent.is_small_enough() {
        let round = options.known.recall(&format!("step-{:04}", path.len() + 1), || {
            descent.catch_up()?;
            let before = evaluator.work();
            let round = descent.round(threshold.map(Floor::Above))?;
            Ok(TriedStep::new(round, evaluator.work() - before))
        })?;
        let (Round { step, measured }, work_of_step) = round.whole();
        work += work_of_step;
        let Some(step) = step else { break };
        descent.take(&step, &measured)?;
        progress.step(format!("{} at {} bits, {:.2} on average", step.site, step.to, step.average_bits));
        path.push(step);
    }
    progress.finish();
    let evaluations = path.iter().map(|step| step.evaluations).sum();
    let (plan, accuracy) = descent.finish();
    Ok((LadderResult { reference: full, threshold, path, accuracy, evaluations, work }, plan))
}

/// The study's search, told as steps.
fn of_two_rungs<B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &Evaluator<'_, B, M>,
    reference: &SitePlan,
    options: &LadderOptions,
) -> Result<(LadderResult, SitePlan)> {
    let (ladder, how) = (&options.ladder, options.as_greedy());
    let alone = SensitivityOptions {
        embeddings: how.embeddings,
        show: options.show,
        known: options.known.clone(),
        ..SensitivityOptions::new(Part::Site, how.low)
    };
    let (sites, kept) = sensitivity(evaluator, reference, &alone)?;
    let start = GreedyStart { reference, sensitivity: &sites, kept };
    let (found, plan) = greedy_search(evaluator, start, &how)?;
    let all = reference.sites();
    let step = |flip: Flip| {
        let site = all.find(&flip.site).ok_or_else(|| Error::option("site", &flip.site, "a site of the model"))?;
        let to = if site.block.is_some() { ladder.bottom().weights } else { how.embeddings.unwrap_or(BitWidth::FULL) };
        Ok(LadderStep {
            site: flip.site,
            from: reference.get(site).weights,
            to,
            accuracy: flip.accuracy,
            exact_match: flip.exact_match,
            average_bits: flip.average_bits,
            bytes: flip.bytes,
            accepted: flip.accepted,
            evaluations: 1,
        })
    };
    let path = found.path.into_iter().map(step).collect::<Result<Vec<_>>>()?;
    let (reference, threshold, accuracy) = (found.reference, found.threshold, found.accuracy);
    let evaluations = path.len() + sites.effects.len();
    let mut work = sites.work;
    work += found.work;
    Ok((LadderResult { reference, threshold, path, accuracy, evaluations, work }, plan))
}

/// A round as it is known again: the scores of its questions, which a saved [`Accuracy`] has not, beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TriedStep {
    round: Round,
    scores: Vec<QuestionScore>,
    work: Work,
}

impl TriedStep {
    fn new(mut round: Round, work: Work) -> Self {
        let accuracy = round.step.as_mut().and_then(|step| step.accuracy.as_mut());
        let scores = accuracy.map_or_else(Vec::new, |accuracy| std::mem::take(&mut accuracy.scores));
        Self { round, scores, work }
    }

    /// The round whole, and its work.
    fn whole(self) -> (Round, Work) {
        let Self { mut round, scores, work } = self;
        if let Some(accuracy) = round.step.as_mut().and_then(|step| step.accuracy.as_mut()) {
            accuracy.scores = scores;
        }
        (round, work)
    }
}
