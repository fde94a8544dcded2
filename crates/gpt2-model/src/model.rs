//! The body of a GPT-2 and its tied language-model head.
//!
//! ```text
//! h₀ = wte[ids] + wpe[positions],   hᵢ₊₁ = blockᵢ(hᵢ),   y = norm_f(h_n),   logits = y·wteᵀ
//! ```
//!
//! Source: Radford et al., *Language Models are Unsupervised Multitask Learners* (GPT-2), 2019;
//! parameter names are those of the Hugging Face model.

use quant_kernels::{PackedTensor, QuantBackend};
use std::ops::Range;
use std::path::Path;

use burn::module::{Module, Param, ParamId};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use switchable_lora::{
    BasePolicy, LinearSettings, LoraConfig, PrecisionPlan, QuantizedCache, SitePrecision, SwitchableLinear,
};

use crate::attention::{AttentionMask, CausalSelfAttention};
use crate::block::Block;
use crate::error::at_site;
use crate::initial::InitialWeights;
use crate::kv_cache::KV_CACHE_SPEC;
use crate::mlp::Mlp;
use crate::packed::packed_logits;
use crate::parameters::{ParameterRef, norm_parameters};
use crate::sites::block_name;
use crate::weights::{Values, WeightSet, WeightSource, write_folder};
use crate::{BitWidth, Error, Gpt2Config, KvCache, Result, Site, SitePlan, SubModule};

/// How a model is built: what its linear sub-modules quantise and where quantised weights are kept.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Quantisers, placement and base policy of every site; the base policy holds for embeddings,
    /// normalisations and heads too.
    pub linear: LinearSettings,
    /// Shared by all sites; holds the quantised forms of a frozen base.
    pub cache: QuantizedCache,
    /// How random weights are drawn, where there are any.
    pub initial: InitialWeights,
}

/// A GPT-2 whose every linear sub-module runs at a precision chosen per call.
///
/// ```
/// use burn::backend::Flex;
/// use burn::tensor::{Int, Tensor};
/// use gpt2_model::{BitWidth, Gpt2, Gpt2Config, ModelOptions, SitePlan, SitePrecision};
///
/// let config = Gpt2Config::new(97, 64, 32, 3, 4);
/// let device = Default::default();
/// let model = Gpt2::<Flex>::random(&config, &ModelOptions::default(), 1, &device)?;
/// let ids = Tensor::<Flex, 2, Int>::from_ints([[5, 6, 7]], &device);
///
/// let eight = SitePrecision::uniform(BitWidth::new(8)?).without_adapter();
/// let hidden = model.forward(ids, None, &SitePlan::uniform(&config, eight));
/// assert_eq!(model.lm_logits(hidden).dims(), [1, 3, 97]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Module, Debug)]
pub struct Gpt2<B: Backend> {
    /// Token embedding, `[vocab_size, n_embd]`; also the output matrix.
    pub wte: Param<Tensor<B, 2>>,
    /// Position embedding, `[n_positions, n_embd]`.
    pub wpe: Param<Tensor<B, 2>>,
    /// The blocks.
    pub h: Vec<Block<B>>,
    /// Normalisation behind the last block.
    pub ln_f: LayerNorm<B>,
    /// A packed copy of `wteᵀ` that scores of the next token are computed from.
    #[module(skip)]
    pub(crate) packed_head: Option<PackedTensor>,
    #[module(skip)]
    config: Gpt2Config,
}

impl<B: QuantBackend> Gpt2<B> {
    /// A model with random weights, drawn as [`ModelOptions::initial`] says, biases zero.
    ///
    /// The numbers depend on the seed alone, not on the backend.
    ///
    /// # Errors
    ///
    /// When the configuration's numbers do not fit together.
    pub fn random(config: &Gpt2Config, options: &ModelOptions, seed: u64, device: &B::Device) -> Result<Self> {
        config.check(Path::new("<config>"))?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = |name: &str, shape: &[usize]| {
            let values = options.initial.values(&mut rng, config, name, shape);
            Ok(TensorData::new(values, shape.to_vec()))
        };
        build(config, options, device, &mut values)
    }

