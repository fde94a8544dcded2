use squad_data::{Dataset, GeneratorConfig, Split, generate};

use crate::certificate::model_card;
use crate::certificate::model_files::FileRecord;

use super::*;

fn data() -> Dataset {
    generate(&GeneratorConfig::new(Split::Dev, 60, 4)).unwrap()
}

fn files(content: &str) -> ModelFiles {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    ModelFiles::of_folder(dir.path()).unwrap()
}

/// A model that is wrong at every so-manieth question, by the content of the questions.
fn side(name: &str, dataset: &Dataset, wrong_every: usize) -> Side {
    let score = |(_, example): (usize, squad_data::Example)| {
        let hash = crate::certificate::text_hash::TextHash::of_question(&example.context, &example.question);
        let number = u64::from_str_radix(&hash.to_string(), 16).unwrap();
        let exact = if number.is_multiple_of(wrong_every as u64) { 0.0 } else { 1.0 };
        QuestionScore { id: example.id, exact, f1: f64::max(exact, 0.25), has_answer: true }
    };
    let timing =
        Timing { questions: 4, p50_milliseconds: 1.5, p95_milliseconds: 2.5, tokens_per_second: 100.0, workers: 1 };
    let measured = MeasuredModel {
        plan: PrecisionPlan::uniform(switchable_lora::site_precision::SitePrecision::uniform(
            quant_kernels::spec::bit_width::BitWidth::B4,
        )),
        scores: dataset.examples().into_iter().enumerate().map(score).collect(),
        weight_bytes: 1000,
        resident: Some(Resident { loaded: 2_000_000, peak: 3_000_000 }),
        timing,
        machine: Machine::at_hand("flex"),
    };
    Side { name: name.into(), files: files(name), measured }
}

fn certificate_of(dataset: &Dataset) -> Certificate {
    let held_out = HeldOut::new(dataset.clone()).unwrap();
    let data = CertifiedData { content: held_out.record(), unseen: Unseen::Recorded, of_seen_paragraphs: 0 };
    Certificate::new(Comparison {
        original: side("original", dataset, 40),
        artefact: side("artefact", dataset, 12),
        held_out: &held_out,
        data,
        reading: ReadingOptions { window: None, batch: 8, null_threshold: None },
    })
    .unwrap()
}

#[test]
fn what_is_written_is_read_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = certificate_of(&data());
    certificate.write(dir.path()).unwrap();
    let read = Certificate::read(dir.path()).unwrap();
    assert_eq!(read, certificate);
    read.check_same(&certificate).unwrap();
}

#[test]
fn figures_are_those_of_the_scores() {
    let dataset = data();
    let certificate = certificate_of(&dataset);
    let McNemar { only_original, only_artefact, p_value } = certificate.mcnemar;
    let n = dataset.len() as f64;
    assert!(only_original > only_artefact, "{only_original} {only_artefact}");
    let lost = 100.0 * (only_original as f64 - only_artefact as f64) / n;
    assert!((certificate.exact_match.difference + lost).abs() < 1e-9);
    let by_models = certificate.artefact.exact_match.percent - certificate.original.exact_match.percent;
    assert!((by_models + lost).abs() < 1e-9);
    // A wrong answer still shares a quarter.
    assert!((certificate.f1.difference + 0.75 * lost).abs() < 1e-9);
    assert!((p_value - mcnemar(only_original, only_artefact)).abs() < f64::EPSILON);
    assert!(certificate.exact_match.loses_at_most > lost);
    let questions: usize = certificate
        .slices
        .iter()
        .filter(|s| s.by == crate::certificate::slices::SlicedBy::QuestionWord)
        .map(|s| s.questions)
        .sum();
    assert_eq!(questions, dataset.len());
}

#[test]
fn the_order_and_the_ids_of_questions_change_nothing() {
    let certificate = certificate_of(&data());
    let mut other = data();
    other.articles.reverse();
    for paragraph in other.articles.iter_mut().flat_map(|article| &mut article.paragraphs) {
        paragraph.questions.reverse();
        paragraph.questions.iter_mut().for_each(|question| question.id.push('x'));
    }
    certificate.check_same(&certificate_of(&other)).unwrap();
}

type Change = fn(&mut Certificate);

