//! Files: what is written comes back, and what is broken is an error that says where.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorView};

use quant_kernels::{
    error::Error,
    packed::{
        file::{
            plain::{PlainData, PlainFormat},
            reader::PackedFile,
            writer::PackedFileWriter,
        },
        nested::NestedTensor,
        packed_spec::PackedSpec,
        packed_tensor::PackedTensor,
        product::options::Product,
        scales::ScaleFormat,
    },
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
};

use super::cases::{Case, Numbers, bits, specs, widths};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("weights.safetensors")
    }
}

#[test]
fn every_kind_of_weights_comes_back() {
    let folder = Folder::new();
    let mut numbers = Numbers::new(21);
    let shapes = [[33, 17], [100, 50], [0, 5], [5, 0]];
    let cases: Vec<Case> = shapes.into_iter().flat_map(specs).map(|spec| Case::new(spec, &mut numbers)).collect();
    let mut writer = PackedFileWriter::new();
    for (at, case) in cases.iter().enumerate() {
        writer.packed(format!("layer.{at}"), &case.packed);
    }
    writer.write(folder.file()).unwrap();
    let file = PackedFile::open(folder.file()).unwrap();
    assert_eq!(file.packed_names().count(), cases.len());
    for (at, case) in cases.iter().enumerate() {
        let read = file.packed(&format!("layer.{at}")).unwrap();
        assert_eq!(read.spec(), case.spec);
        assert_eq!(read.codes(), case.packed.codes());
        assert_eq!(read.zero_points(), case.zero_points);
        assert_eq!(bits(&read.scales()), bits(&case.packed.scales()));
        assert_eq!(bits(&read.dequantize()), bits(&case.packed.dequantize()));
        if case.spec.granularity == Granularity::PerChannel {
            let x = numbers.floats(3 * case.spec.shape[0]);
            let product = Product::default();
            assert_eq!(bits(&read.matmul(&x, 3, &product)), bits(&case.packed.matmul(&x, 3, &product)));
        }
    }
}

fn small() -> PackedTensor {
    let spec = PackedSpec {
        shape: [40, 3],
        bits: BitWidth::B4,
        format: Format::Asymmetric,
        granularity: Granularity::per_group(32).unwrap(),
        scale_format: ScaleFormat::F16,
    };
    Case::new(spec, &mut Numbers::new(22)).packed
}

#[test]
fn plain_tensors_and_texts_come_back_and_all_codes_are_aligned() {
    let folder = Folder::new();
    let packed = small();
    let values = [1.5, -2.0, 0.25, f32::NAN, f32::INFINITY, 3.0];
    let halves = values.map(f16::from_f32);
    let brains = values.map(bf16::from_f32);
    let mut writer = PackedFileWriter::new();
    writer.plain("a", &[2, 3], PlainData::F32(&values)).plain("b", &[6], PlainData::F16(&halves));
    writer.plain("c", &[1, 1, 6], PlainData::Bf16(&brains)).plain("scalar", &[], PlainData::F32(&values[..1]));
    writer.plain("none", &[0, 4], PlainData::F32(&[])).packed("w", &packed).packed("v", &packed);
    writer.metadata("model", "gpt2").write(folder.file()).unwrap();

    let file = PackedFile::open(folder.file()).unwrap();
    assert_eq!(file.plain_names().collect::<Vec<_>>(), ["a", "b", "c", "none", "scalar"]);
    assert_eq!(file.metadata().get("model").map(String::as_str), Some("gpt2"));
    for (name, format, shape) in
        [("a", PlainFormat::F32, vec![2, 3]), ("b", PlainFormat::F16, vec![6]), ("c", PlainFormat::Bf16, vec![1, 1, 6])]
    {
        let tensor = file.plain(name).unwrap();
        assert_eq!((tensor.format(), tensor.shape()), (format, &shape[..]));
        assert_eq!(bits(&tensor.to_f32()), bits(&values));
    }
    for name in ["v", "w"] {
        assert_eq!(file.packed(name).unwrap().codes().as_ptr().align_offset(64), 0);
    }
    let missing = Error::FileTensorMissing { path: folder.file(), tensor: "x".to_owned() };
    assert_eq!(file.packed("x").unwrap_err(), missing);
    assert_eq!(file.plain("x").unwrap_err(), missing);
}

