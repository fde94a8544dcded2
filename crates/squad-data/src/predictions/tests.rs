use super::*;

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions.json");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn a_written_file_is_read_back() {
    let (folder, path) = written("old");
    let predictions: Predictions = [("q2", "🍵 \"tea\"\n"), ("q1", "")]
        .map(|(id, answer)| (id.to_owned(), answer.to_owned()))
        .into_iter()
        .collect();
    predictions.write(&path).unwrap();
    assert_eq!(Predictions::read(&path).unwrap(), predictions);
    assert_eq!(predictions.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["q1", "q2"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_answer_of_the_wrong_type_is_named() {
    for (value, shown) in [("7", "7"), ("null", "null"), ("[\"tea\"]", "[\"tea\"]")] {
        let (_folder, path) = written(&format!("{{\"q1\": \"tea\", \"q2\": {value}}}"));
        assert_eq!(
            Predictions::read(&path).unwrap_err().to_string(),
            format!("{}: q2: expected a string, got {shown}", path.display())
        );
    }
    let (_folder, path) = written("{\"q1\": 0.5, \"q2\": \"0.5\"}");
    assert_eq!(
        NullProbabilities::read(&path).unwrap_err().to_string(),
        format!("{}: q2: expected a number, got \"0.5\"", path.display())
    );
}

#[test]
fn files_that_are_no_object_or_cut_are_named() {
    for text in ["[\"tea\"]", "\"tea\"", "{\"q1\": \"tea\"", "{\"q1\": \"te", ""] {
        let (_folder, path) = written(text);
        let error = Predictions::read(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: not valid JSON: ", path.display())), "{error}");
    }
    let error = Predictions::read("no/such.json").unwrap_err().to_string();
    assert!(error.starts_with("cannot read no/such.json: "), "{error}");
}

#[test]
fn null_probabilities_keep_the_order_of_the_file() {
    let (_folder, path) = written("{\"b\": 0.5, \"a\": 1, \"c\": -2.5, \"b\": 0.25}");
    let values = NullProbabilities::read(&path).unwrap();
    let ids: Vec<&str> = values.in_order.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["b", "a", "c"]);
    assert_eq!((values.get("b"), values.get("a"), values.get("x")), (Some(0.25), Some(1.0), None));
}

#[test]
fn a_squad_file_in_the_place_of_predictions_is_called_one_in_a_short_message() {
    let long = format!("{{\"version\": \"1.1\", \"data\": [{}]}}", vec!["{}"; 10_000].join(","));
    let data_first = format!("{{\"data\": [{}]}}", vec!["{}"; 10_000].join(","));
    for text in [long, data_first] {
        let (_folder, path) = written(&text);
        let error = Predictions::read(&path).unwrap_err().to_string();
        assert!(error.contains("not a SQuAD file") && error.ends_with("got an array of 10000"), "{error}");
    }
    // A mark that Windows editors write.
    let (_folder, path) = written("\u{feff}{\"q1\": \"tea\"}");
    assert_eq!(Predictions::read(&path).unwrap().get("q1"), Some("tea"));
}
