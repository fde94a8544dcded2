//! The learned steps that go with the adapters of one width.
//!
//! ```text
//! <dir>/bits-4/learned_steps.safetensors     <prefix><site>.step, F32   [1, 1]          per tensor
//!                                                                       [1, d_out]      per channel
//!                                                                       [groups, d_out] per group
//! __metadata__   format         switchable-lora.learned-steps
//!                version        1
//!                bits           the width of all steps, such as 4
//!                granularities  JSON: {"<prefix><site>": "per-channel", …}, one for each tensor
//! ```
//!
//! `d_out` and `groups = ⌈d_in / rows⌉` are those of the site's weight `[d_in, d_out]`. The file is
//! there only if a site has a step. PEFT does not know it: for PEFT the folder is an adapter like others.

use std::{collections::BTreeMap, fs, io, path::Path};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{Metadata, TensorView},
};

use quant_kernels::{
    spec::{bit_width::BitWidth, granularity::Granularity},
    tensor::learned_step::LearnedStep,
};

use super::stored_floats::read_floats;
use crate::{
    adapter_pair::LoraAdapterPair,
    error::{Error, Result},
};

/// The file of the learned steps in the folder of a width.
pub const LEARNED_STEPS_FILE: &str = "learned_steps.safetensors";

const FORMAT: &str = "switchable-lora.learned-steps";
const VERSION: &str = "1";
const SUFFIX: &str = ".step";

