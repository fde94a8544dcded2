//! The body of a Llama and its language-model head.
//!
//! ```text
//! h₀ = E[ids],   hᵢ₊₁ = blockᵢ(hᵢ),   y = norm(h_n),   z = y·Oᵀ          O = E where the two are tied
//! ```
//!
//! Source: Touvron et al., *LLaMA: Open and Efficient Foundation Language Models*, arXiv:2302.13971;
//! parameter names are those of the Hugging Face model.

use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Int, Tensor, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::{
    linear_settings::BasePolicy, switchable_embedding::SwitchableEmbedding, switchable_linear::SwitchableLinear,
};
use switchable_model::config::ModelConfig as _;
use switchable_model::error::Result;
use switchable_model::model::SwitchableModel;
use switchable_model::output_matrix::OutputMatrix;
use switchable_model::parameters::ParameterRef;
use switchable_model::pass::BlockPass;
use switchable_model::positions::Positions;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::{LM_HEAD, Site, Sites, sub_module::SubModule};
use switchable_model::span_head::ForQuestionAnswering;
use switchable_model::weights::builder::ModelBuilder;

use crate::attention::GroupedQueryAttention;
use crate::block::Block;
use crate::config::LlamaConfig;
use crate::mlp::Mlp;
use crate::rotary::RotaryPositions;
use crate::sub_modules::{self, DOWN_PROJ, EMBED_TOKENS, GATE_PROJ, K_PROJ, O_PROJ, Q_PROJ, UP_PROJ, V_PROJ};

const EMBEDDING: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// A Llama with a span head.
pub type LlamaForQuestionAnswering<B> = ForQuestionAnswering<B, Llama<B>>;

/// A Llama whose every linear sub-module runs at a precision chosen per call.
///
/// ```
/// use burn::backend::Flex;
/// use burn::tensor::{Int, Tensor};
/// use llama_model::{Llama, LlamaConfig};
/// use quant_kernels::BitWidth;
/// use switchable_lora::SitePrecision;
/// use switchable_model::{model::SwitchableModel, model_weights::ModelWeights, options::ModelOptions};
///
/// let config = LlamaConfig { num_key_value_heads: 2, ..LlamaConfig::new(97, 32, 3, 4) };
/// let device = Default::default();
/// let model = Llama::<Flex>::random(&config, &ModelOptions::default(), 1, &device)?;
/// let ids = Tensor::<Flex, 2, Int>::from_ints([[5, 6, 7]], &device);
///
/// let eight = SitePrecision::uniform(BitWidth::new(8)?).without_adapter();
/// let plan = model.uniform_plan(eight);
/// let hidden = model.forward(ids, None, &plan);
/// assert_eq!(model.next_token_scores(hidden, &plan).dims(), [1, 3, 97]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    /// Token embedding, `[vocab_size, hidden]`; also the output matrix where the two are tied.
    pub embed_tokens: SwitchableEmbedding<B>,
    /// The blocks.
    pub layers: Vec<Block<B>>,
    /// Normalisation behind the last block.
    pub norm: RmsNorm<B>,
    /// The output matrix.
    pub lm_head: OutputMatrix<B>,
    #[module(skip)]
    rotary: RotaryPositions,
    #[module(skip)]
    sites: Sites,
    #[module(skip)]
    config: LlamaConfig,
}

impl<B: QuantBackend> SwitchableModel<B> for Llama<B> {
    type Config = LlamaConfig;

    fn build(config: &LlamaConfig, builder: &mut ModelBuilder<'_, B>) -> Result<Self> {
        let d = config.hidden_size;
        let mut config = config.clone();
        let embed_tokens = builder.embedding(EMBEDDING, [config.vocab_size, d])?;
        // No capacity: a config may lie about its blocks, and only their tensors prove it wrong.
        let mut layers = Vec::new();
        for block in 0..config.num_hidden_layers {
            layers.push(build_block(&config, builder, block)?);
        }
        let norm = build_norm(&config, builder, NORM)?;
        let lm_head = builder.output(&embed_tokens, config.tie_word_embeddings)?;
        config.tie_word_embeddings = lm_head.is_tied();
        let rotary = RotaryPositions::new(config.rope_theta, config.rope_scaling, config.head_dim);
        let sites = sub_modules::sites(&config);
        Ok(Self { embed_tokens, layers, norm, lm_head, rotary, sites, config })
    }

    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn sites(&self) -> &Sites {
        &self.sites
    }

