//! The quantisable matrices of a GPT-2 and the precision each one runs at.
//!
//! A *site* is one of the four linear sub-modules of a block. Its name is its module path in the
//! Hugging Face model without the leading `transformer.`: `h.3.attn.c_attn`.

use std::fmt;

use quant_kernels::BitWidth;
use serde::{Deserialize, Serialize};
use switchable_lora::{PrecisionPlan, SitePrecision};

use crate::Gpt2Config;
use crate::kv_cache::packed_row_bytes;

/// Sites in every block.
pub const SITES_PER_BLOCK: usize = 4;

/// One of the four linear sub-modules of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SubModule {
    /// Query, key and value projection, `[d, 3d]`.
    #[serde(rename = "attn.c_attn")]
    AttnCAttn,
    /// Output projection of attention, `[d, d]`.
    #[serde(rename = "attn.c_proj")]
    AttnCProj,
    /// First matrix of the MLP, `[d, 4d]`.
    #[serde(rename = "mlp.c_fc")]
    MlpCFc,
    /// Second matrix of the MLP, `[4d, d]`.
    #[serde(rename = "mlp.c_proj")]
    MlpCProj,
}

impl SubModule {
    /// All four, in the order in which a block applies them.
    pub const ALL: [Self; SITES_PER_BLOCK] = [Self::AttnCAttn, Self::AttnCProj, Self::MlpCFc, Self::MlpCProj];

    /// Module path inside the block.
    pub fn name(self) -> &'static str {
        match self {
            Self::AttnCAttn => "attn.c_attn",
            Self::AttnCProj => "attn.c_proj",
            Self::MlpCFc => "mlp.c_fc",
            Self::MlpCProj => "mlp.c_proj",
        }
    }

    /// Shape of the weight, `[d_in, d_out]`.
    pub fn weight_shape(self, config: &Gpt2Config) -> [usize; 2] {
        let d = config.n_embd;
        match self {
            Self::AttnCAttn => [d, 3 * d],
            Self::AttnCProj => [d, d],
            Self::MlpCFc => [d, config.n_inner],
            Self::MlpCProj => [config.n_inner, d],
        }
    }
}

impl fmt::Display for SubModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One quantisable matrix of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Site {
    /// Block, counted from 0.
    pub block: usize,
    /// Sub-module of the block.
    pub module: SubModule,
}

impl Site {
    /// All sites of a model, block by block.
    ///
    /// ```
    /// use gpt2_model::{Gpt2Config, Site};
    ///
    /// let sites: Vec<Site> = Site::all(&Gpt2Config::gpt2_small()).collect();
    /// assert_eq!(sites.len(), 48);
    /// assert_eq!(sites[13].to_string(), "h.3.attn.c_proj");
    /// ```
    pub fn all(config: &Gpt2Config) -> impl Iterator<Item = Self> + use<> {
        (0..config.n_layer).flat_map(|block| SubModule::ALL.map(|module| Self { block, module }))
    }

    /// Number of weights of this site, biases not counted.
    pub fn parameters(self, config: &Gpt2Config) -> usize {
        self.module.weight_shape(config).iter().product()
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("h.{}.{}", self.block, self.module))
    }
}

/// The name of a block in a [`PrecisionPlan`].
pub(crate) fn block_name(block: usize) -> String {
    format!("h.{block}")
}

/// A [`PrecisionPlan`] resolved for one model: the precision of every site by position, and the bits
/// of every block's keys and values.
///
/// ```
/// use gpt2_model::{Gpt2Config, Site, SitePlan, SubModule};
/// use quant_kernels::BitWidth;
/// use switchable_lora::SitePrecision;
///
/// let config = Gpt2Config::new(97, 64, 32, 3, 4);
/// let site = Site { block: 1, module: SubModule::MlpCFc };
/// let four = SitePrecision::uniform(BitWidth::new(4)?);
/// let plan = SitePlan::uniform(&config, SitePrecision::FULL).with(site, four);
/// assert_eq!(plan.get(site), four);
/// // 4096 of 36864 parameters at 4 bits, the rest at 32.
/// assert!((plan.average_weight_bits(&config) - (4.0 * 4096.0 + 32.0 * 32768.0) / 36864.0).abs() < 1e-12);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SitePlan {
    blocks: Vec<[SitePrecision; SITES_PER_BLOCK]>,
    kv_cache: Vec<BitWidth>,
}

impl SitePlan {
    /// The same precision at every site, keys and values at full precision.
    pub fn uniform(config: &Gpt2Config, precision: SitePrecision) -> Self {
        Self {
            blocks: vec![[precision; SITES_PER_BLOCK]; config.n_layer],
            kv_cache: vec![BitWidth::FULL; config.n_layer],
        }
    }

