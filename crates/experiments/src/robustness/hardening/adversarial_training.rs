//! Adversarial training in rounds: attack the model as it is, train on what comes out, attack again.
//!
//! ```text
//! round r:   p_r = the highest width (plain), or one drawn from the ladder (random precision, RPT)
//!            A_r = attack(model, p_r) on a fresh part of the training items
//!            train for k steps at p_r on the items of that part, clean and attacked
//! ```
//!
//! With random precision the examples of a round are made at the width that the round trains at, which
//! is the premise under which attacks are said not to transfer between widths. What is trained is what
//! the model lets be trained: its base, or the adapters of the widths.
//!
//! Sources: Madry et al., arXiv:1706.06083 (training on the attack of the model as it is); Fu et al.,
//! *Double-Win Quant*, ICML 2021 (random precision).

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::evaluation::reading::ReadingTask;
use squad_data::{Dataset, Example, TextTokenizer};
use switchable_model::model::TrainableModel;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::robustness::attacks::attack::Attack;
use crate::robustness::protocol::craft::{AttackSource, Crafting, ItemChoice, RobustnessOptions};
use crate::robustness::victim::model_under_attack::{Victim, VictimOptions, dataset_of};
use crate::running::memory::Memory;
use crate::train::config::TrainConfig;
use crate::train::ladder::{Ladder, Rung};
use crate::train::regimes::random::Random;
use crate::train::regimes::single::Single;
use crate::train::span_task::SpanTask;
use crate::train::trainer::{TrainRun, Training, train};

/// At which width the rounds attack and train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundPrecision {
    /// The highest of the ladder in every round: plain adversarial training.
    #[default]
    Highest,
    /// One drawn for each round: random-precision training (RPT).
    Random,
}

/// Options of adversarial training.
///
/// | field | range | default |
/// |---|---|---|
/// | `rounds` | 1.. | 8 |
/// | `items_per_round` | 1.. | 256 |
/// | `precision` | | highest |
/// | `train` | steps are those of a round | 32 steps |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialTraining {
    /// Attacks and trainings.
    pub rounds: usize,
    /// Training items attacked in a round; they are trained on clean as well.
    pub items_per_round: usize,
    /// At which width a round attacks and trains.
    pub precision: RoundPrecision,
    /// Training of a round; a batch is all windows of the round where it has fewer.
    pub train: TrainConfig,
}

impl Default for AdversarialTraining {
    fn default() -> Self {
        let train = TrainConfig { steps: 32, ..TrainConfig::default() };
        Self { rounds: 8, items_per_round: 256, precision: RoundPrecision::default(), train }
    }
}

impl AdversarialTraining {
    /// # Errors
    ///
    /// When there is no round or no item, or the training of a round is out of its range.
    pub fn check(&self) -> Result<()> {
        for (field, value) in [("rounds", self.rounds), ("items_per_round", self.items_per_round)] {
            if value == 0 {
                return Err(Error::option(field, 0, "at least 1"));
            }
        }
        self.train.check()
    }
}

/// What a round did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Width it attacked and trained at, bits.
    pub bits: quant_kernels::BitWidth,
    /// Items that the attack changed.
    pub attacked: usize,
    /// Mean loss of its steps, nats.
    pub loss: f64,
}

/// How a model is attacked and trained, round after round.
#[derive(Debug, Clone, Copy)]
pub struct HardeningRun<'a> {
    /// Plans that rounds train at and that answer. Where the base is trained they should name no adapter:
    /// adapters belong to the weights as they were.
    pub ladder: &'a Ladder,
    /// The rounds.
    pub training: &'a AdversarialTraining,
    /// The model's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// How the model reads.
    pub reading: &'a VictimOptions,
    /// How training runs.
    pub run: &'a TrainRun,
}

/// Trains a model on attacks of itself, made on the questions of a data set.
///
/// Rounds keep no checkpoints: what a round attacks is the model that the round before has left.
///
/// # Errors
///
/// When an option is out of its range, there is no training item, or as [`Crafting::craft`] and [`train()`].
pub fn adversarial_training<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    mut model: ForQuestionAnswering<B, M>,
    dataset: &Dataset,
    attack: &dyn Attack<B, M>,
    how: HardeningRun<'_>,
) -> Result<(ForQuestionAnswering<B, M>, Vec<Round>)> {
    let HardeningRun { ladder, training: options, tokenizer, reading, run } = how;
    options.check()?;
    let items: Vec<Example> = dataset.examples().into_iter().filter(|item| !item.is_impossible).collect();
    if items.is_empty() {
        return Err(Error::NoQuestions { what: "the training set, impossible questions left out,".into() });
    }
    let random = Random::new(ladder.clone(), options.train.seed);
    let mut rounds = Vec::with_capacity(options.rounds);
    for round in 0..options.rounds {
        let Rung { bits, plan } = match options.precision {
            RoundPrecision::Highest => ladder.highest(),
            RoundPrecision::Random => random.rung(round),
        };
        let wanted = options.items_per_round.min(items.len());
        let part: Vec<Example> = (0..wanted).map(|i| items[(round * wanted + i) % items.len()].clone()).collect();
        let source = AttackSource { label: bits.to_string(), plans: vec![plan.clone()] };
        let crafting = RobustnessOptions {
            items: ItemChoice::All,
            seed: options.train.seed.wrapping_add(round as u64),
            show: run.show,
            memory: Memory::Nothing,
        };
        let attacked = {
            let victim = Victim::new(&model, tokenizer, &dataset_of(&part), reading.clone())?;
            Crafting { victim: &victim, items: &part, options: &crafting }
                .craft(attack, &source)?
                .adversarial_examples(&part)
        };
        // A question stands twice: its id tells which is the attacked one.
        let renamed = attacked.iter().map(|item| Example { id: format!("{}-attacked", item.id), ..item.clone() });
        let both: Vec<Example> = part.into_iter().chain(renamed).collect();
        let task = ReadingTask::new(dataset_of(&both), tokenizer, model.config(), reading.window)?;
        let config = TrainConfig { seed: crafting.seed, ..at_most(&options.train, &task) };
        let quiet = TrainRun { dir: None, ..run.clone() };
        let spans = SpanTask::new(&task, &config)?;
        let (trained, outcome) =
            train(model, &spans, &Single(plan.clone()), Training { config: &config, run: &quiet })?;
        model = trained;
        rounds.push(Round {
            bits: *bits,
            attacked: attacked.len(),
            loss: span_reader::statistics::mean(&outcome.losses),
        });
    }
    Ok((model, rounds))
}

/// The training with no larger batches than there are windows with an answer.
fn at_most(train: &TrainConfig, task: &ReadingTask) -> TrainConfig {
    let windows = task.features.windows().iter().filter(|window| window.target.is_some()).count().max(1);
    if train.batch_size <= windows {
        return train.clone();
    }
    TrainConfig { batch_size: windows, micro_batches: 1, ..train.clone() }
}
