use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::generator::{GeneratorConfig, Split, corpus_texts, generate};

fn trained(leading_space: LeadingSpace) -> TextTokenizer {
    let corpus = generate(&GeneratorConfig::new(Split::Train, 60, 1)).unwrap();
    let config = BpeConfig { vocab_size: 500, leading_space, ..BpeConfig::default() };
    TextTokenizer::train_bpe(corpus_texts(&corpus), &config).unwrap()
}

fn spans(encoding: &Encoding) -> Vec<(usize, usize)> {
    encoding.offsets.iter().map(|span| (span.start, span.end)).collect()
}

#[test]
fn every_real_context_comes_back_through_the_gpt2_tokenizer() {
    let Some(folder) = crate::real_data::folder() else {
        return;
    };
    let tokenizer = TextTokenizer::from_dir(folder.join("gpt2-tokenizer")).unwrap();
    assert_eq!(tokenizer.vocab_size(), 50_257);
    assert_eq!(tokenizer.encode("Hello world").unwrap().ids, [15_496, 995]);
    assert_eq!(SpecialTokens::of(&tokenizer).unwrap().end, 50_256);
    let files = [
        "dev-v1.1-part.json",
        "dev-v2.0-part.json",
        "train/squad-v1.1-train-12-articles.json",
        "train/squad-v1.1-train-sampled-paragraphs.json",
        "train/squadshifts-new_wiki.json",
        "train/squadshifts-reddit.json",
        "train/squadshifts-amazon_reviews.json",
    ];
    for name in files {
        let dataset = crate::Dataset::read(folder.join("squad").join(name)).unwrap();
        for paragraph in dataset.articles.iter().flat_map(|article| &article.paragraphs) {
            let encoding = tokenizer.encode(&paragraph.context).unwrap();
            assert_eq!(tokenizer.decode(&encoding.ids).unwrap(), paragraph.context);
            check_offsets(&paragraph.context, &encoding);
        }
    }
}

/// Offsets ascend, stay inside, and cover every character that is not white space.
fn check_offsets(text: &str, encoding: &Encoding) {
    assert_eq!(encoding.ids.len(), encoding.offsets.len());
    let characters: Vec<char> = text.chars().collect();
    let mut is_covered = vec![false; characters.len()];
    let mut last = CharSpan { start: 0, end: 0 };
    for &span in &encoding.offsets {
        assert!(span.start < span.end && span.end <= characters.len(), "{span:?} of {text:?}");
        assert!(span.start >= last.start && span.end >= last.end, "{last:?} before {span:?}");
        is_covered[span.start..span.end].fill(true);
        last = span;
    }
    for (character, is_covered) in characters.iter().zip(is_covered) {
        assert!(is_covered || character.is_whitespace(), "{character:?} of {text:?} has no token");
    }
}

#[test]
fn offsets_leave_out_the_space_before_a_word() {
    let tokenizer = trained(LeadingSpace::Kept);
    let encoding = tokenizer.encode("Where does Ada live?").unwrap();
    let words: Vec<&str> = encoding.offsets.iter().map(|span| span.slice("Where does Ada live?")).collect();
    assert!(words.iter().all(|word| word.trim() == *word), "{words:?}");
    assert!(words.contains(&"does") && words.contains(&"?"), "{words:?}");
}

#[test]
fn bytes_of_one_character_all_cover_it() {
    let tokenizer = trained(LeadingSpace::Kept);
    let encoding = tokenizer.encode("é🍵").unwrap();
    assert_eq!(spans(&encoding), [(0, 1), (0, 1), (1, 2), (1, 2), (1, 2), (1, 2)]);
    let combining = tokenizer.encode("e\u{301}!").unwrap();
    assert_eq!(spans(&combining), [(0, 1), (1, 2), (1, 2), (2, 3)]);
}

#[test]
fn text_never_becomes_a_special_token() {
    let tokenizer = trained(LeadingSpace::Kept);
    let special: Vec<u32> =
        ["<pad>", "<sep>", "<eos>"].iter().map(|token| tokenizer.special_id(token).unwrap()).collect();
    assert_eq!(special, [0, 1, 2]);
    let encoding = tokenizer.encode("a <sep> b<pad><eos>").unwrap();
    assert!(encoding.ids.iter().all(|id| !special.contains(id)), "{encoding:?}");
    assert_eq!(tokenizer.decode(&encoding.ids).unwrap(), "a <sep> b<pad><eos>");
    assert_eq!(tokenizer.decode(&special).unwrap(), "");
}

