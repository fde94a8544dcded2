//! Attacks that ask the model.

use rand::SeedableRng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

use experiments::robustness::attacks::attack::{Attack, Outcome};
use experiments::robustness::attacks::hot_flip::{FlipUnit, HotFlip, HotFlipOptions, TokenFlip};
use experiments::robustness::attacks::word_substitution::{WordSubstitution, WordSubstitutionOptions};
use experiments::robustness::protected_example::{EditScope, Names, ProtectedExample, Unattackable};
use experiments::robustness::victim::oracle::Oracle;
use gpt2_model::Gpt2;

use super::{LEARNT, UNSURE, assert_gold_stands, example};
use crate::support::{Training, skip_without_device};

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn hot_flip(unit: FlipUnit) -> HotFlip {
    HotFlip::new(HotFlipOptions { unit, scope: EditScope::Everywhere, ..HotFlipOptions::default() })
        .expect("valid input")
}

fn white_box() -> Vec<Box<dyn Attack<Training, Gpt2<Training>>>> {
    vec![
        Box::new(hot_flip(FlipUnit::Word)),
        Box::new(hot_flip(FlipUnit::Token)),
        Box::new(
            HotFlip::new(HotFlipOptions { unit: FlipUnit::Token, names: Names::Change, ..HotFlipOptions::default() })
                .expect("valid input"),
        ),
        Box::new(WordSubstitution::new(WordSubstitutionOptions::default()).expect("valid input")),
    ]
}

#[test]
fn attacks_on_the_model_keep_every_gold_answer_and_repeat_themselves() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let plans = [LEARNT.plan(32), LEARNT.plan(4)];
    for attack in white_box() {
        let (mut attacked, mut queries) = (0, 0);
        for item in LEARNT.items().iter().take(6) {
            for plans in [&plans[..1], &plans[..]] {
                let oracle = Oracle::new(&victim, plans);
                let outcome = attack.attack(item, &oracle, &mut rng()).unwrap();
                queries += oracle.queries();
                assert_eq!(outcome, attack.attack(item, &Oracle::new(&victim, plans), &mut rng()).unwrap());
                if let Outcome::Attacked(edited) = outcome {
                    attacked += 1;
                    assert_gold_stands(item.example(), edited.example());
                }
            }
        }
        assert!(attacked >= 10 && queries > attacked, "{attack:?}: {attacked} attacked, {queries} queries");
    }
}

#[test]
fn attacks_on_the_model_fool_it_raise_the_loss_or_leave_the_item_as_it_is() {
    skip_without_device!();
    for (learnt, least) in [(&*LEARNT, 9), (&*UNSURE, 9)] {
        let victim = learnt.victim(1);
        let plans = [learnt.plan(32)];
        for attack in white_box() {
            let mut worked = 0;
            for item in learnt.items().iter().take(12) {
                let oracle = Oracle::new(&victim, &plans);
                let Outcome::Attacked(edited) = attack.attack(item, &oracle, &mut rng()).unwrap() else { continue };
                let readings = oracle.read(&[item, &edited]).unwrap();
                let works = readings[1].is_fooled() || readings[1].loss > readings[0].loss;
                assert!(works || edited.example() == item.example(), "{attack:?}: {readings:?}");
                worked += usize::from(works);
            }
            assert!(worked >= least, "{attack:?}: {worked}");
        }
    }
}

#[test]
fn the_best_estimate_raises_the_loss_more_often_than_random_swaps() {
    skip_without_device!();
    let victim = UNSURE.victim(1);
    let plans = [UNSURE.plan(32)];
    let oracle = Oracle::new(&victim, &plans);
    let attack = hot_flip(FlipUnit::Word);
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut rose, mut mean, mut n) = ([0, 0], [0.0, 0.0], 0);
    for item in &UNSURE.items() {
        let gradient = oracle.gradient(item).unwrap().expect("the answer is in the window");
        let flips = attack.best_flips(item, &gradient, &oracle, usize::MAX);
        assert!(flips.windows(2).all(|pair| pair[0].estimate >= pair[1].estimate));
        let apply = |flip: &_| attack.apply(item, flip, &gradient.gold, &oracle).unwrap();
        let best = flips.iter().find_map(apply).expect("some swap is possible");
        let drawn = std::iter::repeat_with(|| flips.choose(&mut random).expect("there are swaps"))
            .find_map(apply)
            .expect("some swap is possible");
        let readings = oracle.read(&[item, &best, &drawn]).unwrap();
        let loss = |i: usize| readings[i].loss.expect("the answer is in the window");
        assert!((loss(0) - gradient.loss).abs() < 1e-4, "{} {}", loss(0), gradient.loss);
        for side in 0..2 {
            rose[side] += usize::from(loss(side + 1) > loss(0));
            mean[side] += loss(side + 1) - loss(0);
        }
        n += 1;
    }
    assert!(n >= 20, "{n} items");
    assert!(rose[0] > rose[1] && mean[0] > 2.0 * mean[1].max(0.0), "{rose:?} of {n}, sums {mean:?}");
}

