//! The attack × inference matrix.

use serde_json::json;

use content_identity::{ContentHash, Identity};
use experiments::error::Error;
use experiments::robustness::attacks::attack::{Amount, Attack};
use experiments::robustness::attacks::distractor::Distractor;
use experiments::robustness::attacks::hot_flip::{FlipUnit, HotFlip, HotFlipOptions};
use experiments::robustness::attacks::typos::{TypoOptions, Typos};
use experiments::robustness::protected_example::{ProtectedExample, Unattackable};
use experiments::robustness::protocol::attack_report::{AttackReport, MatrixMap};
use experiments::robustness::protocol::craft::{
    AttackSource, CraftOutcome, Crafted, Crafting, ItemChoice, NO_SOURCE, RobustnessOptions,
};
use experiments::robustness::protocol::matrix::{InferencePlan, RobustnessProtocol};
use experiments::robustness::victim::model_under_attack::{Victim, VictimOptions};
use experiments::running::memory::Memory;
use experiments::running::progress::ShowProgress;
use experiments::search::heat_map::Colour;
use gpt2_model::Gpt2;
use span_reader::running::stop::StopFlag;
use squad_data::Example;

use super::{LEARNT, example};
use crate::support::{Training, skip_without_device};

fn options() -> RobustnessOptions {
    RobustnessOptions { show: ShowProgress::No, seed: 5, ..RobustnessOptions::default() }
}

fn hot_flip() -> HotFlip {
    HotFlip::new(HotFlipOptions { unit: FlipUnit::Word, flips: 2, ..HotFlipOptions::default() }).expect("valid input")
}

fn sources() -> Vec<AttackSource> {
    let one = |bits: u8| AttackSource { label: bits.to_string(), plans: vec![LEARNT.plan(bits)] };
    let all = AttackSource { label: "all".into(), plans: vec![LEARNT.plan(32), LEARNT.plan(2)] };
    vec![one(32), one(2), all]
}

fn inference() -> Vec<InferencePlan> {
    [32, 2].map(|bits| InferencePlan { label: bits.to_string(), plan: LEARNT.plan(bits) }).into()
}

#[test]
fn the_matrix_is_made_of_the_same_items_clean_and_attacked() {
    skip_without_device!();
    let victim = LEARNT.victim(2);
    let items: Vec<Example> = LEARNT.examples().into_iter().take(16).collect();
    let protocol = RobustnessProtocol::new(&victim, &items, inference(), options()).unwrap();
    let matrix = protocol.matrix(&hot_flip(), &sources()).unwrap();
    assert_eq!(matrix.inference, ["32", "2"]);
    assert_eq!(matrix.rows.iter().map(|row| row.source.as_str()).collect::<Vec<_>>(), ["32", "2", "all"]);
    for (at, row) in matrix.rows.iter().enumerate() {
        let counts = &row.craft;
        let unattackable: usize = counts.unattackable.values().sum();
        assert_eq!(counts.items, 16);
        assert_eq!(counts.attacked + counts.not_chosen + unattackable, 16, "{counts:?}");
        if counts.attacked == 0 {
            assert!(row.cells.is_empty() && row.random_precision.is_none());
            continue;
        }
        assert!(counts.mean_queries > 1.0 && counts.mean_words >= 1.0 && counts.mean_seconds > 0.0);
        for (column, cell) in row.cells.iter().enumerate() {
            assert_eq!(cell.n, counts.attacked);
            // Chosen are those that the source answers exactly: on the diagonal everything is right.
            if column == at || row.source == "all" {
                assert_eq!(cell.right_when_clean, cell.n, "{} {column}", row.source);
            }
            let clean = protocol.clean_scores(column).unwrap();
            for item in &cell.items {
                let score = clean.iter().find(|score| score.id == item.id).unwrap();
                assert_eq!((score.exact > 0.5, score.f1.to_bits()), (item.clean_exact, item.clean_f1.to_bits()));
            }
        }
        let random = row.random_precision.as_ref().unwrap();
        let cells = &row.cells;
        let mean = f64::midpoint(cells[0].attacked_exact_match, cells[1].attacked_exact_match);
        assert!((random.mean_attacked_exact_match - mean).abs() < 1e-9);
        for (item, (sampled, &plan)) in random.sampled.items.iter().zip(&random.drawn).enumerate() {
            assert_eq!(*sampled, cells[plan].items[item]);
        }
    }
    let full = &matrix.rows[0];
    assert!(full.craft.attacked >= 4, "the model has learnt its questions: {:?}", full.craft);
    assert!(full.cells[0].fooled > 0, "the white-box attack fools the plan it was made on");
    let drawn: Vec<usize> =
        matrix.rows.iter().flat_map(|row| row.random_precision.iter().flat_map(|r| r.drawn.clone())).collect();
    assert!(drawn.contains(&0) && drawn.contains(&1), "{drawn:?}");
}