    /// Reads a Hugging Face folder: `config.json` and `model.safetensors`, or a sharded index.
    ///
    /// Weights may be f32, f16 or bf16 and may carry the prefix `transformer.` or not.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or the weights do not fit the configuration; the error
    /// names the file and the tensor or field.
    pub fn load(dir: impl AsRef<Path>, options: &ModelOptions, device: &B::Device) -> Result<Self> {
        let dir = dir.as_ref();
        let config = Gpt2Config::load(dir.join("config.json"))?;
        Self::from_weights(&config, &WeightSet::open(dir)?, options, device)
    }

    /// Reads weights from files that need not be in a folder, such as bytes in the program.
    ///
    /// # Errors
    ///
    /// As [`Gpt2::load`].
    pub fn from_sources(
        config: &Gpt2Config,
        sources: Vec<WeightSource>,
        options: &ModelOptions,
        device: &B::Device,
    ) -> Result<Self> {
        Self::from_weights(config, &WeightSet::new("<weights>", sources)?, options, device)
    }

    pub(crate) fn from_weights(
        config: &Gpt2Config,
        weights: &WeightSet,
        options: &ModelOptions,
        device: &B::Device,
    ) -> Result<Self> {
        weights.check_blocks(config)?;
        build(config, options, device, &mut |name: &str, shape: &[usize]| weights.data(name, shape))
    }

    /// The configuration.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// Final hidden states of a batch of sequences.
    ///
    /// `padding` is true at padding and may stand left or right of the tokens; positions count
    /// real tokens. A batch padded on the right needs none: no real token sees what follows it.
    ///
    /// # Shapes
    ///
    /// `ids`, `padding`: `[batch, tokens]`; `[batch, tokens, n_embd]` out.
    ///
    /// # Panics
    ///
    /// When there are more tokens than positions, or the plan is one that
    /// [`check_plan`](Self::check_plan) refuses.
    pub fn forward(
        &self,
        ids: Tensor<B, 2, Int>,
        padding: Option<&Tensor<B, 2, Bool>>,
        plan: &SitePlan,
    ) -> Tensor<B, 3> {
        let hidden = self.embed(ids, padding);
        let hidden = self.forward_blocks(0..self.h.len(), hidden, padding, plan);
        self.ln_f.forward(hidden)
    }

    /// Input of the first block.
    ///
    /// # Shapes
    ///
    /// As [`Gpt2::forward`].
    ///
    /// # Panics
    ///
    /// When there are more tokens than positions.
    pub fn embed(&self, ids: Tensor<B, 2, Int>, padding: Option<&Tensor<B, 2, Bool>>) -> Tensor<B, 3> {
        let [batch, tokens] = ids.dims();
        let positions = match padding {
            None => self.positions(0, tokens).unsqueeze::<3>(),
            Some(padding) => {
                let real = padding.clone().bool_not().int();
                let positions = (real.cumsum(1) - 1).clamp_min(0);
                self.rows(&self.wpe, positions, [batch, tokens])
            }
        };
        self.rows(&self.wte, ids, [batch, tokens]) + positions
    }

    /// Output of some consecutive blocks.
    ///
    /// With `first..n_layer` and the hidden states that entered block `first`, a search computes
    /// again only what its change touched.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, n_embd]`, the same out; `padding`: `[batch, tokens]`.
    ///
    /// # Panics
    ///
    /// When the range exceeds the blocks, or the plan is one that [`check_plan`](Self::check_plan)
    /// refuses.
    pub fn forward_blocks(
        &self,
        blocks: Range<usize>,
        hidden: Tensor<B, 3>,
        padding: Option<&Tensor<B, 2, Bool>>,
        plan: &SitePlan,
    ) -> Tensor<B, 3> {
        let mask = match padding {
            None => AttentionMask::Causal,
            Some(padding) => AttentionMask::causal_with_padding(padding),
        };
        blocks.fold(hidden, |hidden, i| self.h[i].forward(hidden, plan.block(i), plan.kv_cache(i), &mask, None))
    }

    /// Final hidden states from the hidden states that entered a block.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, n_embd]`, the same out, normalised.
    ///
    /// # Panics
    ///
    /// As [`Gpt2::forward_blocks`].
    pub fn forward_from(
        &self,
        block: usize,
        hidden: Tensor<B, 3>,
        padding: Option<&Tensor<B, 2, Bool>>,
        plan: &SitePlan,
    ) -> Tensor<B, 3> {
        self.ln_f.forward(self.forward_blocks(block..self.h.len(), hidden, padding, plan))
    }