#[test]
fn times_and_memory_and_names_are_not_compared_and_all_else_is() {
    let certificate = certificate_of(&data());
    let mut again = certificate.clone();
    again.made_by = "another".into();
    again.original.name = "elsewhere".into();
    again.artefact.timing.p50_milliseconds = 99.0;
    again.artefact.resident = None;
    again.machine.threads = 512;
    certificate.check_same(&again).unwrap();
    let changes: [(&str, Change); 9] = [
        ("original.files.hash", |c| c.original.files.hash = ContentHash::of_bytes(b"other")),
        ("artefact.weight_bytes", |c| c.artefact.weight_bytes += 1),
        ("artefact.scores", |c| c.artefact.scores = ContentHash::of_bytes(b"other")),
        ("artefact.f1.percent", |c| c.artefact.f1.percent = f64::from_bits(c.artefact.f1.percent.to_bits() + 1)),
        ("data.unseen", |c| c.data.unseen = Unseen::Asserted),
        ("reading.batch", |c| c.reading.batch = 9),
        ("mcnemar.only_original", |c| c.mcnemar.only_original += 1),
        ("slices[1].questions", |c| c.slices[1].questions += 1),
        ("exact_match.loses_at_most", |c| c.exact_match.loses_at_most = 0.0),
    ];
    for (field, change) in changes {
        let mut again = certificate.clone();
        change(&mut again);
        let message = certificate.check_same(&again).unwrap_err().to_string();
        assert!(message.starts_with(&format!("certificate.json: field `{field}` is ")), "{message}");
    }
    let mut longer = certificate.clone();
    longer.artefact.files.files.insert("new".into(), FileRecord { bytes: 1, hash: ContentHash::of_bytes(b"x") });
    let message = certificate.check_same(&longer).unwrap_err().to_string();
    assert!(message.contains("`artefact.files.files.new` is null"), "{message}");
}

#[test]
fn a_newer_version_unknown_fields_and_what_is_cut_short_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CERTIFICATE);
    certificate_of(&data()).write(dir.path()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let message = Certificate::read(dir.path()).unwrap_err().to_string();
        assert!(message.contains("certificate.json"), "{message}");
        message
    };
    assert!(
        refused(&text.replacen("\"version\": 1", "\"version\": 2, \"more\": 0", 1)).contains("version 2, expected 1")
    );
    let unknown = refused(&text.replacen("\"mcnemar\": {", "\"mcnemar\": {\"chi\": 3,", 1));
    assert!(unknown.contains("field `mcnemar.chi`") && unknown.contains("unknown field `chi`"), "{unknown}");
    assert!(refused(&text.replacen("\"batch\": 8", "\"batch\": -8", 1)).contains("field `reading.batch`"));
    assert!(refused(&text[..text.len() / 2]).contains("EOF"));
    std::fs::remove_file(&path).unwrap();
    assert!(Certificate::read(dir.path()).unwrap_err().to_string().contains("certificate.json"));
}

#[test]
fn scores_of_other_questions_are_refused() {
    let dataset = data();
    let held_out = HeldOut::new(dataset.clone()).unwrap();
    let data = CertifiedData { content: held_out.record(), unseen: Unseen::Recorded, of_seen_paragraphs: 0 };
    let mut other = side("artefact", &dataset, 12);
    other.measured.scores[3].id = "another".into();
    let short = side("artefact", &dataset.limited(5), 12);
    for artefact in [other, short] {
        let comparison = Comparison {
            original: side("original", &dataset, 40),
            artefact,
            held_out: &held_out,
            data: data.clone(),
            reading: ReadingOptions { window: None, batch: 8, null_threshold: None },
        };
        assert!(Certificate::new(comparison).unwrap_err().to_string().contains("of other questions"));
    }
}

#[test]
fn a_model_card_says_what_the_certificate_does() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = certificate_of(&data());
    std::fs::write(dir.path().join("README.md"), "# Mine\n\nkept\n").unwrap();
    model_card::check(dir.path()).unwrap();
    model_card::write_section(&certificate, dir.path()).unwrap();
    let card = std::fs::read_to_string(dir.path().join("README.md")).unwrap();
    assert!(card.starts_with("# Mine\n\nkept\n\n<!-- certificate -->\n"), "{card}");
    for part in [
        model_card::claim(&certificate),
        format!("{:.12}", certificate.artefact.files.hash),
        format!("Measured on {} questions", data().len()),
        "| resident at most | 3.0 MB | 3.0 MB |".into(),
    ] {
        assert!(card.contains(&part), "{part}: {card}");
    }
    model_card::write_section(&certificate, dir.path()).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("README.md")).unwrap(), card);
    // What is printed is rounded up.
    let mut exact = certificate.clone();
    exact.exact_match.loses_at_most = 0.91;
    exact.f1.loses_at_most = -3.0;
    assert!(model_card::claim(&exact).starts_with("loses at most 1.0 points of exact match and 0.0 of F1"));
    exact.data.unseen = Unseen::Asserted;
    assert!(model_card::section(&exact).contains("**asserted by the caller**"));
}
