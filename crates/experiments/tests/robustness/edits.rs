//! Edits and the attacks that need no model leave every gold answer where it can be found.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use experiments::robustness::attacks::attack::{Amount, Outcome};
use experiments::robustness::attacks::distractor::{Distractor, DistractorPlace};
use experiments::robustness::attacks::misspellings::{MisspellingOptions, Misspellings};
use experiments::robustness::attacks::typos::{TypoKind, TypoOptions, Typos};
use experiments::robustness::protected_example::{Edit, EditScope, Place, ProtectedExample, Unattackable};
use experiments::robustness::protocol::edit_size::EditSize;
use squad_data::{CharSpan, Example, Split, normalize_answer};

use super::{assert_gold_stands, example, real_questions};
use crate::support::questions;

type Blind = Box<dyn Fn(&ProtectedExample, &mut ChaCha8Rng) -> Outcome>;

/// Every attack that needs no model, with several options each.
fn blind_attacks() -> Vec<(String, Blind)> {
    let mut attacks: Vec<(String, Blind)> = Vec::new();
    for kind in TypoKind::ALL {
        for amount in [Amount::Rate(0.3), Amount::Count(2), Amount::Rate(1.0)] {
            let typos =
                Typos::new(TypoOptions { kinds: vec![kind], amount, ..TypoOptions::default() }).expect("valid input");
            attacks.push((
                format!("{kind:?} {amount:?}"),
                Box::new(move |item, rng| typos.perturb(item, rng).expect("valid input")),
            ));
        }
    }
    let misspellings = Misspellings::new(MisspellingOptions::default()).expect("valid input");
    attacks.push((
        "misspellings".into(),
        Box::new(move |item, rng| misspellings.perturb(item, rng).expect("valid input")),
    ));
    for place in [DistractorPlace::Start, DistractorPlace::End] {
        let attack = Distractor { place };
        attacks.push((
            format!("distractor {place:?}"),
            Box::new(move |item, rng| attack.perturb(item, rng).expect("valid input")),
        ));
    }
    attacks
}

fn check_blind_attacks(examples: &[Example], seeds: u64) {
    for (name, attack) in blind_attacks() {
        let mut attacked = 0;
        for example in examples {
            let item = ProtectedExample::new(example.clone()).expect("valid input");
            for seed in 0..seeds {
                let outcome = attack(&item, &mut ChaCha8Rng::seed_from_u64(seed));
                assert_eq!(outcome, attack(&item, &mut ChaCha8Rng::seed_from_u64(seed)), "{name}: same seed");
                let Outcome::Attacked(edited) = outcome else { continue };
                attacked += 1;
                assert_gold_stands(example, edited.example());
                assert_ne!(edited, item, "{name}");
                assert_ne!(EditSize::between(example, edited.example()).characters, 0, "{name}");
            }
        }
        let all = examples.len() * seeds as usize;
        assert!(attacked * 2 > all, "{name}: {attacked} of {all}");
    }
}

#[test]
fn every_attack_without_a_model_keeps_every_gold_answer() {
    check_blind_attacks(&questions(Split::Dev, 4).examples(), 25);
}

#[test]
fn every_attack_without_a_model_keeps_every_gold_answer_of_real_questions() {
    let Some(examples) = real_questions() else { return };
    check_blind_attacks(&examples, 3);
}

#[test]
fn random_edits_are_refused_or_keep_every_gold_answer() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let clean = example(
        "Who sold tea?",
        "Tea: Zoë sold tea, teas and tea-pots in 1990s.",
        &[("tea", 14), ("tea, teas", 14), ("1990", 40)],
    );
    let item = ProtectedExample::new(clean.clone()).unwrap();
    let length = clean.context.chars().count();
    let (mut refused, mut done) = (0, 0);
    for _ in 0..5000 {
        let texts = ["", "x", " tea ", "é", "tea", "-"];
        let edit = |rng: &mut ChaCha8Rng| {
            let start = rng.random_range(0..length + 2);
            let end = start + rng.random_range(0..4);
            let text = texts[rng.random_range(0..texts.len())].into();
            Edit { place: Place::Context, chars: CharSpan { start, end }, text }
        };
        let edits = [edit(&mut rng), edit(&mut rng)];
        match item.edit(&edits) {
            Err(error) => {
                assert!(error.to_string().contains("question `made`"), "{error}");
                refused += 1;
            }
            Ok(edited) => {
                assert_gold_stands(&clean, edited.example());
                done += 1;
            }
        }
    }
    assert!(refused > 1000 && done > 1000, "{refused} refused, {done} done");
}