#[test]
fn an_added_leading_space_gives_a_word_one_token_everywhere() {
    let tokenizer = trained(LeadingSpace::Added);
    let first = tokenizer.encode("works").unwrap();
    let inside = tokenizer.encode("Ada works").unwrap();
    assert_eq!(first.ids.len(), 1);
    assert_eq!(inside.ids.last(), first.ids.last());
    assert_eq!(spans(&first), [(0, 5)]);
    let kept = trained(LeadingSpace::Kept);
    assert_ne!(kept.encode("works").unwrap().ids, kept.encode(" works").unwrap().ids);
}

#[test]
fn training_gives_the_same_file_every_time() {
    let texts: Vec<String> = (0..300).map(|i| format!("ab ba abab {} {}", i % 7, i % 11)).collect();
    let config = BpeConfig { vocab_size: 300, ..BpeConfig::default() };
    let first = TextTokenizer::train_bpe(&texts, &config).unwrap().to_json().to_owned();
    for _ in 0..5 {
        let again = TextTokenizer::train_bpe(&texts, &config).unwrap().to_json().to_owned();
        assert_eq!(again, first);
    }
}

/// The definition itself: recount everything before every merge.
fn merges_by_recounting(words: &[(&str, u64)], merges: usize) -> Vec<(String, String)> {
    let mut words: Vec<(Vec<String>, u64)> =
        words.iter().map(|(word, count)| (word.chars().map(String::from).collect(), *count)).collect();
    // As the trainer: bytes in the order of their characters, then tokens as they come.
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    for byte in 0..=0x143_u32 {
        ids.insert(char::from_u32(byte).unwrap().to_string(), byte as usize);
    }
    let mut found = Vec::new();
    while found.len() < merges {
        let mut counts: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for (tokens, count) in &words {
            for pair in tokens.windows(2) {
                *counts.entry((ids[&pair[0]], ids[&pair[1]])).or_default() += count;
            }
        }
        let spelling = |id: usize| ids.iter().find(|entry| *entry.1 == id).unwrap().0.clone();
        let best = counts
            .iter()
            .filter(|(pair, count)| **count >= 2 && !ids.contains_key(&(spelling(pair.0) + &spelling(pair.1))))
            .max_by_key(|(pair, count)| (**count, std::cmp::Reverse(**pair)));
        let Some((&(a, b), _)) = best else {
            break;
        };
        let (a, b) = (spelling(a), spelling(b));
        let joined = format!("{a}{b}");
        ids.insert(joined.clone(), 1_000 + found.len());
        for (tokens, _) in &mut words {
            let mut position = 0;
            while position + 1 < tokens.len() {
                if tokens[position] == a && tokens[position + 1] == b {
                    tokens.splice(position..position + 2, [joined.clone()]);
                }
                position += 1;
            }
        }
        found.push((a, b));
    }
    found
}

#[test]
fn merges_are_those_of_the_definition() {
    let words = [("Ġaaaa", 3), ("Ġabab", 4), ("Ġbaab", 2), ("Ġcab", 4), ("Ġabc", 1), ("Ġaab", 2)];
    let texts: Vec<String> =
        words.iter().flat_map(|(word, count)| (0..*count).map(|_| word.trim_start_matches('Ġ').to_owned())).collect();
    let config = BpeConfig { vocab_size: 259 + 30, ..BpeConfig::default() };
    let json = TextTokenizer::train_bpe(&texts, &config).unwrap().to_json().to_owned();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let merges: Vec<(String, String)> = serde_json::from_value(json["model"]["merges"].clone()).unwrap();
    let expected = merges_by_recounting(&words, 30);
    assert!(expected.len() >= 8, "{expected:?}");
    assert_eq!(merges, expected);
}

#[test]
fn a_merge_never_spells_a_special_token() {
    let texts = ["<sep>", "<sep>", "<sep>"];
    let config = BpeConfig { vocab_size: 400, leading_space: LeadingSpace::Kept, ..BpeConfig::default() };
    let tokenizer = TextTokenizer::train_bpe(texts, &config).unwrap();
    assert!(!tokenizer.encode("<sep>").unwrap().ids.contains(&1));
}

#[test]
fn a_saved_tokenizer_loads_and_encodes_the_same() {
    let tokenizer = trained(LeadingSpace::Added);
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path().join("tokenizer.json")).unwrap();
    let loaded = TextTokenizer::from_dir(folder.path()).unwrap();
    let text = "Ada Birch keeps an otter, 🦦 and “quotes”.";
    assert_eq!(loaded.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    assert_eq!(loaded.vocab_size(), tokenizer.vocab_size());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn truncation_and_padding_of_the_file_are_not_applied() {
    let json = trained(LeadingSpace::Added).to_json().to_owned();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json["truncation"] = serde_json::json!(
        {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    );
    json["padding"] = serde_json::json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    });
    let tokenizer = TextTokenizer::from_bytes(json.to_string().as_bytes(), "strict").unwrap();
    let ids = tokenizer.encode("Where does Ada live now?").unwrap().ids;
    assert!(ids.len() > 3 && ids.len() < 64 && !ids.contains(&0), "{ids:?}");
}

