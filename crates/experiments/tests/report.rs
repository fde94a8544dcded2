//! The report: all of it on a tiny model, interrupted and not.

use std::rc::Rc;

use serde_json::{Value, json};

use experiments::banks::bank::{BankConfig, train_base};
use experiments::banks::contestants::{ContestantRow, Contestants};
use experiments::error::Result;
use experiments::report::layout::{Heading, markdown, write_report};
use experiments::report::section::Section;
use experiments::report::stage::Stage;
use experiments::report::stages::allocation::AllocationOutput;
use experiments::report::stages::dynamic::DynamicStudy;
use experiments::report::stages::greedy::GreedyStudy;
use experiments::report::stages::regimes::RegimeStudy;
use experiments::report::stages::robustness::{RobustnessResults, RobustnessStudy};
use experiments::report::study::{StudyConfig, run_study};
use experiments::robustness::hardening::adversarial_training::AdversarialTraining;
use experiments::running::memory::Memory;
use experiments::running::progress::ShowProgress;
use experiments::running::share::{Item, ItemKey, Share};
use experiments::train::config::TrainConfig;
use experiments::train::trainer::TrainRun;
use experiments::workbench::{RunSettings, Workbench};
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::running::stop::StopFlag;
use squad_data::Split;
use switchable_lora::{linear_settings::BasePolicy, lora_config::LoraConfig};
use switchable_model::config::ModelConfig;
use switchable_model::options::ModelOptions;

use crate::support::{
    Training, device, model, questions, quiet, skip_without_device, study_data, task, train_config, training,
};

fn config() -> StudyConfig {
    let widths = [BitWidth::B2, BitWidth::B4, BitWidth::FULL];
    StudyConfig {
        choices: vec![BitWidth::B2, BitWidth::B8, BitWidth::FULL],
        budgets: vec![4.0],
        swaps: 2,
        regimes: Some(RegimeStudy {
            bank: BankConfig::new(&widths, LoraConfig::new(2, 4.0).expect("valid"), 3),
            train: TrainConfig { checkpoint_every: 2, ..train_config(8) },
            seeds: vec![1, 2],
            table: Contestants::default(),
            contestants: Vec::new(),
            range_steps: 4,
            range_threshold: 0.05,
        }),
        robustness: Some(RobustnessStudy {
            widths: vec![BitWidth::FULL, BitWidth::B4],
            attacks: ["typos", "hot-flip-word"].map(String::from).to_vec(),
            items: 3,
            training: Some(AdversarialTraining {
                rounds: 2,
                items_per_round: 2,
                train: train_config(2),
                ..AdversarialTraining::default()
            }),
            ..RobustnessStudy::default()
        }),
        dynamic: Some(DynamicStudy { widths: vec![BitWidth::B2, BitWidth::B8], points: 3, ..DynamicStudy::default() }),
        ..StudyConfig::default()
    }
}

/// What a study found, and what its report says.
struct Study {
    greedy: Rc<GreedyStudy>,
    allocation: Rc<AllocationOutput>,
    robustness: Option<Rc<RobustnessResults>>,
    sections: Vec<Section>,
}

/// A study with another seed than 0.
fn seeded_study(dir: &std::path::Path, config: &StudyConfig, seed: u64) -> Result<Study> {
    run(dir, config, RunSettings { seed, ..settings(&StopFlag::default()) })
}

fn study(dir: &std::path::Path, config: &StudyConfig, stop: &StopFlag) -> Result<Study> {
    run(dir, config, settings(stop))
}

fn settings(stop: &StopFlag) -> RunSettings {
    RunSettings {
        seed: 0,
        evaluate: EvaluateOptions { stop: stop.clone(), ..EvaluateOptions::default() },
        train: TrainRun { stop: stop.clone(), ..quiet(2) },
        show: ShowProgress::No,
    }
}

/// What is changed in place.
#[derive(Clone, Copy, PartialEq)]
enum Edit {
    Nothing,
    Question,
    Weights,
}

fn run(dir: &std::path::Path, config: &StudyConfig, settings: RunSettings) -> Result<Study> {
    run_edited(dir, config, settings, Edit::Nothing)
}

fn edited_study(dir: &std::path::Path, config: &StudyConfig, edit: Edit) -> Result<Study> {
    run_edited(dir, config, settings(&StopFlag::default()), edit)
}

fn run_edited(dir: &std::path::Path, config: &StudyConfig, settings: RunSettings, edit: Edit) -> Result<Study> {
    run_share(dir, config, settings, edit, Share::all())
}