#[test]
fn the_cell_of_a_row_says_what_the_attack_saw() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let items: Vec<Example> = LEARNT.examples().into_iter().take(10).collect();
    let protocol = RobustnessProtocol::new(&victim, &items, inference(), options()).unwrap();
    let crafted = protocol.craft(&hot_flip(), &sources()[0]).unwrap();
    let row = protocol.row(&crafted).unwrap();
    let edited = crafted.adversarial_examples(&items);
    assert_eq!(edited.len(), row.craft.attacked);
    let plans = [LEARNT.plan(32)];
    let oracle = experiments::robustness::victim::oracle::Oracle::new(&victim, &plans);
    for (example, item) in edited.iter().zip(&row.cells[0].items) {
        let reading = oracle.read(&[&ProtectedExample::new(example.clone()).unwrap()]).unwrap().remove(0);
        assert_eq!(reading.is_fooled(), !item.attacked_exact, "{}", example.id);
    }
}

#[test]
fn workers_and_order_change_no_record() {
    skip_without_device!();
    let items: Vec<Example> = LEARNT.examples().into_iter().take(6).collect();
    let backwards: Vec<Example> = items.iter().rev().cloned().collect();
    let typos = Typos::new(TypoOptions { amount: Amount::Count(3), ..TypoOptions::default() }).unwrap();
    let attacks: [&dyn Attack<Training, Gpt2<Training>>; 3] = [&hot_flip(), &typos, &Distractor::default()];
    for attack in attacks {
        let run = |workers, items: &[Example]| {
            let crafted = Crafting { victim: &LEARNT.victim(workers), items, options: &options() }
                .craft(attack, &sources()[0])
                .unwrap();
            crafted.records.into_iter().map(|record| (record.id, record.outcome, record.queries)).collect::<Vec<_>>()
        };
        let one = run(1, &items);
        assert_eq!(one, run(3, &items), "{attack:?}");
        assert_eq!(one, run(1, &backwards).into_iter().rev().collect::<Vec<_>>(), "{attack:?}");
    }
}

#[test]
fn attacks_without_a_model_have_one_row_and_all_items() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let items: Vec<Example> = LEARNT.examples().into_iter().take(8).collect();
    let protocol = RobustnessProtocol::new(&victim, &items, inference(), options()).unwrap();
    let matrix = protocol.matrix(&Distractor::default(), &sources()).unwrap();
    assert_eq!(matrix.rows.len(), 1);
    assert_eq!((matrix.rows[0].source.as_str(), matrix.rows[0].craft.attacked), (NO_SOURCE, 8));
    assert_eq!(matrix.rows[0].craft.mean_queries.to_bits(), 0f64.to_bits());
}

