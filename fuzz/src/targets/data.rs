//! Questions, predictions and running text.

use std::path::Path;

use squad_data::{
    BadAnswers, Dataset, NullProbabilities, Predictions, ReadOptions, Realign, TextFiles, UnknownFields, evaluate,
    evaluate_v2_with_null_probabilities,
};

use crate::frame::sections;
use crate::scratch::with_files;

/// A file of questions in any form; what is read is written and read back the same.
pub fn squad(input: &[u8]) {
    with_files(&[("data.json", input)], |dir| {
        let path = dir.join("data.json");
        check(Dataset::read(&path));
        let lenient = ReadOptions {
            unknown_fields: UnknownFields::Ignore,
            realign: Realign::WhereOnce,
            bad_answers: BadAnswers::Skip,
        };
        check(Dataset::read_with(&path, lenient).map(|read| {
            assert_eq!(read.dataset.len(), read.counts.used);
            assert!(read.counts.used <= read.counts.all);
            read.dataset
        }));
    });
}

fn check(dataset: squad_data::Result<Dataset>) {
    let Ok(dataset) = dataset else { return };
    assert_eq!(dataset.examples().len(), dataset.len());
    assert!(dataset.limited(1).len() <= 1);
    let again = Dataset::from_json(&dataset.to_json(), Path::new("data.json")).expect("what is written is read");
    assert_eq!(again, dataset);
}

/// Questions, predictions, probabilities of no answer: what the official scripts read.
pub fn predictions(input: &[u8]) {
    let [data, predictions, null] = sections(input);
    let data = std::str::from_utf8(data).ok().and_then(|data| Dataset::from_json(data, "data.json").ok());
    with_files(&[("predictions.json", predictions), ("null.json", null)], |dir| {
        let predictions = Predictions::read(dir.join("predictions.json"));
        let null = NullProbabilities::read(dir.join("null.json"));
        if let (Some(data), Ok(predictions)) = (data, predictions) {
            _ = evaluate(&data, &predictions).map(|evaluation| evaluation.to_json());
            if let Ok(null) = null {
                _ = evaluate_v2_with_null_probabilities(&data, &predictions, &null, 0.5)
                    .map(|evaluation| evaluation.to_json());
            }
        }
    });
}

/// `z` and a Zstandard file, or the text itself.
pub fn text_files(input: &[u8]) {
    let (name, bytes) = match input.strip_prefix(b"z") {
        Some(compressed) => ("text.txt.zst", compressed),
        None => ("text.txt", input),
    };
    with_files(&[(name, bytes)], |dir| {
        let files = TextFiles::new([dir.join(name)]).expect("the file is there");
        let mut failed = false;
        for document in files.documents() {
            assert!(!failed, "nothing is read behind a fault");
            failed = document.is_err();
        }
    });
}
