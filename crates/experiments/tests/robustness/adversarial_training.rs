use std::sync::Mutex;

use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use experiments::error::Result;
use experiments::robustness::attacks::attack::{Access, Attack, Outcome};
use experiments::robustness::attacks::hot_flip::{HotFlip, HotFlipOptions};
use experiments::robustness::hardening::adversarial_training::{
    AdversarialTraining, HardeningRun, Round, RoundPrecision, adversarial_training,
};
use experiments::robustness::protected_example::ProtectedExample;
use experiments::robustness::victim::model_under_attack::VictimOptions;
use experiments::robustness::victim::oracle::Oracle;
use experiments::train::config::TrainConfig;
use experiments::train::ladder::Ladder;
use gpt2_model::{Gpt2, Gpt2ForQuestionAnswering};
use quant_kernels::spec::bit_width::BitWidth;
use squad_data::Dataset;
use switchable_lora::linear_settings::{BasePolicy, LinearSettings};

use super::{LEARNT, Learnt};
use crate::support::{Training, quiet, skip_without_device, train_config};

fn trainable(learnt: &Learnt) -> Gpt2ForQuestionAnswering<Training> {
    let settings = LinearSettings { base: BasePolicy::Trainable, ..LinearSettings::default() };
    learnt.model.clone().with_linear_settings(settings)
}

fn options(precision: RoundPrecision) -> AdversarialTraining {
    AdversarialTraining {
        rounds: 4,
        items_per_round: 12,
        precision,
        train: TrainConfig { steps: 15, ..train_config(15) },
    }
}

fn ladder(learnt: &Learnt) -> Ladder {
    Ladder::new([32, 4].map(|bits| (BitWidth::new(bits).expect("valid input"), learnt.plan(bits))))
        .expect("valid input")
}

/// Trains what was learnt on attacks on some of its items.
fn hardened(
    dataset: &Dataset,
    attack: &dyn Attack<Training, Gpt2<Training>>,
    options: &AdversarialTraining,
) -> Result<(Gpt2ForQuestionAnswering<Training>, Vec<Round>)> {
    let learnt = &*LEARNT;
    let how = HardeningRun {
        ladder: &ladder(learnt),
        training: options,
        tokenizer: &learnt.tokenizer,
        reading: &VictimOptions::default(),
        run: &quiet(2),
    };
    adversarial_training(trainable(learnt), dataset, attack, how)
}

/// Gives every item back as it is: rounds of as much training on the same items, none of it on attacks.
#[derive(Debug)]
struct NoAttack;

impl Attack<Training, Gpt2<Training>> for NoAttack {
    fn name(&self) -> String {
        "none".into()
    }

    fn settings(&self) -> Value {
        Value::Null
    }

    fn access(&self) -> Access {
        Access::Blind
    }

    fn attack(
        &self,
        item: &ProtectedExample,
        _: &Oracle<'_, Training, Gpt2<Training>>,
        _: &mut ChaCha8Rng,
    ) -> Result<Outcome> {
        Ok(Outcome::Attacked(item.clone()))
    }
}

/// HotFlip, and what it made of the items.
#[derive(Debug)]
struct Recorded {
    attack: HotFlip,
    made: Mutex<Vec<ProtectedExample>>,
}

impl Attack<Training, Gpt2<Training>> for Recorded {
    fn name(&self) -> String {
        Attack::<Training, Gpt2<Training>>::name(&self.attack)
    }

    fn settings(&self) -> Value {
        Attack::<Training, Gpt2<Training>>::settings(&self.attack)
    }

    fn access(&self) -> Access {
        Attack::<Training, Gpt2<Training>>::access(&self.attack)
    }

    fn attack(
        &self,
        item: &ProtectedExample,
        oracle: &Oracle<'_, Training, Gpt2<Training>>,
        rng: &mut ChaCha8Rng,
    ) -> Result<Outcome> {
        let outcome = self.attack.attack(item, oracle, rng)?;
        if let Outcome::Attacked(made) = &outcome {
            self.made.lock().expect("no attack panics").push(made.clone());
        }
        Ok(outcome)
    }
}