#[test]
fn edits_that_hurt_an_answer_are_refused_with_the_reason() {
    let item = ProtectedExample::new(example("Who?", "A cup of tea is hot.", &[("tea", 9)])).unwrap();
    let edit = |place, start, end, text: &str| Edit { place, chars: CharSpan { start, end }, text: text.into() };
    let context = |start, end, text| edit(Place::Context, start, end, text);
    for (edits, reason) in [
        (vec![context(10, 10, "x")], "touches a gold answer"),
        (vec![context(8, 10, "")], "touches a gold answer"),
        (vec![context(0, 20, "tea")], "touches a gold answer"),
        (vec![context(8, 9, "")], "puts a letter or digit against a gold answer"),
        (vec![context(12, 12, "s")], "puts a letter or digit against a gold answer"),
        (vec![context(19, 21, "")], "lies outside the text"),
        (vec![context(3, 2, "")], "lies outside the text"),
        (vec![context(0, 3, ""), context(2, 4, "x")], "overlaps another edit"),
        (vec![edit(Place::Question, 0, 4, " ")], "leaves nothing of the question"),
    ] {
        let error = item.edit(&edits).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}, expected: {reason}");
    }
    // The same characters of the question are free, and an earlier occurrence of the answer is one.
    let edited = item.edit(&[edit(Place::Question, 0, 3, "Which"), context(2, 5, "tea")]).unwrap();
    assert_eq!(&*edited.example().context, "A tea of tea is hot.");
    assert_eq!(edited.example().answers[0].start, 9);
    assert_eq!(item.edit(&[]).unwrap(), item);
}

#[test]
fn words_that_touch_an_answer_are_not_offered() {
    let clean = example("In the 1990s?", "The teapot, tea and A1 don't mix: tea-cosy.", &[("tea", 4), ("tea", 34)]);
    let item = ProtectedExample::new(clean).unwrap();
    let words = |scope| item.words(scope).into_iter().map(|word| word.text).collect::<Vec<_>>();
    assert_eq!(words(EditScope::Context), ["The", "tea", "and", "don", "t", "mix", "cosy"]);
    assert_eq!(words(EditScope::Question), ["In", "the"]);
    assert_eq!(words(EditScope::Everywhere).len(), 9);
}

