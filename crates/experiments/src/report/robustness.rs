//! The part of a study that attacks the model.

use quant_kernels::{BitWidth, QuantAutodiffBackend};
use serde::Serialize;
use serde_json::json;
use squad_data::Example;
use switchable_lora::SitePrecision;
use switchable_model::model::TrainableModel;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::report::stage::Stages;
use crate::report::study::{StudyData, StudyRun};
use crate::robustness::attacks::attack_kind::AttackKind;
use crate::robustness::hardening::adversarial_study::{
    HardenedModel, Hardening, HardeningData, HardeningRun, harden_and_attack, plans_and_sources,
};
use crate::robustness::hardening::adversarial_training::AdversarialTraining;
use crate::robustness::protocol::craft::{ItemChoice, RobustnessOptions};
use crate::robustness::protocol::matrix::{AttackMatrix, RobustnessProtocol};
use crate::robustness::victim::model_under_attack::{Victim, VictimOptions};
use crate::train::config::TrainConfig;
use crate::train::ladder::Ladder;
use crate::train::trainer::TrainRun;

/// Attacks on the model and on models trained against them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RobustnessStudy {
    /// Widths that are attacked and that answer.
    pub widths: Vec<BitWidth>,
    /// The attacks.
    pub attacks: Vec<AttackKind>,
    /// Report questions that are attacked, the first ones.
    pub items: usize,
    /// Training on attacks, plain and at random precision; `None` leaves it out.
    pub training: Option<AdversarialTraining>,
    /// The attack of that training, tried on the trained models as well.
    pub training_attack: AttackKind,
}

impl Default for RobustnessStudy {
    /// All attacks at 32, 8, 4 and 3 bits on 60 questions; training on HotFlip in 8 rounds of 32 steps.
    fn default() -> Self {
        Self {
            widths: vec![BitWidth::FULL, BitWidth::B8, BitWidth::B4, BitWidth::B3],
            attacks: AttackKind::ALL.to_vec(),
            items: 60,
            training: Some(AdversarialTraining::default()),
            training_attack: AttackKind::HotFlipWord,
        }
    }
}

impl RobustnessStudy {
    /// # Errors
    ///
    /// When there is no width, attack or item, or the training is out of its range.
    pub(super) fn check(&self) -> Result<()> {
        for (field, empty) in [("robustness.widths", self.widths.is_empty()), ("attacks", self.attacks.is_empty())] {
            if empty {
                return Err(Error::option(field, "empty", "at least one"));
            }
        }
        if self.items == 0 {
            return Err(Error::option("robustness.items", 0, "at least 1"));
        }
        self.training.as_ref().map_or(Ok(()), AdversarialTraining::check)
    }
}

/// What the attacks did.
#[derive(Debug, Clone, PartialEq)]
pub struct RobustnessResults {
    /// Every attack on the model, with the adapters that it has: the items that the source answers.
    pub matrices: Vec<AttackMatrix>,
    /// The model and those trained on attacks of themselves, without adapters: all items.
    pub hardened: Vec<HardenedModel>,
}

/// Attacks the model, trains it on attacks, and attacks it again.
pub(super) fn run_robustness<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    model: &ForQuestionAnswering<B, M>,
    data: StudyData<'_>,
    (study, adapted, seed): (&RobustnessStudy, &dyn Fn(BitWidth) -> SitePrecision, u64),
    run: &StudyRun,
    stages: &Stages,
    device: &B::Device,
) -> Result<RobustnessResults> {
    let ladder_of = |precision: &dyn Fn(BitWidth) -> SitePrecision| {
        Ladder::new(study.widths.iter().map(|&bits| (bits, model.transformer.uniform_plan(precision(bits)))))
    };
    let reading = VictimOptions {
        window: data.window,
        batch_size: run.evaluate.batch_size,
        decode: run.evaluate.decode,
        workers: run.evaluate.workers.clone(),
        stop: run.evaluate.stop.clone(),
    };
    let corpus = data.report.dataset.limited(study.items);
    let items: Vec<Example> = corpus.examples();
    let shared = json!({ "widths": study.widths, "items": study.items, "seed": seed });

    let (inference, sources) = plans_and_sources(&ladder_of(adapted)?);
    let mut matrices = Vec::new();
    for attack in &study.attacks {
        let matrix = stages.run(&format!("attack-{attack}"), &shared, || {
            let victim = Victim::new(model, data.tokenizer, &corpus, reading.clone())?;
            let options = RobustnessOptions {
                items: ItemChoice::CorrectWhenClean,
                seed,
                show: run.show,
                ..RobustnessOptions::default()
            };
            let protocol = RobustnessProtocol::new(&victim, &items, inference.clone(), options)?;
            protocol.matrix(attack.build::<B, M>()?.as_ref(), &sources)
        })?;
        matrices.push(matrix);
    }

    let mut hardened = Vec::new();
    if let Some(training) = &study.training {
        let training =
            AdversarialTraining { train: TrainConfig { seed, ..training.train.clone() }, ..training.clone() };
        let ladder = ladder_of(&|bits| SitePrecision::uniform(bits).without_adapter())?;
        let options = json!({ "shared": shared, "training": training, "attack": study.training_attack });
        for hardening in Hardening::ALL {
            let result = stages.run(&format!("hardening-{hardening}"), &options, || {
                let data = HardeningData { train: &data.train.dataset, items: &items, tokenizer: data.tokenizer };
                let run = TrainRun { dir: None, ..run.train.clone() };
                let how = HardeningRun { ladder: &ladder, training: &training, reading: &reading, run: &run };
                let attack = study.training_attack.build::<B, M>()?;
                harden_and_attack(model, hardening, data, attack.as_ref(), how, device)
            })?;
            hardened.push(result);
        }
    }
    Ok(RobustnessResults { matrices, hardened })
}
