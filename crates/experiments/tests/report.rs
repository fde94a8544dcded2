//! The report: all of it on a tiny model, interrupted and not.

use experiments::report::{
    Heading, RegimeStudy, Stages, Study, StudyConfig, StudyData, StudyRun, markdown, run_study, write_figures,
};
use experiments::{BankConfig, EvaluateOptions, Result, ShowProgress, StopFlag, TrainConfig};
use gpt2_model::BitWidth;
use serde_json::json;
use squad_data::Split;
use switchable_lora::{BasePolicy, LoraConfig};

use crate::support::{Training, device, model, questions, quiet, skip_without_device, task, train_config};

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
            range_steps: 4,
            range_threshold: 0.05,
        }),
        ..StudyConfig::default()
    }
}

fn study(dir: &std::path::Path, config: &StudyConfig, stop: &StopFlag) -> Result<Study> {
    let (tokenizer, shape, train) = task(4);
    let search = experiments::ReadingTask::new(questions(Split::Dev, 2), &tokenizer, &shape, None)?;
    let report = experiments::ReadingTask::new(questions(Split::Dev, 3), &tokenizer, &shape, None)?;
    let data = StudyData { train: &train, search: &search, report: &report };
    let model = model::<Training>(&shape, BasePolicy::Frozen);
    let run = StudyRun {
        evaluate: EvaluateOptions { stop: stop.clone(), ..EvaluateOptions::default() },
        train: experiments::TrainRun { stop: stop.clone(), ..quiet(2) },
        show: ShowProgress::No,
    };
    let device = device();
    run_study(&model, data, config, &run, &Stages::new(dir, json!({ "model": "tiny" })), &device)
}

fn files(dir: &std::path::Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("the folder is there").map(|entry| entry.expect("readable"));
    let files = entries.filter(|entry| entry.path().is_file());
    files
        .map(|entry| {
            let name = entry.file_name().into_string().expect("UTF-8");
            (name, std::fs::read(entry.path()).expect("readable"))
        })
        .collect()
}

#[test]
fn a_report_is_whole_and_the_same_after_an_interruption() {
    skip_without_device!();
    let whole = tempfile::tempdir().unwrap();
    let first = study(whole.path(), &config(), &StopFlag::default()).unwrap();
    let expected = files(whole.path());
    for part in ["uniform", "layers", "damage", "greedy", "allocation", "precision-range", "regime-static-seed-2"] {
        assert!(expected.contains_key(&format!("{part}.json")), "{part}: {:?}", expected.keys());
    }

    // Parts that a kill would have left: the rest is computed again, to the byte.
    let resumed = tempfile::tempdir().unwrap();
    for part in ["uniform.json", "layers.json", "regime-static-seed-1.json"] {
        std::fs::write(resumed.path().join(part), &expected[part]).unwrap();
    }
    let second = study(resumed.path(), &config(), &StopFlag::default()).unwrap();
    assert_eq!(files(resumed.path()), expected);
    assert_eq!(second, first);

    let heading = Heading { command: "report".into(), facts: vec![("seed".into(), "0".into())] };
    let figures = write_figures(&first, whole.path()).unwrap();
    let text = markdown(&first, &heading, &figures).unwrap();
    for (name, _) in &figures {
        assert!(whole.path().join(name).is_file() && text.contains(&format!("({name})")), "{name}");
    }
    assert_eq!(figures.len(), 7);
    for label in ["static", "cyclic, equal steps", "cyclic, equal BitOps", "joint", "cascade", "specialised"] {
        assert!(text.contains(&format!("| {label} |")), "{label}");
    }
    assert!(!text.contains("NaN"));
}

#[test]
fn a_stopped_report_keeps_what_is_done_and_no_part_of_the_rest() {
    skip_without_device!();
    let dir = tempfile::tempdir().unwrap();
    let stop = StopFlag::default();
    stop.request();
    let error = study(dir.path(), &config(), &stop).unwrap_err();
    assert!(matches!(error, experiments::Error::Stopped), "{error}");
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_folder_of_another_study_and_options_out_of_range_are_refused() {
    skip_without_device!();
    let dir = tempfile::tempdir().unwrap();
    let small = StudyConfig { regimes: None, ..config() };
    study(dir.path(), &small, &StopFlag::default()).unwrap();
    let other = StudyConfig { seed: 9, ..small.clone() };
    let message = study(dir.path(), &other, &StopFlag::default()).unwrap_err().to_string();
    assert!(message.contains("uniform.json") && message.contains("options.seed"), "{message}");
    let refused = |config: StudyConfig| study(dir.path(), &config, &StopFlag::default()).unwrap_err().to_string();
    assert!(refused(StudyConfig { tolerance: 1.0, ..small.clone() }).contains("tolerance"));
    assert!(refused(StudyConfig { budgets: vec![-1.0], ..small.clone() }).contains("budgets"));
    assert!(refused(StudyConfig { choices: Vec::new(), ..small.clone() }).contains("choices"));
    let budget = refused(StudyConfig { budgets: vec![0.5], ..small });
    assert!(budget.contains("budget"), "{budget}");
}