    /// Final hidden states of tokens that follow those in the cache, which takes them up.
    ///
    /// # Shapes
    ///
    /// `ids`: `[batch, new]`; `[batch, new, n_embd]` out.
    ///
    /// # Panics
    ///
    /// When the cache has no room for the new tokens, or the plan is one that
    /// [`check_plan`](Self::check_plan) refuses.
    pub fn forward_cached(&self, ids: Tensor<B, 2, Int>, cache: &mut KvCache<B>, plan: &SitePlan) -> Tensor<B, 3> {
        let [batch, new] = ids.dims();
        let positions = self.positions(cache.len(), new).unsqueeze::<3>();
        let mut hidden = self.rows(&self.wte, ids, [batch, new]) + positions;
        for (i, block) in self.h.iter().enumerate() {
            let (precisions, kv_cache) = (plan.block(i), plan.kv_cache(i));
            hidden = block.forward(hidden, precisions, kv_cache, &AttentionMask::Causal, Some(cache.layer(i)));
        }
        cache.advance(new);
        self.ln_f.forward(hidden)
    }

    /// Scores of the next token: the hidden states times the tied token embedding.
    ///
    /// # Shapes
    ///
    /// `hidden`: `[batch, tokens, n_embd]`; `[batch, tokens, vocab_size]` out.
    pub fn lm_logits(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, tokens, d] = hidden.dims();
        let hidden = hidden.reshape([batch * tokens, d]);
        let logits = match &self.packed_head {
            Some(head) => packed_logits(hidden, head),
            None => hidden.matmul(self.wte.val().transpose()),
        };
        logits.reshape([batch, tokens, self.config.vocab_size])
    }

    /// Checks token ids before they reach an embedding look-up.
    ///
    /// # Errors
    ///
    /// When there are none, more than the model's positions, or one outside the vocabulary.
    pub fn check_ids(&self, ids: &[u32]) -> Result<()> {
        if ids.is_empty() || ids.len() > self.config.n_positions {
            return Err(Error::SequenceLength { got: ids.len(), n_positions: self.config.n_positions });
        }
        let vocab_size = self.config.vocab_size;
        match ids.iter().position(|&id| id as usize >= vocab_size) {
            Some(position) => Err(Error::TokenId { id: ids[position], position, vocab_size }),
            None => Ok(()),
        }
    }

    fn positions(&self, from: usize, tokens: usize) -> Tensor<B, 2> {
        let last = from + tokens;
        assert!(
            last <= self.config.n_positions,
            "{last} tokens exceed the model's {} positions",
            self.config.n_positions
        );
        self.wpe.val().slice([from..last, 0..self.config.n_embd])
    }

    fn rows(&self, table: &Param<Tensor<B, 2>>, ids: Tensor<B, 2, Int>, [batch, tokens]: [usize; 2]) -> Tensor<B, 3> {
        table.val().select(0, ids.reshape([batch * tokens])).reshape([batch, tokens, self.config.n_embd])
    }

    /// A plan that gives every site of this model the same precision.
    pub fn uniform_plan(&self, precision: SitePrecision) -> SitePlan {
        SitePlan::uniform(&self.config, precision)
    }

    /// A linear sub-module.
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn site(&self, site: Site) -> &SwitchableLinear<B> {
        self.h[site.block].site(site.module)
    }

    /// A linear sub-module, to be changed.
    ///
    /// # Panics
    ///
    /// When the model has no such block.
    pub fn site_mut(&mut self, site: Site) -> &mut SwitchableLinear<B> {
        self.h[site.block].site_mut(site.module)
    }

    /// The plan by position, its names and adapter widths checked against this model.
    ///
    /// # Errors
    ///
    /// When the plan names a site or a block that the model does not have, a width without an adapter
    /// or one that the quantiser cannot do; the error names the site or block.
    pub fn resolve(&self, plan: &PrecisionPlan) -> Result<SitePlan> {
        plan.validate(
            Site::all(&self.config).map(|site| (site.to_string(), self.site(site).bank().widths().to_vec())),
        )?;
        plan.validate_kv_cache((0..self.config.n_layer).map(block_name), KV_CACHE_SPEC)?;
        let plan = SitePlan::of_plan(&self.config, plan);
        for (site, precision) in plan.iter() {
            self.site(site).check(&precision).map_err(|e| at_site(site, e))?;
        }
        Ok(plan)
    }

    /// Checks that every adapter a plan asks for is there.
    ///
    /// # Errors
    ///
    /// When one is missing, or a width does not fit the quantiser, which names the site or block; or
    /// when the plan is one of another number of blocks.
    pub fn check_plan(&self, plan: &SitePlan) -> Result<()> {
        if plan.blocks() != self.config.n_layer {
            return Err(Error::PlanBlocks { got: plan.blocks(), n_layer: self.config.n_layer });
        }
        self.resolve(&plan.to_precision_plan()).map(|_| ())
    }

    /// Gives every site an adapter for a width, replacing one that is there.
    ///
    /// # Errors
    ///
    /// When the adapter's rank does not fit a site.
    pub fn init_adapters(&mut self, width: BitWidth, lora: &LoraConfig, seed: u64) -> Result<()> {
        self.init_each(seed, |linear, seed| linear.init_adapter(width, lora, seed))
    }

    /// Gives every site an adapter with a learned step for a width, replacing one that is there; see
    /// [`SwitchableLinear::init_adapter_with_step`].
    ///
    /// # Errors
    ///
    /// When a weight cannot be quantised by a learned step at that width, which names the site: because
    /// it is full precision, or the weight's quantiser is asymmetric or per token, or the weight is only
    /// there packed.
    pub fn init_adapters_with_steps(&mut self, width: BitWidth, lora: &LoraConfig, seed: u64) -> Result<()> {
        self.init_each(seed, |linear, seed| linear.init_adapter_with_step(width, lora, seed))
    }

    /// Changes every site, each with a seed of its own.
    fn init_each(
        &mut self,
        seed: u64,
        mut init: impl FnMut(&mut SwitchableLinear<B>, u64) -> switchable_lora::Result<()>,
    ) -> Result<()> {
        for (index, site) in Site::all(&self.config).enumerate() {
            let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64);
            init(self.site_mut(site), seed).map_err(|e| at_site(site, e))?;
        }
        Ok(())
    }

    /// The model with other settings at every site; their base policy holds for embeddings and
    /// normalisations too.
    pub fn with_linear_settings(mut self, settings: LinearSettings) -> Self {
        for site in Site::all(&self.config.clone()) {
            let linear = self.site_mut(site);
            *linear = linear.clone().with_settings(settings);
        }
        let train = settings.base == BasePolicy::Trainable;
        self.wte = self.wte.set_require_grad(train);
        self.wpe = self.wpe.set_require_grad(train);
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

    /// Every parameter of the base with its Hugging Face name, in the order of the forward pass.
    ///
    /// Adapters are not among them: they are saved one folder per width. Neither are weights that are
    /// only there packed.
    pub fn named_parameters(&self) -> Vec<(String, ParameterRef<'_, B>)> {
        let mut list = vec![
            ("transformer.wte.weight".to_string(), ParameterRef::Matrix(&self.wte)),
            ("transformer.wpe.weight".to_string(), ParameterRef::Matrix(&self.wpe)),
        ];
        for (i, block) in self.h.iter().enumerate() {
            let prefix = format!("transformer.h.{i}");
            let linear = |module: SubModule| {
                let linear = block.site(module);
                let name = |part| format!("{prefix}.{module}.{part}");
                let weight = linear.weight_param().map(|weight| (name("weight"), ParameterRef::Matrix(weight)));
                let bias = linear.bias_param().map(|bias| (name("bias"), ParameterRef::Vector(bias)));
                weight.into_iter().chain(bias)
            };
            list.extend(norm_parameters(&format!("{prefix}.ln_1"), &block.ln_1));
            list.extend(linear(SubModule::AttnCAttn));
            list.extend(linear(SubModule::AttnCProj));
            list.extend(norm_parameters(&format!("{prefix}.ln_2"), &block.ln_2));
            list.extend(linear(SubModule::MlpCFc));
            list.extend(linear(SubModule::MlpCProj));
        }
        list.extend(norm_parameters("transformer.ln_f", &self.ln_f));
        list
    }

    /// Writes `config.json` and `model.safetensors`, as `GPT2LMHeadModel` loads them.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written; nothing partial is left behind.
    pub fn export(&self, dir: impl AsRef<Path>) -> Result<()> {
        export(dir.as_ref(), self, "GPT2LMHeadModel", &self.named_parameters())
    }
}