#[test]
fn typos_keep_first_and_last_letters_and_the_number_of_words() {
    let typos = Typos::new(TypoOptions { amount: Amount::Rate(1.0), ..TypoOptions::default() }).unwrap();
    for example in questions(Split::Dev, 3).examples() {
        let item = ProtectedExample::new(example.clone()).unwrap();
        for seed in 0..20 {
            let Outcome::Attacked(edited) = typos.perturb(&item, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap() else {
                panic!("{} has words", example.id)
            };
            let (clean, edited) = (item.words(EditScope::Everywhere), edited.words(EditScope::Everywhere));
            assert_eq!(clean.len(), edited.len());
            let mut changed = 0;
            for (a, b) in clean.iter().zip(&edited) {
                assert_eq!(a.text.chars().next(), b.text.chars().next());
                assert_eq!(a.text.chars().last(), b.text.chars().last());
                changed += usize::from(a.text != b.text);
            }
            let long = clean.iter().filter(|word| word.text.chars().count() > 3).count();
            assert!(changed >= long, "{changed} of {long}");
        }
    }
}

#[test]
fn amounts_are_shares_or_numbers_of_words() {
    let item = ProtectedExample::new(questions(Split::Dev, 1).examples().remove(0)).unwrap();
    let changed = |amount| {
        let kinds = vec![TypoKind::Delete];
        let typos = Typos::new(TypoOptions { kinds, amount, scope: EditScope::Context }).unwrap();
        let Outcome::Attacked(edited) = typos.perturb(&item, &mut ChaCha8Rng::seed_from_u64(0)).unwrap() else {
            panic!("it has words")
        };
        assert_eq!(edited.example().question, item.example().question);
        EditSize::between(item.example(), edited.example())
    };
    let words = item.words(EditScope::Context).iter().filter(|word| word.text.chars().count() > 2).count();
    for (amount, expected) in [
        (Amount::Count(1), 1),
        (Amount::Count(3), 3),
        (Amount::Count(10_000), words),
        (Amount::Rate(1.0), words),
        (Amount::Rate(1e-9), 1),
        (Amount::Rate(0.5), (0.5 * words as f64).round() as usize),
    ] {
        assert_eq!(changed(amount).characters, expected, "{amount:?}");
    }
    for amount in [Amount::Rate(0.0), Amount::Rate(1.5), Amount::Rate(f64::NAN), Amount::Count(0)] {
        assert!(Typos::new(TypoOptions { amount, ..TypoOptions::default() }).is_err(), "{amount:?}");
        let options = MisspellingOptions { amount, ..MisspellingOptions::default() };
        assert!(Misspellings::new(options).is_err(), "{amount:?}");
    }
    let error = Typos::new(TypoOptions { kinds: vec![], ..TypoOptions::default() }).unwrap_err().to_string();
    assert!(error.contains("`kinds` is empty"), "{error}");
}

#[test]
fn distractors_hold_no_word_of_any_answer_as_an_answer_and_change_every_entity() {
    for clean in questions(Split::Dev, 4).examples().into_iter().chain(real_questions().into_iter().flatten()) {
        let item = ProtectedExample::new(clean.clone()).unwrap();
        for seed in 0..10 {
            let outcome = Distractor::default().perturb(&item, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            let Outcome::Attacked(edited) = outcome else { continue };
            let added = edited.example().context.strip_prefix(&*clean.context).unwrap().to_string();
            let padded = |text: &str| format!(" {} ", normalize_answer(text));
            for answer in &clean.answers {
                assert!(!padded(&added).contains(&padded(&answer.text)), "{added}: {}", answer.text);
            }
            assert_eq!(edited.example().question, clean.question);
        }
    }
    let named = example("What did Ann of Rome paint in 1850?", "Ann painted doors.", &[("doors", 12)]);
    let item = ProtectedExample::new(named).unwrap();
    for seed in 0..50 {
        let Outcome::Attacked(edited) =
            Distractor::default().perturb(&item, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap()
        else {
            panic!("it names entities")
        };
        let added = edited.example().context["Ann painted doors.".len()..].to_string();
        assert!(!["Ann", "Rome", "1850", "doors"].iter().any(|word| added.contains(word)), "{added}");
    }
}

#[test]
fn items_that_cannot_be_edited_say_why() {
    let refused = |item: &ProtectedExample, attack: &Blind| match attack(item, &mut ChaCha8Rng::seed_from_u64(0)) {
        Outcome::Unattackable(reason) => reason,
        Outcome::Attacked(edited) => panic!("{edited:?}"),
    };
    let item = ProtectedExample::new(example("Is?", "tea", &[("tea", 0)])).unwrap();
    for (name, attack) in blind_attacks() {
        let expected = match name.split(' ').next().unwrap() {
            "misspellings" => Unattackable::NoKnownWord,
            "distractor" => Unattackable::NoEntity,
            _ => Unattackable::NoEditableWord,
        };
        assert_eq!(refused(&item, &attack), expected, "{name}");
    }
    // The answer is named in the question, so the sentence made of it would hold it.
    let held = ProtectedExample::new(example("Does Ann drink tea?", "Ann drinks tea.", &[("tea", 11)])).unwrap();
    let distractor: Blind = Box::new(|item, rng| Distractor::default().perturb(item, rng).unwrap());
    assert_eq!(refused(&held, &distractor), Unattackable::AnswerInDistractor);

    let impossible = Example { is_impossible: true, answers: vec![], ..example("Who?", "Ann.", &[]) };
    assert_eq!(ProtectedExample::new(impossible).unwrap_err(), Unattackable::NoAnswer);
    for (text, start) in [("tea", 1), ("tea", 99), ("", 0)] {
        let moved = example("Who?", "tea", &[(text, start)]);
        assert_eq!(ProtectedExample::new(moved).unwrap_err(), Unattackable::AnswerNotAtOffset);
    }
}