fn run_share(
    dir: &std::path::Path,
    config: &StudyConfig,
    settings: RunSettings,
    edit: Edit,
    share: Share,
) -> Result<Study> {
    let (tokenizer, shape, train) = task(4);
    let mut searched = questions(Split::Dev, 2);
    if edit == Edit::Question {
        searched.articles[0].paragraphs[0].questions[0].question.push('?');
    }
    let search = span_reader::evaluation::reading::ReadingTask::new(searched, &tokenizer, &shape, None)?;
    let report =
        span_reader::evaluation::reading::ReadingTask::new(questions(Split::Dev, 3), &tokenizer, &shape, None)?;
    let data = study_data([&train, &search, &report], &tokenizer);
    let mut model = model::<Training>(&shape, BasePolicy::Frozen);
    if edit == Edit::Weights {
        model = gpt2_model::Gpt2ForQuestionAnswering::random(&shape, &ModelOptions::default(), 6, &device())?;
    }
    let bench = Workbench::new(&model, data, settings, Memory::folder(dir, json!({ "model": "tiny" })).shared(share));
    let sections = run_study(&bench, &config.stages())?;
    let robustness = config.robustness.as_ref().map(|stage| stage.output(&bench)).transpose()?;
    let (greedy, allocation) = (config.greedy().output(&bench)?, config.allocation().output(&bench)?);
    Ok(Study { greedy, allocation, robustness, sections })
}

/// The text of a report and the figures that it shows.
fn told(study: &Study) -> (String, Vec<Vec<u8>>) {
    let charts = study.sections.iter().flat_map(|section| section.charts.iter().chain(&section.closing_charts));
    let pictures = charts.map(|chart| chart.figure.png().expect("it can be drawn"));
    (markdown(&study.sections, &Heading::default()), pictures.collect())
}

/// What attacks found without the time that they took, which no two runs share.
fn untimed(study: &Study) -> RobustnessResults {
    let mut robustness = RobustnessResults::clone(study.robustness.as_ref().expect("it was asked for"));
    let hardened = robustness.hardened.iter_mut().map(|model| &mut model.matrix);
    for row in robustness.matrices.iter_mut().chain(hardened).flat_map(|matrix| &mut matrix.rows) {
        row.craft.mean_seconds = 0.0;
    }
    robustness
}

/// The files of a folder, the time that attacks took left out.
fn files(dir: &std::path::Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("the folder is there").map(|entry| entry.expect("readable"));
    let files = entries.filter(|entry| entry.path().is_file());
    files
        .map(|entry| {
            let name = entry.file_name().into_string().expect("UTF-8");
            let bytes = std::fs::read(entry.path()).expect("readable");
            let timed = name.starts_with("attack-") || name.starts_with("hardening-");
            let is_time = |line: &&[u8]| timed && line.trim_ascii_start().starts_with(b"\"mean_seconds\"");
            let kept: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').filter(|line| !is_time(line)).collect();
            (name, kept.join(&b'\n'))
        })
        .collect()
}

#[test]
fn a_report_is_whole_and_the_same_after_an_interruption() {
    skip_without_device!();
    let whole = tempfile::tempdir().unwrap();
    let first = study(whole.path(), &config(), &StopFlag::default()).unwrap();
    let expected = files(whole.path());
    let parts = [
        "uniform",
        "layers",
        "damage",
        "greedy",
        "allocation",
        "dynamic",
        "precision-range",
        "regime-static-seed-2",
        "attack-typos",
        "attack-hot-flip-word",
        "hardening-untrained",
        "hardening-adversarial",
        "hardening-random-precision",
    ];
    for part in parts {
        assert!(expected.contains_key(&format!("{part}.json")), "{part}: {:?}", expected.keys());
    }

    // Parts that a kill would have left: the rest is computed again, to the byte.
    let resumed = tempfile::tempdir().unwrap();
    for part in ["uniform.json", "layers.json", "regime-static-seed-1.json"] {
        std::fs::write(resumed.path().join(part), &expected[part]).unwrap();
    }
    let second = study(resumed.path(), &config(), &StopFlag::default()).unwrap();
    assert_eq!(files(resumed.path()), expected);
    assert_eq!(untimed(&second), untimed(&first));
    assert_eq!((&second.greedy, &second.allocation), (&first.greedy, &first.allocation));
    assert_eq!(told(&second), told(&first));

    let heading = Heading { command: "report".into(), facts: vec![("seed".into(), "0".into())] };
    let figures = write_report(&first.sections, &heading, whole.path()).unwrap();
    let text = std::fs::read_to_string(whole.path().join("report.md")).unwrap();
    for name in &figures {
        assert!(whole.path().join(name).is_file() && text.contains(&format!("({name})")), "{name}");
        assert!(whole.path().join(name).with_extension("svg").is_file(), "{name}");
    }
    assert_eq!(first.greedy.lost.len(), first.greedy.comparison.only_first);
    assert!(text.contains("\n## Questions that the plan of the greedy search loses\n"), "{text}");
    // The model is not trained: no question is answered rightly, so none can be made wrong.
    assert!(!figures.iter().any(|name| name == "robustness.png"));
    assert_eq!(figures.len(), 9);
    for ContestantRow { label, .. } in Contestants::default().rows() {
        assert!(text.contains(&format!("| {label} |")), "{label}");
    }
    for section in ["Robustness", "Training on attacks", "Plans chosen at run time"] {
        assert!(text.contains(&format!("\n## {section}\n")), "{section}");
    }
    assert!(!text.contains("NaN"));
}

