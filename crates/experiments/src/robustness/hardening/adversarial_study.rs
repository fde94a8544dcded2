//! Models trained on attacks beside the one they come from, all attacked alike.
//!
//! The question is whether random-precision training makes inference at random precision robust, as
//! Fu et al., *Double-Win Quant* (ICML 2021), hold for convolutional networks: so there are three
//! models, the one at hand, one trained on attacks at the highest width, and one at widths that are
//! drawn. Each is attacked anew, on each of its plans and on all at once.

use std::fmt;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use squad_data::{Dataset, Example};
use switchable_lora::linear_settings::BasePolicy;
use switchable_model::model::TrainableModel;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::Result;
use crate::robustness::attacks::attack::Attack;
use crate::robustness::hardening::adversarial_training::{
    AdversarialTraining, HardeningRun, Round, RoundPrecision, adversarial_training,
};
use crate::robustness::protocol::craft::{AttackSource, ItemChoice, RobustnessOptions};
use crate::robustness::protocol::matrix::{AttackMatrix, InferencePlan, RobustnessProtocol};
use crate::robustness::victim::model_under_attack::{Victim, dataset_of};
use crate::train::ladder::Ladder;

/// Label of the source that attacks all plans at once.
pub const ALL_PLANS: &str = "all";

/// How a model was made ready for attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hardening {
    /// Not at all.
    None,
    /// Trained on attacks at the highest width.
    Adversarial,
    /// Trained on attacks at a width drawn for each round (RPT).
    RandomPrecision,
}

impl Hardening {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Adversarial, Self::RandomPrecision];

    /// Name in artefacts and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "untrained",
            Self::Adversarial => "adversarial",
            Self::RandomPrecision => "random-precision",
        }
    }
}

impl fmt::Display for Hardening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A model after its hardening, and the attack on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HardenedModel {
    /// How it was made ready.
    pub hardening: Hardening,
    /// What the rounds of training did; none for [`Hardening::None`].
    pub rounds: Vec<Round>,
    /// The attack made on every width and on all at once, tried on every width.
    pub matrix: AttackMatrix,
}

/// The plans of a ladder as those that answer, highest width first, and as those that are attacked:
/// each alone, then all at once.
pub fn plans_and_sources(ladder: &Ladder) -> (Vec<InferencePlan>, Vec<AttackSource>) {
    let rungs = || ladder.rungs().iter().rev();
    let inference = rungs().map(|rung| InferencePlan { label: rung.bits.to_string(), plan: rung.plan.clone() });
    let alone = rungs().map(|rung| AttackSource { label: rung.bits.to_string(), plans: vec![rung.plan.clone()] });
    let all = AttackSource { label: ALL_PLANS.into(), plans: rungs().map(|rung| rung.plan.clone()).collect() };
    (inference.collect(), alone.chain([all]).collect())
}

/// What a hardened model is trained and attacked on.
#[derive(Debug, Clone, Copy)]
pub struct HardeningData<'a> {
    /// Questions whose attacked forms are trained on.
    pub train: &'a Dataset,
    /// Questions that are attacked in the end.
    pub items: &'a [Example],
}

impl Hardening {
    /// Hardens a model's base weights and attacks the result. The precision of the rounds is set by the
    /// hardening.
    ///
    /// All items are attacked, answered rightly or not, so that models are compared on the same ones.
    ///
    /// # Errors
    ///
    /// As [`adversarial_training()`] and [`RobustnessProtocol::matrix`].
    pub fn harden_and_attack<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        self,
        model: &ForQuestionAnswering<B, M>,
        data: HardeningData<'_>,
        attack: &dyn Attack<B, M>,
        how: HardeningRun<'_>,
    ) -> Result<HardenedModel> {
        let HardeningRun { ladder, training, tokenizer, reading, run } = how;
        let precision = match self {
            Self::None => None,
            Self::Adversarial => Some(RoundPrecision::Highest),
            Self::RandomPrecision => Some(RoundPrecision::Random),
        };
        let (hardened, rounds) = match precision {
            None => (model.clone(), Vec::new()),
            Some(precision) => {
                let trainable = model.clone().with_policy(BasePolicy::Trainable);
                let training = AdversarialTraining { precision, ..training.clone() };
                let how = HardeningRun { training: &training, ..how };
                adversarial_training(trainable, data.train, attack, how)?
            }
        };
        let corpus = dataset_of(data.items);
        let victim = Victim::new(&hardened, tokenizer, &corpus, reading.clone())?;
        let (inference, sources) = plans_and_sources(ladder);
        let options = RobustnessOptions {
            items: ItemChoice::All,
            seed: training.train.seed,
            show: run.show,
            ..RobustnessOptions::default()
        };
        let matrix = RobustnessProtocol::new(&victim, data.items, inference, options)?.matrix(attack, &sources)?;
        Ok(HardenedModel { hardening: self, rounds, matrix })
    }
}
