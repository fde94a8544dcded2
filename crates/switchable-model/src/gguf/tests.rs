use std::path::PathBuf;

use super::block_type::BlockType;
use super::*;
use crate::error::Error;

/// A file in the making: metadata pairs and tensors as bytes, and the numbers that stand before them.
#[derive(Clone)]
struct Draft {
    magic: [u8; 4],
    version: u32,
    pairs: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
    alignment: usize,
}

#[derive(Clone)]
struct Tensor {
    name: String,
    sizes: Vec<u64>,
    number: u32,
    bytes: Vec<u8>,
    /// In the place of the right one.
    offset: Option<u64>,
}

fn text(text: &str) -> Vec<u8> {
    [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

/// A value behind its kind.
fn value(kind: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [kind.to_le_bytes().as_slice(), bytes.as_ref()].concat()
}

fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    let head = [kind.to_le_bytes().as_slice(), (items.len() as u64).to_le_bytes().as_slice()].concat();
    value(9, [head, items.concat()].concat())
}

fn tensor(name: &str, sizes: &[u64], number: u32, bytes: Vec<u8>) -> Tensor {
    Tensor { name: name.to_owned(), sizes: sizes.to_vec(), number, bytes, offset: None }
}

impl Draft {
    /// Two tensors, of which the first leaves a gap, and a pair of every kind.
    fn sound() -> Self {
        let pairs = [
            ("general.architecture", value(8, text("llama"))),
            ("a.u8", value(0, [200])),
            ("a.i8", value(1, [0xff])),
            ("a.u16", value(2, 60_000u16.to_le_bytes())),
            ("a.i16", value(3, (-2i16).to_le_bytes())),
            ("a.u32", value(4, 4_000_000_000u32.to_le_bytes())),
            ("a.i32", value(5, (-3i32).to_le_bytes())),
            ("a.f32", value(6, 0.5f32.to_le_bytes())),
            ("a.flag", value(7, [1])),
            ("a.u64", value(10, 7u64.to_le_bytes())),
            ("a.i64", value(11, (-4i64).to_le_bytes())),
            ("a.f64", value(12, 0.25f64.to_le_bytes())),
            ("a.texts", list(8, &[text("one"), text("zwei 🦀")])),
            ("a.numbers", list(5, &[1i32, -1].map(|number| number.to_le_bytes().to_vec()))),
        ];
        let floats = |count: u8| (0..count).flat_map(|i| f32::from(i).to_le_bytes()).collect::<Vec<u8>>();
        Self {
            magic: MAGIC,
            version: 3,
            pairs: pairs.map(|(key, value)| (key.to_owned(), value)).to_vec(),
            tensors: vec![tensor("first", &[3, 2], 0, floats(6)), tensor("second", &[4], 0, floats(4))],
            alignment: 32,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        let mut data: Vec<u8> = Vec::new();
        for Tensor { name, sizes, number, bytes: own, offset } in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            bytes.extend(text(name));
            bytes.extend((sizes.len() as u32).to_le_bytes());
            bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend(number.to_le_bytes());
            bytes.extend(offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(own);
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(data);
        bytes
    }

    fn with(mut self, key: &str, value: Vec<u8>) -> Self {
        self.pairs.push((key.to_owned(), value));
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn read(bytes: Vec<u8>) -> Result<GgufFile> {
    GgufFile::from_source(WeightSource::embedded("dir/m.gguf", Box::leak(bytes.into_boxed_slice())))
}

/// What is said of a file that is refused.
#[track_caller]
fn refused(bytes: Vec<u8>) -> String {
    let error = read(bytes).expect_err("a file that is refused");
    assert!(matches!(error, Error::Gguf { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with("dir/m.gguf: ") && message.contains(", expected "), "{message}");
    message
}

#[test]
fn every_kind_of_value_is_read_in_both_versions() {
    for version in VERSIONS {
        let file = read(Draft { version, ..Draft::sound() }.bytes()).unwrap();
        assert_eq!(file.architecture().unwrap(), "llama");
        let whole = [("u8", 200), ("i8", -1), ("u16", 60_000), ("i16", -2), ("u32", 4_000_000_000), ("i32", -3)];
        for (key, number) in whole.into_iter().chain([("u64", 7), ("i64", -4)]) {
            assert_eq!(file.whole(&format!("a.{key}")).unwrap(), Some(number));
        }
        let floats = ["a.f32", "a.f64"].map(|key| file.positive(key, None).unwrap().to_bits());
        assert_eq!(floats, [0.5f64, 0.25].map(f64::to_bits));
        assert_eq!(file.flag("a.flag").unwrap(), Some(true));
        assert_eq!(file.texts("a.texts").unwrap().unwrap(), ["one", "zwei 🦀"]);
        assert_eq!(file.numbers("a.numbers").unwrap().unwrap(), [1, -1]);
        let second = file.tensor("second").unwrap();
        assert_eq!((file.values(second), second.shape.as_slice()), (vec![0.0, 1.0, 2.0, 3.0], [4].as_slice()));
        assert_eq!(file.tensor("first").unwrap().shape, [2, 3]);
        assert!(file.quantised().is_empty());
    }
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_refused() {
    let whole = Draft::sound().bytes();
    for length in 0..whole.len() {
        _ = refused(whole[..length].to_vec());
    }
    // Padding behind the last tensor is none of the data.
    let padded = [whole.clone(), vec![0; 16]].concat();
    assert!(read(padded).is_ok());
    assert!(refused([whole, vec![0; 48]].concat()).contains("the last tensor is followed by 48 bytes"));
}

#[test]
fn a_changed_byte_never_panics() {
    let whole = Draft::sound().bytes();
    for index in 0..whole.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff, whole[index] ^ 1] {
            let mut changed = whole.clone();
            changed[index] = byte;
            if let Ok(file) = read(changed) {
                for key in file.metadata.keys() {
                    _ = (file.text(key), file.texts(key), file.numbers(key), file.size(key, None), file.flag(key));
                }
                for (_, info) in file.tensors() {
                    assert_eq!(file.values(info).len(), info.shape.iter().product::<usize>());
                }
            }
        }
    }
}

#[test]
fn headers_that_cannot_be_are_refused_by_name() {
    let draft = Draft::sound;
    let first = |change: fn(&mut Tensor)| draft().change(|draft| change(&mut draft.tensors[0])).bytes();
    let count = |at: usize, count: u64| {
        let mut bytes = draft().bytes();
        bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
        bytes
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Draft { magic: *b"GGML", ..draft() }.bytes(), "magic is \"GGML\", expected \"GGUF\""),
        (Draft { version: 1, ..draft() }.bytes(), "version is 1, expected 2 or 3"),
        (Draft { version: 4, ..draft() }.bytes(), "version is 4"),
        (Draft { version: 3 << 24, ..draft() }.bytes(), "version is big-endian"),
        (count(8, u64::MAX), "number of tensors is 18446744073709551615"),
        (count(16, 1 << 40), "number of metadata pairs is 1099511627776"),
        (draft().with("general.architecture", value(7, [0])).bytes(), "`general.architecture` is there twice"),
        (draft().with("x", value(13, [0; 8])).bytes(), "`x` is of type 13"),
        (draft().with("x", value(7, [2])).bytes(), "`x` is 2, expected 0 or 1"),
        (draft().with("x", value(8, [&2u64.to_le_bytes()[..], &[0xc3, 0x28]].concat())).bytes(), "UTF-8"),
        (draft().with("x", value(8, u64::MAX.to_le_bytes())).bytes(), "`x` is 18446744073709551615"),
        (draft().with("x", list(9, &[])).bytes(), "`x` is a list of lists"),
        (draft().with("", value(7, [0])).bytes(), "a key of 0 bytes"),
        (draft().with("general.alignment", value(4, 24u32.to_le_bytes())).bytes(), "`general.alignment` is 24"),
        (draft().with("general.alignment", value(4, 0u32.to_le_bytes())).bytes(), "`general.alignment` is 0"),
        (draft().with("general.alignment", value(8, text("32"))).bytes(), "`general.alignment` is a text"),
        (draft().with("general.alignment", value(4, 64u32.to_le_bytes())).bytes(), "tensor `first`: data is cut short"),
        (first(|tensor| tensor.number = 10), "`first`: type is Q2_K, expected one of F32, F16, Q4_0"),
        (first(|tensor| tensor.number = 99), "`first`: type is type 99"),
        (first(|tensor| tensor.number = 2), "`first`: shape is rows of 3 values"),
        (first(|tensor| tensor.sizes = vec![0, 2]), "`first`: shape is rows of 0 values"),
        (first(|tensor| tensor.sizes = vec![3, 0]), "`first`: shape is [3, 0]"),
        (first(|tensor| tensor.sizes = vec![1 << 40, 1 << 40]), "`first`: shape is [1099511627776, 1099511627776]"),
        (first(|tensor| tensor.sizes = vec![1 << 63]), "`first`: shape is"),
        (first(|tensor| tensor.sizes = vec![3, 1 << 40]), "tensor `first`: data is cut short"),
        (first(|tensor| tensor.sizes = vec![1; 5]), "`first`: dimensions is 5"),
        (first(|tensor| tensor.sizes = vec![]), "`first`: dimensions is 0"),
        (first(|tensor| tensor.name = String::new()), "tensor 0: name is a name of 0 bytes"),
        (first(|tensor| tensor.name = "n".repeat(65)), "tensor 0: name is a name of 65 bytes"),
        (first(|tensor| tensor.name = "second".into()), "tensor `second` is there twice"),
        (first(|tensor| tensor.offset = Some(8)), "`first`: offset is 8, expected 0"),
        (first(|tensor| tensor.offset = Some(u64::MAX)), "`first`: offset is 18446744073709551615"),
    ];
    for (bytes, expected) in cases {
        let message = refused(bytes);
        assert!(message.contains(expected), "{message}, expected {expected}");
    }
}

#[test]
fn another_alignment_moves_the_tensors() {
    let alignment = 128;
    let draft = Draft { alignment, ..Draft::sound() }.with("general.alignment", value(4, 128u32.to_le_bytes()));
    let file = read(draft.bytes()).unwrap();
    let second = file.tensor("second").unwrap();
    assert!(second.bytes.start.is_multiple_of(alignment));
    assert_eq!(file.values(second), [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn values_of_another_kind_are_refused_by_key() {
    let file = read(Draft::sound().bytes()).unwrap();
    let said = |error: Error| error.to_string();
    for (message, parts) in [
        (said(file.text("a.u8").unwrap_err()), ["`a.u8` is 200", "a text"]),
        (said(file.size("a.i8", None).unwrap_err()), ["`a.i8` is -1", "a whole number from 1"]),
        (said(file.size("a.texts", None).unwrap_err()), ["a list of 2, one for each block", "one number"]),
        (said(file.size("a.none", None).unwrap_err()), ["`a.none` is missing", "a whole number from 1"]),
        (said(file.positive("a.u8", None).unwrap_err()), ["`a.u8` is 200", "a number above 0"]),
        (said(file.flag("a.u8").unwrap_err()), ["`a.u8` is 200", "true or false"]),
        (said(file.texts("a.numbers").unwrap_err()), ["`a.numbers` is a list of I32", "texts"]),
        (said(file.numbers("a.texts").unwrap_err()), ["`a.texts` is a list of Text", "whole numbers"]),
        (said(file.token_id("a.i8").and(file.token_id("a.i32")).unwrap_err()), ["`a.i32` is -3", "a token id"]),
        (said(file.only("a.", &["u8"]).unwrap_err()), ["`a.f32` is 0.5", "no such key"]),
    ] {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    // None, as converters write it.
    assert_eq!(file.token_id("a.i8").unwrap(), None);
    assert_eq!(file.size("a.none", Some(4)).unwrap(), 4);
}

#[test]
fn a_file_is_told_by_its_name_or_its_first_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        dir.path().join(name)
    };
    assert!(is_gguf(write("m.GGUF", b"")) && is_gguf(write("sha256-0", b"GGUF....")));
    assert!(!is_gguf(write("m.bin", b"GGU")) && !is_gguf(dir.path()) && !is_gguf(dir.path().join("none.gguf")));
    let empty = GgufFile::open(dir.path().join("m.GGUF")).unwrap_err().to_string();
    assert!(empty.contains("m.GGUF"), "{empty}");
}

/// The blocks of a golden file, by the name of their type: bytes, and what llama.cpp's package makes of them.
fn golden_blocks(name: &str) -> (Vec<u8>, Vec<f32>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/blocks.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |part| tensors.tensor(&format!("{name}.{part}")).unwrap().data().to_vec();
    (tensor("bytes"), BlockType::F32.decode(&tensor("values")))
}

#[test]
fn blocks_of_every_type_are_what_llama_cpp_makes_of_them() {
    use BlockType::{Bf16, F16, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    for block_type in [F16, Bf16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
        let (bytes, expected) = golden_blocks(block_type.name());
        let got = block_type.decode(&bytes);
        assert_eq!(bytes.len() / block_type.bytes() * block_type.values(), expected.len());
        let same = got.iter().map(|value| value.to_bits()).eq(expected.iter().map(|value| value.to_bits()));
        assert!(same, "{}: {got:?}, expected {expected:?}", block_type.name());
    }
}

#[test]
fn a_weight_of_codes_is_the_exact_one_rounded_once() {
    let half = |bytes: &[u8], at: usize| f64::from(half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32());
    let nibble = |byte: u8, upper: bool| f64::from(if upper { byte >> 4 } else { byte & 15 });
    for name in ["Q4_0", "Q4_1", "Q8_0"] {
        let (bytes, expected) = golden_blocks(name);
        let size = bytes.len() / (expected.len() / 32);
        for (block, values) in bytes.chunks(size).zip(expected.chunks(32)) {
            for (j, value) in values.iter().enumerate() {
                let exact = match name {
                    "Q4_0" => half(block, 0) * (nibble(block[2 + j % 16], j >= 16) - 8.0),
                    "Q4_1" => half(block, 0) * nibble(block[4 + j % 16], j >= 16) + half(block, 2),
                    _ => half(block, 0) * f64::from(block[2 + j].cast_signed()),
                };
                assert_eq!((exact as f32).to_bits(), value.to_bits(), "{name} {j}");
            }
        }
    }
}