/// The mean loss of a model on items.
fn loss(items: &[ProtectedExample], model: &Gpt2ForQuestionAnswering<Training>) -> f64 {
    let learnt = &*LEARNT;
    let (victim, plans) = (learnt.victim_of(model), [learnt.plan(32)]);
    let readings = Oracle::new(&victim, &plans).read(&items.iter().collect::<Vec<_>>()).expect("valid input");
    readings.iter().map(|reading| reading.loss.expect("a window holds the answer")).sum::<f64>() / items.len() as f64
}

/// The control was trained as much, on the same items without attacks. How many items each answers when it is attacked
/// anew hangs on the order of sums for so small a model; what it was trained on it has to have learnt.
#[test]
fn training_on_attacks_teaches_the_attacked_items_and_as_much_training_without_does_not() {
    skip_without_device!();
    let learnt = &*LEARNT;
    let attack = Recorded { attack: HotFlip::new(HotFlipOptions::default()).unwrap(), made: Mutex::default() };
    let options = AdversarialTraining { rounds: 8, ..options(RoundPrecision::Highest) };
    let (trained, rounds) = hardened(&learnt.task.dataset, &attack, &options).unwrap();
    assert_eq!(rounds.len(), 8);
    assert!(rounds.iter().all(|round| round.bits.is_full()) && rounds[0].attacked > 0);
    let (control, _) = hardened(&learnt.task.dataset, &NoAttack, &options).unwrap();
    let made = attack.made.into_inner().expect("no attack panics");
    assert_eq!(made.len(), rounds.iter().map(|round| round.attacked).sum::<usize>());
    let [before, without, with] = [&learnt.model, &control, &trained].map(|model| loss(&made, model));
    assert!(
        with < 0.5 * before && with < 0.5 * without,
        "mean loss of {} attacked items: {before} before, {without} after training without attacks, {with} with them",
        made.len()
    );
    let clean = learnt.items();
    let [before, with] = [&learnt.model, &trained].map(|model| loss(&clean, model));
    assert!(with < before + 0.5, "mean loss of the items as they are: {before} before, {with} after");
}

#[test]
fn random_precision_rounds_attack_and_train_at_drawn_widths() {
    skip_without_device!();
    let attack = HotFlip::new(HotFlipOptions::default()).unwrap();
    let random = AdversarialTraining { rounds: 8, items_per_round: 2, ..options(RoundPrecision::Random) };
    let random = AdversarialTraining { train: TrainConfig { steps: 1, batch_size: 2, ..random.train }, ..random };
    let rounds = |options: &AdversarialTraining| hardened(&LEARNT.task.dataset, &attack, options).unwrap().1;
    let first = rounds(&random);
    let widths: std::collections::BTreeSet<_> = first.iter().map(|round| round.bits.bits()).collect();
    assert_eq!(widths.into_iter().collect::<Vec<_>>(), [4, 32]);
    assert_eq!(first, rounds(&random), "the same seed gives the same rounds");
}

#[test]
fn a_round_with_less_than_a_batch_is_one_batch() {
    skip_without_device!();
    let attack = HotFlip::new(HotFlipOptions::default()).unwrap();
    let train = TrainConfig { steps: 1, batch_size: 32, micro_batches: 2, ..train_config(1) };
    let small = AdversarialTraining { rounds: 1, items_per_round: 3, train, precision: RoundPrecision::Highest };
    let rounds = hardened(&LEARNT.task.dataset, &attack, &small).unwrap().1;
    assert!(rounds[0].loss > 0.0 && rounds[0].loss.is_finite(), "{rounds:?}");
}

#[test]
fn rounds_out_of_range_are_refused() {
    skip_without_device!();
    let attack = HotFlip::new(HotFlipOptions::default()).unwrap();
    let good = options(RoundPrecision::Highest);
    for (field, wrong) in [
        ("rounds", AdversarialTraining { rounds: 0, ..good.clone() }),
        ("items_per_round", AdversarialTraining { items_per_round: 0, ..good.clone() }),
        ("steps", AdversarialTraining { train: TrainConfig { steps: 0, ..good.train.clone() }, ..good }),
    ] {
        let message = hardened(&LEARNT.task.dataset, &attack, &wrong).expect_err(field).to_string();
        assert!(message.contains(field), "{message}");
    }
}