#[test]
fn estimates_are_the_derivative_of_the_loss() {
    skip_without_device!();
    let victim = UNSURE.victim(1);
    let plans = [UNSURE.plan(32)];
    let oracle = Oracle::new(&victim, &plans);
    let attack = hot_flip(FlipUnit::Word);
    let mut checked = 0;
    for item in UNSURE.items().iter().take(10) {
        let gradient = oracle.gradient(item).unwrap().unwrap();
        let ids = &gradient.gold.window.ids;
        let flips = attack.best_flips(item, &gradient, &oracle, usize::MAX);
        // A token that stands in the window once: its embedding is the input at that position alone.
        let once = |flip: &&TokenFlip| ids.iter().filter(|&&id| id == ids[flip.position]).count() == 1;
        let Some(flip) = flips.iter().find(once) else { continue };
        // A small step from its embedding towards that of the token it would be swapped for.
        let loss_at = |step: f32| {
            let mut model = UNSURE.model.clone();
            model.transformer.wte = model.transformer.wte.map_values(|table| {
                let d = table.dims()[1];
                let row = |id: u32| table.clone().slice([id as usize..id as usize + 1, 0..d]);
                let (present, wanted) = (row(ids[flip.position]), row(flip.token));
                let moved = present.clone() + (wanted - present) * step;
                let at = ids[flip.position] as usize;
                table.slice_assign([at..at + 1, 0..d], moved)
            });
            let moved = UNSURE.victim_of(&model);
            Oracle::new(&moved, &plans).read(&[item]).unwrap()[0].loss.unwrap()
        };
        let slope = (loss_at(5e-3) - loss_at(-5e-3)) / 1e-2;
        let estimate = f64::from(flip.estimate);
        assert!((slope - estimate).abs() <= 0.02 * estimate.abs() + 2e-5, "{slope} {estimate}");
        // Large against the rounding of a loss in f32.
        checked += usize::from(estimate.abs() > 2e-4);
    }
    assert!(checked >= 8, "{checked}");
}

#[test]
fn the_adaptive_gradient_is_the_mean_of_the_gradients_of_its_plans() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let plans = [LEARNT.plan(32), LEARNT.plan(4), LEARNT.plan(2)];
    let values = |plans: &[_], item| {
        let oracle = Oracle::new(&victim, plans);
        let gradient = oracle.gradient(item).unwrap().unwrap();
        assert_eq!(oracle.queries(), plans.len());
        let values = gradient.gradient.into_data().into_vec::<f32>().unwrap();
        (values, gradient.loss)
    };
    for item in LEARNT.items().iter().take(4) {
        let single: Vec<_> = plans.iter().map(|plan| values(std::slice::from_ref(plan), item)).collect();
        assert!(single[0].0 != single[2].0, "two bits change the gradient");
        let (together, loss) = values(&plans, item);
        let largest = together.iter().fold(0f32, |max, value| max.max(value.abs()));
        assert!(largest > 0.0);
        for (i, value) in together.iter().enumerate() {
            let mean = single.iter().map(|(values, _)| values[i]).sum::<f32>() / 3.0;
            assert!((value - mean).abs() <= 1e-6 * largest.max(1.0), "{value} {mean}");
        }
        assert!((loss - single.iter().map(|(_, loss)| loss).sum::<f64>() / 3.0).abs() < 1e-9);
    }
}

#[test]
fn the_same_plan_twice_is_no_other_source() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let (one, two) = ([LEARNT.plan(4)], [LEARNT.plan(4), LEARNT.plan(4)]);
    let attack = hot_flip(FlipUnit::Word);
    for item in LEARNT.items().iter().take(4) {
        let run = |plans| attack.attack(item, &Oracle::new(&victim, plans), &mut rng()).unwrap();
        assert_eq!(run(&one), run(&two));
    }
}

