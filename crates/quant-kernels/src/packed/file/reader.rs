//! Reading a file of packed tensors by memory map.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::{
    Dtype, SafeTensorError, SafeTensors,
    tensor::{Metadata, TensorInfo},
};

use whole_files::MappedFile;

use crate::{
    error::{Error, Result},
    packed::{
        file::{
            CODES, Description, Descriptions, FORMAT, SCALES, USER, VERSION, VERSION_WITH_WIDTH_SCALES, ZERO_POINTS,
            plain::{PlainFormat, PlainTensor},
            width_scales,
        },
        nested::NestedTensor,
        packed_spec::PackedSpec,
        packed_tensor::{PackedTensor, check_zero_points},
        scales::{ScaleFormat, Scales},
        storage::Bytes,
        tiles::layout::Tiling,
    },
    spec::bit_width::BitWidth,
};

/// A file of packed and plain tensors.
///
/// Opening it maps the file and checks everything but the codes, of which every byte means
/// something; no weight is read before it is used. A file must not be written while it is open:
/// what the tensors then hold is whatever the system shows of it, and cutting it short ends the
/// process. [`PackedFileWriter`](crate::packed::file::writer::PackedFileWriter) never does either, as it puts a new file
/// in the place of the old one.
#[derive(Debug, Clone)]
pub struct PackedFile {
    path: PathBuf,
    packed: BTreeMap<String, PackedTensor>,
    /// Those of the packed tensors that have scales of lower widths.
    nested: BTreeMap<String, NestedTensor>,
    plain: BTreeMap<String, PlainTensor>,
    metadata: BTreeMap<String, String>,
}

impl PackedFile {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, [`Error::FileHeader`] if it is not a whole file of
    /// this format and version, [`Error::FileTensor`] if a tensor is not what its description says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let map = Arc::new(MappedFile::open(path)?);
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| match error {
            SafeTensorError::InvalidOffset(tensor) => {
                FilePath(path).tensor(&tensor, "data_offsets", "a gap or an overlap", "tensors one after the other")
            }
            SafeTensorError::MetadataIncompleteBuffer => FilePath(path).header(
                "the length of the file",
                format!("{} bytes", map.len()),
                "that of the header and all tensors",
            ),
            error => FilePath(path).header("the file", format!("unreadable: {error}"), "a safetensors file"),
        })?;
        let mut reader = Reader { path: FilePath(path), tensors: metadata.tensors(), map: &map, data: 8 + header };
        let (descriptions, user) = read_texts(FilePath(path), &metadata)?;
        let (mut packed, mut nested) = (BTreeMap::new(), BTreeMap::new());
        for (name, description) in descriptions {
            let tensor = reader.packed(&name, &description)?;
            if !description.width_scales.is_empty() {
                nested.insert(name.clone(), reader.nested(&name, tensor.clone(), &description.width_scales)?);
            }
            packed.insert(name, tensor);
        }
        let plain = reader.plain()?;
        Ok(Self { path: path.to_owned(), packed, nested, plain, metadata: user })
    }

    /// The names of the packed tensors, in alphabetical order.
    pub fn packed_names(&self) -> impl Iterator<Item = &str> {
        self.packed.keys().map(String::as_str)
    }

    /// The names of the packed tensors that have scales of lower widths, in alphabetical order.
    pub fn names_with_width_scales(&self) -> impl Iterator<Item = &str> {
        self.nested.keys().map(String::as_str)
    }

    /// The names of the plain tensors, in alphabetical order.
    pub fn plain_names(&self) -> impl Iterator<Item = &str> {
        self.plain.keys().map(String::as_str)
    }

    /// Packed weights, which keep the file mapped.
    ///
    /// # Errors
    ///
    /// [`Error::FileTensorMissing`].
    pub fn packed(&self, name: &str) -> Result<PackedTensor> {
        self.packed.get(name).cloned().ok_or_else(|| self.missing(name))
    }

    /// Packed weights that serve several widths, with the scales of those that have their own. They keep the
    /// file mapped.
    ///
    /// # Errors
    ///
    /// [`Error::FileTensorMissing`], and [`Error::FileTensor`] where they cannot be cut to fewer bits.
    pub fn nested(&self, name: &str) -> Result<NestedTensor> {
        if let Some(nested) = self.nested.get(name) {
            return Ok(nested.clone());
        }
        let expected = "symmetric weights of 8 bits whose scales can be those of 2 bits";
        let refused = |error: Error| FilePath(&self.path).tensor(name, "weights", error, expected);
        NestedTensor::new(self.packed(name)?).map_err(refused)
    }

    /// A plain tensor, which keeps the file mapped.
    ///
    /// # Errors
    ///
    /// [`Error::FileTensorMissing`].
    pub fn plain(&self, name: &str) -> Result<PlainTensor> {
        self.plain.get(name).cloned().ok_or_else(|| self.missing(name))
    }

    /// The texts that were written with the file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The path that the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn missing(&self, name: &str) -> Error {
        Error::FileTensorMissing { path: self.path.clone(), tensor: name.to_owned() }
    }
}

