use super::*;

/// A file of one question, `json` being its paragraph.
fn file(paragraph: &str) -> String {
    format!(r#"{{"version": "1.1", "data": [{{"title": "T", "paragraphs": [{paragraph}]}}]}}"#)
}

const PARAGRAPH: &str = r#"{"context": "Ada drinks tea.", "qas": [{"id": "q1",
    "question": "What does Ada drink?", "answers": [{"text": "tea", "answer_start": 11}]}]}"#;

fn message(json: &str) -> String {
    Dataset::from_json(json, "folder/file.json").unwrap_err().to_string()
}

#[test]
fn real_files_load_and_are_written_back_the_same() {
    let Some(folder) = crate::real_data::squad_folder() else {
        return;
    };
    let table = [
        ("dev-v1.1-part.json", Format::V1, 4_978),
        ("dev-v2.0-part.json", Format::V2, 6_205),
        ("train/squad-v1.1-train-12-articles.json", Format::V1, 4_370),
        ("train/squad-v1.1-train-sampled-paragraphs.json", Format::V1, 3_830),
        ("train/squadshifts-new_wiki.json", Format::V1, 7_938),
        ("train/squadshifts-reddit.json", Format::V1, 9_803),
        ("train/squadshifts-amazon_reviews.json", Format::V1, 9_885),
    ];
    for (name, format, questions) in table {
        let dataset = Dataset::read(folder.join(name)).unwrap();
        assert_eq!((dataset.format, dataset.len()), (format, questions), "{name}");
        assert_eq!(Dataset::from_json(&dataset.to_json(), name).unwrap(), dataset);
        assert_eq!(dataset.examples().len(), questions);
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error_that_names_it() {
    let whole = file(PARAGRAPH);
    assert!(Dataset::from_json(&whole, "whole.json").is_ok());
    for length in 0..whole.len() {
        let error = message(&whole[..length]);
        assert!(error.starts_with("folder/file.json: not valid JSON: "), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Dataset::read("no/such/file.json").unwrap_err().to_string();
    assert!(error.starts_with("cannot read no/such/file.json: "), "{error}");
}

#[test]
fn offsets_count_characters_not_bytes_nor_graphemes() {
    // e + combining acute, a family of five code points, and a flag of two stand before the answer.
    let context = "Zoe\u{301} 👩\u{200d}👩\u{200d}👧 🇪🇪 drinks tea.";
    let start = context.chars().count() - "tea.".chars().count();
    let json = |start: usize| {
        file(&format!(
            r#"{{"context": "{context}", "qas": [{{"id": "q1", "question": "?",
                "answers": [{{"text": "tea", "answer_start": {start}}}]}}]}}"#
        ))
    };
    let dataset = Dataset::from_json(&json(start), "file.json").unwrap();
    assert_eq!(dataset.examples()[0].answers, [Answer { text: "tea".to_owned(), start }]);
    for wrong in [start - 1, start + 1, context.find("tea").unwrap(), 10_000] {
        let error = message(&json(wrong));
        let expected = format!(
            "folder/file.json: question `q1`: answers[0].answer_start: expected `tea` at character {wrong}, got "
        );
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn each_wrong_field_is_named_with_what_was_expected() {
    let at = "folder/file.json: data[0].paragraphs[0]";
    let cases = [
        ("\"Ada drinks tea.\"", "\" \"", format!("{at}.context: expected a text that is not empty, got \" \"")),
        (
            "\"What does Ada drink?\"",
            "\"\"",
            format!("{at}.qas[0].question: expected a text that is not empty, got \"\""),
        ),
        ("\"q1\"", "7", format!("{at}.qas[0].id: expected a string, got 7")),
        ("\"tea\"", "null", format!("{at}.qas[0].answers[0].text: expected a string, got null")),
        ("\"tea\"", "\"\"", format!("{at}.qas[0].answers[0].text: expected a text that is not empty, got \"\"")),
        ("11", "-1", format!("{at}.qas[0].answers[0].answer_start: expected a character offset of at least 0, got -1")),
        (
            "11",
            "\"11\"",
            format!("{at}.qas[0].answers[0].answer_start: expected a character offset of at least 0, got \"11\""),
        ),
        ("\"qas\"", "\"questions\"", format!("{at}: expected only the fields ")),
        ("\"title\": \"T\", ", "\"author\": 1, ", "folder/file.json: data[0]: expected only the fields ".into()),
        (
            "\"answer_start\": 11",
            "\"answer_start\": 11, \"answer_end\": 14",
            format!("{at}.qas[0].answers[0]: expected only the fields `text`, `answer_start`, got `answer_end`"),
        ),
        (
            "[{\"text\": \"tea\", \"answer_start\": 11}]",
            "{}",
            format!("{at}.qas[0].answers: expected an array, got an object"),
        ),
        (
            "[{\"text\": \"tea\", \"answer_start\": 11}]",
            "[]",
            "folder/file.json: question `q1`: answers: expected at least one, got none".into(),
        ),
        (
            ", \"answers\": [{\"text\": \"tea\", \"answer_start\": 11}]",
            "",
            format!("{at}.qas[0].answers: expected a value, got none"),
        ),
        (
            "\"answers\"",
            "\"is_impossible\": \"no\", \"answers\"",
            format!("{at}.qas[0].is_impossible: expected true or false, got \"no\""),
        ),
        ("\"1.1\"", "\"3.0\"", "folder/file.json: version: expected `1.0`, `1.1` or `v2.0`, got \"3.0\"".into()),
        ("\"1.1\"", "2", "folder/file.json: version: expected `1.0`, `1.1` or `v2.0`, got 2".into()),
        ("\"data\"", "\"dat\"", "folder/file.json: file: expected only the fields `version`, `data`, got `dat`".into()),
    ];
    let good = file(PARAGRAPH).replace("\n    ", " ");
    for (from, to, expected) in cases {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let error = message(&bad);
        assert!(error.starts_with(&expected), "{error}\nis not\n{expected}");
    }
    assert_eq!(message("[]"), "folder/file.json: file: expected at least one question, got none");
    assert_eq!(message("7"), "folder/file.json: file: expected an object, got 7");
}

#[test]
fn long_wrong_values_are_shown_in_part() {
    let json =
        file(PARAGRAPH).replace("[{\"text\": \"tea\", \"answer_start\": 11}]", &format!("\"{}\"", "é".repeat(500)));
    let error = message(&json);
    let shown = "é".repeat(40);
    assert!(error.ends_with(&format!("expected an array, got a string that begins with \"{shown}\"")), "{error}");
}

#[test]
fn unknown_fields_can_be_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("extra.json");
    std::fs::write(&path, file(PARAGRAPH).replace("\"title\"", "\"licence\": \"CC\", \"title\"")).unwrap();
    assert!(Dataset::read(&path).is_err());
    let options = ReadOptions { unknown_fields: UnknownFields::Ignore, ..ReadOptions::default() };
    assert_eq!(Dataset::read_with(&path, options).unwrap().dataset.len(), 1);
}

