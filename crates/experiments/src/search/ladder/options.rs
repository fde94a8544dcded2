//! What a search down a ladder starts from, and where it ends.

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;
use crate::running::memory::Parts;
use crate::running::progress::ShowProgress;
use crate::search::allocation::damage::DamageTable;
use crate::search::greedy::{GreedyOptions, StopAt, TrialLength};
use crate::search::ladder::rungs::Ladder;

/// Options of the search.
#[derive(Debug, Clone, PartialEq)]
pub struct LadderOptions {
    /// The widths.
    pub ladder: Ladder,
    /// Where the search ends.
    pub stop_at: StopAt,
    /// How far a step that costs too much is evaluated.
    pub trials: TrialLength,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Steps known from before, one by one.
    pub known: Parts,
}

impl LadderOptions {
    /// Down a ladder until a tenth of the exact match is lost.
    pub fn new(ladder: Ladder) -> Self {
        Self {
            ladder,
            stop_at: StopAt::Tolerance(0.1),
            trials: TrialLength::default(),
            show: ShowProgress::default(),
            known: Parts::default(),
        }
    }
}

/// What a search starts from.
#[derive(Debug, Clone, Copy)]
pub struct LadderStart<'a> {
    /// The plan with every site on the highest rung.
    pub reference: &'a SitePlan,
    /// The damage of each site alone, estimated or measured, by its divergence; without it every first score is measured.
    pub scores: Option<&'a DamageTable>,
}

impl LadderOptions {
    /// Refuses a size that plans do not reach from a reference with every site on its lowest rung.
    ///
    /// # Errors
    ///
    /// As [`GreedyOptions::check_reachable`].
    pub fn check_reachable<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &M,
        reference: &SitePlan,
    ) -> Result<()> {
        self.as_greedy().check_reachable(model, reference)
    }

    /// The study's search from the highest rung to the lowest.
    pub(super) fn as_greedy(&self) -> GreedyOptions {
        let Self { ladder, stop_at, trials, show, known } = self;
        let embeddings = ladder.embeddings();
        GreedyOptions {
            stop_at: *stop_at,
            embeddings,
            trials: *trials,
            show: *show,
            known: known.clone(),
            ..GreedyOptions::new(ladder.bottom())
        }
    }
}
