//! Writing a file of packed tensors.

use std::{collections::BTreeMap, io::Write, path::Path};

use safetensors::{Dtype, tensor::TensorInfo};
use serde::Serialize;

use whole_files::PartialFile;

use crate::{
    error::{Error, Result},
    packed::{
        file::{
            CODES, Description, Descriptions, FORMAT, SCALES, USER, VERSION, VERSION_WITH_WIDTH_SCALES, ZERO_POINTS,
            plain::PlainData, width_scales,
        },
        nested::NestedTensor,
        own_scales::OwnScales,
        packed_spec::PackedSpec,
        packed_tensor::PackedTensor,
        scales::ScaleFormat,
    },
};

/// Collects tensors and writes them to a file.
///
/// ```
/// use quant_kernels::{BitWidth, Format, Granularity, PackedFile, PackedFileWriter, PackedSpec, PackedTensor, ScaleFormat, packed::file::plain::PlainData};
///
/// let spec = PackedSpec {
///     shape: [2, 2],
///     bits: BitWidth::B4,
///     format: Format::Symmetric,
///     granularity: Granularity::PerChannel,
///     scale_format: ScaleFormat::F16,
/// };
/// let packed = PackedTensor::from_weights(spec, &[0.5, -7.0, 0.2, 3.4], &[0.25, 1.0], &[])?;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.safetensors");
/// let mut writer = PackedFileWriter::new();
/// writer.packed("h.0.attn.c_attn.weight", &packed);
/// writer.plain("h.0.attn.c_attn.bias", &[2], PlainData::F32(&[1.0, 2.0]));
/// writer.write(&path)?;
///
/// let file = PackedFile::open(&path)?;
/// assert_eq!(file.packed("h.0.attn.c_attn.weight")?.dequantize(), packed.dequantize());
/// assert_eq!(file.plain("h.0.attn.c_attn.bias")?.to_f32(), [1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct PackedFileWriter<'a> {
    packed: Vec<Packed<'a>>,
    plain: Vec<(String, Vec<usize>, PlainData<'a>)>,
    user: BTreeMap<String, String>,
}

/// Packed weights, with scales of lower widths where those have their own.
#[derive(Debug)]
struct Packed<'a> {
    name: String,
    tensor: &'a PackedTensor,
    width_scales: Vec<&'a OwnScales>,
}

/// The header, in an order of its own and not in that of a JSON library's maps.
#[derive(Serialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