#[test]
fn an_id_means_one_question() {
    let twice = |second: &str| {
        let question = r#"{"id": "q1", "question": "What?", "answers": [{"text": "tea", "answer_start": 11}]}"#;
        file(&format!(r#"{{"context": "Ada drinks tea.", "qas": [{question}, {second}]}}"#))
    };
    let error = message(&twice(r#"{"id": "q1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]}"#));
    assert_eq!(error, "folder/file.json: question `q1`: id: expected one question of this id, got `What?` and `Who?`");
    // Another annotator's answer to the same question.
    let same = r#"{"id": "q1", "question": "What?", "answers": [{"text": "drinks", "answer_start": 4}]}"#;
    assert_eq!(Dataset::from_json(&twice(same), "file.json").unwrap().len(), 2);
}

#[test]
fn impossible_questions_have_no_answers_and_need_version_2() {
    let json = |version: &str, answers: &str| {
        file(&format!(
            r#"{{"context": "Ada drinks tea.", "qas": [{{"id": "q1", "question": "What does Bela drink?",
                "is_impossible": true, "answers": {answers},
                "plausible_answers": [{{"text": "tea", "answer_start": 11}}]}}]}}"#
        ))
        .replacen("\"version\": \"1.1\", ", version, 1)
    };
    for version in ["\"version\": \"v2.0\", ", "\"version\": \"2.0\", ", ""] {
        let dataset = Dataset::from_json(&json(version, "[]"), "file.json").unwrap();
        assert_eq!(dataset.format, Format::V2);
        assert!(dataset.examples()[0].is_impossible);
        assert_eq!(Dataset::from_json(&dataset.to_json(), "file.json").unwrap(), dataset);
    }
    assert_eq!(
        message(&json("\"version\": \"v2.0\", ", r#"[{"text": "tea", "answer_start": 11}]"#)),
        "folder/file.json: question `q1`: answers: expected none for an impossible question, got 1"
    );
    assert_eq!(
        message(&json("\"version\": \"1.1\", ", "[]")),
        "folder/file.json: question `q1`: is_impossible: expected false in version 1, got true"
    );
    let moved = json("\"version\": \"v2.0\", ", "[]").replace("11", "10");
    assert!(message(&moved).contains("plausible_answers[0].answer_start"), "{}", message(&moved));
}

#[test]
fn a_file_without_a_version_is_version_1_unless_a_question_is_impossible() {
    let json = file(PARAGRAPH).replacen("\"version\": \"1.1\", ", "", 1);
    assert_eq!(Dataset::from_json(&json, "file.json").unwrap().format, Format::V1);
}

#[test]
fn a_written_file_replaces_the_old_one_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.json");
    std::fs::write(&path, "old").unwrap();
    let dataset = Dataset::from_json(&file(PARAGRAPH), "file.json").unwrap();
    dataset.write(&path).unwrap();
    assert_eq!(Dataset::read(&path).unwrap(), dataset);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let missing = folder.path().join("missing/data.json");
    dataset.write(&missing).unwrap();
    assert_eq!(Dataset::read(&missing).unwrap(), dataset);

    let below_a_file = path.join("data.json");
    let error = dataset.write(&below_a_file).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write {}: ", below_a_file.display())), "{error}");
}