/// Weights that are only there packed are written as what their codes stand for.
pub(crate) fn export<B: QuantBackend>(
    dir: &Path,
    model: &Gpt2<B>,
    architecture: &str,
    parameters: &[(String, ParameterRef<'_, B>)],
) -> Result<()> {
    let mut tensors: Vec<_> =
        parameters.iter().map(|(name, parameter)| (name.clone(), parameter.shape(), parameter.values())).collect();
    tensors.extend(Site::all(&model.config).filter_map(|site| {
        let weights = model.site(site).packed_weights()?.stored();
        Some((format!("transformer.{site}.weight"), weights.shape().to_vec(), weights.dequantize()))
    }));
    write_folder(dir, &tensors, &model.config.to_json(architecture))
}

/// Builds a model from a source of values by Hugging Face name and shape.
pub(crate) fn build<B: QuantBackend>(
    config: &Gpt2Config,
    options: &ModelOptions,
    device: &B::Device,
    values: &mut dyn Values,
) -> Result<Gpt2<B>> {
    let d = config.n_embd;
    let train = options.linear.base == BasePolicy::Trainable;
    let mut table = |name: &str, rows: usize| -> Result<_> {
        let data = values.data(&format!("transformer.{name}.weight"), &[rows, d])?;
        Ok(Param::initialized(ParamId::new(), Tensor::from_data(data, device)).set_require_grad(train))
    };
    let wte = table("wte", config.vocab_size)?;
    let wpe = table("wpe", config.n_positions)?;
    let norm = |values: &mut dyn Values, name: &str| -> Result<LayerNorm<B>> {
        let mut norm = LayerNormConfig::new(d).with_epsilon(config.layer_norm_epsilon).init(device);
        let mut vector = |part: &str| -> Result<_> {
            let data = values.data(&format!("transformer.{name}.{part}"), &[d])?;
            Ok(Param::initialized(ParamId::new(), Tensor::from_data(data, device)).set_require_grad(train))
        };
        norm.gamma = vector("weight")?;
        norm.beta = Some(vector("bias")?);
        Ok(norm)
    };
    let linear = |values: &mut dyn Values, block: usize, module: SubModule| {
        let shape = module.weight_shape(config);
        let name = format!("transformer.{}", Site { block, module });
        let weight_name = format!("{name}.weight");
        let bias = |values: &mut dyn Values| -> Result<_> {
            Ok(Some(Tensor::from_data(values.data(&format!("{name}.bias"), &shape[1..])?, device)))
        };
        if let Some(weights) = values.packed(&weight_name, shape)? {
            let bias = bias(values)?;
            return Ok(SwitchableLinear::from_packed(weights, bias, options.linear, &options.cache, device));
        }
        let weight = Tensor::from_data(values.data(&weight_name, &shape)?, device);
        let bias = bias(values)?;
        Ok::<_, Error>(SwitchableLinear::new(weight, bias, options.linear, &options.cache))
    };
    // No capacity: a config may lie about its blocks, and only their tensors prove it wrong.
    let mut h = Vec::new();
    for i in 0..config.n_layer {
        let ln_1 = norm(values, &format!("h.{i}.ln_1"))?;
        let c_attn = linear(values, i, SubModule::AttnCAttn)?;
        let c_proj = linear(values, i, SubModule::AttnCProj)?;
        let ln_2 = norm(values, &format!("h.{i}.ln_2"))?;
        let c_fc = linear(values, i, SubModule::MlpCFc)?;
        let mlp_c_proj = linear(values, i, SubModule::MlpCProj)?;
        h.push(Block {
            ln_1,
            attn: CausalSelfAttention::new(c_attn, c_proj, config.n_head, score_scale(config, i)),
            ln_2,
            mlp: Mlp::new(c_fc, mlp_c_proj, config.activation),
        });
    }
    let ln_f = norm(values, "ln_f")?;
    Ok(Gpt2 { wte, wpe, h, ln_f, packed_head: None, config: config.clone() })
}

fn score_scale(config: &Gpt2Config, block: usize) -> f64 {
    let width = if config.scale_attn_weights { (config.head_width() as f64).sqrt() } else { 1.0 };
    let depth = if config.scale_attn_by_inverse_layer_idx { (block + 1) as f64 } else { 1.0 };
    1.0 / (width * depth)
}