/// What `__metadata__` says.
fn read_texts(path: FilePath, metadata: &Metadata) -> Result<(Descriptions, BTreeMap<String, String>)> {
    let texts = metadata.metadata().clone().unwrap_or_default();
    let missing = || "missing".to_owned();
    match texts.get("format") {
        Some(format) if format == FORMAT => {}
        got => return Err(path.header("`format`", got.map_or_else(missing, |got| format!("`{got}`")), FORMAT)),
    }
    let has_width_scales = match texts.get("version").map(String::as_str) {
        Some(VERSION) => false,
        Some(VERSION_WITH_WIDTH_SCALES) => true,
        got => return Err(path.header("`version`", got.map_or_else(missing, |got| format!("`{got}`")), "1 or 2")),
    };
    let mut descriptions: Option<Descriptions> = None;
    let mut user = BTreeMap::new();
    for (key, text) in texts {
        match key.strip_prefix(USER) {
            Some(key) => _ = user.insert(key.to_owned(), text),
            None if key == "packed" => {
                let parsed = serde_json::from_str(&text);
                descriptions = Some(parsed.map_err(|error| {
                    path.header("`packed`", format!("unreadable: {error}"), "a description of each packed tensor")
                })?);
            }
            None if key == "format" || key == "version" => {}
            None => {
                let got = format!("an entry `{key}`");
                return Err(path.header("`__metadata__`", got, "format, version, packed and user entries"));
            }
        }
    }
    let Some(descriptions) = descriptions else {
        return Err(path.header("`packed`", missing(), "a description of each packed tensor"));
    };
    let is_later = |(_, description): &(&String, &Description)| !description.width_scales.is_empty();
    match descriptions.iter().find(is_later) {
        Some((name, _)) if !has_width_scales => {
            Err(path.tensor(name, "`width_scales`", "scales of widths in a file of version 1", "version 2"))
        }
        _ => Ok((descriptions, user)),
    }
}

/// What a scale is multiplied with at most.
fn largest_level(spec: &PackedSpec) -> Result<f32> {
    Ok(spec.format.code_book(spec.bits)?.highest())
}

/// A file that is being read: tensors are taken out of it one by one.
struct Reader<'a> {
    path: FilePath<'a>,
    tensors: HashMap<String, &'a TensorInfo>,
    map: &'a Arc<MappedFile>,
    /// Where the tensors start.
    data: usize,
}

