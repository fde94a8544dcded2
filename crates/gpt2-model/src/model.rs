//! The body of a GPT-2 and its language-model head.
//!
//! ```text
//! h₀ = wte[ids] + wpe[positions],   hᵢ₊₁ = blockᵢ(hᵢ),   y = norm_f(h_n),   logits = y·Oᵀ          O = wte where the two are tied
//! ```
//!
//! Source: Radford et al., *Language Models are Unsupervised Multitask Learners* (GPT-2), 2019;
//! parameter names are those of the Hugging Face model.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Int, Tensor, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::{
    linear_settings::BasePolicy, site_precision::SitePrecision, switchable_embedding::SwitchableEmbedding,
    switchable_linear::SwitchableLinear,
};
use switchable_model::config::ModelConfig;
use switchable_model::error::Result;
use switchable_model::model::SwitchableModel;
use switchable_model::output_matrix::OutputMatrix;
use switchable_model::parameters::{ParameterRef, linear_parameters};
use switchable_model::pass::BlockPass;
use switchable_model::positions::Positions;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::{LM_HEAD, Site, Sites, sub_module::SubModule};
use switchable_model::weights::builder::ModelBuilder;

use crate::attention::CausalSelfAttention;
use crate::block::Block;
use crate::config::Gpt2Config;
use crate::mlp::Mlp;
use crate::names::{ATTN_C_ATTN, ATTN_C_PROJ, MLP_C_FC, MLP_C_PROJ, WPE, WTE, norm_parameters};

/// A GPT-2 whose every linear sub-module runs at a precision chosen per call.
///
/// ```
/// use burn::backend::Flex;
/// use burn::tensor::{Int, Tensor};
/// use gpt2_model::prelude::*;
/// use quant_kernels::BitWidth;
/// use switchable_lora::SitePrecision;
///
/// let config = Gpt2Config::new(97, 64, 32, 3, 4);
/// let device = Default::default();
/// let model = Gpt2::<Flex>::random(&config, &ModelOptions::default(), 1, &device)?;
/// let ids = Tensor::<Flex, 2, Int>::from_ints([[5, 6, 7]], &device);
///
/// let eight = SitePrecision::uniform(BitWidth::new(8)?).without_adapter();
/// let plan = model.uniform_plan(eight);
/// let hidden = model.forward(ids, None, &plan);
/// assert_eq!(model.next_token_scores(hidden, &plan).dims(), [1, 3, 97]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Module, Debug)]
pub struct Gpt2<B: Backend> {
    /// Token embedding, `[vocab_size, n_embd]`; also the output matrix where the two are tied.
    pub wte: SwitchableEmbedding<B>,
    /// Position embedding, `[n_positions, n_embd]`.
    pub wpe: SwitchableEmbedding<B>,
    /// The blocks.
    pub h: Vec<Block<B>>,
    /// Normalisation behind the last block.
    pub ln_f: LayerNorm<B>,
    /// The output matrix.
    pub lm_head: OutputMatrix<B>,
    #[module(skip)]
    config: Gpt2Config,
    #[module(skip)]
    sites: Sites,
}

impl<B: QuantBackend> Gpt2<B> {
    fn rows(&self, table: &SwitchableEmbedding<B>, ids: Tensor<B, 2, Int>, precision: &SitePrecision) -> Tensor<B, 3> {
        let [batch, tokens] = ids.dims();
        table.rows(ids.reshape([batch * tokens]), precision).reshape([batch, tokens, self.config.n_embd])
    }
}

impl<B: QuantBackend> SwitchableModel<B> for Gpt2<B> {
    type Config = Gpt2Config;

