//! GGUF files that are opened by the call that opens folders.

#![cfg(feature = "flex")]

use std::path::{Path, PathBuf};

use switchable_quant::backend::Flex;
use switchable_quant::burn::backend::flex::FlexDevice;
use switchable_quant::data::{SpecialTokens, TextTokenizer};
use switchable_quant::families::{FAMILIES, WithFamily, with_family};
use switchable_quant::llama::Llama;
use switchable_quant::lora::SitePrecision;
use switchable_quant::reader::certificate::model_files::ModelFiles;
use switchable_quant::reader::gguf_export::{GgufExport, GgufReport};
use switchable_quant::reader::model_folder::{FolderOptions, ModelFolder, open_tokenizer};
use switchable_quant::transformer::gguf::GgufFile;
use switchable_quant::transformer::gguf::export::MatrixFloats;
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::span_head::MissingHead;

const CRATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const TEXT: &str = "Ada keeps the crab, 12 crows and <|endoftext|>\n";

fn golden(family: &str) -> PathBuf {
    Path::new(CRATES).join(format!("{family}-model/tests/golden/gguf/codes.gguf"))
}

/// The folder whose tokenizer the golden files carry.
fn tokenizer() -> TextTokenizer {
    TextTokenizer::from_dir(Path::new(CRATES).join("squad-data/tests/golden/tokenizer/plain")).expect("a golden folder")
}

fn options() -> FolderOptions {
    FolderOptions { missing_head: MissingHead::Random(0), ..FolderOptions::default() }
}

struct Opened<'a>(&'a Path);

impl WithFamily<Flex> for Opened<'_> {
    type Output = (usize, Vec<u32>, Vec<String>);

    fn run<M: SwitchableModel<Flex>>(self) -> Self::Output {
        let folder = ModelFolder::<Flex, M>::open(self.0, &options(), &FlexDevice).expect("it opens");
        let blocks = folder.model.transformer.shape().blocks;
        (blocks, folder.tokenizer.encode(TEXT).expect("a text").ids, folder.notes)
    }
}

#[test]
fn a_file_of_every_family_opens_with_its_tokenizer() {
    for family in FAMILIES {
        let (blocks, ids, notes) = with_family::<Flex, _>(golden(family), Opened(&golden(family))).unwrap();
        assert_eq!(blocks, 2);
        assert_eq!(ids, tokenizer().encode(TEXT).unwrap().ids);
        // Codes are said to be codes: rounding to their grid shows nothing.
        assert!(notes[0].contains("tensors are codes") && notes[0].contains("2 as Q4_1"), "{notes:?}");
    }
}

#[test]
fn the_folder_that_a_file_is_saved_as_has_its_tokenizer() {
    let folder = ModelFolder::<Flex, Llama<Flex>>::open(golden("llama"), &options(), &FlexDevice).unwrap();
    let dir = tempfile::tempdir().unwrap();
    folder.save(dir.path(), "codes").unwrap();
    let saved = open_tokenizer(dir.path()).unwrap();
    assert_eq!(saved.encode(TEXT).unwrap().ids, tokenizer().encode(TEXT).unwrap().ids);
    let end = |tokenizer: &TextTokenizer| SpecialTokens::of(tokenizer).unwrap().end;
    assert_eq!((end(&folder.tokenizer), end(&saved)), (0, 0));
}

#[test]
fn a_file_is_known_by_its_contents_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("other");
    std::fs::copy(golden("llama"), &copy).unwrap();
    let files = ModelFiles::of_folder(golden("llama")).unwrap();
    assert_eq!(ModelFiles::of_folder(&copy).unwrap(), files);
    let mut bytes = std::fs::read(&copy).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let message = files.check(&ModelFiles::of_folder(&copy).unwrap(), "original").unwrap_err().to_string();
    assert!(message.starts_with("model.gguf is of content"), "{message}");
}