#[test]
fn unusable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let error = |result: Result<TextTokenizer>| result.unwrap_err().to_string();
    assert_eq!(
        error(TextTokenizer::from_dir(dir)),
        format!(
            "tokenizer {}: expected tokenizer.json, or vocab.json and merges.txt, in the folder, got neither",
            dir.display()
        )
    );
    let missing = dir.join("tokenizer.json");
    assert!(error(TextTokenizer::from_file(&missing)).starts_with(&format!("cannot read {}", missing.display())));
    std::fs::write(&missing, "{\"version\": ").unwrap();
    assert!(error(TextTokenizer::from_dir(dir)).starts_with(&format!("tokenizer {}: ", missing.display())));
    std::fs::remove_file(&missing).unwrap();

    let (vocab, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
    std::fs::write(&vocab, "{\"a\": 0, \"b\": 1}").unwrap();
    assert!(error(TextTokenizer::from_vocab_and_merges(&vocab, &merges)).contains("merges.txt"));
    std::fs::write(&merges, "a c\n").unwrap();
    let message = error(TextTokenizer::from_dir(dir));
    assert!(message.contains("merges.txt") && message.contains("`c`"), "{message}");
}

#[test]
fn ids_outside_the_vocabulary_are_an_error() {
    let tokenizer = trained(LeadingSpace::Added);
    let error = tokenizer.decode(&[5, 9_999]).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("tokenizer trained BPE: expected token ids of a vocabulary of {}, got 9999", tokenizer.vocab_size())
    );
}

#[test]
fn missing_special_tokens_are_named() {
    let config = BpeConfig { special_tokens: vec!["<sep>".to_owned()], ..BpeConfig::default() };
    let tokenizer = TextTokenizer::train_bpe(["a"], &config).unwrap();
    assert_eq!(
        SpecialTokens::of(&tokenizer).unwrap_err().to_string(),
        "tokenizer trained BPE: expected a token `<|endoftext|>` in the vocabulary, got none"
    );
}

#[test]
fn a_vocabulary_without_room_or_with_twin_tokens_is_an_error() {
    let error = |config: BpeConfig| TextTokenizer::train_bpe(["a"], &config).unwrap_err().to_string();
    assert_eq!(
        error(BpeConfig { vocab_size: 258, ..BpeConfig::default() }),
        "vocab_size: expected at least 259, the special tokens and the bytes, got 258"
    );
    let twins = vec!["<pad>".to_owned(), "<pad>".to_owned()];
    assert_eq!(
        error(BpeConfig { special_tokens: twins, ..BpeConfig::default() }),
        "special_tokens: expected different tokens, none of them empty, got [\"<pad>\", \"<pad>\"]"
    );
}

#[test]
fn a_span_past_the_end_is_cut_to_the_text() {
    assert_eq!(CharSpan { start: 1, end: 9 }.slice("é🍵"), "🍵");
    assert_eq!(CharSpan { start: 5, end: 9 }.slice("é🍵"), "");
    assert_eq!(CharSpan { start: 2, end: 1 }.slice("abc"), "");
}

proptest! {
    #[test]
    fn any_text_comes_back_with_sound_offsets(text in any::<String>(), spaced in "( |\\PC|\n|\t){0,40}") {
        let tokenizer = KEPT.get_or_init(|| trained(LeadingSpace::Kept));
        for text in [text, spaced] {
            let encoding = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&encoding.ids).unwrap(), text.clone());
            check_offsets(&text, &encoding);
        }
    }
}

static KEPT: std::sync::OnceLock<TextTokenizer> = std::sync::OnceLock::new();