#[test]
fn a_report_that_is_stopped_within_an_analysis_goes_on_with_the_next_site() {
    skip_without_device!();
    let small = StudyConfig { regimes: None, robustness: None, dynamic: None, ..config() };
    let whole = tempfile::tempdir().unwrap();
    let expected = study(whole.path(), &small, &StopFlag::default()).unwrap();

    let stopped = tempfile::tempdir().unwrap();
    let (stop, parts) = (StopFlag::default(), stopped.path().join("damage"));
    let known = || std::fs::read_dir(&parts).map_or(0, Iterator::count);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while known() < 3 {
                std::thread::yield_now();
            }
            stop.request();
        });
        let error = study(stopped.path(), &small, &stop).err().expect("it is stopped");
        assert!(matches!(error, experiments::error::Error::Stopped), "{error}");
        watch.join().unwrap();
    });
    assert!(known() >= 3, "what was measured is kept");
    let resumed = study(stopped.path(), &small, &StopFlag::default()).unwrap();
    assert_eq!((&resumed.greedy, &resumed.allocation), (&expected.greedy, &expected.allocation));
    assert_eq!(told(&resumed), told(&expected));
    assert_eq!(files(stopped.path()), files(whole.path()));
    assert!(!parts.exists());
}

#[test]
fn an_allocation_goes_on_with_the_budgets_that_are_not_done() {
    skip_without_device!();
    let small = StudyConfig { budgets: vec![4.0, 6.0], regimes: None, robustness: None, dynamic: None, ..config() };
    let dir = tempfile::tempdir().unwrap();
    let whole = study(dir.path(), &small, &StopFlag::default()).unwrap().allocation.allocation.clone();

    // As if stopped after the first budget, whose result is marked to be known again.
    let (file, parts) = (dir.path().join("allocation.json"), dir.path().join("allocation"));
    let allocation: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let mut marked = whole.reported[0].clone();
    marked.average_bits += 1.0;
    let budget = (task(4).1.site_parameters() as f64 * small.budgets[0] / 8.0) as usize;
    std::fs::create_dir(&parts).unwrap();
    // Which of the results of the work it is stands last in what it was made from.
    let mut made_from = allocation["made_from"].clone();
    let name = made_from["parts"].as_array_mut().unwrap().last_mut().unwrap();
    assert_eq!(*name, json!({ "option": "part", "value": "allocation" }));
    name["value"] = json!(format!("allocation/budget-{budget}"));
    let part = json!({ "version": 2, "made_from": made_from, "result": [whole.refined[0], marked] });
    std::fs::write(parts.join(format!("budget-{budget}.json")), part.to_string()).unwrap();
    std::fs::remove_file(&file).unwrap();

    let resumed = study(dir.path(), &small, &StopFlag::default()).unwrap().allocation.allocation.clone();
    assert_eq!(resumed.reported[0], marked);
    assert_eq!((&resumed.reported[1..], &resumed.refined), (&whole.reported[1..], &whole.refined));
    assert!(whole.reported.len() > 1 && !parts.exists());
}

#[test]
fn a_greedy_path_is_compared_with_exact_plans_of_its_bytes() {
    skip_without_device!();
    let (tokenizer, shape, task) = task(4);
    let start = model::<Training>(&shape, BasePolicy::Trainable);
    let (model, _) = train_base(start, &task, training(&train_config(150), &quiet(2))).unwrap();
    // Of the questions that it learned it knows some: there is exact match to lose.
    let data = study_data([&task, &task, &task], &tokenizer);
    let config = StudyConfig {
        low: Some(BitWidth::B8),
        tolerance: 0.5,
        regimes: None,
        robustness: None,
        dynamic: None,
        ..config()
    };
    let run = RunSettings { train: quiet(2), show: ShowProgress::No, ..RunSettings::default() };
    let dir = tempfile::tempdir().unwrap();
    let bench = Workbench::new(&model, data, run, Memory::folder(dir.path(), json!({ "model": "tiny" })));
    let sections = run_study(&bench, &config.stages()).unwrap();
    let greedy = config.greedy().output(&bench).unwrap();
    assert!(greedy.search.flipped.len() > 3, "{:?}", greedy.search.flipped);
    let bytes: Vec<usize> = greedy.search.path.iter().filter(|flip| flip.accepted).map(|flip| flip.bytes).collect();
    assert_eq!(greedy.equal_bytes.iter().map(|row| row.bytes).collect::<Vec<_>>(), bytes);
    assert!(greedy.equal_bytes.iter().all(|row| row.allocation.bytes <= row.bytes));
    assert!(markdown(&sections, &Heading::default()).contains("Greedy and exact at equal bytes"));
}