/// A tensor as safetensors knows it.
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl<'a> PackedFileWriter<'a> {
    /// A file of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds packed weights.
    pub fn packed(&mut self, name: impl Into<String>, tensor: &'a PackedTensor) -> &mut Self {
        self.packed.push(Packed { name: name.into(), tensor, width_scales: Vec::new() });
        self
    }

    /// Adds packed weights that serve several widths, with the scales of those that have their own.
    pub fn nested(&mut self, name: impl Into<String>, nested: &'a NestedTensor) -> &mut Self {
        let width_scales = nested.own_scales().collect();
        self.packed.push(Packed { name: name.into(), tensor: nested.tensor(), width_scales });
        self
    }

    /// Adds a plain tensor.
    ///
    /// # Shapes
    ///
    /// - `values`: `shape`, row-major
    ///
    /// # Panics
    ///
    /// If `values` has another length than `shape`.
    pub fn plain(&mut self, name: impl Into<String>, shape: &[usize], values: PlainData<'a>) -> &mut Self {
        let name = name.into();
        let fits = shape.iter().product::<usize>() == values.len();
        assert!(fits, "{} values do not fill tensor `{name}` of shape {shape:?}", values.len());
        self.plain.push((name, shape.to_vec(), values));
        self
    }

    /// Adds a text that [`PackedFile::metadata`](crate::packed::file::reader::PackedFile::metadata) gives back.
    pub fn metadata(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.user.insert(key.into(), value.into());
        self
    }

    /// Writes the file whole and makes its folder, so that readers see the old file or the whole new one. The same tensors give the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::FileTensor`] for a name that is taken twice, [`Error::Io`] if writing fails.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let header = self.header(path)?;
        let mut file = PartialFile::create(path)?;
        file.fill(|file| {
            file.write_all(&header)?;
            self.packed.iter().try_for_each(|packed| file.write_all(packed.tensor.codes()))?;
            self.small_entries().iter().try_for_each(|entry| file.write_all(&entry.bytes))
        })?;
        Ok(file.persist()?)
    }

    /// All tensors that are not codes, those of wider numbers first, so that each is aligned.
    fn small_entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for packed in &self.packed {
            let Packed { name, tensor, .. } = packed;
            let [rows, columns] = scale_shape(&tensor.spec);
            let dtype = scale_dtype(tensor.spec.scale_format);
            let (name, shape) = (|ending: &str| format!("{name}{ending}"), vec![rows, columns]);
            let bytes = tensor.scales.as_bytes().to_vec();
            entries.push(Entry { name: name(SCALES), dtype, shape: shape.clone(), bytes });
            if tensor.spec.format.has_zero_points() {
                let bytes = tensor.zero_points().to_vec();
                entries.push(Entry { name: name(ZERO_POINTS), dtype: Dtype::U8, shape: shape.clone(), bytes });
            }
            for own in &packed.width_scales {
                let (dtype, bytes) = (scale_dtype(own.scales.format()), own.scales.as_bytes().to_vec());
                entries.push(Entry { name: name(&width_scales(own.bits)), dtype, shape: shape.clone(), bytes });
            }
        }
        for (name, shape, values) in &self.plain {
            let (name, shape, dtype) = (name.clone(), shape.clone(), values.format().dtype());
            entries.push(Entry { name, dtype, shape, bytes: values.to_bytes() });
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.dtype.bitsize()));
        entries
    }

    /// The header with its length, padded so that the tensors start on a 64-byte boundary.
    fn header(&self, path: &Path) -> Result<Vec<u8>> {
        let mut infos = BTreeMap::new();
        let mut offset = 0;
        let mut place = |name: String, dtype: Dtype, shape: Vec<usize>, bytes: usize| {
            let info = TensorInfo { dtype, shape, data_offsets: (offset, offset + bytes) };
            offset += bytes;
            match infos.insert(name.clone(), info) {
                None => Ok(()),
                Some(_) => Err(Error::FileTensor {
                    path: path.to_owned(),
                    tensor: name,
                    field: "the name",
                    got: "two tensors".to_owned(),
                    expected: "one".to_owned(),
                }),
            }
        };
        let mut descriptions = Descriptions::new();
        for packed in &self.packed {
            let Packed { name, tensor, .. } = packed;
            let bytes = tensor.codes().len();
            place(format!("{name}{CODES}"), Dtype::U8, vec![bytes], bytes)?;
            let PackedSpec { shape, bits, format, granularity, .. } = tensor.spec;
            let width_scales = packed.width_scales.iter().map(|own| own.bits).collect();
            descriptions.insert(name.clone(), Description { shape, bits, format, granularity, width_scales });
        }
        for Entry { name, dtype, shape, bytes } in self.small_entries() {
            place(name, dtype, shape, bytes.len())?;
        }
        let has_width_scales = self.packed.iter().any(|packed| !packed.width_scales.is_empty());
        let version = if has_width_scales { VERSION_WITH_WIDTH_SCALES } else { VERSION };
        let failed = |error: serde_json::Error| whole_files::Error { path: path.to_owned(), source: error.into() };
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("version".to_owned(), version.to_owned()),
            ("packed".to_owned(), serde_json::to_string(&descriptions).map_err(failed)?),
        ]);
        metadata.extend(self.user.iter().map(|(key, value)| (format!("{USER}{key}"), value.clone())));
        let mut json = serde_json::to_vec(&Header { metadata, tensors: infos }).map_err(failed)?;
        json.resize((json.len() + 8).next_multiple_of(64) - 8, b' ');
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        Ok(bytes)
    }
}

pub(super) fn scale_dtype(format: ScaleFormat) -> Dtype {
    match format {
        ScaleFormat::F16 => Dtype::F16,
        ScaleFormat::F32 => Dtype::F32,
    }
}

/// The shape of the scales of weights that exist, whose granularity has one.
fn scale_shape(spec: &PackedSpec) -> [usize; 2] {
    spec.granularity.param_shape(spec.shape).unwrap_or([0, 0])
}