    fn build(config: &Gpt2Config, builder: &mut ModelBuilder<'_, B>) -> Result<Self> {
        let d = config.n_embd;
        let wte = builder.embedding("transformer.wte.weight", [config.vocab_size, d])?;
        let wpe = builder.embedding("transformer.wpe.weight", [config.n_positions, d])?;
        let norm = |builder: &mut ModelBuilder<'_, B>, name: &str| -> Result<LayerNorm<B>> {
            let mut norm = LayerNormConfig::new(d).with_epsilon(config.layer_norm_epsilon).init(builder.device());
            norm.gamma = builder.vector(&format!("transformer.{name}.weight"), d)?;
            norm.beta = Some(builder.vector(&format!("transformer.{name}.bias"), d)?);
            Ok(norm)
        };
        // No capacity: a config may lie about its blocks, and only their tensors prove it wrong.
        let mut h = Vec::new();
        for block in 0..config.n_layer {
            let linear =
                |builder: &mut ModelBuilder<'_, B>, module| builder.linear_with_bias(Site::in_block(block, module));
            let ln_1 = norm(builder, &format!("h.{block}.ln_1"))?;
            let c_attn = linear(builder, ATTN_C_ATTN)?;
            let c_proj = linear(builder, ATTN_C_PROJ)?;
            let ln_2 = norm(builder, &format!("h.{block}.ln_2"))?;
            let c_fc = linear(builder, MLP_C_FC)?;
            let mlp_c_proj = linear(builder, MLP_C_PROJ)?;
            h.push(Block {
                ln_1,
                attn: CausalSelfAttention::new(c_attn, c_proj, config.n_head, score_scale(config, block)),
                ln_2,
                mlp: Mlp::new(c_fc, mlp_c_proj, config.activation),
            });
        }
        let ln_f = norm(builder, "ln_f")?;
        let lm_head = builder.output(&wte, config.tie_word_embeddings)?;
        let config = Gpt2Config { tie_word_embeddings: lm_head.is_tied(), ..config.clone() };
        Ok(Self { wte, wpe, h, ln_f, lm_head, sites: config.sites(), config })
    }

    fn config(&self) -> &Gpt2Config {
        &self.config
    }

    fn sites(&self) -> &Sites {
        &self.sites
    }

    fn site(&self, site: Site) -> &SwitchableLinear<B> {
        let layer = site.block.and_then(|block| self.h.get(block)?.site(site.module));
        layer.unwrap_or_else(|| panic!("the model has no site `{}`", self.sites.name(site)))
    }

    fn site_mut(&mut self, site: Site) -> &mut SwitchableLinear<B> {
        let layer = site.block.and_then(|block| self.h.get_mut(block)?.site_mut(site.module));
        layer.unwrap_or_else(|| panic!("the model has no site `{}`", self.sites.name(site)))
    }

    fn embed_at(&self, ids: Tensor<B, 2, Int>, positions: &Positions<B>, plan: &SitePlan) -> Tensor<B, 3> {
        let [wte, wpe] = [WTE, WPE].map(|module| plan.get(Site::embedding(module)));
        positions.expect(self.config.n_positions);
        let positions = match positions {
            Positions::Consecutive { first, tokens } => self.wpe.range(*first, *tokens, &wpe).unsqueeze::<3>(),
            Positions::Counted(positions) => self.rows(&self.wpe, positions.tensor(), &wpe),
        };
        self.rows(&self.wte, ids, &wte) + positions
    }

    fn forward_block(&self, hidden: Tensor<B, 3>, pass: &mut BlockPass<'_, B>) -> Tensor<B, 3> {
        self.h[pass.block()].forward(hidden, pass)
    }

    fn normalise(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.ln_f.forward(hidden)
    }

    fn embedding(&self) -> &SwitchableEmbedding<B> {
        &self.wte
    }

    fn output(&self) -> &OutputMatrix<B> {
        &self.lm_head
    }

    fn embedding_site(&self, site: Site) -> &SwitchableEmbedding<B> {
        let embedding = match (site.block, site.module) {
            (None, WTE) => Some(&self.wte),
            (None, WPE) => Some(&self.wpe),
            (None, LM_HEAD) => self.lm_head.own(),
            _ => None,
        };
        embedding.unwrap_or_else(|| panic!("the model has no embedding `{}`", self.sites.name(site)))
    }

    fn embedding_site_mut(&mut self, site: Site) -> &mut SwitchableEmbedding<B> {
        let embedding = match (site.block, site.module) {
            (None, WTE) => Some(&mut self.wte),
            (None, WPE) => Some(&mut self.wpe),
            (None, LM_HEAD) => self.lm_head.own_mut(),
            _ => None,
        };
        embedding.unwrap_or_else(|| panic!("the model has no embedding `{}`", self.sites.name(site)))
    }

    fn named_parameters(&self) -> Vec<(String, ParameterRef<'_, B>)> {
        let mut list = Vec::new();
        for (name, embedding) in [("wte", &self.wte), ("wpe", &self.wpe)] {
            let named = |table| (format!("transformer.{name}.weight"), ParameterRef::Matrix(table));
            list.extend(embedding.param().map(named));
        }
        for (i, block) in self.h.iter().enumerate() {
            let prefix = format!("transformer.h.{i}");
            let linear = |module: SubModule, linear| {
                linear_parameters(&format!("{prefix}.{module}"), linear, Gpt2Config::LAYOUT)
            };
            list.extend(norm_parameters(&format!("{prefix}.ln_1"), &block.ln_1));
            list.extend(linear(ATTN_C_ATTN, &block.attn.c_attn));
            list.extend(linear(ATTN_C_PROJ, &block.attn.c_proj));
            list.extend(norm_parameters(&format!("{prefix}.ln_2"), &block.ln_2));
            list.extend(linear(MLP_C_FC, &block.mlp.c_fc));
            list.extend(linear(MLP_C_PROJ, &block.mlp.c_proj));
        }
        list.extend(norm_parameters("transformer.ln_f", &self.ln_f));
        list.extend(self.lm_head.param().map(|head| ("lm_head.weight".to_string(), ParameterRef::Matrix(head))));
        list
    }

    fn with_base_policy(mut self, base: BasePolicy) -> Self {
        let train = base == BasePolicy::Trainable;
        self.wte = self.wte.with_policy(base);
        self.wpe = self.wpe.with_policy(base);
        self.lm_head = self.lm_head.with_policy(base);
        let norm = |mut norm: LayerNorm<B>| {
            norm.gamma = norm.gamma.set_require_grad(train);
            norm.beta = norm.beta.map(|beta| beta.set_require_grad(train));
            norm
        };
        self.ln_f = norm(self.ln_f);
        let blocks = self.h.into_iter();
        self.h = blocks.map(|block| Block { ln_1: norm(block.ln_1), ln_2: norm(block.ln_2), ..block }).collect();
        self
    }
}

fn score_scale(config: &Gpt2Config, block: usize) -> f64 {
    let width = if config.scale_attn_weights { (config.head_width() as f64).sqrt() } else { 1.0 };
    let depth = if config.scale_attn_by_inverse_layer_idx { (block + 1) as f64 } else { 1.0 };
    1.0 / (width * depth)
}