#[test]
fn a_stopped_report_keeps_what_is_done_and_no_part_of_the_rest() {
    skip_without_device!();
    let dir = tempfile::tempdir().unwrap();
    let stop = StopFlag::default();
    stop.request();
    let error = study(dir.path(), &config(), &stop).err().expect("it is stopped");
    assert!(matches!(error, experiments::error::Error::Stopped), "{error}");
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_folder_of_another_study_and_options_out_of_range_are_refused() {
    skip_without_device!();
    let dir = tempfile::tempdir().unwrap();
    let small = StudyConfig { regimes: None, robustness: None, dynamic: None, ..config() };
    study(dir.path(), &small, &StopFlag::default()).unwrap();
    let message = seeded_study(dir.path(), &small, 9).err().expect("another seed").to_string();
    assert!(message.contains("uniform.json") && message.contains("option `seed` was"), "{message}");
    // Another search question under the same names, or another model of the same shape.
    let message = edited_study(dir.path(), &small, Edit::Question).err().expect("other questions").to_string();
    assert!(message.contains(".json") && message.contains("search questions changed"), "{message}");
    let message = edited_study(dir.path(), &small, Edit::Weights).err().expect("another model").to_string();
    assert!(message.contains("model changed"), "{message}");
    let refused = |config: StudyConfig| {
        study(dir.path(), &config, &StopFlag::default()).err().expect("it is refused").to_string()
    };
    assert!(refused(StudyConfig { tolerance: 1.0, ..small.clone() }).contains("tolerance"));
    assert!(refused(StudyConfig { budgets: vec![-1.0], ..small.clone() }).contains("budgets"));
    assert!(refused(StudyConfig { choices: Vec::new(), ..small.clone() }).contains("choices"));
    let dynamic = DynamicStudy { widths: vec![BitWidth::B16], ..DynamicStudy::default() };
    assert!(refused(StudyConfig { dynamic: Some(dynamic), ..small.clone() }).contains("dynamic.widths"));
    let attacks = RobustnessStudy { attacks: Vec::new(), ..RobustnessStudy::default() };
    assert!(refused(StudyConfig { robustness: Some(attacks), ..small.clone() }).contains("attacks"));
    let mut unknown = config();
    unknown.regimes.as_mut().expect("it is there").contestants = vec!["cyclic".into()];
    assert!(refused(unknown).contains("cyclic-equal-steps"));
    let no_items = RobustnessStudy { items: 0, ..RobustnessStudy::default() };
    assert!(refused(StudyConfig { robustness: Some(no_items), ..small.clone() }).contains("robustness.items"));
    let budget = refused(StudyConfig { budgets: vec![0.5], ..small });
    assert!(budget.contains("budget"), "{budget}");
}

#[test]
fn items_that_processes_do_apart_make_the_report_that_one_process_makes() {
    skip_without_device!();
    let config = StudyConfig {
        regimes: config().regimes.map(|regimes| RegimeStudy { contestants: vec!["static".into()], ..regimes }),
        robustness: config().robustness.map(|study| RobustnessStudy { training: None, ..study }),
        dynamic: None,
        ..config()
    };
    let (together, apart) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let share_of =
        |share: &Share| run_share(apart.path(), &config, settings(&StopFlag::default()), Edit::Nothing, share.clone());
    let missing = || -> Vec<ItemKey> {
        let share = Share::listing(apart.path());
        let result = share_of(&share);
        let missing: Vec<Item> = share.items().into_iter().filter(|item| !item.done).collect();
        assert_eq!(missing.is_empty(), result.is_ok());
        missing.into_iter().map(|item| item.key).collect()
    };
    let mut rounds = Vec::new();
    loop {
        let keys = missing();
        if keys.is_empty() {
            break;
        }
        for key in &keys {
            let share = Share::item(apart.path(), key.clone());
            assert!(matches!(share_of(&share), Ok(_) | Err(experiments::error::Error::Elsewhere)));
            assert!(share.is_over() && key.is_done_in(apart.path()).unwrap(), "{key}");
        }
        rounds.push(keys.len());
    }
    // What needs others is listed when they are there: the greedy search behind damage and sites, the allocation and the
    // regimes behind it.
    assert!(rounds.len() >= 4 && rounds[0] > 1, "{rounds:?}");
    let apart = share_of(&Share::all()).unwrap();
    let together = study(together.path(), &config, &StopFlag::default()).unwrap();
    assert_eq!(told(&apart), told(&together));
    assert_eq!(untimed(&apart), untimed(&together));
}