#[test]
fn the_same_tensors_give_the_same_bytes_and_leave_nothing_beside_them() {
    let folder = Folder::new();
    let packed = small();
    let mut writer = PackedFileWriter::new();
    writer.packed("b", &packed).packed("a", &packed).metadata("y", "1").metadata("x", "2");
    writer.write(folder.file()).unwrap();
    let first = fs::read(folder.file()).unwrap();
    writer.write(folder.file()).unwrap();
    assert_eq!(fs::read(folder.file()).unwrap(), first);
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 1);
}

#[test]
fn a_name_that_is_taken_twice_is_an_error() {
    let folder = Folder::new();
    let packed = small();
    let mut writer = PackedFileWriter::new();
    writer.packed("w", &packed).plain("w.scales", &[1], PlainData::F32(&[1.0]));
    let error = writer.write(folder.file()).unwrap_err();
    assert!(matches!(&error, Error::FileTensor { tensor, .. } if tensor == "w.scales"), "{error}");
    assert!(!folder.file().exists());
}

#[test]
fn the_worked_example_of_the_documentation_is_what_is_written() {
    let folder = Folder::new();
    let spec = PackedSpec {
        shape: [32, 16],
        bits: BitWidth::new(3).unwrap(),
        format: Format::Symmetric,
        granularity: Granularity::PerTensor,
        scale_format: ScaleFormat::F16,
    };
    let mut weights = [0.0; 512];
    weights[5 * 16 + 2] = 1.0;
    let packed = PackedTensor::from_weights(spec, &weights, &[0.5], &[]).unwrap();
    PackedFileWriter::new().packed("w", &packed).write(folder.file()).unwrap();
    let bytes = fs::read(folder.file()).unwrap();
    let header = concat!(
        r#"{"__metadata__":{"format":"switchable-quant.packed","packed":"{\"w\":{\"shape\":[32,16],"#,
        r#"\"bits\":3,\"mapping\":\"symmetric\",\"granularity\":\"per-tensor\"}}","version":"1"},"#,
        r#""w.codes":{"dtype":"U8","shape":[192],"data_offsets":[0,192]},"#,
        r#""w.scales":{"dtype":"F16","shape":[1,1],"data_offsets":[192,194]}}"#,
    );
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!((len + 8) % 64, 0);
    assert_eq!(str::from_utf8(&bytes[8..8 + len]).unwrap().trim_end(), header);
    let mut data = [0b1010_1010; 128].to_vec();
    data.extend([0; 64]);
    data.extend([0x00, 0x38]);
    data[9] = 0b1010_1110;
    assert_eq!(bytes[8 + len..], data);
    let documentation = include_str!("../../../../docs/FORMAT.md");
    for line in header.split_inclusive("},").filter(|line| line.starts_with("\"w.")) {
        assert!(documentation.contains(line), "docs/FORMAT.md lacks {line}");
    }
}

/// Nested weights with scales of 2 and of 4 bits.
fn nested() -> NestedTensor {
    let spec = PackedSpec {
        shape: [40, 3],
        bits: BitWidth::B8,
        format: Format::Symmetric,
        granularity: Granularity::PerChannel,
        scale_format: ScaleFormat::F32,
    };
    let nested = NestedTensor::new(Case::new(spec, &mut Numbers::new(23)).packed).unwrap();
    let nested = nested.with_scales(BitWidth::B4, ScaleFormat::F16, &[1.5, 2.0, 0.75]).unwrap();
    nested.with_scales(BitWidth::B2, ScaleFormat::F32, &[7.3, 6.1, 9.9]).unwrap()
}

