//! Attacked questions as files, answered by other models.

use std::path::Path;

use experiments::robustness::attacks::distractor::Distractor;
use experiments::robustness::attacks::hot_flip::{FlipUnit, HotFlip, HotFlipOptions};
use experiments::robustness::protocol::attacked_set::{AttackedSet, CLEAN, OtherModel, set_names};
use experiments::robustness::protocol::craft::{AttackSource, RobustnessOptions};
use experiments::robustness::protocol::matrix::{InferencePlan, RobustnessProtocol};
use experiments::running::progress::ShowProgress;
use gpt2_model::Gpt2;
use squad_data::{Dataset, Example, Predictions};

use super::LEARNT;
use crate::support::{Training, skip_without_device};

fn hot_flip() -> HotFlip {
    HotFlip::new(HotFlipOptions { unit: FlipUnit::Word, flips: 2, ..HotFlipOptions::default() }).expect("valid input")
}

fn sources() -> Vec<AttackSource> {
    [32, 8].map(|bits| AttackSource { label: bits.to_string(), plans: vec![LEARNT.plan(bits)] }).into()
}

fn options() -> RobustnessOptions {
    RobustnessOptions { show: ShowProgress::No, seed: 5, ..RobustnessOptions::default() }
}

/// The predictions of a model that answers some questions with their first gold answer and the others with nothing.
fn answer(dir: &Path, name: &str, questions: &Dataset, is_right: impl Fn(usize) -> bool) {
    let mut predictions = Predictions::new();
    for (at, question) in questions.questions().enumerate() {
        predictions.insert(&question.id, if is_right(at) { question.answers[0].text.as_str() } else { "" });
    }
    predictions.write(dir.join(format!("{name}.json"))).expect("it is written");
}

#[test]
fn another_model_is_a_column_by_what_it_answered() {
    skip_without_device!();
    let victim = LEARNT.victim(2);
    let items: Vec<Example> = LEARNT.examples().into_iter().take(12).collect();
    let inference = vec![InferencePlan { label: "32".into(), plan: LEARNT.plan(32) }];
    let protocol = RobustnessProtocol::new(&victim, &items, inference, options()).unwrap();
    let (attack, sources, clean) = (hot_flip(), sources(), protocol.clean_set());
    let matrix = protocol.matrix(&attack, &sources).unwrap();
    let sets = protocol.attacked_sets(&attack, &sources).unwrap();
    let names = set_names::<Training, Gpt2<Training>>(&attack, &sources);
    assert_eq!(sets.iter().map(|set| set.name.clone()).collect::<Vec<_>>(), names);

    // The files hold the edited questions under their ids, every answer at its offset, and are read as any other.
    let dir = tempfile::tempdir().unwrap();
    for AttackedSet { name, questions } in &sets {
        let file = dir.path().join(format!("{name}-questions.json"));
        questions.write(&file).unwrap();
        assert_eq!(Dataset::read(&file).unwrap(), *questions);
        let edited = questions.examples();
        assert!(!edited.is_empty());
        assert!(edited.iter().all(|example| items.iter().any(|item| {
            item.id == example.id && (item.context != example.context || item.question != example.question)
        })));
    }

    // Right on all that is clean; on the first set right where the place is even, on the second nowhere.
    answer(dir.path(), CLEAN, &clean, |_| true);
    answer(dir.path(), &names[0], &sets[0].questions, |at| at.is_multiple_of(2));
    let folder = dir.path().join(&names[1]);
    std::fs::create_dir(&folder).unwrap();
    answer(&folder, "predictions", &sets[1].questions, |_| false);
    let other = OtherModel::read("bert", dir.path(), &names).unwrap();
    let with = matrix.clone().with_model(&other, &clean, &sets, 5).unwrap();
    assert_eq!(with.others, ["bert"]);
    for (row, (set, right)) in with.rows.iter().zip(sets.iter().zip([|n: usize| n.div_ceil(2), |_: usize| 0])) {
        let n = set.questions.len();
        let cell = &row.others[0];
        assert_eq!((cell.n, cell.right_when_clean, cell.fooled), (n, n, n - right(n)), "{}", row.source);
    }
    // What the widths do is as it was.
    assert!(with.rows.iter().zip(&matrix.rows).all(|(with, without)| with.cells == without.cells));
    let shown = experiments::robustness::protocol::attack_report::MatrixMap::new(
        &with,
        experiments::search::heat_map::Colour::No,
    )
    .to_string();
    assert!(shown.lines().next().unwrap().contains("bert"), "{shown}");

    // A name that a column has, an answer that is missing, a file that is.
    let error = with.with_model(&other, &clean, &sets, 5).unwrap_err().to_string();
    assert!(error.contains("bert"), "{error}");
    answer(dir.path(), CLEAN, &clean.limited(clean.len() - 1), |_| true);
    let other = OtherModel::read("bert", dir.path(), &names).unwrap();
    let error = matrix.with_model(&other, &clean, &sets, 5).unwrap_err().to_string();
    assert!(error.contains("clean.json") && error.contains("nothing"), "{error}");
    let missing = OtherModel::read("bert", dir.path(), &["typos-none".into()]).unwrap_err().to_string();
    assert!(missing.contains("typos-none.json"), "{missing}");
}

#[test]
fn an_attack_that_asks_nothing_of_the_model_is_one_set() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let items: Vec<Example> = LEARNT.examples().into_iter().take(6).collect();
    let inference = vec![InferencePlan { label: "32".into(), plan: LEARNT.plan(32) }];
    let protocol = RobustnessProtocol::new(&victim, &items, inference, options()).unwrap();
    let attack = Distractor::default();
    let sets = protocol.attacked_sets(&attack, &sources()).unwrap();
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0].name, set_names::<Training, Gpt2<Training>>(&attack, &sources())[0]);
    assert!(sets[0].name.ends_with("-none"), "{}", sets[0].name);
}
