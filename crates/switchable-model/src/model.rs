//! What every transformer of switchable layers can do.
//!
//! ```text
//! h₀ = embed(ids),   hᵢ₊₁ = blockᵢ(hᵢ),   y = normalise(h_n),   z = y·Oᵀ
//! ```
//!
//! A family says what its embedding, its blocks and its last normalisation compute; passes through the
//! blocks, plans and adapters are the same for all.

use std::ops::Range;

use burn::module::{AutodiffModule, Module, ModuleDisplay};
use burn::tensor::{Bool, Int, Tensor};

use quant_kernels::backends::quant_backend::{QuantAutodiffBackend, QuantBackend};
use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::{
    linear_settings::{BasePolicy, LinearSettings},
    lora_config::LoraConfig,
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_embedding::SwitchableEmbedding,
    switchable_linear::SwitchableLinear,
};

use crate::config::ModelConfig;
use crate::error::{Error, Result, at_site};
use crate::kv_cache::KvCache;
use crate::kv_rounding::check_bits;
use crate::output_matrix::OutputMatrix;
use crate::parameters::ParameterRef;
use crate::pass::{BlockPass, Pass, SiteVisitor};
use crate::positions::Positions;
use crate::shape::ModelShape;
use crate::site_plan::SitePlan;
use crate::sites::{LM_HEAD, Site, Sites};
use crate::weights::builder::ModelBuilder;

/// A transformer whose every linear sub-module runs at a precision chosen per call.
///
/// What it does with files, plans in files, adapters, packed weights and prompts stands in traits of their own, which
/// every model has: [`ModelWeights`](crate::model_weights::ModelWeights),
/// [`NamedPlans`](crate::named_plans::NamedPlans), [`AdapterFolders`](crate::adapters::AdapterFolders), [`PackModel`](crate::packed::PackModel) and
/// [`Generate`](crate::generate::Generate).
pub trait SwitchableModel<B: QuantBackend>: Module<B> + ModuleDisplay + Sync {
    /// Its configuration.
    type Config: ModelConfig;