    /// The precisions that a named plan gives this model's sites, nothing checked.
    ///
    /// [`Gpt2::resolve`](crate::Gpt2::resolve) checks the names and the adapters first.
    pub(crate) fn of_plan(config: &Gpt2Config, plan: &PrecisionPlan) -> Self {
        let blocks = (0..config.n_layer)
            .map(|block| SubModule::ALL.map(|module| plan.get(&Site { block, module }.to_string())))
            .collect();
        let kv_cache = (0..config.n_layer).map(|block| plan.kv_cache(&block_name(block))).collect();
        Self { blocks, kv_cache }
    }

    /// The plan with site names, to be saved.
    pub fn to_precision_plan(&self) -> PrecisionPlan {
        let mut plan = PrecisionPlan::uniform(SitePrecision::FULL);
        for (site, precision) in self.iter() {
            if precision != SitePrecision::FULL {
                plan.set(site.to_string(), precision);
            }
        }
        for (block, bits) in self.kv_cache.iter().enumerate().filter(|(_, bits)| !bits.is_full()) {
            plan.set_kv_cache_block(block_name(block), *bits);
        }
        plan
    }

    /// Precision of a site.
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn get(&self, site: Site) -> SitePrecision {
        self.blocks[site.block][site.module as usize]
    }

    /// Sets the precision of a site.
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn set(&mut self, site: Site, precision: SitePrecision) {
        self.blocks[site.block][site.module as usize] = precision;
    }

    /// The plan with one site changed.
    pub fn with(mut self, site: Site, precision: SitePrecision) -> Self {
        self.set(site, precision);
        self
    }

    /// The plan with the four sites of one block changed.
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn with_block(mut self, block: usize, precision: SitePrecision) -> Self {
        self.blocks[block] = [precision; SITES_PER_BLOCK];
        self
    }

    /// The plan with the keys and values of every block kept at `bits`.
    pub fn with_kv_cache(mut self, bits: BitWidth) -> Self {
        self.kv_cache.fill(bits);
        self
    }

    /// The plan with the keys and values of one block kept at `bits`.
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn with_block_kv_cache(mut self, block: usize, bits: BitWidth) -> Self {
        self.kv_cache[block] = bits;
        self
    }

    /// The bits at which a block keeps its keys and values.
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn kv_cache(&self, block: usize) -> BitWidth {
        self.kv_cache[block]
    }

    /// The plan with no adapter anywhere.
    pub fn without_adapters(mut self) -> Self {
        for precision in self.blocks.iter_mut().flatten() {
            *precision = precision.without_adapter();
        }
        self
    }

    /// The four precisions of a block, in the order of [`SubModule::ALL`].
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn block(&self, block: usize) -> &[SitePrecision; SITES_PER_BLOCK] {
        &self.blocks[block]
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Every site with its precision, block by block.
    pub fn iter(&self) -> impl Iterator<Item = (Site, SitePrecision)> + '_ {
        self.blocks.iter().enumerate().flat_map(|(block, row)| {
            SubModule::ALL.into_iter().zip(row).map(move |(module, &precision)| (Site { block, module }, precision))
        })
    }

    /// First block at which two plans of one model differ; `None` when they are equal.
    ///
    /// Everything before it can be re-used between the two.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        let sites = self.blocks.iter().zip(&other.blocks).map(|(a, b)| a == b);
        let kv_cache = self.kv_cache.iter().zip(&other.kv_cache).map(|(a, b)| a == b);
        sites.zip(kv_cache).position(|equal| equal != (true, true))
    }

    /// Mean width of the weights in bits, weighted by parameters.
    pub fn average_weight_bits(&self, config: &Gpt2Config) -> f64 {
        let bits: f64 = self
            .iter()
            .map(|(site, precision)| site.parameters(config) as f64 * f64::from(precision.weights.bits()))
            .sum();
        bits / config.site_parameters() as f64
    }

    /// Bytes that the keys and values of one token need in all blocks, packed: see
    /// [`KvCache::packed_bytes`](crate::KvCache::packed_bytes).
    pub fn kv_cache_bytes_per_token(&self, config: &Gpt2Config) -> usize {
        self.kv_cache.iter().map(|&bits| packed_row_bytes(config.head_width(), bits) * 2 * config.n_head).sum()
    }

    /// Widths at which adapters are asked for, ascending, each once.
    pub fn adapter_widths(&self) -> Vec<BitWidth> {
        let mut widths: Vec<BitWidth> = self.iter().filter_map(|(_, precision)| precision.adapter).collect();
        widths.sort_unstable();
        widths.dedup();
        widths
    }
}