#[test]
fn scales_of_lower_widths_come_back_and_raise_the_version() {
    let folder = Folder::new();
    let (nested, packed) = (nested(), small());
    let mut writer = PackedFileWriter::new();
    writer.nested("w", &nested).packed("v", &packed).write(folder.file()).unwrap();
    let file = PackedFile::open(folder.file()).unwrap();
    assert_eq!((file.packed_names().collect::<Vec<_>>(), file.plain_names().count()), (vec!["v", "w"], 0));
    let read = file.nested("w").unwrap();
    assert_eq!(read.own_widths().collect::<Vec<_>>(), [BitWidth::B2, BitWidth::B4]);
    assert_eq!(read.bytes(), nested.bytes());
    for width in widths() {
        assert_eq!(read.scales(width).unwrap(), nested.scales(width).unwrap());
        assert_eq!(bits(&read.dequantize(width).unwrap()), bits(&nested.dequantize(width).unwrap()), "{width} bits");
    }
    let message = file.nested("v").unwrap_err().to_string();
    assert!(message.contains("weights.safetensors: weights of tensor `v`"), "{message}");
    // Byte for byte what the parts say, in whatever order.
    Parts::nested().write(&folder.file());
    let parts = PackedFile::open(folder.file()).unwrap().nested("w").unwrap();
    assert_eq!(parts.scales(BitWidth::B2).unwrap(), nested.scales(BitWidth::B2).unwrap());

    // Without them the file is that of version 1, which serves every width too.
    let bare = NestedTensor::new(nested.tensor().clone()).unwrap();
    PackedFileWriter::new().packed("w", bare.tensor()).write(folder.file()).unwrap();
    let one = fs::read(folder.file()).unwrap();
    PackedFileWriter::new().nested("w", &bare).write(folder.file()).unwrap();
    assert_eq!(fs::read(folder.file()).unwrap(), one);
    assert_eq!(PackedFile::open(folder.file()).unwrap().nested("w").unwrap().own_widths().count(), 0);
}

#[test]
fn every_broken_part_of_the_scales_of_lower_widths_is_named() {
    type Break = fn(&mut Parts);
    let broken: [(&str, &str, Break); 14] = [
        ("`width_scales` of tensor `w`", "expected version 2", |p| p.text("version", "2", "1")),
        ("no tensor `w.scales.bits-3`", "", |p| p.text("packed", "[2,4]", "[2,3,4]")),
        ("no tensor `w.scales.bits-2`", "", |p| p.text("packed", "[2,4]", "[2,2]")),
        ("no tensor `w.scales.bits-4`", "", |p| _ = p.tensors.remove(3)),
        ("tensor `w.scales.bits-8`", "cannot be packed to 8 bits", |p| {
            p.text("packed", "[2,4]", "[8]");
            p.tensors[2].0 = "w.scales.bits-8";
        }),
        ("shape of tensor `w.scales.bits-2`: got [3, 1]", "expected [1, 3]", |p| p.tensors[2].2 = vec![3, 1]),
        ("dtype of tensor `w.scales.bits-2`: got I32", "F16 or F32", |p| p.tensors[2].1 = Dtype::I32),
        ("tensor `w.scales.bits-2`", "scale 1 is NaN", |p| p.tensors[2].3[4..8].fill(0xff)),
        ("tensor `w.scales.bits-4`", "scale 0 is 0", |p| p.tensors[3].3[..2].fill(0)),
        ("tensor `w.scales.bits-2`", "scale 2 of 2 bits is 0.001, expected more than", |p| {
            p.tensors[2].3[8..].copy_from_slice(&0.001_f32.to_le_bytes());
        }),
        ("tensor `w.scales.bits-4`", "scale 1 is 300", |p| {
            let scales = [1e2_f32, 3e38, 1e2];
            (p.tensors[3].1, p.tensors[3].3) = (Dtype::F32, scales.into_iter().flat_map(f32::to_le_bytes).collect());
        }),
        ("scales of tensor `w`", "scale 2 is 300", |p| {
            p.tensors[1].3[8..].copy_from_slice(&3e38_f32.to_le_bytes());
        }),
        ("tensor `w`", "4 bits cannot be cut", |p| {
            p.text("packed", "\"bits\":8", "\"bits\":4");
            (p.tensors[0].2, p.tensors[0].3) = (vec![512], vec![0x88; 512]);
        }),
        ("`packed` is unreadable", "bit-width 0", |p| p.text("packed", "[2,4]", "[0,4]")),
    ];
    let folder = Folder::new();
    for (first, second, break_it) in broken {
        let mut parts = Parts::nested();
        break_it(&mut parts);
        parts.write(&folder.file());
        let message = PackedFile::open(folder.file()).unwrap_err().to_string();
        assert!(message.starts_with(folder.file().to_str().unwrap()), "{message}");
        assert!(message.contains(first) && message.contains(second), "`{message}` lacks `{first}` or `{second}`");
    }
}