    /// A model of the parameters that a builder makes, in the order of the forward pass.
    ///
    /// # Errors
    ///
    /// Those of the builder.
    fn build(config: &Self::Config, builder: &mut ModelBuilder<'_, B>) -> Result<Self>;

    /// The configuration.
    fn config(&self) -> &Self::Config;

    /// The quantisable matrices.
    fn sites(&self) -> &Sites;

    /// A linear sub-module.
    ///
    /// # Panics
    ///
    /// When the model has no such site.
    fn site(&self, site: Site) -> &SwitchableLinear<B>;

    /// A linear sub-module, to be changed.
    ///
    /// # Panics
    ///
    /// When the model has no such site.
    fn site_mut(&mut self, site: Site) -> &mut SwitchableLinear<B>;

    /// Input of the first block, for tokens at given positions, with the embeddings at the precisions of a plan.
    ///
    /// # Shapes
    ///
    /// `ids`: `[batch, tokens]`; `[batch, tokens, width]` out.
    ///
    /// # Panics
    ///
    /// When a position is beyond the model's: an implementation asks [`Positions::expect`].
    fn embed_at(&self, ids: Tensor<B, 2, Int>, positions: &Positions<B>, plan: &SitePlan) -> Tensor<B, 3>;

    /// What attention in every block needs of the positions, computed once per pass: for rotary
    /// positions the cosines and sines. None by default.
    ///
    /// # Shapes
    ///
    /// `[1 or batch, tokens, ..]` each.
    fn position_terms(&self, _positions: &Positions<B>) -> Option<[Tensor<B, 3>; 2]> {
        None
    }

    /// Output of one block.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, width]`, the same out.
    ///
    /// # Panics
    ///
    /// When there is no such block, or the plan is one that [`check_plan`](Self::check_plan) refuses.
    fn forward_block(&self, hidden: Tensor<B, 3>, pass: &mut BlockPass<'_, B>) -> Tensor<B, 3>;

    /// Final hidden states from the output of the last block.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, width]`, the same out.
    fn normalise(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3>;

    /// The token embedding `E`, `[vocabulary, width]`.
    fn embedding(&self) -> &SwitchableEmbedding<B>;

    /// How the model holds the matrix `O` of its language-model head.
    fn output(&self) -> &OutputMatrix<B>;

    /// An embedding or output matrix, by its [site](Sites::embeddings).
    ///
    /// # Panics
    ///
    /// When the model has no such site.
    fn embedding_site(&self, site: Site) -> &SwitchableEmbedding<B>;

    /// The same, to be changed.
    ///
    /// # Panics
    ///
    /// When the model has no such site.
    fn embedding_site_mut(&mut self, site: Site) -> &mut SwitchableEmbedding<B>;

    /// Every parameter of the base with its Hugging Face name, in the order of the forward pass.
    ///
    /// Adapters are not among them: they are saved one folder per width. Neither are weights that are
    /// only there packed.
    fn named_parameters(&self) -> Vec<(String, ParameterRef<'_, B>)>;

    /// The model with another policy for all that is not a site: embeddings, normalisations, head.
    fn with_base_policy(self, base: BasePolicy) -> Self;

    /// The token embedding in floats.
    ///
    /// # Shapes
    ///
    /// `[vocabulary, width]`.
    fn token_embedding(&self) -> Tensor<B, 2> {
        self.embedding().weight()
    }

    /// The matrix `O` of the language-model head in floats: the token embedding, where it is tied to that; what
    /// its codes stand for, where it is only there packed.
    ///
    /// # Shapes
    ///
    /// `[vocabulary, width]`.
    fn output_matrix(&self) -> Tensor<B, 2> {
        self.output().own().unwrap_or_else(|| self.embedding()).weight()
    }

    /// The site of the output matrix: `lm_head`, or that of the token embedding where the two are tied.
    ///
    /// # Panics
    ///
    /// When the model has no embedding, which none is without.
    fn output_site(&self) -> Site {
        match self.output() {
            OutputMatrix::Own(_) => Site::embedding(LM_HEAD),
            OutputMatrix::Tied => self.sites().embeddings().next().expect("a model has a token embedding"),
        }
    }

    /// The cache that the sites' quantised weights are kept in, if there is a site.
    fn quantized_cache(&self) -> Option<&QuantizedCache> {
        self.sites().iter().next().map(|site| self.site(site).quantized_cache())
    }

    /// Checks that there are positions for the tokens of a batch: for its real ones, where `padding` says
    /// which those are.
    ///
    /// # Shapes
    ///
    /// `padding`: `[batch, tokens]`, true at padding.
    ///
    /// # Errors
    ///
    /// [`Error::SequenceLength`] with the longest sequence and the model's positions.
    fn check_tokens(&self, tokens: usize, padding: Option<&Tensor<B, 2, Bool>>) -> Result<()> {
        Positions::of_sequences(tokens, padding).check(self.shape().positions)
    }

    /// The numbers that every transformer has.
    fn shape(&self) -> ModelShape {
        self.config().shape()
    }

    /// Where the model is.
    fn device(&self) -> B::Device {
        self.embedding().device()
    }

    /// The settings of the sites, which share them but for the quantiser of weights that are only there packed,
    /// which is that of the codes; the default ones in a model without a site.
    fn settings(&self) -> LinearSettings {
        self.sites().iter().next().map(|site| self.site(site).settings()).unwrap_or_default()
    }

    /// Final hidden states of a batch of sequences.
    ///
    /// `padding` is true at padding and may stand left or right of the tokens; positions count
    /// real tokens. A batch padded on the right needs none: no real token sees what follows it.
    ///
    /// # Shapes
    ///
    /// `ids`, `padding`: `[batch, tokens]`; `[batch, tokens, width]` out.
    ///
    /// # Panics
    ///
    /// When there are more real tokens than positions, which [`check_tokens`](Self::check_tokens) tells
    /// beforehand, or the plan is one that [`check_plan`](Self::check_plan) refuses; with a message and before
    /// anything is computed.
    fn forward(&self, ids: Tensor<B, 2, Int>, padding: Option<&Tensor<B, 2, Bool>>, plan: &SitePlan) -> Tensor<B, 3> {
        expect_plan::<B, Self>(self, plan);
        let hidden = self.embed(ids, padding, plan);
        self.forward_from(0, hidden, padding, plan)
    }

    /// Input of the first block.
    ///
    /// # Shapes
    ///
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    ///
    /// When there are more real tokens than positions, or an embedding cannot be at its precision.
    fn embed(&self, ids: Tensor<B, 2, Int>, padding: Option<&Tensor<B, 2, Bool>>, plan: &SitePlan) -> Tensor<B, 3> {
        let [_, tokens] = ids.dims();
        self.embed_at(ids, &Positions::of_sequences(tokens, padding), plan)
    }

    /// Output of some consecutive blocks.
    ///
    /// With `first..blocks` and the hidden states that entered block `first`, a search computes
    /// again only what its change touched.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, width]`, the same out; `padding`: `[batch, tokens]`.
    ///
    /// # Panics
    ///
    /// When the range exceeds the blocks, or the plan is one that [`check_plan`](Self::check_plan)
    /// refuses, with its message and before anything is computed.
    fn forward_blocks(
        &self,
        blocks: Range<usize>,
        hidden: Tensor<B, 3>,
        padding: Option<&Tensor<B, 2, Bool>>,
        plan: &SitePlan,
    ) -> Tensor<B, 3> {
        self.run(blocks, hidden, Pass::new(plan).with_padding(padding))
    }

    /// Output of some consecutive blocks in a pass of any kind.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, width]`, the same out.
    ///
    /// # Panics
    ///
    /// As [`forward_blocks`](Self::forward_blocks), and when a cache has no room for the tokens.
    fn run(&self, blocks: Range<usize>, hidden: Tensor<B, 3>, mut pass: Pass<'_, B>) -> Tensor<B, 3> {
        expect_plan::<B, Self>(self, pass.plan());
        let there = self.sites().blocks();
        assert!(blocks.end <= there, "blocks {blocks:?} of a model of {there}");
        let [_, tokens, _] = hidden.dims();
        let (mask, terms) = (pass.mask(), self.position_terms(&pass.positions(tokens)));
        blocks.fold(hidden, |hidden, block| self.forward_block(hidden, &mut pass.block(block, &mask, terms.as_ref())))
    }

    /// Final hidden states from the hidden states that entered a block.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, width]`, the same out, normalised.
    ///
    /// # Panics
    ///
    /// As [`forward_blocks`](Self::forward_blocks).
    fn forward_from(
        &self,
        block: usize,
        hidden: Tensor<B, 3>,
        padding: Option<&Tensor<B, 2, Bool>>,
        plan: &SitePlan,
    ) -> Tensor<B, 3> {
        self.normalise(self.forward_blocks(block..self.sites().blocks(), hidden, padding, plan))
    }

    /// Final hidden states of tokens that follow those in the cache, which takes them up.
    ///
    /// # Shapes
    ///
    /// `ids`: `[batch, new]`; `[batch, new, width]` out.
    ///
    /// # Panics
    ///
    /// When the cache is for other sequences or has no room for the new tokens, or the plan is one that
    /// [`check_plan`](Self::check_plan) refuses; with a message, and the cache stays as it was.
    fn forward_cached(&self, ids: Tensor<B, 2, Int>, cache: &mut KvCache<B>, plan: &SitePlan) -> Tensor<B, 3> {
        let [batch, new] = ids.dims();
        expect_plan::<B, Self>(self, plan);
        cache.expect_room(batch, new);
        let hidden = self.embed_at(ids, &cache.positions(new), plan);
        let hidden = self.run(0..self.sites().blocks(), hidden, Pass::new(plan).with_cache(cache));
        cache.advance(new);
        self.normalise(hidden)
    }

    /// Final hidden states as [`forward`](Self::forward) gives them; the visitor sees the input of
    /// every site on the way, at the precisions of the plan. [`run`](Self::run) visits some blocks
    /// alone.
    ///
    /// # Shapes
    ///
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    fn observe(
        &self,
        ids: Tensor<B, 2, Int>,
        padding: Option<&Tensor<B, 2, Bool>>,
        plan: &SitePlan,
        visitor: SiteVisitor<'_, B>,
    ) -> Tensor<B, 3> {
        expect_plan::<B, Self>(self, plan);
        let pass = Pass::new(plan).with_padding(padding).with_visitor(visitor);
        self.normalise(self.run(0..self.sites().blocks(), self.embed(ids, padding, plan), pass))
    }

    /// Scores of the next token, from final hidden states, with the output matrix at the precision of a plan.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, width]`; `[batch, tokens, vocabulary]` out.
    ///
    /// # Panics
    ///
    /// When `hidden` has another width than the model, or the output matrix cannot be at its precision.
    fn next_token_scores(&self, hidden: Tensor<B, 3>, plan: &SitePlan) -> Tensor<B, 3> {
        let [batch, tokens, d] = hidden.dims();
        let width = self.shape().width;
        assert_eq!(d, width, "hidden states of width {d}, the model's is {width}");
        let (hidden, site) = (hidden.reshape([batch * tokens, d]), self.output_site());
        let scores = self.embedding_site(site).scores(hidden, &plan.get(site));
        scores.reshape([batch, tokens, self.shape().vocabulary])
    }

    /// A plan that gives every linear site of this model the same precision, as
    /// [`precision_for`](Self::precision_for) has it. Embeddings are as the model holds them: full, or at the width
    /// of their codes.
    fn uniform_plan(&self, precision: SitePrecision) -> SitePlan {
        let uniform = SitePlan::uniform(self.sites(), precision);
        let plan = self.sites().iter().fold(uniform, |plan, site| plan.with(site, self.precision_for(site, precision)));
        let own = |plan: SitePlan, site| plan.with(site, self.embedding_site(site).own_precision());
        self.sites().embeddings().fold(plan, own)
    }

    /// The plan with every embedding and output matrix at a width; above the highest that it is quantised to, full.
    fn with_embedding_bits(&self, plan: SitePlan, bits: BitWidth) -> SitePlan {
        plan.with_embedding_bits(bits)
    }

    /// A precision meant for many sites as one of them can run at it: without the adapter where the site has
    /// none of that width and another site has one.
    ///
    /// An adapter need not be for every site: those of PEFT for GPT-2 are for `c_attn` alone unless
    /// `target_modules` says more, and the other modules run without. A width that no site has an adapter of
    /// stays as it is, for [`check_plan`](Self::check_plan) to refuse. An embedding takes the width of the weights
    /// alone.
    fn precision_for(&self, site: Site, precision: SitePrecision) -> SitePrecision {
        if site.block.is_none() {
            return SitePrecision { weights: precision.weights, ..SitePrecision::FULL };
        }
        let lacks = |width: BitWidth| {
            let has = |site: Site| self.site(site).bank().get(width).is_some();
            !has(site) && self.sites().iter().any(has)
        };
        match (precision.adapter.filter(|width| lacks(*width)), precision.shared.filter(|width| lacks(*width))) {
            (None, None) => precision,
            (None, Some(_)) => SitePrecision { shared: None, ..precision },
            (Some(_), None) if precision.shared.is_some() => {
                SitePrecision { adapter: precision.shared, shared: None, ..precision }
            }
            (Some(_), _) => precision.without_adapter(),
        }
    }

    /// How the factors were chosen that were folded into the model, if any were.
    fn scaling(&self) -> Option<&str> {
        self.sites().iter().find_map(|site| self.site(site).scaling())
    }

    /// What the model was calibrated on, if it is known.
    fn calibration(&self) -> Option<&str> {
        self.sites().iter().find_map(|site| self.site(site).calibration())
    }

    /// The precision of a site, linear or embedding, with all that it leaves to the model said.
    ///
    /// # Panics
    ///
    /// When the model has no such site.
    fn explicit_at(&self, site: Site, precision: &SitePrecision) -> SitePrecision {
        match site.block {
            Some(_) => self.site(site).explicit(precision),
            None => self.embedding_site(site).explicit(precision),
        }
    }

    /// The precision of a site, linear or embedding, without what the site does of itself.
    ///
    /// # Panics
    ///
    /// When the model has no such site.
    fn implicit_at(&self, site: Site, precision: &SitePrecision) -> SitePrecision {
        match site.block {
            Some(_) => self.site(site).implicit(precision),
            None => self.embedding_site(site).implicit(precision),
        }
    }

    /// The plan without what the sites do of themselves, so that plans that compute the same are equal.
    fn implicit_plan(&self, plan: &SitePlan) -> SitePlan {
        let all = plan.iter().chain(plan.embeddings());
        all.fold(plan.clone(), |implicit, (site, precision)| implicit.with(site, self.implicit_at(site, &precision)))
    }

    /// Checks that the model can run at a plan.
    ///
    /// # Errors
    ///
    /// When the plan is one for other sites, or an adapter that it asks for is missing, or a width does
    /// not fit the quantiser, which names the site or block.
    fn check_plan(&self, plan: &SitePlan) -> Result<()> {
        let sites = self.sites();
        if plan.blocks() != sites.blocks() {
            return Err(Error::PlanBlocks { got: plan.blocks(), blocks: sites.blocks() });
        }
        if !plan.sites().modules().eq(sites.modules()) {
            let names = |sites: &Sites| sites.modules().map(|module| module.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::PlanModules { got: names(plan.sites()), expected: names(sites) });
        }
        for (site, precision) in plan.iter() {
            self.site(site).check(&precision).map_err(|error| at_site(sites.name(site), error))?;
        }
        if !plan.sites().embeddings().eq(sites.embeddings()) {
            let (got, expected) = (plan.sites().embedding_names().join(", "), sites.embedding_names().join(", "));
            return Err(Error::PlanModules { got, expected });
        }
        for (site, precision) in plan.embeddings() {
            self.embedding_site(site).check(&precision).map_err(|error| at_site(sites.name(site), error))?;
        }
        for block in 0..sites.blocks() {
            check_bits(plan.kv_cache(block))
                .map_err(|source| switchable_lora::Error::KvCache { block: sites.block_name(block), source })?;
        }
        Ok(())
    }

    /// Checks that every site can have an adapter of a configuration.
    ///
    /// # Errors
    ///
    /// When its rank is above both sides of a weight together, which names the site.
    fn check_lora(&self, lora: &LoraConfig) -> Result<()> {
        for site in self.sites().iter() {
            let layer = self.site(site);
            let checked = lora.check_weight([layer.d_in(), layer.d_out()]);
            checked.map_err(|error| at_site(self.sites().name(site), error))?;
        }
        Ok(())
    }

    /// Gives every site an adapter for a width, replacing one that is there; see
    /// [`SwitchableLinear::init_adapter`].
    ///
    /// # Errors
    ///
    /// When the adapter's rank does not fit a site, or its scales are to be learned and a weight cannot be
    /// quantised by a learned step at that width: because it is full precision, or the weight's quantiser
    /// is asymmetric or per token, or the weight is only there packed. The error names the site.
    fn init_adapters(&mut self, width: BitWidth, lora: &LoraConfig, seed: u64) -> Result<()> {
        init_each(self, seed, |linear, seed| linear.init_adapter(width, lora, seed))
    }

    /// The model with its base weights trained or not, all other settings as they are.
    fn with_policy(mut self, base: BasePolicy) -> Self {
        for site in self.sites().clone().iter() {
            let linear = self.site_mut(site);
            let settings = LinearSettings { base, ..linear.settings() };
            *linear = linear.clone().with_settings(settings);
        }
        self.with_base_policy(base)
    }

    /// The model with other settings at every site; their base policy holds for embeddings and
    /// normalisations too.
    fn with_linear_settings(mut self, settings: LinearSettings) -> Self {
        for site in self.sites().iter() {
            let linear = self.site_mut(site);
            *linear = linear.clone().with_settings(settings);
        }
        for site in self.sites().embeddings() {
            let embedding = self.embedding_site_mut(site);
            *embedding = embedding.clone().with_execution(settings.execution);
        }
        self.with_base_policy(settings.base)
    }
}

/// A model that can be trained: its parameters record gradients, and without them it is a model of the
/// same family on the inner backend.
///
/// It is implemented for every such model.
pub trait TrainableModel<B: QuantAutodiffBackend>:
    SwitchableModel<B>
    + AutodiffModule<B, InnerModule: SwitchableModel<B::InnerBackend, Config = <Self as SwitchableModel<B>>::Config>>
{
}

impl<B, M> TrainableModel<B> for M
where
    B: QuantAutodiffBackend,
    M: SwitchableModel<B>
        + AutodiffModule<B, InnerModule: SwitchableModel<B::InnerBackend, Config = <M as SwitchableModel<B>>::Config>>,
{
}

/// Refuses a plan before anything is computed.
fn expect_plan<B: QuantBackend, M: SwitchableModel<B>>(model: &M, plan: &SitePlan) {
    if let Err(error) = model.check_plan(plan) {
        panic!("{error}");
    }
}

/// Changes every site, each with a seed of its own.
fn init_each<B: QuantBackend, M: SwitchableModel<B>>(
    model: &mut M,
    seed: u64,
    mut init: impl FnMut(&mut SwitchableLinear<B>, u64) -> switchable_lora::Result<()>,
) -> Result<()> {
    let sites = model.sites().clone();
    for (index, site) in sites.iter().enumerate() {
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64);
        init(model.site_mut(site), seed).map_err(|error| at_site(sites.name(site), error))?;
    }
    Ok(())
}