    fn site(&self, site: Site) -> &SwitchableLinear<B> {
        let block = site.block.and_then(|block| self.layers.get(block));
        let Block { self_attn, mlp, .. } =
            block.unwrap_or_else(|| panic!("the model has no site `{}`", self.sites.name(site)));
        match site.module {
            Q_PROJ => &self_attn.q_proj,
            K_PROJ => &self_attn.k_proj,
            V_PROJ => &self_attn.v_proj,
            O_PROJ => &self_attn.o_proj,
            GATE_PROJ => &mlp.gate_proj,
            UP_PROJ => &mlp.up_proj,
            DOWN_PROJ => &mlp.down_proj,
            other => panic!("a block of a llama has no sub-module `{other}`"),
        }
    }

    fn site_mut(&mut self, site: Site) -> &mut SwitchableLinear<B> {
        let block = site.block.and_then(|block| self.layers.get_mut(block));
        let Block { self_attn, mlp, .. } =
            block.unwrap_or_else(|| panic!("the model has no site `{}`", self.sites.name(site)));
        match site.module {
            Q_PROJ => &mut self_attn.q_proj,
            K_PROJ => &mut self_attn.k_proj,
            V_PROJ => &mut self_attn.v_proj,
            O_PROJ => &mut self_attn.o_proj,
            GATE_PROJ => &mut mlp.gate_proj,
            UP_PROJ => &mut mlp.up_proj,
            DOWN_PROJ => &mut mlp.down_proj,
            other => panic!("a block of a llama has no sub-module `{other}`"),
        }
    }

    fn embed_at(&self, ids: Tensor<B, 2, Int>, positions: &Positions<B>, plan: &SitePlan) -> Tensor<B, 3> {
        positions.expect(self.config.max_position_embeddings);
        let [batch, tokens] = ids.dims();
        let precision = plan.get(Site::embedding(EMBED_TOKENS));
        let rows = self.embed_tokens.rows(ids.reshape([batch * tokens]), &precision);
        rows.reshape([batch, tokens, self.config.hidden_size])
    }

    fn position_terms(&self, positions: &Positions<B>) -> Option<[Tensor<B, 3>; 2]> {
        positions.expect(self.config.max_position_embeddings);
        let positions = match positions {
            Positions::Counted(positions) => positions.tensor(),
            Positions::Consecutive { first, tokens } => {
                let positions = Tensor::arange(*first as i64..(first + tokens) as i64, &self.embed_tokens.device());
                positions.reshape([1, *tokens])
            }
        };
        Some(self.rotary.at(positions))
    }

    fn forward_block(&self, hidden: Tensor<B, 3>, pass: &mut BlockPass<'_, B>) -> Tensor<B, 3> {
        self.layers[pass.block()].forward(hidden, pass)
    }

    fn normalise(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.norm.forward(hidden)
    }

    fn embedding(&self) -> &SwitchableEmbedding<B> {
        &self.embed_tokens
    }

    fn output(&self) -> &OutputMatrix<B> {
        &self.lm_head
    }

    fn embedding_site(&self, site: Site) -> &SwitchableEmbedding<B> {
        let embedding = match (site.block, site.module) {
            (None, EMBED_TOKENS) => Some(&self.embed_tokens),
            (None, LM_HEAD) => self.lm_head.own(),
            _ => None,
        };
        embedding.unwrap_or_else(|| panic!("the model has no embedding `{}`", self.sites.name(site)))
    }

    fn embedding_site_mut(&mut self, site: Site) -> &mut SwitchableEmbedding<B> {
        let embedding = match (site.block, site.module) {
            (None, EMBED_TOKENS) => Some(&mut self.embed_tokens),
            (None, LM_HEAD) => self.lm_head.own_mut(),
            _ => None,
        };
        embedding.unwrap_or_else(|| panic!("the model has no embedding `{}`", self.sites.name(site)))
    }