#[test]
fn limiting_keeps_whole_paragraph_structure() {
    let second = PARAGRAPH.replace("q1", "q2").replace("Ada", "Ida");
    let dataset = Dataset::from_json(&file(&format!("{PARAGRAPH}, {second}")), "file.json").unwrap();
    assert_eq!(dataset.limited(2), dataset);
    assert_eq!(dataset.limited(9), dataset);
    assert_eq!(dataset.limited(1).examples(), dataset.examples()[..1]);
    assert_eq!(dataset.limited(1).articles[0].paragraphs.len(), 1);
    assert!(dataset.limited(0).is_empty());
}

fn read_bytes(bytes: &[u8], options: ReadOptions) -> Result<ReadDataset> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any-name.txt");
    std::fs::write(&path, bytes).unwrap();
    Dataset::read_with(&path, options)
}

#[test]
fn a_byte_order_mark_and_carriage_returns_change_nothing() {
    let text = file(PARAGRAPH);
    let plain = Dataset::from_json(&text, "file.json").unwrap();
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(read_bytes(windows.as_bytes(), ReadOptions::default()).unwrap().dataset, plain);
    assert_eq!(Dataset::from_json(&windows, "file.json").unwrap(), plain);
}

#[test]
fn what_is_no_json_is_called_by_what_it_is() {
    let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, what) in [
        (utf16.as_slice(), "UTF-16"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"{\"data\": \"\xe9\"}", "behind the first 10"),
    ] {
        let error = read_bytes(bytes, ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("any-name.txt: ") && error.contains(what), "{error}");
    }
}