impl Reader<'_> {
    fn packed(&mut self, name: &str, description: &Description) -> Result<PackedTensor> {
        let path = self.path;
        let &Description { shape, bits, format, granularity, .. } = description;
        let part = |ending| format!("{name}{ending}");
        let (scales, scale_format) = self.take_scales(&part(SCALES))?;
        let spec = PackedSpec { shape, bits, format, granularity, scale_format };
        let invalid = |field| move |error: Error| path.tensor(name, field, error, "valid parameters");
        let scale_shape = spec.scale_shape().map_err(invalid("the description"))?;
        let check_shape = |part: &str, info: &TensorInfo, shape: &[usize]| path.check_shape(part, info, shape);
        check_shape(&part(SCALES), scales, &scale_shape)?;
        let scales = Scales::from_bytes(scale_format, self.bytes(scales)).map_err(invalid("scales"))?;
        scales.check_values(largest_level(&spec)?).map_err(invalid("scales"))?;

        let codes = self.take_bytes(&part(CODES))?;
        let Some(len) = Tiling::of(shape).bytes(bits.bits()) else {
            return Err(path.tensor(name, "shape", format!("{shape:?}"), "one that fits the address space"));
        };
        check_shape(&part(CODES), codes, &[len])?;
        let codes = self.bytes(codes);

        let zero_points = if format.has_zero_points() {
            let zero_points = self.take_bytes(&part(ZERO_POINTS))?;
            check_shape(&part(ZERO_POINTS), zero_points, &scale_shape)?;
            self.bytes(zero_points)
        } else {
            Bytes::build(0, |_| ())
        };
        check_zero_points(&spec, zero_points.as_slice()).map_err(invalid("zero points"))?;
        Ok(PackedTensor::of_parts(spec, codes, scales, zero_points))
    }

    /// 8-bit weights with the scales of lower widths.
    fn nested(&mut self, name: &str, tensor: PackedTensor, widths: &[BitWidth]) -> Result<NestedTensor> {
        let path = self.path;
        let invalid = |part: &str, error: Error| path.tensor(part, "scales", error, "scales of lower widths");
        let spec = tensor.spec;
        let shape = spec.scale_shape()?;
        let mut nested = NestedTensor::new(tensor).map_err(|error| invalid(name, error))?;
        for &bits in widths {
            let part = format!("{name}{}", width_scales(bits));
            let (info, format) = self.take_scales(&part)?;
            path.check_shape(&part, info, &shape)?;
            let scales = Scales::from_bytes(format, self.bytes(info)).map_err(|error| invalid(&part, error))?;
            let level = largest_level(&PackedSpec { bits, ..spec })?;
            scales.check_values(level).map_err(|error| invalid(&part, error))?;
            nested = nested.with_stored_scales(bits, scales).map_err(|error| invalid(&part, error))?;
        }
        Ok(nested)
    }

    /// All tensors that are left.
    fn plain(mut self) -> Result<BTreeMap<String, PlainTensor>> {
        let mut plain = BTreeMap::new();
        for (name, info) in std::mem::take(&mut self.tensors) {
            let Some(format) = PlainFormat::of(info.dtype) else {
                let expected = "F32, F16 or BF16, or a packed tensor that it belongs to";
                return Err(self.path.tensor(&name, "dtype", info.dtype, expected));
            };
            plain.insert(name, PlainTensor { format, shape: info.shape.clone(), bytes: self.bytes(info) });
        }
        Ok(plain)
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, name: &str) -> Result<&'a TensorInfo> {
        let missing = || Error::FileTensorMissing { path: self.path.0.to_owned(), tensor: name.to_owned() };
        self.tensors.remove(name).ok_or_else(missing)
    }

    fn take_scales(&mut self, name: &str) -> Result<(&'a TensorInfo, ScaleFormat)> {
        let info = self.take(name)?;
        match info.dtype {
            Dtype::F16 => Ok((info, ScaleFormat::F16)),
            Dtype::F32 => Ok((info, ScaleFormat::F32)),
            dtype => Err(self.path.tensor(name, "dtype", dtype, "F16 or F32")),
        }
    }

    fn take_bytes(&mut self, name: &str) -> Result<&'a TensorInfo> {
        let info = self.take(name)?;
        match info.dtype {
            Dtype::U8 => Ok(info),
            dtype => Err(self.path.tensor(name, "dtype", dtype, "U8")),
        }
    }

    fn bytes(&self, info: &TensorInfo) -> Bytes {
        let (start, end) = info.data_offsets;
        Bytes::Mapped(Arc::clone(self.map), self.data + start..self.data + end)
    }
}

/// The file that errors name.
#[derive(Clone, Copy)]
struct FilePath<'a>(&'a Path);

impl FilePath<'_> {
    fn header(self, field: &'static str, got: String, expected: &str) -> Error {
        Error::FileHeader { path: self.0.to_owned(), field, got, expected: expected.to_owned() }
    }

    fn check_shape(self, part: &str, info: &TensorInfo, shape: &[usize]) -> Result<()> {
        if info.shape == shape {
            return Ok(());
        }
        Err(self.tensor(part, "shape", format!("{:?}", info.shape), format!("{shape:?}")))
    }

    #[expect(clippy::needless_pass_by_value, reason = "what is printed is often made on the spot")]
    fn tensor(self, tensor: &str, field: &'static str, got: impl ToString, expected: impl ToString) -> Error {
        let (got, expected) = (got.to_string(), expected.to_string());
        Error::FileTensor { path: self.0.to_owned(), tensor: tensor.to_owned(), field, got, expected }
    }
}