    fn named_parameters(&self) -> Vec<(String, ParameterRef<'_, B>)> {
        let embedding = self.embed_tokens.param();
        let mut list: Vec<_> =
            embedding.map(|table| (EMBEDDING.to_owned(), ParameterRef::Matrix(table))).into_iter().collect();
        for (i, block) in self.layers.iter().enumerate() {
            list.push(gain(format!("model.layers.{i}.input_layernorm.weight"), &block.input_layernorm));
            list.extend(self.linear_parameters(i, &sub_modules::ATTENTION));
            list.push(gain(
                format!("model.layers.{i}.post_attention_layernorm.weight"),
                &block.post_attention_layernorm,
            ));
            list.extend(self.linear_parameters(i, &sub_modules::MLP));
        }
        list.push(gain(NORM.to_owned(), &self.norm));
        list.extend(self.lm_head.param().map(|head| (HEAD.to_owned(), ParameterRef::Matrix(head))));
        list
    }

    fn with_base_policy(mut self, base: BasePolicy) -> Self {
        let train = base == BasePolicy::Trainable;
        let norm = |norm: RmsNorm<B>| RmsNorm { gamma: norm.gamma.set_require_grad(train), ..norm };
        self.embed_tokens = self.embed_tokens.with_policy(base);
        self.lm_head = self.lm_head.with_policy(base);
        self.norm = norm(self.norm);
        let blocks = self.layers.into_iter().map(|block| Block {
            input_layernorm: norm(block.input_layernorm),
            post_attention_layernorm: norm(block.post_attention_layernorm),
            ..block
        });
        self.layers = blocks.collect();
        self
    }
}

impl<B: QuantBackend> Llama<B> {
    /// Weights and biases of some linear layers of a block, as far as they are there in floats.
    fn linear_parameters(&self, block: usize, modules: &[SubModule]) -> Vec<(String, ParameterRef<'_, B>)> {
        let parameters = |&module: &SubModule| {
            let site = Site::in_block(block, module);
            let linear = self.site(site);
            let name = format!("model.{}", self.sites.name(site));
            let weight =
                linear.weight_param().map(|w| (format!("{name}.weight"), ParameterRef::weight(w, LlamaConfig::LAYOUT)));
            let bias = linear.bias_param().map(|b| (format!("{name}.bias"), ParameterRef::Vector(b)));
            weight.into_iter().chain(bias)
        };
        modules.iter().flat_map(parameters).collect()
    }
}

fn gain<B: Backend>(name: String, norm: &RmsNorm<B>) -> (String, ParameterRef<'_, B>) {
    (name, ParameterRef::Vector(&norm.gamma))
}

fn build_norm<B: QuantBackend>(
    config: &LlamaConfig,
    builder: &mut ModelBuilder<'_, B>,
    name: &str,
) -> Result<RmsNorm<B>> {
    let d = config.hidden_size;
    let norm = RmsNormConfig::new(d).with_epsilon(config.rms_norm_eps).init(builder.device());
    Ok(RmsNorm { gamma: builder.vector(name, d)?, ..norm })
}

fn build_block<B: QuantBackend>(
    config: &LlamaConfig,
    builder: &mut ModelBuilder<'_, B>,
    block: usize,
) -> Result<Block<B>> {
    let linear = |builder: &mut ModelBuilder<'_, B>, module: SubModule| {
        let bias = if sub_modules::MLP.contains(&module) { config.mlp_bias } else { config.attention_bias };
        let site = Site::in_block(block, module);
        if bias { builder.linear_with_bias(site) } else { builder.linear(site) }
    };
    let norm = |builder: &mut ModelBuilder<'_, B>, name: &str| {
        build_norm(config, builder, &format!("model.layers.{block}.{name}.weight"))
    };
    Ok(Block {
        input_layernorm: norm(builder, "input_layernorm")?,
        self_attn: GroupedQueryAttention {
            q_proj: linear(builder, Q_PROJ)?,
            k_proj: linear(builder, K_PROJ)?,
            v_proj: linear(builder, V_PROJ)?,
            o_proj: linear(builder, O_PROJ)?,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
        },
        post_attention_layernorm: norm(builder, "post_attention_layernorm")?,
        mlp: Mlp {
            gate_proj: linear(builder, GATE_PROJ)?,
            up_proj: linear(builder, UP_PROJ)?,
            down_proj: linear(builder, DOWN_PROJ)?,
        },
    })
}
