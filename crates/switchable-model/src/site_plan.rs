//! The precision that every site of one model runs at.

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::{head_choice::HeadChoice, precision_plan::PrecisionPlan, site_precision::SitePrecision};

use crate::error::Result;
use crate::kv_rounding::{KV_CACHE_SPEC, packed_row_bytes};
use crate::shape::ModelShape;
use crate::sites::{LM_HEAD, Site, Sites};

/// A [`PrecisionPlan`] resolved for one model: the precision of every site by position, embeddings among them, the
/// bits of every block's keys and values, and the span head where the plan says which answers.
///
/// ```
/// use quant_kernels::BitWidth;
/// use switchable_lora::SitePrecision;
/// use switchable_model::site_plan::SitePlan;
/// use switchable_model::sites::{Site, Sites, sub_module::SubModule};
///
/// const UP: SubModule = SubModule::new("mlp.up");
/// let sites = Sites::new("h", 3, [(UP, [32, 128]), (SubModule::new("mlp.down"), [128, 32])]);
/// let site = Site::in_block(1, UP);
/// let four = SitePrecision::uniform(BitWidth::new(4)?);
/// let plan = SitePlan::uniform(&sites, SitePrecision::FULL).with(site, four);
/// assert_eq!(plan.get(site), four);
/// // 4096 of 24576 parameters at 4 bits, the rest at 32.
/// assert!((plan.average_weight_bits() - (4.0 * 4096.0 + 32.0 * 20480.0) / 24576.0).abs() < 1e-12);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SitePlan {
    sites: Sites,
    /// In the order of the sites.
    precisions: Vec<SitePrecision>,
    /// In the order of [`Sites::embeddings`].
    embeddings: Vec<SitePrecision>,
    /// By block.
    kv_cache: Vec<BitWidth>,
    span_head: Option<HeadChoice>,
}

impl SitePlan {
    /// The same precision at every linear site; embeddings, keys and values at full precision.
    pub fn uniform(sites: &Sites, precision: SitePrecision) -> Self {
        Self {
            sites: sites.clone(),
            precisions: vec![precision; sites.len()],
            embeddings: vec![SitePrecision::FULL; sites.embeddings().len()],
            kv_cache: vec![BitWidth::FULL; sites.blocks()],
            span_head: None,
        }
    }

    /// The precisions that a named plan gives these sites, nothing checked:
    /// [`NamedPlans::resolve`](crate::named_plans::NamedPlans::resolve) checks names and adapters
    /// first.
    pub(crate) fn of_plan(sites: &Sites, plan: &PrecisionPlan) -> Self {
        Self {
            sites: sites.clone(),
            precisions: sites.iter().map(|site| plan.get(&sites.name(site)).with_said_rotation()).collect(),
            embeddings: sites.embeddings().map(|site| plan.embedding(&sites.name(site))).collect(),
            kv_cache: (0..sites.blocks()).map(|block| plan.kv_cache(&sites.block_name(block))).collect(),
            span_head: plan.span_head(),
        }
    }

    /// The precisions that a named plan gives these sites, its names checked: for a model that is not there, of which no
    /// adapter is known.
    ///
    /// # Errors
    ///
    /// When the plan names a site or a block that these are not.
    ///
    /// ```
    /// use quant_kernels::BitWidth;
    /// use switchable_lora::{PrecisionPlan, SitePrecision};
    /// use switchable_model::site_plan::SitePlan;
    /// use switchable_model::sites::{Sites, sub_module::SubModule};
    ///
    /// let sites = Sites::new("h", 2, [(SubModule::new("mlp.up"), [32, 128])]);
    /// let four = PrecisionPlan::uniform(SitePrecision::uniform(BitWidth::B4));
    /// assert!((SitePlan::named(&sites, &four)?.average_weight_bits() - 4.0).abs() < 1e-12);
    /// let stranger = four.with_site("h.2.mlp.up", SitePrecision::FULL);
    /// assert!(SitePlan::named(&sites, &stranger).is_err());
    /// # Ok::<(), switchable_model::Error>(())
    /// ```
    pub fn named(sites: &Sites, plan: &PrecisionPlan) -> Result<Self> {
        // Whatever adapters a plan asks for may be there.
        let widths = |site| (sites.name(site), plan.get(&sites.name(site)).adapters().collect::<Vec<_>>());
        plan.validate_with_embeddings(sites.iter().map(widths), &sites.embedding_names())?;
        plan.validate_kv_cache((0..sites.blocks()).map(|block| sites.block_name(block)), KV_CACHE_SPEC)?;
        Ok(Self::of_plan(sites, plan))
    }

    /// The plan with site names. Of quantisers, placement and rounding it says what this plan says:
    /// what is to be saved is [`NamedPlans::named_plan`](crate::named_plans::NamedPlans::named_plan),
    /// which says all of them.
    pub fn to_precision_plan(&self) -> PrecisionPlan {
        let mut plan = PrecisionPlan::uniform(SitePrecision::FULL).with_span_head(self.span_head);
        for (site, precision) in self.iter().chain(self.embeddings()) {
            if precision != SitePrecision::FULL {
                plan.set(self.sites.name(site), precision);
            }
        }
        for (block, bits) in self.kv_cache.iter().enumerate().filter(|(_, bits)| !bits.is_full()) {
            plan.set_kv_cache_block(self.sites.block_name(block), *bits);
        }
        plan
    }