#[test]
fn tokenizers_that_are_not_read_are_refused_by_key() {
    for (from, to, expected) in [
        (
            "\u{5}\0\0\0\0\0\0\0gpt-2",
            "\u{5}\0\0\0\0\0\0\0gpt-9",
            "`tokenizer.ggml.pre` is \"gpt-9\", expected one of gpt-2",
        ),
        (
            "ggml.model\u{8}\0\0\0\u{4}\0\0\0\0\0\0\0gpt2",
            "ggml.model\u{8}\0\0\0\u{4}\0\0\0\0\0\0\0bert",
            "`tokenizer.ggml.model` is \"bert\"",
        ),
        ("ggml.model", "ggml.mofel", "`tokenizer.ggml.model` is missing"),
        ("ggml.tokens", "ggml.tokems", "`tokenizer.ggml.tokens` is missing"),
        ("ggml.merges", "ggml.merger", "`tokenizer.ggml.merges` is missing"),
        ("h e", "h  ", "merge 0 is"),
        (
            "ggml.eos_token_id\u{4}\0\0\0\0\0",
            "ggml.eos_token_id\u{4}\0\0\0\0\u{9}",
            "`tokenizer.ggml.eos_token_id` is 2304, expected an id below the 283",
        ),
    ] {
        let bytes = std::fs::read(golden("llama")).unwrap();
        let at = find(&bytes, from);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("changed.gguf");
        std::fs::write(&file, [&bytes[..at], to.as_bytes(), &bytes[at + to.len()..]].concat()).unwrap();
        let message = open_tokenizer(&file).unwrap_err().to_string();
        assert!(message.contains("changed.gguf") && message.contains(expected), "{message}, expected {expected}");
    }
}

fn find(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect(text)
}

/// The golden model with a tokenizer, as a file.
fn exported(tokenizer: &TextTokenizer, path: &Path) -> switchable_quant::reader::Result<GgufReport> {
    let folder = ModelFolder::<Flex, Llama<Flex>>::open(golden("llama"), &options(), &FlexDevice).expect("it opens");
    let model = &folder.model.transformer;
    let plan = model.uniform_plan(SitePrecision::FULL);
    GgufExport { name: "golden", model, tokenizer, plan: &plan, matrices: MatrixFloats::F16 }.write(path)
}

#[test]
fn a_file_that_is_written_opens_with_the_tokenizer_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let report = exported(&tokenizer(), &path).unwrap();
    assert_eq!(report.notes, [""; 0]);
    let folder = ModelFolder::<Flex, Llama<Flex>>::open(&path, &options(), &FlexDevice).unwrap();
    assert_eq!(folder.tokenizer.encode(TEXT).unwrap().ids, tokenizer().encode(TEXT).unwrap().ids);
    let end = |tokenizer: &TextTokenizer| SpecialTokens::of(tokenizer).unwrap().end;
    assert_eq!(end(&folder.tokenizer), end(&tokenizer()));
    // Tokens and rows of the embedding are as many, whatever the tokenizer has.
    let file = GgufFile::open(&path).unwrap();
    let tokens = file.texts("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!(tokens.len(), folder.model.transformer.shape().vocabulary);
    assert_eq!(file.text("tokenizer.ggml.pre").unwrap(), Some("gpt-2"));
}

#[test]
fn a_tokenizer_of_another_kind_leaves_no_file() {
    let mut json: serde_json::Value = serde_json::from_str(tokenizer().to_json()).unwrap();
    json["normalizer"] = serde_json::json!({"type": "Lowercase"});
    let lower = TextTokenizer::from_bytes(json.to_string().as_bytes(), "lower.json").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let message = exported(&lower, &dir.path().join("model.gguf")).unwrap_err().to_string();
    assert!(message.contains("lower.json: field `normalizer` is"), "{message}");
    let message = exported(&tokenizer(), dir.path()).unwrap_err().to_string();
    assert!(message.contains(&dir.path().display().to_string()), "{message}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
