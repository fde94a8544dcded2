//! Tokenizers in both of their forms.

use squad_data::{SpecialTokens, TextTokenizer};

use crate::frame::sections;
use crate::scratch::with_files;

/// Letters, a character of four bytes, a special token as text, white space.
const TEXT: &str = "Ada keeps 🦀.\u{a0} <sep>\tkeeps";

/// A `tokenizer.json`.
pub fn tokenizer_json(input: &[u8]) {
    check(TextTokenizer::from_bytes(input, "tokenizer.json"));
}

/// `vocab.json`, `merges.txt`, `added_tokens.json`, `special_tokens_map.json`, `tokenizer_config.json`,
/// `config.json`; all but the first two may be left out.
pub fn tokenizer_folder(input: &[u8]) {
    let [vocab, merges, added, special, tokenizer, config] = sections(input);
    let mut files = vec![("vocab.json", vocab), ("merges.txt", merges)];
    let more = [
        ("added_tokens.json", added),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", tokenizer),
        ("config.json", config),
    ];
    files.extend(more.iter().filter(|(_, bytes)| !bytes.is_empty()));
    with_files(&files, |dir| check(TextTokenizer::from_dir(dir)));
}

fn check(tokenizer: squad_data::Result<TextTokenizer>) {
    let Ok(tokenizer) = tokenizer else { return };
    _ = SpecialTokens::of(&tokenizer);
    if let Ok(encoding) = tokenizer.encode(TEXT) {
        assert_eq!(encoding.ids.len(), encoding.offsets.len());
        let characters = TEXT.chars().count();
        assert!(encoding.offsets.iter().all(|span| span.start <= span.end && span.end <= characters));
        _ = tokenizer.decode(&encoding.ids);
    }
}