/// The rows that `datasets` exports, of two titles, three contexts and one question without an answer.
const ROWS: [&str; 4] = [
    r#"{"id":"q1","title":"Ada","context":"Ada drinks tea.","question":"What?","answers":{"text":["tea","tea."],"answer_start":[11,11]}}"#,
    r#"{"id":"q2","title":"Ida","context":"Ida sips 🍵 tea.","question":"What?","answers":{"text":["tea"],"answer_start":[11]}}"#,
    r#"{"id":"q3","title":"Ada","context":"Ada drinks tea.","question":"Who?","answers":{"text":["Ada"],"answer_start":[0]}}"#,
    r#"{"id":"q4","title":"Ada","context":"Ada rests.","question":"Why?","answers":{"text":[],"answer_start":[]}}"#,
];

#[test]
fn rows_of_hugging_face_are_read_in_each_of_their_forms() {
    let question = |id: &str, question: &str, answers: &[(&str, usize)]| Question {
        id: id.into(),
        question: question.into(),
        answers: answers.iter().map(|&(text, start)| Answer { text: text.into(), start }).collect(),
        plausible_answers: Vec::new(),
        is_impossible: answers.is_empty(),
    };
    let paragraph = |context: &str, questions: Vec<Question>| Paragraph { context: context.into(), questions };
    let article = |title: &str, paragraphs: Vec<Paragraph>| Article { title: title.into(), paragraphs };
    let tea = vec![question("q1", "What?", &[("tea", 11), ("tea.", 11)]), question("q3", "Who?", &[("Ada", 0)])];
    let ada = vec![paragraph("Ada drinks tea.", tea), paragraph("Ada rests.", vec![question("q4", "Why?", &[])])];
    let ida = vec![paragraph("Ida sips 🍵 tea.", vec![question("q2", "What?", &[("tea", 11)])])];
    let expected = Dataset { format: Format::V2, articles: vec![article("Ada", ada), article("Ida", ida)] };
    let listed = ROWS.join(",\n");
    for text in [
        ROWS.join("\n"),
        format!("\u{feff}{}\r\n\r\n", ROWS.join("\r\n")),
        format!("[{listed}]"),
        format!("{{\"data\": [{listed}]}}"),
        format!("{{\"version\": \"v2.0\", \"data\": [{listed}]}}"),
    ] {
        let read = read_bytes(text.as_bytes(), ReadOptions::default()).unwrap();
        assert_eq!(read.dataset, expected, "{text}");
        assert_eq!(read.counts, QuestionCounts::of(4));
    }
    let one = Dataset::from_json(ROWS[0], "row.json").unwrap();
    assert_eq!((one.format, one.len()), (Format::V1, 1));
    // Columns that `flatten` makes.
    let nested = r#""answers":{"text":["tea"],"answer_start":[11]}"#;
    let flat = ROWS[1].replace(nested, r#""answers.text":["tea"],"answers.answer_start":[11]"#);
    assert_ne!(flat, ROWS[1]);
    assert_eq!(Dataset::from_json(&flat, "row.json").unwrap(), Dataset::from_json(ROWS[1], "row.json").unwrap());
    // Answers as a list of objects, and nulls where a column is empty.
    let list = ROWS[2].replace(r#"{"text":["Ada"],"answer_start":[0]}"#, r#"[{"text":"Ada","answer_start":0}]"#);
    let list = list.replace("\"Ada\",\"context", "null,\"is_impossible\":null,\"context");
    assert_eq!(Dataset::from_json(&list, "row.json").unwrap().examples()[0].answers[0].text, "Ada");
}

#[test]
fn a_wrong_row_is_named_by_its_line() {
    let cases = [
        (ROWS[1].replace("[11]", "[]"), "line 2.answers.answer_start: expected as many offsets as texts, 1, got 0"),
        (ROWS[1].replace("[\"tea\"]", "[null]"), "line 2.answers.text[0]: expected a string, got null"),
        (ROWS[1].replace("[11]", "[-1]"), "line 2.answers.answer_start[0]: expected a character offset of at least 0"),
        (ROWS[1].replace("\"context\"", "\"text\""), "line 2: expected only the fields `id`, `title`"),
        (ROWS[1].replace("\"answers\"", "\"is_impossible\": 1, \"answers\""), "line 2.is_impossible: expected true"),
        ("7".into(), "line 2: expected an object, got 7"),
        (ROWS[1][..40].into(), "line 2: not valid JSON: "),
        (ROWS[1].replace("[11]", "[10]"), "question `q2`: answers.answer_start[0]: expected `tea` at character 10"),
    ];
    for (line, expected) in cases {
        let error = message(&[ROWS[0], &line, ROWS[2]].join("\n"));
        assert!(error.starts_with(&format!("folder/file.json: {expected}")), "{error}\nis not\n{expected}");
    }
}

/// Questions `q0`, `q1`, … about tea, whose answers are said to stand at `starts`.
fn about_tea(starts: &[usize]) -> String {
    let questions: Vec<String> = starts
        .iter()
        .enumerate()
        .map(|(i, start)| {
            format!(r#"{{"id": "q{i}", "question": "?", "answers": [{{"text": "tea", "answer_start": {start}}}]}}"#)
        })
        .collect();
    file(&format!(r#"{{"context": "Ada drinks tea.", "qas": [{}]}}"#, questions.join(",")))
}

#[test]
fn all_bad_offsets_are_listed_with_their_number() {
    let error = message(&about_tea(&[11, 10, 11, 12]));
    assert_eq!(
        error,
        "folder/file.json: 2 of 4 answers do not stand at their offsets, which count characters: \
         question `q1`: answers[0].answer_start: expected `tea` at character 10, got ` te`; \
         question `q3`: answers[0].answer_start: expected `tea` at character 12, got `ea.`"
    );
    let error = message(&about_tea(&[10; 500]));
    assert!(error.contains(": 500 of 500 answers") && error.ends_with("; and 490 more"), "{error}");
    assert!(error.len() < 2_000, "{error}");
}

#[test]
fn bad_answers_are_left_out_or_realigned_on_request_and_counted() {
    let two_places = r#"{"context": "tea is tea", "qas": [{"id": "r", "question": "?", "answers": [
        {"text": "tea", "answer_start": 1}, {"text": "is", "answer_start": 4}]}, {"id": "s", "question": "?",
        "answers": [{"text": "tea", "answer_start": 1}]}]}"#;
    let text = about_tea(&[11, 10]).replace("\"paragraphs\": [", &format!("\"paragraphs\": [{two_places},"));
    let read = |realign, bad_answers| {
        read_bytes(text.as_bytes(), ReadOptions { realign, bad_answers, ..ReadOptions::default() })
    };
    let ids = |read: &ReadDataset| read.dataset.examples().into_iter().map(|e| e.id).collect::<Vec<_>>();

    let skipped = read(Realign::Never, BadAnswers::Skip).unwrap();
    assert_eq!(ids(&skipped), ["r", "q0"]);
    assert_eq!(skipped.dataset.format, Format::V1);
    assert_eq!((skipped.skipped_answers, skipped.realigned_answers), (3, 0));
    assert_eq!(skipped.counts.text("questions"), "2 of 4 questions (2 questions have no answer at its offset)");
    assert_eq!(skipped.dataset.examples()[0].answers, [Answer { text: "is".into(), start: 4 }]);

    // "tea" stands in two places of the first context and in one of the second.
    let error = read(Realign::WhereOnce, BadAnswers::Refuse).unwrap_err().to_string();
    assert!(error.contains(": 2 of 5 answers do not stand"), "{error}");
    let both = read(Realign::WhereOnce, BadAnswers::Skip).unwrap();
    assert_eq!(
        (ids(&both), both.skipped_answers, both.realigned_answers),
        (vec!["r".into(), "q0".into(), "q1".into()], 2, 1)
    );
    assert_eq!(both.dataset.examples()[2].answers[0].start, 11);
}

#[test]
fn a_text_that_overlaps_itself_stands_in_two_places() {
    let text =
        r#"{"context": "xaaa", "qas": [{"id": "q", "question": "?", "answers": [{"text": "aa", "answer_start": 0}]}]}"#;
    let options = ReadOptions { realign: Realign::WhereOnce, ..ReadOptions::default() };
    assert!(read_bytes(file(text).as_bytes(), options).is_err());
}
