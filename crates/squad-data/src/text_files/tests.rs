use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;
use crate::tokenizer::{BpeConfig, LeadingSpace};

fn documents(files: &[(&str, &[u8])]) -> Result<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = files
        .iter()
        .map(|(name, bytes)| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            dir.path().join(name)
        })
        .collect();
    TextFiles::new(paths)?.documents().collect()
}

fn compressed(text: &str) -> Vec<u8> {
    compress_to_vec(text.as_bytes(), CompressionLevel::Fastest)
}

#[test]
fn documents_end_at_their_line_and_at_the_end_of_a_file() {
    let first = "One.\n\nStill one. <|endoftext|> inside a line\n<|endoftext|>\n\n<|endoftext|>\nTwo.";
    let expected = ["One.\n\nStill one. <|endoftext|> inside a line", "Two.", "Three."];
    assert_eq!(documents(&[("a.txt", first.as_bytes()), ("b.txt", b"Three.\r\n")]).unwrap(), expected);
    assert!(documents(&[("empty.txt", b""), ("blank.txt", b" \n\n")]).unwrap().is_empty());
}

#[test]
fn compressed_files_of_one_or_several_frames_read_as_plain_ones() {
    let long = "Tea is hot, snow is white.\n".repeat(100_000);
    let text = format!("{long}<|endoftext|>\nTwo é.");
    let plain = documents(&[("a.txt", text.as_bytes())]).unwrap();
    assert_eq!(documents(&[("a.txt.zst", &compressed(&text))]).unwrap(), plain);
    // A frame may end in the middle of a line.
    let (head, tail) = text.split_at(1_234_567);
    let frames = [compressed(head), compressed(tail)].concat();
    assert_eq!(documents(&[("a.txt.zst", &frames)]).unwrap(), plain);
}

#[test]
fn damaged_and_wrong_files_are_errors_that_name_them() {
    let whole = compressed(&"Tea is hot, snow is white.\n".repeat(1000));
    for (name, bytes) in
        [("cut.txt.zst", &whole[..whole.len() / 2]), ("plain.txt.zst", b"Tea is hot."), ("bytes.txt", b"a\xff\n")]
    {
        let message = documents(&[(name, bytes)]).expect_err(name).to_string();
        assert!(message.contains(name), "{message}");
    }
    assert!(documents(&[("a.json", b"{}")]).unwrap_err().to_string().contains("a.json"));
    assert!(TextFiles::new(["missing.txt"]).unwrap_err().to_string().contains("missing.txt"));
    assert!(TextFiles::new(Vec::<PathBuf>::new()).is_err());
}

#[test]
fn tokens_stop_at_their_number_and_mark_every_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    std::fs::write(&path, "aa\n<|endoftext|>\nbb\n").unwrap();
    let config = BpeConfig { vocab_size: 259, leading_space: LeadingSpace::Kept, ..BpeConfig::default() };
    let tokenizer = TextTokenizer::train_bpe(["x"], &config).unwrap();
    let files = TextFiles::new([path]).unwrap();
    let [a, b] = ["a", "b"].map(|text| tokenizer.encode_ids(text).unwrap()[0]);
    assert_eq!(files.tokens(&tokenizer, 2, usize::MAX).unwrap(), [a, a, 2, b, b, 2]);
    assert_eq!(files.tokens(&tokenizer, 2, 4).unwrap(), [a, a, 2, b]);
    assert!(files.tokens(&tokenizer, 2, 0).unwrap().is_empty());
}
