//! One pass of hidden states through some blocks, and what a block knows of it.

use std::fmt;

use burn::tensor::{Bool, Tensor, backend::Backend};

use quant_kernels::{
    backends::quant_backend::QuantBackend, packed::product::epilogue::OutputFunction, spec::bit_width::BitWidth,
};
use switchable_lora::{site_precision::SitePrecision, switchable_linear::SwitchableLinear};

use crate::attention_mask::AttentionMask;
use crate::kv_cache::{BlockCache, KvCache};
use crate::positions::Positions;
use crate::site_plan::SitePlan;
use crate::sites::{Site, sub_module::SubModule};

/// Is handed the input of each site, `[rows, d_in]`, before the site's product is computed.
pub type SiteVisitor<'a, B> = &'a mut (dyn FnMut(Site, &Tensor<B, 2>) + 'a);

/// How hidden states pass through blocks.
pub struct Pass<'a, B: Backend> {
    plan: &'a SitePlan,
    padding: Option<&'a Tensor<B, 2, Bool>>,
    cache: Option<&'a mut KvCache<B>>,
    visitor: Option<SiteVisitor<'a, B>>,
}

impl<'a, B: Backend> Pass<'a, B> {
    /// A pass of whole sequences without padding, at the precisions of a plan.
    pub fn new(plan: &'a SitePlan) -> Self {
        Self { plan, padding: None, cache: None, visitor: None }
    }

    /// With padding, true at padding, `[batch, tokens]`. Not for a pass with a cache, which knows its own.
    pub fn with_padding(mut self, padding: Option<&'a Tensor<B, 2, Bool>>) -> Self {
        self.padding = padding;
        self
    }

    /// With the keys and values of older tokens, to which those of the new ones are appended. The
    /// caller counts them by [`KvCache::advance`] when all blocks have seen them.
    pub fn with_cache(mut self, cache: &'a mut KvCache<B>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// With a visitor of each site's input.
    pub fn with_visitor(mut self, visitor: SiteVisitor<'a, B>) -> Self {
        self.visitor = Some(visitor);
        self
    }

    /// The plan that it runs at.
    pub fn plan(&self) -> &'a SitePlan {
        self.plan
    }

    /// Where `tokens` tokens of this pass stand.
    pub fn positions(&self, tokens: usize) -> Positions<B> {
        match &self.cache {
            Some(cache) => cache.positions(tokens),
            None => Positions::of_sequences(tokens, self.padding),
        }
    }

    /// Which keys its queries may see.
    pub fn mask(&self) -> AttentionMask<B> {
        match self.padding {
            None => AttentionMask::Causal,
            Some(padding) => AttentionMask::causal_with_padding(padding),
        }
    }

    /// The pass as one block sees it.
    pub fn block<'p>(
        &'p mut self,
        block: usize,
        mask: &'p AttentionMask<B>,
        position_terms: Option<&'p [Tensor<B, 3>; 2]>,
    ) -> BlockPass<'p, B> {
        BlockPass {
            block,
            plan: self.plan,
            mask,
            position_terms,
            cache: self.cache.as_mut().map(|cache| cache.block(block, self.plan.kv_cache(block))),
            visitor: match &mut self.visitor {
                Some(visitor) => Some(&mut **visitor),
                None => None,
            },
        }
    }
}

impl<B: Backend> fmt::Debug for Pass<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, padding, cache, visitor } = self;
        let (cache, visitor) = (cache.is_some(), visitor.is_some());
        f.debug_struct("Pass")
            .field("plan", plan)
            .field("padding", padding)
            .field("cache", &cache)
            .field("visitor", &visitor)
            .finish()
    }
}

/// What one block knows of a pass: the precisions of its sites, its keys and values, the mask.
pub struct BlockPass<'p, B: Backend> {
    block: usize,
    plan: &'p SitePlan,
    mask: &'p AttentionMask<B>,
    position_terms: Option<&'p [Tensor<B, 3>; 2]>,
    cache: Option<BlockCache<'p, B>>,
    visitor: Option<SiteVisitor<'p, B>>,
}

impl<'p, B: QuantBackend> BlockPass<'p, B> {
    /// The block, counted from 0.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Which keys a query may see; with a cache, its own and all older ones.
    pub fn mask(&self) -> &AttentionMask<B> {
        self.mask
    }

    /// What [`SwitchableModel::position_terms`](crate::model::SwitchableModel::position_terms) gave
    /// for the tokens of this pass.
    pub fn position_terms(&self) -> Option<&[Tensor<B, 3>; 2]> {
        self.position_terms
    }

    /// The bits at which the block keeps its keys and values.
    pub fn kv_cache_bits(&self) -> BitWidth {
        self.plan.kv_cache(self.block)
    }

    /// The block's cache; `None` in a pass of whole sequences.
    pub fn cache(&mut self) -> Option<&mut BlockCache<'p, B>> {
        self.cache.as_mut()
    }

    /// Precision of a sub-module of the block.
    pub fn precision(&self, module: SubModule) -> SitePrecision {
        self.plan.get(Site::in_block(self.block, module))
    }

    /// The output of a sub-module of the block at its precision.
    ///
    /// # Shapes
    ///
    /// `x`: `[.., d_in]`; `[.., d_out]` out.
    ///
    /// # Panics
    ///
    /// When the layer cannot compute at its precision.
    pub fn linear<const D: usize>(
        &mut self,
        module: SubModule,
        layer: &SwitchableLinear<B>,
        x: Tensor<B, D>,
    ) -> Tensor<B, D> {
        self.linear_then(module, layer, x, OutputFunction::Identity)
    }

    /// [`linear`](Self::linear) followed by a function, which packed products apply while the output
    /// is still in the processor's cache.
    ///
    /// # Shapes
    ///
    /// `x`: `[.., d_in]`; `[.., d_out]` out.
    ///
    /// # Panics
    ///
    /// When the layer cannot compute at its precision.
    pub fn linear_then<const D: usize>(
        &mut self,
        module: SubModule,
        layer: &SwitchableLinear<B>,
        x: Tensor<B, D>,
        function: OutputFunction,
    ) -> Tensor<B, D> {
        let site = Site::in_block(self.block, module);
        if let Some(visitor) = &mut self.visitor {
            let d_in = layer.d_in();
            let rows = x.shape().num_elements() / d_in;
            visitor(site, &x.clone().reshape([rows, d_in]));
        }
        layer.forward_then(x, &self.plan.get(site), function)
    }
}

impl<B: Backend> fmt::Debug for BlockPass<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, plan, mask, position_terms, cache, visitor } = self;
        f.debug_struct("BlockPass")
            .field("block", block)
            .field("plan", plan)
            .field("mask", mask)
            .field("position_terms", position_terms)
            .field("cache", cache)
            .field("visitor", &visitor.is_some())
            .finish()
    }
}