    /// The sites that it is for.
    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    /// Precision of a site.
    ///
    /// # Panics
    ///
    /// When the model has no such site.
    pub fn get(&self, site: Site) -> SitePrecision {
        let index = self.sites.index(site);
        if site.block.is_some() { self.precisions[index] } else { self.embeddings[index] }
    }

    /// Sets the precision of a site.
    ///
    /// # Panics
    ///
    /// When the model has no such site.
    pub fn set(&mut self, site: Site, precision: SitePrecision) {
        let index = self.sites.index(site);
        let precisions = if site.block.is_some() { &mut self.precisions } else { &mut self.embeddings };
        precisions[index] = precision;
    }

    /// The plan with one site changed.
    ///
    /// # Panics
    ///
    /// When the model has no such site.
    pub fn with(mut self, site: Site, precision: SitePrecision) -> Self {
        self.set(site, precision);
        self
    }

    /// The plan with embeddings and output matrix at a width.
    #[must_use]
    pub fn with_embedding_bits(self, bits: BitWidth) -> Self {
        let precision = SitePrecision { weights: bits, ..SitePrecision::FULL };
        self.sites.embeddings().fold(self, |plan, site| plan.with(site, precision))
    }

    /// The plan with the sites of one block changed.
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn with_block(mut self, block: usize, precision: SitePrecision) -> Self {
        let range = self.range(block);
        self.precisions[range].fill(precision);
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

    /// The span head that answers, where the plan says it; else it follows from the adapters
    /// ([`width_heads`](crate::width_heads)). A model without a span head takes no notice of it.
    pub fn span_head(&self) -> Option<HeadChoice> {
        self.span_head
    }

    /// The plan with the span head that answers, or none that it says.
    pub fn with_span_head(self, head: Option<HeadChoice>) -> Self {
        Self { span_head: head, ..self }
    }

    /// The plan with no adapter anywhere.
    pub fn without_adapters(mut self) -> Self {
        for precision in &mut self.precisions {
            *precision = precision.without_adapter();
        }
        self
    }

    /// The precisions of a block, in the order of [`Sites::modules`].
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn block(&self, block: usize) -> &[SitePrecision] {
        &self.precisions[self.range(block)]
    }

    fn range(&self, block: usize) -> std::ops::Range<usize> {
        let modules = self.sites.modules().len();
        block * modules..(block + 1) * modules
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.sites.blocks()
    }

    /// Every linear site with its precision, block by block.
    pub fn iter(&self) -> impl Iterator<Item = (Site, SitePrecision)> + '_ {
        self.sites.iter().zip(self.precisions.iter().copied())
    }

    /// Every embedding and output matrix with its precision, in the order of [`Sites::embeddings`].
    pub fn embeddings(&self) -> impl Iterator<Item = (Site, SitePrecision)> + '_ {
        self.sites.embeddings().zip(self.embeddings.iter().copied())
    }

    /// The plan with the embeddings and output matrices of another plan of the same model.
    ///
    /// # Panics
    ///
    /// When it is one for other embeddings.
    #[must_use]
    pub fn with_embeddings_of(self, other: &Self) -> Self {
        assert_eq!(self.embeddings.len(), other.embeddings.len(), "plans for models with other embeddings");
        Self { embeddings: other.embeddings.clone(), ..self }
    }

    /// Whether two plans of one model give the first block the same input: the same embeddings, but for an
    /// output matrix of its own.
    pub fn has_same_input(&self, other: &Self) -> bool {
        let inputs = |plan: &Self| -> Vec<SitePrecision> {
            plan.embeddings().filter(|(site, _)| site.module != LM_HEAD).map(|(_, precision)| precision).collect()
        };
        inputs(self) == inputs(other)
    }

    /// First block at which two plans of one model differ; `None` when all blocks are equal.
    ///
    /// Everything before it can be re-used between the two where they [have the same
    /// input](Self::has_same_input).
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        let blocks = 0..self.blocks().min(other.blocks());
        let differ =
            |&block: &usize| self.block(block) != other.block(block) || self.kv_cache(block) != other.kv_cache(block);
        blocks.into_iter().find(differ)
    }

    /// Mean width of the weights of the linear sites in bits, weighted by parameters.
    pub fn average_weight_bits(&self) -> f64 {
        let bits: f64 = self
            .iter()
            .map(|(site, precision)| self.sites.parameters(site) as f64 * f64::from(precision.weights.bits()))
            .sum();
        bits / self.sites.all_parameters() as f64
    }

    /// Bytes that the keys and values of one token need in all blocks, packed: see
    /// [`KvCache::packed_bytes`](crate::kv_cache::KvCache::packed_bytes).
    pub fn kv_cache_bytes_per_token(&self, shape: &ModelShape) -> usize {
        self.kv_cache.iter().map(|&bits| packed_row_bytes(shape.head_width, bits) * 2 * shape.kv_heads).sum()
    }

    /// Widths at which adapters are asked for, ascending, each once.
    pub fn adapter_widths(&self) -> Vec<BitWidth> {
        let mut widths: Vec<BitWidth> = self.precisions.iter().flat_map(SitePrecision::adapters).collect();
        widths.sort_unstable();
        widths.dedup();
        widths
    }
}
