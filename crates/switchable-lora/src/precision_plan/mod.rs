//! What every linear layer of a model computes with.

mod known_names;
mod named_once;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::{Deserialize, Serialize};

use quant_kernels::spec::{bit_width::BitWidth, quant_spec::QuantSpec};

use self::known_names::{KnownNames, prefixes, suffixes};
use crate::{
    error::{Error, Result, parse_fields},
    head_choice::HeadChoice,
    site_precision::SitePrecision,
};

const VERSION: u64 = 2;
/// The last version that left quantisers, placement, rounding and rotation to the run.
const WITHOUT_QUANTISERS: u64 = 1;

/// Keys and values are `[batch, heads, tokens, width]`.
const KV_CACHE_RANK: usize = 4;

/// The precision of every site of a model, by the sites' dotted names, and the bits at which each
/// block keeps its keys and values.
///
/// The most specific entry for a name decides:
///
/// | entry | name it is given by | names it covers |
/// |---|---|---|
/// | site | `h.3.attn.c_attn` | that one |
/// | block | `h.3` | all that start with `h.3.`; the longest such block |
/// | sub-module | `attn.c_attn` | all that end in `.attn.c_attn`; the longest such sub-module |
/// | default | | all others |
///
/// Keys and values are kept at the bits of their block's entry in `kv_cache_blocks`, which names the
/// block in full, and otherwise at `kv_cache`.
///
/// `span_head` is the head that answers, `"base"` or the width whose adapters brought it; a plan without it leaves
/// that to the model. `scaling`, such as `"awq at 4 bits"`, is the choice of factors that were folded into the model
/// before; the plan is then of that model and no other. `calibration` is what the model was calibrated on, the hash of its weights and
/// of the windows, where roundings or ranges go by it: calibrated on something else, the codes are others.
///
/// As JSON, where all but `version` and `default` may be left out. A precision says how it quantises, as
/// [`SitePrecision`] shows; what it leaves out is that of the run:
///
/// ```json
/// {
///   "version": 2,
///   "default": {
///     "weights": 4, "activations": 32, "adapter": 4,
///     "quantizer": "per-channel,symmetric,min-max", "activation_quantizer": "per-token,symmetric,min-max",
///     "placement": "residual", "rounding": "nearest"
///   },
///   "sub_modules": { "mlp.c_fc": { "weights": 8, "activations": 32, "adapter": 8 } },
///   "blocks": { "h.3": { "weights": 4, "activations": 8, "adapter": 4 } },
///   "sites": { "h.0.mlp.c_fc": { "weights": 2, "activations": 32, "adapter": null } },
///   "kv_cache": 8,
///   "kv_cache_blocks": { "h.3": 4 },
///   "span_head": 8,
///   "scaling": "awq at 4 bits",
///   "calibration": "5ac1…"
/// }
/// ```
///
/// Files of version 1 say nothing of quantisers, placement, rounding and rotation: theirs are those of the run.
///
/// ```
/// use switchable_lora::{BitWidth, PrecisionPlan, SitePrecision};
///
/// let [eight, four] = [BitWidth::B8, BitWidth::B4].map(SitePrecision::uniform);
/// let plan = PrecisionPlan::uniform(eight)
///     .with_sub_module("mlp.c_fc", four)
///     .with_site("h.0.mlp.c_fc", SitePrecision::FULL);
/// assert_eq!(plan.get("h.5.attn.c_attn"), eight);
/// assert_eq!(plan.get("h.5.mlp.c_fc"), four);
/// assert_eq!(plan.get("h.0.mlp.c_fc"), SitePrecision::FULL);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PlanFile", into = "PlanFile")]
pub struct PrecisionPlan {
    default: SitePrecision,
    sub_modules: BTreeMap<String, SitePrecision>,
    blocks: BTreeMap<String, SitePrecision>,
    sites: BTreeMap<String, SitePrecision>,
    kv_cache: BitWidth,
    kv_cache_blocks: BTreeMap<String, BitWidth>,
    span_head: Option<HeadChoice>,
    scaling: Option<String>,
    calibration: Option<String>,
}

impl PrecisionPlan {
    /// One precision for every site, keys and values at full precision.
    pub fn uniform(precision: SitePrecision) -> Self {
        Self {
            default: precision,
            sub_modules: BTreeMap::new(),
            blocks: BTreeMap::new(),
            sites: BTreeMap::new(),
            kv_cache: BitWidth::FULL,
            kv_cache_blocks: BTreeMap::new(),
            span_head: None,
            scaling: None,
            calibration: None,
        }
    }

    /// The precision of a site.
    pub fn get(&self, site: &str) -> SitePrecision {
        let exact = || self.sites.get(site);
        let block = || prefixes(site).find_map(|prefix| self.blocks.get(prefix));
        let sub_module = || suffixes(site).find_map(|suffix| self.sub_modules.get(suffix));
        exact().or_else(block).or_else(sub_module).copied().unwrap_or(self.default)
    }