#[test]
fn what_the_tokenizer_library_would_panic_on_is_refused() {
    let tokenizer = TextTokenizer::train_bpe(["Ada"], &BpeConfig { vocab_size: 260, ..BpeConfig::default() }).unwrap();
    let json = tokenizer.to_json();
    let with = |field: &str, value: serde_json::Value| {
        let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
        json[field] = value;
        json.to_string()
    };
    let long_table = serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "/////w==" });
    let sequence = serde_json::json!({ "type": "Sequence", "normalizers": [long_table] });
    for (what, text) in [
        ("a fault inside of the decoder", json.replace("\"decoder\":", "\"decoder\": {\"type\": x},")),
        ("a normaliser without its table", with("normalizer", serde_json::json!({ "type": "Precompiled" }))),
        ("a table of 4 GiB", with("normalizer", long_table.clone())),
        ("one in a sequence", with("normalizer", sequence.clone())),
        ("a token beyond all vocabularies", json.replace("\"A\":", "\"AA\": 4294967295, \"A\":")),
    ] {
        let error = TextTokenizer::from_bytes(text.as_bytes(), "tokenizer.json").unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{what}: {error}");
    }
}

#[test]
fn ids_that_the_tokenizer_library_would_count_up_to_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [vocab, merges] = ["vocab.json", "merges.txt"].map(|name| dir.path().join(name));
    std::fs::write(&merges, "#version: 0.2\n").unwrap();
    for id in ["16777216", "4294967295"] {
        std::fs::write(&vocab, format!("{{\"a\": 0, \"b\": {id}}}")).unwrap();
        let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("vocab.json") && error.contains(id), "{error}");
    }
}

#[test]
fn a_tokenizer_without_tokens_or_with_random_ones_is_refused() {
    let read = |edit: &dyn Fn(&mut serde_json::Value)| {
        let trained = TextTokenizer::train_bpe(["to be or not to be"], &BpeConfig::default()).unwrap();
        let mut json = serde_json::from_str(trained.to_json()).unwrap();
        edit(&mut json);
        TextTokenizer::from_bytes(json.to_string().as_bytes(), "a.json").map(|tokenizer| tokenizer.vocab_size())
    };
    assert!(read(&|json| json["model"]["dropout"] = 0.0.into()).is_ok());
    let message = read(&|json| json["model"]["dropout"] = 0.5.into()).unwrap_err().to_string();
    assert!(message.contains("a.json") && message.contains("field `model.dropout` is 0.5"), "{message}");
    let empty = |json: &mut serde_json::Value| {
        json["model"]["vocab"] = serde_json::json!({});
        json["model"]["merges"] = serde_json::json!([]);
        json["added_tokens"] = serde_json::json!([]);
    };
    let message = read(&empty).unwrap_err().to_string();
    assert!(message.contains("a.json") && message.contains("is empty"), "{message}");
}

#[test]
fn two_tokens_of_one_id_are_refused_with_the_file_and_both() {
    let tokenizer = TextTokenizer::train_bpe(["Ada"], &BpeConfig { vocab_size: 260, ..BpeConfig::default() }).unwrap();
    let id = tokenizer.token_id("A").unwrap();
    let text = tokenizer.to_json().replace("\"B\":", &format!("\"B\": {id}, \"BB\":"));
    let error = TextTokenizer::from_bytes(text.as_bytes(), "a/tokenizer.json").unwrap_err().to_string();
    let parts = ["a/tokenizer.json", "`model.vocab`", "\"A\"", "\"B\"", &id.to_string()];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\n").unwrap();
    std::fs::write(dir.path().join("vocab.json"), r#"{"a": 0, "b": 1, "c": 1}"#).unwrap();
    let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(["vocab.json", "\"b\"", "\"c\"", "the id 1"].iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn a_field_that_the_tokenizer_library_does_not_read_is_named_with_what_is_expected() {
    let tokenizer = TextTokenizer::train_bpe(["Ada"], &BpeConfig { vocab_size: 260, ..BpeConfig::default() }).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut json: serde_json::Value = serde_json::from_str(tokenizer.to_json()).unwrap();
        json[field] = value;
        json
    };
    let mut without = with("version", "1.0".into());
    without.as_object_mut().unwrap().remove("model");
    for (json, field) in [
        (with("model", serde_json::json!({ "type": "Unigram" })), "field `model` of the type \"Unigram\""),
        (
            with("model", serde_json::json!({ "type": "Tiktoken", "vocab": {} })),
            "field `model` of the type \"Tiktoken\"",
        ),
        (with("model", serde_json::Value::Null), "field `model`: "),
        (with("pre_tokenizer", serde_json::json!({ "type": "Words" })), "field `pre_tokenizer` of the type \"Words\""),
        (with("decoder", 5.into()), "field `decoder`: "),
        (with("chat_template", "{{ x }}".into()), "field `chat_template` is not known"),
        (without, "field `model` is missing"),
        (serde_json::json!([]), "a JSON object"),
    ] {
        let error = TextTokenizer::from_bytes(json.to_string().as_bytes(), "a.json").unwrap_err().to_string();
        let parts = ["tokenizer a.json: ", field, "byte-level BPE"];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
