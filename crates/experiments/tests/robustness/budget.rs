//! Attacks that end at their first success, and those that go on.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use experiments::robustness::attacks::attack::{Attack, Outcome};
use experiments::robustness::attacks::attack_kind::AttackKind;
use experiments::robustness::attacks::budget::{AttackBudget, SearchEnd};
use experiments::robustness::protected_example::ProtectedExample;
use experiments::robustness::victim::model_under_attack::Victim;
use experiments::robustness::victim::oracle::{Oracle, Reading};
use gpt2_model::Gpt2;
use switchable_model::site_plan::SitePlan;

use super::LEARNT;
use crate::support::{Training, skip_without_device};

const SEARCHES: [AttackKind; 3] = [AttackKind::HotFlipWord, AttackKind::HotFlipToken, AttackKind::WordSubstitution];

/// What the model makes of an item as an attack leaves it, and how often it was asked; none where nothing could be
/// edited.
fn attacked(
    kind: AttackKind,
    budget: AttackBudget,
    item: &ProtectedExample,
    (victim, plans): (&Victim<'_, Training, Gpt2<Training>>, &[SitePlan]),
) -> (Option<Reading>, usize) {
    let attack: Box<dyn Attack<Training, Gpt2<Training>>> = kind.build(budget).expect("valid input");
    let oracle = Oracle::new(victim, plans);
    let outcome = attack.attack(item, &oracle, &mut ChaCha8Rng::seed_from_u64(1)).expect("it attacks");
    let readings = oracle.readings();
    let Outcome::Attacked(edited) = outcome else { return (None, readings) };
    (Oracle::new(victim, plans).read(&[&edited]).expect("it reads").pop(), readings)
}

#[test]
fn an_attack_that_goes_on_to_its_last_step_is_as_strong_as_one_that_stops_and_asks_more() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let plans = [LEARNT.plan(32)];
    let to_the_end = AttackBudget { end: SearchEnd::LastStep, readings: None };
    let (mut all_asked, mut successes) = ([0, 0], 0);
    for kind in SEARCHES {
        let (mut asked, mut losses, mut fooled) = ([0, 0], [0.0, 0.0], [0, 0]);
        for item in LEARNT.items().iter().take(12) {
            for (i, budget) in [AttackBudget::default(), to_the_end].into_iter().enumerate() {
                let (reading, readings) = attacked(kind, budget, item, (&victim, &plans));
                let Some(reading) = reading else { continue };
                asked[i] += readings;
                losses[i] += reading.loss.expect("the answer stands in a window");
                fooled[i] += usize::from(reading.is_fooled());
            }
        }
        assert!(fooled[1] >= fooled[0] && asked[1] >= asked[0], "{kind}: {fooled:?} fooled, asked {asked:?} times");
        assert!(losses[1] >= losses[0], "{kind}: {losses:?} nats");
        // Where nothing succeeds, there is nothing to stop at.
        assert!(fooled[0] > 0 || asked[0] == asked[1], "{kind}: asked {asked:?} times");
        successes += fooled[0];
        all_asked = [all_asked[0] + asked[0], all_asked[1] + asked[1]];
    }
    assert!(successes > 0 && all_asked[1] > all_asked[0], "{successes} successes, asked {all_asked:?} times");
}

#[test]
fn a_budget_is_kept_by_every_search_and_counts_each_plan_once() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let plans = [LEARNT.plan(32), LEARNT.plan(4)];
    for kind in SEARCHES {
        // The gradient is a reading of its own, and without an edit beside it there is no attack.
        let least = if kind == AttackKind::WordSubstitution { 1 } else { 2 };
        for most in [least, 7, 20] {
            for end in [SearchEnd::FirstSuccess, SearchEnd::LastStep] {
                let budget = AttackBudget { end, readings: Some(most) };
                for item in LEARNT.items().iter().take(4) {
                    for plans in [&plans[..1], &plans[..]] {
                        let (_, readings) = attacked(kind, budget, item, (&victim, plans));
                        assert!(readings <= most, "{kind} asked {readings} times of {most}");
                    }
                }
            }
        }
        for too_few in 0..least {
            let budget = AttackBudget { readings: Some(too_few), ..AttackBudget::default() };
            let message = kind.build::<Training, Gpt2<Training>>(budget).unwrap_err().to_string();
            assert!(message.contains(&format!("`readings` is {too_few}, expected at least")), "{message}");
        }
    }
}