    /// The precision of an embedding or an output matrix, such as `wte`: full unless it has an entry of its own.
    /// The default, and what is said of blocks and sub-modules, is of the sites in blocks.
    pub fn embedding(&self, name: &str) -> SitePrecision {
        self.sites.get(name).copied().unwrap_or(SitePrecision::FULL)
    }

    /// Whether every entry says how it quantises, so that nothing is left to the run.
    pub fn is_explicit(&self) -> bool {
        self.entries().all(|(_, precision)| precision.is_explicit())
    }

    /// Every entry with its name: the default's is empty.
    pub fn entries(&self) -> impl Iterator<Item = (&str, SitePrecision)> {
        let named = self.sub_modules.iter().chain(&self.blocks).chain(&self.sites);
        std::iter::once(("", self.default)).chain(named.map(|(name, &precision)| (name.as_str(), precision)))
    }

    /// The precision of the sites that no other entry covers.
    pub fn default_precision(&self) -> SitePrecision {
        self.default
    }

    /// The sites with an entry of their own, in the order of their names.
    pub fn sites(&self) -> impl ExactSizeIterator<Item = (&str, SitePrecision)> {
        self.sites.iter().map(|(site, &precision)| (site.as_str(), precision))
    }

    /// Sets the precision of one site.
    pub fn set(&mut self, site: impl Into<String>, precision: SitePrecision) {
        self.sites.insert(site.into(), precision);
    }

    /// Sets the precision of the sites of one block, such as `h.3`.
    pub fn set_block(&mut self, block: impl Into<String>, precision: SitePrecision) {
        self.blocks.insert(block.into(), precision);
    }

    /// Sets the precision of one sub-module in every block, such as `attn.c_attn`.
    pub fn set_sub_module(&mut self, sub_module: impl Into<String>, precision: SitePrecision) {
        self.sub_modules.insert(sub_module.into(), precision);
    }

    /// The plan with the precision of one site set.
    pub fn with_site(mut self, site: impl Into<String>, precision: SitePrecision) -> Self {
        self.set(site, precision);
        self
    }

    /// The plan with the precision of one block set.
    pub fn with_block(mut self, block: impl Into<String>, precision: SitePrecision) -> Self {
        self.set_block(block, precision);
        self
    }

    /// The plan with the precision of one sub-module set.
    pub fn with_sub_module(mut self, sub_module: impl Into<String>, precision: SitePrecision) -> Self {
        self.set_sub_module(sub_module, precision);
        self
    }

    /// The bits at which a block, such as `h.3`, keeps its keys and values.
    pub fn kv_cache(&self, block: &str) -> BitWidth {
        self.kv_cache_blocks.get(block).copied().unwrap_or(self.kv_cache)
    }

    /// Sets the bits of the keys and values of every block that has no entry of its own.
    pub fn set_kv_cache(&mut self, bits: BitWidth) {
        self.kv_cache = bits;
    }

    /// Sets the bits of the keys and values of one block, such as `h.3`.
    pub fn set_kv_cache_block(&mut self, block: impl Into<String>, bits: BitWidth) {
        self.kv_cache_blocks.insert(block.into(), bits);
    }

    /// The plan with the bits of the keys and values of every block that has no entry of its own.
    pub fn with_kv_cache(mut self, bits: BitWidth) -> Self {
        self.set_kv_cache(bits);
        self
    }

    /// The plan with the bits of the keys and values of one block set.
    pub fn with_kv_cache_block(mut self, block: impl Into<String>, bits: BitWidth) -> Self {
        self.set_kv_cache_block(block, bits);
        self
    }

    /// The head that answers, where the plan says it.
    pub fn span_head(&self) -> Option<HeadChoice> {
        self.span_head
    }

    /// The plan with the head that answers, or none that it says.
    pub fn with_span_head(self, head: Option<HeadChoice>) -> Self {
        Self { span_head: head, ..self }
    }

    /// How the factors were chosen that were folded into the model in floats that the plan is of.
    pub fn scaling(&self) -> Option<&str> {
        self.scaling.as_deref()
    }

    /// The plan of a model that factors were folded into.
    #[must_use]
    pub fn with_scaling(self, scaling: Option<&str>) -> Self {
        Self { scaling: scaling.map(str::to_owned), ..self }
    }

    /// What the model in floats was calibrated on, where the plan goes by it and says so.
    pub fn calibration(&self) -> Option<&str> {
        self.calibration.as_deref()
    }

    /// The plan of a model that was calibrated on something.
    #[must_use]
    pub fn with_calibration(self, calibration: Option<&str>) -> Self {
        Self { calibration: calibration.map(str::to_owned), ..self }
    }