#[test]
fn word_swaps_put_words_of_the_corpus_for_words_and_leave_names() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let plans = [LEARNT.plan(32)];
    let known: Vec<&str> = victim.words().iter().map(|token| token.text.trim_start()).collect();
    let attacks: [Box<dyn Attack<Training, Gpt2<Training>>>; 2] = [
        Box::new(hot_flip(FlipUnit::Word)),
        Box::new(WordSubstitution::new(WordSubstitutionOptions::default()).unwrap()),
    ];
    let mut swaps = 0;
    for attack in attacks {
        for item in LEARNT.items().iter().take(10) {
            let Outcome::Attacked(edited) = attack.attack(item, &Oracle::new(&victim, &plans), &mut rng()).unwrap()
            else {
                continue;
            };
            let (clean, edited) = (item.words(EditScope::Everywhere), edited.words(EditScope::Everywhere));
            assert_eq!(clean.len(), edited.len());
            for (before, after) in clean.iter().zip(&edited).filter(|(a, b)| a.text != b.text) {
                for word in [before, after] {
                    assert!(!word.text.contains(char::is_uppercase), "{} {}", before.text, after.text);
                }
                assert!(known.contains(&after.text.as_str()), "{}", after.text);
                swaps += 1;
            }
        }
    }
    assert!(swaps >= 20, "{swaps}");
}

#[test]
fn token_swaps_leave_names_and_numbers() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let plans = [LEARNT.plan(32)];
    let names = |item: &ProtectedExample| {
        let texts = format!("{} {}", item.example().question, item.example().context);
        let runs = texts.split(|c: char| !c.is_alphanumeric()).map(str::to_string);
        runs.filter(|run| run.contains(|c: char| c.is_uppercase() || c.is_numeric())).collect::<Vec<_>>()
    };
    let mut swapped = 0;
    for item in LEARNT.items().iter().take(12) {
        let outcome = hot_flip(FlipUnit::Token).attack(item, &Oracle::new(&victim, &plans), &mut rng()).unwrap();
        let Outcome::Attacked(edited) = outcome else { continue };
        assert_eq!(names(item), names(&edited));
        swapped += 1;
    }
    assert!(swapped >= 10, "{swapped}");
}

#[test]
fn scopes_hold_for_attacks_on_the_model() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let plans = [LEARNT.plan(32)];
    for scope in [EditScope::Question, EditScope::Context] {
        let flip = |unit| HotFlipOptions { unit, scope, names: Names::Change, ..HotFlipOptions::default() };
        let substitution = WordSubstitutionOptions { scope, ..WordSubstitutionOptions::default() };
        let attacks: [Box<dyn Attack<Training, Gpt2<Training>>>; 3] = [
            Box::new(HotFlip::new(flip(FlipUnit::Word)).unwrap()),
            Box::new(HotFlip::new(flip(FlipUnit::Token)).unwrap()),
            Box::new(WordSubstitution::new(substitution).unwrap()),
        ];
        for (attack, item) in
            attacks.iter().flat_map(|attack| LEARNT.items().into_iter().take(4).map(move |i| (attack, i)))
        {
            let outcome = attack.attack(&item, &Oracle::new(&victim, &plans), &mut rng()).unwrap();
            let Outcome::Attacked(edited) = outcome else { continue };
            let (clean, edited) = (item.example(), edited.example());
            match scope {
                EditScope::Question => assert_eq!(clean.context, edited.context, "{attack:?}"),
                _ => assert_eq!(clean.question, edited.question, "{attack:?}"),
            }
        }
    }
}

#[test]
fn items_without_a_word_to_swap_say_so() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let plans = [LEARNT.plan(32)];
    let item = ProtectedExample::new(example("Q?", "tea", &[("tea", 0)])).unwrap();
    let run = |attack: &dyn Attack<Training, Gpt2<Training>>| {
        attack.attack(&item, &Oracle::new(&victim, &plans), &mut rng()).unwrap()
    };
    assert_eq!(run(&hot_flip(FlipUnit::Word)), Outcome::Unattackable(Unattackable::NoCandidate));
    let substitution = WordSubstitution::new(WordSubstitutionOptions::default()).unwrap();
    assert_eq!(run(&substitution), Outcome::Unattackable(Unattackable::NoEditableWord));

    let zero = |field: &str, message: String| assert!(message.contains(&format!("`{field}` is 0")), "{message}");
    let flips = HotFlipOptions::default();
    zero("flips", HotFlip::new(HotFlipOptions { flips: 0, ..flips }).unwrap_err().to_string());
    zero("beam", HotFlip::new(HotFlipOptions { beam: 0, ..flips }).unwrap_err().to_string());
    zero("candidates", HotFlip::new(HotFlipOptions { candidates: 0, ..flips }).unwrap_err().to_string());
    let options = WordSubstitutionOptions { substitutions: 0, ..WordSubstitutionOptions::default() };
    zero("substitutions", WordSubstitution::new(options).unwrap_err().to_string());
}