#[test]
fn items_that_cannot_be_attacked_are_counted_with_their_reasons() {
    skip_without_device!();
    let long = format!("Who{}?", " painted".repeat(70));
    let mut items = vec![
        example("Is?", "tea", &[("tea", 0)]),
        Example { is_impossible: true, ..example("Who?", "Ann drinks tea.", &[]) },
        example(&long, "Ann painted the house.", &[("Ann", 0)]),
    ];
    for (i, item) in items.iter_mut().enumerate() {
        item.id = format!("made {i}");
    }
    items.push(LEARNT.examples().remove(0));
    // The long question has room in the window until its words are misspelt into more tokens.
    let options = VictimOptions { window: Some(80), ..VictimOptions::default() };
    let victim = Victim::new(&LEARNT.model, &LEARNT.tokenizer, &LEARNT.task.dataset, options).unwrap();
    let all = RobustnessOptions { items: ItemChoice::All, ..self::options() };
    let protocol = RobustnessProtocol::new(&victim, &items, inference(), all).unwrap();
    let typos = Typos::new(TypoOptions { amount: Amount::Rate(1.0), ..TypoOptions::default() }).unwrap();
    let row = protocol.matrix(&typos, &[]).unwrap().rows.remove(0);
    let expected = [(Unattackable::NoAnswer, 1), (Unattackable::NoEditableWord, 1), (Unattackable::QuestionTooLong, 1)];
    assert_eq!(row.craft.unattackable, expected.into());
    assert_eq!((row.craft.attacked, row.cells[0].n), (1, 1));

    let none = protocol.row(&protocol.craft(&Distractor::default(), &sources()[0]).unwrap()).unwrap();
    assert_eq!(none.craft.unattackable[&Unattackable::NoEntity], 2);
}

#[test]
fn a_row_in_which_nothing_was_attacked_has_no_cells_and_prints() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let items = [example("Is?", "tea", &[("tea", 0)])];
    let protocol = RobustnessProtocol::new(&victim, &items, inference(), options()).unwrap();
    let typos = Typos::new(TypoOptions::default()).unwrap();
    let matrix = protocol.matrix(&typos, &sources()).unwrap();
    assert!(matrix.rows[0].cells.is_empty() && matrix.rows[0].random_precision.is_none());
    let map = MatrixMap::new(&matrix, Colour::No).to_string();
    assert!(map.lines().count() == 2 && map.ends_with("0\n"), "{map}");
    let report = protocol.report(vec![matrix]);
    let text = report.to_string();
    assert!(text.contains("typos on none: 1 unattackable: no word outside the gold answers can be changed"), "{text}");
}

#[test]
fn kept_attacks_are_used_again_and_only_for_the_same_run() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let items: Vec<Example> = LEARNT.examples().into_iter().take(5).collect();
    let dir = tempfile::tempdir().unwrap();
    let kept =
        RobustnessOptions { items: ItemChoice::All, memory: Memory::folder(dir.path(), json!(null)), ..options() };
    let source = &sources()[1];
    let first = Crafting { victim: &victim, items: &items, options: &kept }.craft(&hot_flip(), source).unwrap();
    // Seconds differ from run to run, so equal records were read, not made.
    assert_eq!(Crafting { victim: &victim, items: &items, options: &kept }.craft(&hot_flip(), source).unwrap(), first);
    let path = dir.path().join("hot-flip-word-2.json");

    let refused = |result: experiments::error::Result<_>| match result {
        Err(Error::OtherRun { path: at, difference }) if at == path => difference.to_string(),
        other => panic!("{other:?}"),
    };
    let damaged = |result: experiments::error::Result<_>| match result {
        Err(Error::Checkpoint { path: at, .. }) if at == path => (),
        other => panic!("{other:?}"),
    };
    let craft = |items: &[Example], attack: &dyn Attack<Training, Gpt2<Training>>, options: &RobustnessOptions| {
        Crafting { victim: &victim, items, options }.craft(attack, source)
    };
    let other_seed = RobustnessOptions { seed: 6, ..kept.clone() };
    assert_eq!(refused(craft(&items, &hot_flip(), &other_seed)), "option `seed` was 5, is 6");
    assert!(refused(craft(&items[1..], &hot_flip(), &kept)).starts_with("option `items` was \"5 items"));
    let other = HotFlip::new(HotFlipOptions { flips: 9, ..HotFlipOptions::default() }).unwrap();
    assert!(refused(craft(&items, &other, &kept)).starts_with("option `settings.flips` was"));
    let weights = Identity::default().with_content("weights", "m.safetensors", ContentHash::of_bytes(b"others"));
    let model = RobustnessOptions { memory: Memory::folder(dir.path(), weights), ..kept.clone() };
    let difference = refused(craft(&items, &hot_flip(), &model));
    assert_eq!(difference, "weights changed: m.safetensors has been added");

    let mut moved = first.clone();
    let record = moved.records.iter_mut().find_map(|record| match &mut record.outcome {
        CraftOutcome::Attacked { answer_starts, .. } => Some(answer_starts),
        _ => None,
    });
    let starts = record.expect("some item was attacked");
    starts[0] += 1;
    let mut short = moved.clone();
    let record: serde_json::Value = span_reader::running::json_file::read_json(&path).unwrap();
    let write = |crafted: &Crafted| {
        let mut record = record.clone();
        record["result"] = json!(crafted);
        span_reader::running::json_file::write_json(&path, &record).unwrap();
    };
    write(&moved);
    damaged(craft(&items, &hot_flip(), &kept));
    for record in &mut short.records {
        if let CraftOutcome::Attacked { answer_starts, .. } = &mut record.outcome {
            answer_starts.clear();
        }
    }
    write(&short);
    damaged(craft(&items, &hot_flip(), &kept));
    std::fs::write(&path, "{").unwrap();
    assert!(matches!(
        Crafting { victim: &victim, items: &items, options: &kept }.craft(&hot_flip(), source),
        Err(Error::Damaged { .. })
    ));
}