    /// Checks the bits of keys and values against a model's blocks, which [`validate`](Self::validate)
    /// does not know.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownBlock`] for an entry of no block, [`Error::KvCache`] for bits that `spec`
    /// cannot do.
    ///
    /// ```
    /// use quant_kernels::spec::quant_spec::QuantSpec;
    /// use switchable_lora::{BitWidth, PrecisionPlan, SitePrecision};
    ///
    /// let plan = PrecisionPlan::uniform(SitePrecision::FULL).with_kv_cache_block("h.2", BitWidth::B8);
    /// let error = plan.validate_kv_cache(["h.0", "h.1"], QuantSpec::PER_TOKEN).unwrap_err();
    /// assert_eq!(error.to_string(), "kv cache of unknown block `h.2`, expected `h.0`, `h.1`");
    /// ```
    pub fn validate_kv_cache<S: AsRef<str>>(&self, blocks: impl IntoIterator<Item = S>, spec: QuantSpec) -> Result<()> {
        let mut unknown: BTreeSet<&str> = self.kv_cache_blocks.keys().map(String::as_str).collect();
        let mut known = Vec::new();
        for block in blocks {
            let block = block.as_ref();
            unknown.remove(block);
            known.push(block.to_owned());
            spec.check(self.kv_cache(block), KV_CACHE_RANK)
                .map_err(|source| Error::KvCache { block: block.to_owned(), source })?;
        }
        match unknown.first() {
            Some(&block) => {
                let known = known_names::list(known.iter().map(String::as_str));
                Err(Error::UnknownBlock { block: block.to_owned(), known })
            }
            None => Ok(()),
        }
    }

    /// Checks the plan against a model: its sites, each with the widths that it has adapters for.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSite`] and [`Error::UnmatchedRule`] for entries that cover nothing,
    /// [`Error::MissingAdapter`] in an [`Error::Site`] for an adapter that a site lacks.
    ///
    /// ```
    /// use switchable_lora::{BitWidth, PrecisionPlan, SitePrecision};
    ///
    /// let plan = PrecisionPlan::uniform(SitePrecision::uniform(BitWidth::B4));
    /// let known = [("h.0.attn.c_attn", vec![BitWidth::B4]), ("h.0.mlp.c_fc", vec![BitWidth::B8])];
    /// let error = plan.validate(known).unwrap_err();
    /// assert_eq!(error.to_string(), "site `h.0.mlp.c_fc`: no adapter for 4 bits, available: 8");
    /// ```
    pub fn validate<S, W>(&self, known: impl IntoIterator<Item = (S, W)>) -> Result<()>
    where
        S: AsRef<str>,
        W: AsRef<[BitWidth]>,
    {
        self.validate_with_embeddings(known, &[])
    }

    /// The same for a model whose embeddings may have entries too.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn validate_with_embeddings<S, W>(
        &self,
        known: impl IntoIterator<Item = (S, W)>,
        embeddings: &[String],
    ) -> Result<()>
    where
        S: AsRef<str>,
        W: AsRef<[BitWidth]>,
    {
        let known: Vec<_> = known.into_iter().collect();
        let names = || KnownNames::of(known.iter().map(|(site, _)| site.as_ref()));
        let any = |matches: &dyn Fn(&str) -> bool| known.iter().any(|(site, _)| matches(site.as_ref()));
        for site in self.sites.keys() {
            if !any(&|known| known == site) && !embeddings.contains(site) {
                let mut known = names().sites();
                if !embeddings.is_empty() {
                    known = format!("{known}, or {}", known_names::list(embeddings.iter().map(String::as_str)));
                }
                return Err(Error::UnknownSite { site: site.clone(), known });
            }
        }
        for name in self.blocks.keys() {
            if !any(&|known| prefixes(known).any(|prefix| prefix == name)) {
                return Err(Error::UnmatchedRule { kind: "block", name: name.clone(), known: names().blocks() });
            }
        }
        for name in self.sub_modules.keys() {
            if !any(&|known| suffixes(known).any(|suffix| suffix == name)) {
                let (name, known) = (name.clone(), names().sub_modules());
                return Err(Error::UnmatchedRule { kind: "sub-module", name, known });
            }
        }
        for (site, widths) in &known {
            let (site, widths) = (site.as_ref(), widths.as_ref());
            if let Some(bits) = self.get(site).adapters().find(|bits| !widths.contains(bits)) {
                return Err(Error::MissingAdapter { bits, available: widths.to_vec() }.at_site(site));
            }
        }
        Ok(())
    }

    /// Reads a plan from JSON text.
    ///
    /// # Errors
    ///
    /// [`Error::PlanVersion`] for another version, [`Error::PlanField`] for a field that came after the
    /// version, [`Error::JsonField`] for a field that is wrong, unknown or there twice, [`Error::Json`] for
    /// what is no JSON.
    pub fn from_json(text: &str) -> Result<Self> {
        // The version first: a plan of another version may well have fields that this one has not.
        let Versioned { version } = parse_fields(text)?;
        check_version(version)?;
        parse_fields::<PlanFile>(text)?.try_into()
    }

    /// The plan as JSON text.
    pub fn to_json(&self) -> String {
        match serde_json::to_string_pretty(self) {
            Ok(json) => json,
            Err(error) => unreachable!("names and integers are always json: {error}"),
        }
    }

    /// Reads a plan from a JSON file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, those of [`from_json`](Self::from_json) in an
    /// [`Error::File`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(Error::io(path))?;
        Self::from_json(&text).map_err(|error| error.in_file(path))
    }

    /// Writes the plan to a JSON file, which is replaced as a whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(whole_files::write(path, self.to_json().as_bytes())?)
    }
}

