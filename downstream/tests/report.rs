//! A tiny report with a regime, an attack and a stage of this crate.

use burn::backend::{Autodiff, Flex};
use downstream::{CountSites, LowestFamily, Shout};
use experiments::banks::bank::{BankConfig, BankOverrides};
use experiments::banks::contestants::{ContestantRow, Contestants, StepBudget};
use experiments::report::layout::{Heading, write_report};
use experiments::report::stages::regimes::RegimeStudy;
use experiments::report::stages::robustness::RobustnessStudy;
use experiments::report::study::{StudyConfig, run_study};
use experiments::running::memory::Memory;
use experiments::running::progress::ShowProgress;
use experiments::train::config::TrainConfig;
use experiments::train::regimes::config::{RegimeConfig, RegimeKind};
use experiments::train::trainer::TrainRun;
use experiments::workbench::{RunSettings, StudyData, Workbench};
use gpt2_model::{Gpt2Config, Gpt2ForQuestionAnswering};
use quant_kernels::BitWidth;
use serde_json::{Value, json};
use span_reader::evaluation::reading::ReadingTask;
use squad_data::{BpeConfig, Dataset, GeneratorConfig, Split, TextTokenizer, corpus_texts, generate};
use switchable_lora::LoraConfig;
use switchable_model::options::ModelOptions;

type Training = Autodiff<Flex>;

fn questions(split: Split, paragraphs: usize) -> Dataset {
    generate(&GeneratorConfig::new(split, paragraphs, 11)).expect("valid input")
}

#[test]
fn a_regime_an_attack_and_a_stage_of_another_crate_stand_in_the_report() {
    let bpe = BpeConfig { vocab_size: 400, ..BpeConfig::default() };
    let tokenizer = TextTokenizer::train_bpe(corpus_texts(&questions(Split::Train, 30)), &bpe).expect("valid input");
    let config = Gpt2Config::new(tokenizer.vocab_size(), 256, 16, 2, 2);
    let task = |dataset| ReadingTask::new(dataset, &tokenizer, &config, None).expect("valid input");
    let (train, report) = (task(questions(Split::Train, 3)), task(questions(Split::Dev, 2)));
    let model = Gpt2ForQuestionAnswering::<Training>::random(&config, &ModelOptions::default(), 5, &Default::default())
        .expect("valid input");

    let widths = [BitWidth::B2, BitWidth::B4];
    let lowest = ContestantRow {
        label: "lowest".into(),
        regime: RegimeConfig::of(RegimeKind::Other("lowest".into())),
        bank: BankOverrides::default(),
        steps: StepBudget::EqualBitOps,
        specialised: None,
        dropout: None,
        baseline: false,
        heat_map: false,
        control_of: None,
    };
    let study = StudyConfig {
        low: Some(BitWidth::B2),
        choices: widths.to_vec(),
        budgets: vec![4.0],
        swaps: 1,
        regimes: Some(RegimeStudy {
            bank: BankConfig::new(&widths, LoraConfig::new(2, 4.0).expect("valid input"), 3),
            train: TrainConfig { steps: 4, batch_size: 4, ..TrainConfig::default() },
            seeds: vec![0],
            table: Contestants::default().with(lowest),
            contestants: vec!["lowest".into()],
            range_steps: 4,
            range_threshold: 0.05,
        }),
        robustness: Some(RobustnessStudy {
            widths: vec![BitWidth::FULL],
            attacks: vec!["shout".into()],
            items: 2,
            training: None,
            ..RobustnessStudy::default()
        }),
        ..StudyConfig::default()
    };
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = RunSettings {
        train: TrainRun { show: ShowProgress::No, ..TrainRun::default() },
        show: ShowProgress::No,
        ..RunSettings::default()
    };
    let data = StudyData { train: (&train).into(), search: (&report).into(), report: (&report).into(), tokenizer: &tokenizer, window: None };
    let mut bench = Workbench::new(&model, data, run, Memory::folder(dir.path(), json!({ "model": "tiny" })));
    let unknown = run_study(&bench, &study.stages()).expect_err("the names are not known yet").to_string();
    assert!(unknown.contains("lowest") || unknown.contains("shout"), "{unknown}");

    bench.regimes = bench.regimes.with(LowestFamily);
    bench.attacks = bench.attacks.with(Shout);
    let mut stages = study.stages();
    stages.push(Box::new(CountSites));
    let sections = run_study(&bench, &stages).expect("the study runs");
    write_report(&sections, &Heading::default(), dir.path()).expect("the report is written");

    let json = |name: &str| -> Value {
        let text = std::fs::read(dir.path().join(name)).expect("the stage has a file");
        serde_json::from_slice::<Value>(&text).expect("it is JSON")["result"].clone()
    };
    assert_eq!(json("regime-lowest-seed-0.json")[0]["contestant"]["regime"]["kind"], "lowest");
    assert_eq!(json("attack-shout.json")["attack"], "shout");
    assert_eq!(json("site-count.json")["sites"], 8);
    let text = std::fs::read_to_string(dir.path().join("report.md")).expect("there is a report");
    for expected in ["| lowest |", "`shout`", "The model has 8 matrices."] {
        assert!(text.contains(expected), "{expected} is not in the report");
    }
}