#[test]
fn a_file_with_scales_of_lower_widths_that_is_cut_anywhere_is_an_error() {
    let folder = Folder::new();
    let nested = nested();
    PackedFileWriter::new().nested("w", &nested).write(folder.file()).unwrap();
    let bytes = fs::read(folder.file()).unwrap();
    for len in 0..bytes.len() {
        fs::write(folder.file(), &bytes[..len]).unwrap();
        assert!(PackedFile::open(folder.file()).is_err(), "{len} bytes");
    }
}

/// The parts of a file, to be broken.
struct Parts {
    texts: HashMap<String, String>,
    tensors: Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Parts {
    /// Those of nested weights with scales of 4 and of 2 bits.
    fn nested() -> Self {
        let nested = nested();
        let texts = [
            ("format", "switchable-quant.packed"),
            ("version", "2"),
            (
                "packed",
                r#"{"w":{"shape":[40,3],"bits":8,"mapping":"symmetric","granularity":"per-channel","width_scales":[2,4]}}"#,
            ),
        ];
        let texts = texts.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        let scales = |bits| nested.scales(bits).unwrap().0;
        let f32s = |bits| scales(bits).iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let f16s = |bits| scales(bits).iter().flat_map(|scale| f16::from_f32(*scale).to_le_bytes()).collect();
        let tensors = vec![
            ("w.codes", Dtype::U8, vec![1024], nested.tensor().codes().to_vec()),
            ("w.scales", Dtype::F32, vec![1, 3], f32s(BitWidth::B8)),
            ("w.scales.bits-2", Dtype::F32, vec![1, 3], f32s(BitWidth::B2)),
            ("w.scales.bits-4", Dtype::F16, vec![1, 3], f16s(BitWidth::B4)),
        ];
        Self { texts, tensors }
    }

    fn new() -> Self {
        let packed = small();
        let texts = [
            ("format", "switchable-quant.packed"),
            ("version", "1"),
            ("packed", r#"{"w":{"shape":[40,3],"bits":4,"mapping":"asymmetric","granularity":"per-group:32"}}"#),
        ];
        let texts = texts.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        let scales = packed.scales().iter().flat_map(|scale| f16::from_f32(*scale).to_le_bytes()).collect();
        let codes = packed.codes().to_vec();
        let zeros = packed.zero_points().to_vec();
        let tensors = vec![
            ("w.codes", Dtype::U8, vec![512], codes),
            ("w.scales", Dtype::F16, vec![2, 3], scales),
            ("w.zero_points", Dtype::U8, vec![2, 3], zeros),
        ];
        Self { texts, tensors }
    }

    fn write(&self, path: &Path) {
        let views = self
            .tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        fs::write(path, safetensors::serialize(views, Some(self.texts.clone())).unwrap()).unwrap();
    }

    fn text(&mut self, key: &str, from: &str, to: &str) {
        let text = self.texts.get_mut(key).unwrap();
        assert!(text.contains(from));
        *text = text.replace(from, to);
    }
}

#[test]
fn every_broken_part_is_named() {
    type Break = fn(&mut Parts);
    let broken: [(&str, &str, Break); 23] = [
        ("`format` is missing", "switchable-quant.packed", |p| _ = p.texts.remove("format")),
        ("`version` is `3`", "expected 1 or 2", |p| p.text("version", "1", "3")),
        ("`packed` is missing", "", |p| _ = p.texts.remove("packed")),
        ("`packed` is unreadable", "column", |p| p.text("packed", "}}", "")),
        ("an entry `colour`", "", |p| _ = p.texts.insert("colour".into(), "red".into())),
        ("unknown field `size`", "", |p| p.text("packed", "\"bits\":4", "\"bits\":4,\"size\":1")),
        ("missing field `bits`", "", |p| p.text("packed", "\"bits\":4,", "")),
        ("bit-width 0", "", |p| p.text("packed", "\"bits\":4", "\"bits\":0")),
        ("tensor `w`", "16 bits", |p| p.text("packed", "\"bits\":4", "\"bits\":16")),
        ("tensor `w`", "per-group:33", |p| p.text("packed", "per-group:32", "per-group:33")),
        ("shape of tensor `w.codes`: got [512]", "expected [384]", |p| p.text("packed", "\"bits\":4", "\"bits\":3")),
        ("shape of tensor `w.scales`: got [2, 3]", "expected [3, 3]", |p| p.text("packed", "[40,3]", "[70,3]")),
        ("dtype of tensor `w.scales`: got U8", "F16 or F32", |p| {
            (p.tensors[1].1, p.tensors[1].2) = (Dtype::U8, vec![2, 6]);
        }),
        ("dtype of tensor `w.zero_points`: got I8", "expected U8", |p| p.tensors[2].1 = Dtype::I8),
        ("no tensor `w.scales`", "", |p| _ = p.tensors.remove(1)),
        ("no tensor `w.zero_points`", "", |p| _ = p.tensors.remove(2)),
        ("no tensor `w.codes`", "", |p| _ = p.tensors.remove(0)),
        ("dtype of tensor `w.zero_points`: got U8", "F32, F16 or BF16", |p| p.text("packed", "asym", "sym")),
        ("tensor `w`", "scale 0 is NaN", |p| p.tensors[1].3[..2].copy_from_slice(&f16::NAN.to_le_bytes())),
        ("scales of tensor `w`", "whose product with every level is finite", |p| {
            let scales = [1.0_f32, 1.0, 1.0, 1.0, 3e38, 1.0].into_iter().flat_map(f32::to_le_bytes).collect();
            (p.tensors[1].1, p.tensors[1].3) = (Dtype::F32, scales);
        }),
        ("tensor `w`", "scale 5 is 0", |p| p.tensors[1].3[10..].fill(0)),
        ("tensor `w`", "scale 1 is -1", |p| p.tensors[1].3[2..4].copy_from_slice(&f16::NEG_ONE.to_le_bytes())),
        ("tensor `w`", "zero point 4 is 16, expected at most 15", |p| p.tensors[2].3[4] = 16),
    ];
    let folder = Folder::new();
    Parts::new().write(&folder.file());
    PackedFile::open(folder.file()).unwrap();
    for (first, second, break_it) in broken {
        let mut parts = Parts::new();
        break_it(&mut parts);
        parts.write(&folder.file());
        let message = PackedFile::open(folder.file()).unwrap_err().to_string();
        assert!(message.starts_with(folder.file().to_str().unwrap()), "{message}");
        assert!(message.contains(first) && message.contains(second), "`{message}` lacks `{first}` or `{second}`");
    }
}

#[test]
fn scales_that_2_bits_of_nested_codes_cannot_have_are_named_with_their_file() {
    let folder = Folder::new();
    let spec = PackedSpec {
        shape: [40, 3],
        bits: BitWidth::B8,
        format: Format::Symmetric,
        granularity: Granularity::PerChannel,
        scale_format: ScaleFormat::F16,
    };
    let packed = PackedTensor::from_weights(spec, &[0.0; 120], &[1.0, 2000.0, 1.0], &[]).unwrap();
    PackedFileWriter::new().packed("w", &packed).write(folder.file()).unwrap();
    let file = PackedFile::open(folder.file()).unwrap();
    assert_eq!(file.packed("w").unwrap().scales()[1].to_bits(), 2000.0_f32.to_bits());
    let message = file.nested("w").unwrap_err().to_string();
    assert!(message.starts_with(folder.file().to_str().unwrap()), "{message}");
    assert!(message.contains("tensor `w`") && message.contains("scale 1 is 128000"), "{message}");
}

#[test]
fn shapes_past_the_address_space_are_errors() {
    let folder = Folder::new();
    for shape in
        ["[18446744073709551615,18446744073709551615]", "[18446744073709551615,3]", "[40,18446744073709551615]"]
    {
        let mut parts = Parts::new();
        parts.text("packed", "[40,3]", shape);
        parts.text("packed", "per-group:32", "per-tensor");
        parts.tensors[1] = ("w.scales", Dtype::F16, vec![1, 1], f16::ONE.to_le_bytes().to_vec());
        parts.tensors[2] = ("w.zero_points", Dtype::U8, vec![1, 1], vec![0]);
        parts.write(&folder.file());
        let error = PackedFile::open(folder.file()).unwrap_err();
        assert!(matches!(&error, Error::FileTensor { .. }), "{error}");
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let folder = Folder::new();
    let packed = small();
    PackedFileWriter::new().packed("w", &packed).write(folder.file()).unwrap();
    let bytes = fs::read(folder.file()).unwrap();
    for len in 0..bytes.len() {
        fs::write(folder.file(), &bytes[..len]).unwrap();
        let error = PackedFile::open(folder.file()).unwrap_err();
        assert!(matches!(error, Error::FileHeader { .. } | Error::Io { .. }), "{len} bytes: {error}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    fs::write(folder.file(), longer).unwrap();
    assert!(PackedFile::open(folder.file()).is_err());
}

#[test]
fn other_files_and_none_are_errors() {
    let folder = Folder::new();
    let error = PackedFile::open(folder.file()).unwrap_err();
    assert!(matches!(&error, Error::Io { kind: std::io::ErrorKind::NotFound, .. }), "{error}");
    assert!(PackedFile::open(folder.0.path()).is_err());
    for bytes in [&b"not a file of tensors"[..], &[0xff; 100], b"\x02\0\0\0\0\0\0\0{}"] {
        fs::write(folder.file(), bytes).unwrap();
        let error = PackedFile::open(folder.file()).unwrap_err();
        assert!(matches!(&error, Error::FileHeader { .. }), "{error}");
    }
    // Tensors that overlap.
    let header =
        br#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend([0; 3]);
    fs::write(folder.file(), bytes).unwrap();
    let message = PackedFile::open(folder.file()).unwrap_err().to_string();
    assert!(message.contains("tensor `b`: got a gap or an overlap"), "{message}");
    let packed = small();
    let mut writer = PackedFileWriter::new();
    let error = writer.packed("w", &packed).write(folder.file().join("below a file")).unwrap_err();
    assert!(matches!(&error, Error::Io { .. }), "{error}");
    // A folder that is missing is made.
    let made = folder.0.path().join("none/file");
    writer.write(&made).unwrap();
    assert_eq!(PackedFile::open(&made).unwrap().packed("w").unwrap().dequantize(), packed.dequantize());
}