#[test]
fn a_request_to_stop_leaves_no_file() {
    skip_without_device!();
    let stop = StopFlag::default();
    let options = VictimOptions { stop: stop.clone(), ..VictimOptions::default() };
    let victim = Victim::new(&LEARNT.model, &LEARNT.tokenizer, &LEARNT.task.dataset, options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kept = RobustnessOptions { memory: Memory::folder(dir.path(), json!(null)), ..self::options() };
    stop.request();
    let error = Crafting { victim: &victim, items: &LEARNT.examples(), options: &kept }
        .craft(&hot_flip(), &sources()[0])
        .unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn bad_lists_are_refused() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let items: Vec<Example> = LEARNT.examples().into_iter().take(2).collect();
    let new = |items, inference| RobustnessProtocol::new(&victim, items, inference, options()).unwrap_err().to_string();
    assert!(new(&items, vec![]).contains("`inference` is no plan"));
    let mut twice = inference();
    twice[1].label = "32".into();
    assert!(new(&items, twice).contains("`32`"));
    assert!(new(&[], inference()).contains("no question"));
    let protocol = RobustnessProtocol::new(&victim, &items, inference(), options()).unwrap();
    let nothing = AttackSource { label: "x".into(), plans: vec![] };
    assert!(protocol.matrix(&hot_flip(), &[nothing]).unwrap_err().to_string().contains("`plans` is 0"));
    let path = AttackSource { label: "../x".into(), plans: vec![LEARNT.plan(4)] };
    assert!(protocol.matrix(&hot_flip(), &[path]).unwrap_err().to_string().contains("`../x`"));
}

#[test]
fn a_report_survives_json_and_names_every_row() {
    skip_without_device!();
    let victim = LEARNT.victim(1);
    let items: Vec<Example> = LEARNT.examples().into_iter().take(4).collect();
    let protocol = RobustnessProtocol::new(&victim, &items, inference(), options()).unwrap();
    let typos = Typos::new(TypoOptions::default()).unwrap();
    let attacks: [&dyn Attack<Training, Gpt2<Training>>; 2] = [&hot_flip(), &typos];
    let matrices = attacks.into_iter().map(|attack| protocol.matrix(attack, &sources()).unwrap()).collect();
    let report = protocol.report(matrices);
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<AttackReport>(&json).unwrap(), report);
    let text = report.to_string();
    assert!(
        text.starts_with("4 items; attacked are those that the source answers exactly when clean; seed 5"),
        "{text}"
    );
    assert_eq!(text.lines().filter(|line| line.starts_with("hot-flip-word ")).count(), 3, "{text}");
    let map = MatrixMap::new(&report.matrices[0], Colour::No).to_string();
    assert!(
        map.lines().next().unwrap().split_whitespace().eq(["made", "on", "32", "2", "mean", "sampled", "n"]),
        "{map}"
    );
    assert!(MatrixMap::new(&report.matrices[0], Colour::Yes).to_string().contains("\x1b[48;5;"));
}