impl Default for PrecisionPlan {
    fn default() -> Self {
        Self::uniform(SitePrecision::FULL)
    }
}

fn check_version(got: u64) -> Result<()> {
    if (WITHOUT_QUANTISERS..=VERSION).contains(&got) {
        Ok(())
    } else {
        Err(Error::PlanVersion { got, expected: VERSION })
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    version: u64,
    default: SitePrecision,
    #[serde(default, deserialize_with = "named_once::map", skip_serializing_if = "BTreeMap::is_empty")]
    sub_modules: BTreeMap<String, SitePrecision>,
    #[serde(default, deserialize_with = "named_once::map", skip_serializing_if = "BTreeMap::is_empty")]
    blocks: BTreeMap<String, SitePrecision>,
    #[serde(default, deserialize_with = "named_once::map", skip_serializing_if = "BTreeMap::is_empty")]
    sites: BTreeMap<String, SitePrecision>,
    #[serde(default = "full", skip_serializing_if = "is_full")]
    kv_cache: BitWidth,
    #[serde(default, deserialize_with = "named_once::map", skip_serializing_if = "BTreeMap::is_empty")]
    kv_cache_blocks: BTreeMap<String, BitWidth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    span_head: Option<HeadChoice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scaling: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calibration: Option<String>,
}

fn full() -> BitWidth {
    BitWidth::FULL
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_full(bits: &BitWidth) -> bool {
    bits.is_full()
}

impl TryFrom<PlanFile> for PrecisionPlan {
    type Error = Error;

    fn try_from(file: PlanFile) -> Result<Self> {
        check_version(file.version)?;
        let PlanFile { version, default, sub_modules, blocks, sites, kv_cache, kv_cache_blocks, .. } = file;
        let PlanFile { span_head, scaling, calibration, .. } = file;
        let plan =
            Self { default, sub_modules, blocks, sites, kv_cache, kv_cache_blocks, span_head, scaling, calibration };
        if version == WITHOUT_QUANTISERS
            && let Some(field) = plan.later_field()
        {
            return Err(Error::PlanField { field, version, expected: VERSION });
        }
        Ok(plan)
    }
}

impl PrecisionPlan {
    /// The first field that files of version 1 do not have.
    fn later_field(&self) -> Option<&'static str> {
        let of_sites = || self.entries().find_map(|(_, precision)| said(precision));
        let of_all = [
            ("span_head", self.span_head.is_some()),
            ("scaling", self.scaling.is_some()),
            ("calibration", self.calibration.is_some()),
        ];
        of_all.into_iter().find_map(|(field, is_said)| is_said.then_some(field)).or_else(of_sites)
    }
}

/// The first field that a precision says of how it quantises.
fn said(precision: SitePrecision) -> Option<&'static str> {
    let SitePrecision { shared, quantizer, activation_quantizer, placement, rounding, rotation, .. } = precision;
    [
        ("shared", shared.is_some()),
        ("quantizer", quantizer.is_some()),
        ("activation_quantizer", activation_quantizer.is_some()),
        ("placement", placement.is_some()),
        ("rounding", rounding.is_some()),
        ("rotation", rotation.is_some()),
    ]
    .into_iter()
    .find_map(|(field, is_said)| is_said.then_some(field))
}

impl From<PrecisionPlan> for PlanFile {
    fn from(plan: PrecisionPlan) -> Self {
        let PrecisionPlan { default, sub_modules, blocks, sites, kv_cache, kv_cache_blocks, .. } = plan;
        let PrecisionPlan { span_head, scaling, calibration, .. } = plan;
        Self {
            version: VERSION,
            default,
            sub_modules,
            blocks,
            sites,
            kv_cache,
            kv_cache_blocks,
            span_head,
            scaling,
            calibration,
        }
    }
}

#[cfg(test)]
mod tests;