/// The file's bytes; `None` if no adapter has a step. The adapters are given by their modules' names.
///
/// # Errors
///
/// [`Error::StepWidth`] in an [`Error::Site`] if steps differ in their widths, [`Error::TensorNotFinite`]
/// and [`Error::TensorZero`] for steps that quantise nothing.
pub(super) fn file_of<B: Backend>(adapters: &BTreeMap<String, &LoraAdapterPair<B>>) -> Result<Option<Vec<u8>>> {
    let steps: Vec<_> = adapters.iter().filter_map(|(module, pair)| Some((module, pair.step()?))).collect();
    let Some((_, first)) = steps.first() else { return Ok(None) };
    let bits = first.bits();
    let mut granularities = BTreeMap::new();
    let mut tensors = Vec::with_capacity(steps.len());
    for (module, step) in steps {
        if step.bits() != bits {
            return Err(Error::StepWidth { got: step.bits(), expected: bits }.at_site(module));
        }
        let name = format!("{module}{SUFFIX}");
        let values: Vec<f32> = step.step.val().into_data().iter::<f32>().collect();
        check_values(&values, &name).map_err(|error| error.at_site(module))?;
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        granularities.insert(module.as_str(), step.granularity());
        tensors.push((name, step.step.dims().to_vec(), bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let granularities = serde_json::to_string(&granularities)?;
    let metadata = BTreeMap::from([
        ("format", FORMAT.to_owned()),
        ("version", VERSION.to_owned()),
        ("bits", bits.to_string()),
        ("granularities", granularities),
    ]);
    Ok(Some(with_metadata(&safetensors::serialize(views, None)?, &metadata)?))
}

/// A file of safetensors with metadata in the order of their names, so that equal steps give equal bytes:
/// the library would put them down in an order that differs from run to run.
fn with_metadata(file: &[u8], metadata: &BTreeMap<&str, String>) -> Result<Vec<u8>> {
    const LENGTH: usize = size_of::<u64>();
    let (header, _) = SafeTensors::read_metadata(file)?;
    let (header, tensors) = file[LENGTH..].split_at(header);
    // Behind the brace that opens it; there is at least one tensor.
    let mut text = format!("{{\"__metadata__\":{},", serde_json::to_string(metadata)?).into_bytes();
    text.extend(header[1..].trim_ascii_end());
    text.resize(text.len().next_multiple_of(LENGTH), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes.extend(tensors);
    Ok(bytes)
}

/// Gives adapters the steps of their folder, if it has any.
pub(super) fn load_into<B: Backend>(
    dir: &Path,
    prefix: &str,
    adapters: BTreeMap<String, LoraAdapterPair<B>>,
) -> Result<BTreeMap<String, LoraAdapterPair<B>>> {
    let path = dir.join(LEARNED_STEPS_FILE);
    match fs::read(&path) {
        Ok(bytes) => parse_learned_steps(&bytes, prefix, adapters).map_err(|error| error.in_file(&path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(adapters),
        Err(error) => Err(Error::io(&path)(error)),
    }
}

/// Gives adapters the learned steps in the bytes of a `learned_steps.safetensors`, such as one that is
/// part of a program. [`load_peft`](crate::load_peft) reads the file of a folder by itself.
///
/// `adapters` are those that the file stands beside, by their sites' names, and `prefix` is what the
/// model's own names have before a site's. Adapters that the file has no step for are returned as they
/// are.
///
/// # Errors
///
/// [`Error::Safetensors`] for a truncated or malformed file, [`Error::Field`] and [`Error::Json`] for
/// metadata that are not those of learned steps, and the `Tensor…` errors for tensors of a site without
/// an adapter, of the wrong shape or type, or that hold a NaN, an infinity or a zero.
pub fn parse_learned_steps<B: Backend>(
    bytes: &[u8],
    prefix: &str,
    mut adapters: BTreeMap<String, LoraAdapterPair<B>>,
) -> Result<BTreeMap<String, LoraAdapterPair<B>>> {
    let file = SafeTensors::deserialize(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let Described { bits, mut granularities } = described(&header)?;
    let mut names = file.names();
    names.sort_unstable();
    for name in names {
        let view = file.tensor(name)?;
        let unexpected = |expected: String| Error::TensorUnexpected {
            tensor: name.to_owned(),
            expected: format!("{expected}{SUFFIX}"),
        };
        let module = name.strip_suffix(SUFFIX).ok_or_else(|| unexpected(format!("{prefix}<site>")))?;
        let site = module.strip_prefix(prefix).ok_or_else(|| unexpected(format!("{prefix}<site>")))?;
        let Some((site, pair)) = adapters.remove_entry(site) else {
            return Err(unexpected(format!("{prefix}<site with an adapter>")));
        };
        let Some(granularity) = granularities.remove(module) else {
            return Err(field("granularities", module, "an entry for each tensor"));
        };
        let step = read_step(&view, name, bits, granularity, &pair)?;
        adapters.insert(site, pair.with_step(step));
    }
    match granularities.into_keys().next() {
        Some(module) => Err(Error::TensorMissing { tensor: format!("{module}{SUFFIX}") }),
        None => Ok(adapters),
    }
}

/// What the metadata say.
struct Described {
    bits: BitWidth,
    granularities: BTreeMap<String, Granularity>,
}

fn described(header: &Metadata) -> Result<Described> {
    let metadata = header.metadata().as_ref();
    let text = |name: &str| metadata.and_then(|metadata| metadata.get(name)).map_or("missing", String::as_str);
    if text("format") != FORMAT {
        return Err(field("format", text("format"), FORMAT));
    }
    if text("version") != VERSION {
        return Err(field("version", text("version"), VERSION));
    }
    let bits = text("bits").parse().map_err(|_| field("bits", text("bits"), "a number of bits"))?;
    let granularities = text("granularities");
    if granularities == "missing" {
        return Err(field("granularities", granularities, "a json object"));
    }
    let granularities = serde_json::from_str(granularities)
        .map_err(|source| Error::JsonField { field: "granularities".to_owned(), source })?;
    Ok(Described { bits, granularities })
}

fn field(field: &'static str, got: &str, expected: &'static str) -> Error {
    Error::Field { field, got: got.to_owned(), expected }
}

fn read_step<B: Backend>(
    view: &TensorView<'_>,
    name: &str,
    bits: BitWidth,
    granularity: Granularity,
    pair: &LoraAdapterPair<B>,
) -> Result<LearnedStep<B>> {
    let expected = granularity.param_shape(pair.adapts())?;
    if view.shape() != expected {
        let expected = format!("{expected:?}, {granularity}");
        return Err(Error::TensorShape { tensor: name.to_owned(), got: view.shape().to_vec(), expected });
    }
    let values = read_floats(view).ok_or_else(|| Error::TensorDtype { tensor: name.to_owned(), got: view.dtype() })?;
    check_values(&values, name)?;
    let step = Tensor::from_data(TensorData::new(values, expected), &pair.a.device());
    Ok(LearnedStep::from_steps(step, bits, granularity)?)
}

fn check_values(values: &[f32], name: &str) -> Result<()> {
    let tensor = || name.to_owned();
    match values.iter().position(|value| !value.is_finite() || *value == 0.0) {
        Some(index) if values[index] == 0.0 => Err(Error::TensorZero { tensor: tensor(), index }),
        Some(index) => Err(Error::TensorNotFinite { tensor: tensor(), got: values[index], index }),
        None => Ok(()),
    }
}
