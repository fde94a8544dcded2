//! The parameters of a model from a source of values.

use std::fmt;

use burn::module::{Param, ParamId};
use burn::tensor::{Tensor, TensorData, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::{
    linear_settings::BasePolicy, switchable_embedding::SwitchableEmbedding, switchable_linear::SwitchableLinear,
};

use super::values::Values;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::folder_names::{OUTPUT_MATRIX, SPAN_HEAD};
use crate::options::ModelOptions;
use crate::output_matrix::OutputMatrix;
use crate::parameters::WeightLayout;
use crate::sites::{Site, Sites};

/// Makes the parameters of one model, under their Hugging Face names, each checked against the shape
/// that the configuration gives it.
pub struct ModelBuilder<'a, B: Backend> {
    values: &'a mut dyn Values,
    options: &'a ModelOptions,
    device: &'a B::Device,
    body: &'static str,
    layout: WeightLayout,
    sites: Sites,
}

impl<'a, B: QuantBackend> ModelBuilder<'a, B> {
    pub(crate) fn new<C: ModelConfig>(
        config: &C,
        options: &'a ModelOptions,
        device: &'a B::Device,
        values: &'a mut dyn Values,
    ) -> Self {
        Self { values, options, device, body: C::BODY, layout: C::LAYOUT, sites: config.sites() }
    }

    /// Where the parameters are.
    pub fn device(&self) -> &B::Device {
        self.device
    }

    /// The sites of the model.
    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    /// Whether the source has a parameter of a name; a source of random values has any.
    pub fn contains(&self, name: &str) -> bool {
        self.values.contains(name)
    }

    /// A parameter of one dimension, such as the gain of a normalisation, by its whole name.
    ///
    /// # Errors
    ///
    /// When the source has none of this name and length, or its values are not finite.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Param<Tensor<B, 1>>> {
        let data = self.values.data(name, &[len])?;
        Ok(self.parameter(data))
    }

    /// An embedding of tokens or positions, or an output matrix, by its whole name: `shape` is `[rows, width]`.
    ///
    /// # Errors
    ///
    /// When the source has none of this name and shape, or its values are not finite.
    pub fn embedding(&mut self, name: &str, shape: [usize; 2]) -> Result<SwitchableEmbedding<B>> {
        let [rows, width] = shape;
        if let Some(codes) = self.values.packed(name, [width, rows])? {
            return Ok(SwitchableEmbedding::from_packed(codes, &self.options.cache, self.device));
        }
        let data = self.values.data(name, &shape)?;
        Ok(self.own_embedding(data))
    }

    fn own_embedding(&self, data: TensorData) -> SwitchableEmbedding<B> {
        let embedding = SwitchableEmbedding::of_param(self.parameter(data), &self.options.cache);
        embedding.with_execution(self.options.linear.execution)
    }

    /// The output matrix of a model with this token embedding: one of its own, or the embedding where the
    /// configuration says that they are tied. Files that say so and yet hold an output matrix of other
    /// numbers keep it, as `transformers` does; those with a span head need none.
    ///
    /// # Errors
    ///
    /// When it is not tied and the source has none, or it has another shape than the embedding or values
    /// that are not finite.
    pub fn output(&mut self, embedding: &SwitchableEmbedding<B>, is_tied: bool) -> Result<OutputMatrix<B>> {
        let shape = embedding.shape();
        if !is_tied {
            // A folder with a span head has no output matrix: the embedding takes its place.
            let is_span = !self.contains(OUTPUT_MATRIX) && self.contains(SPAN_HEAD);
            return if is_span {
                Ok(OutputMatrix::Tied)
            } else {
                Ok(OutputMatrix::Own(self.embedding(OUTPUT_MATRIX, shape)?))
            };
        }
        let [vocabulary, width] = shape;
        if let Some(codes) = self.values.packed(OUTPUT_MATRIX, [width, vocabulary])? {
            // A copy of the embedding in codes, beside it in floats.
            let own = SwitchableEmbedding::from_packed(codes, &self.options.cache, self.device);
            return Ok(OutputMatrix::Own(own));
        }
        if !self.values.contradicts_tie(OUTPUT_MATRIX) {
            return Ok(OutputMatrix::Tied);
        }
        let data = self.values.data(OUTPUT_MATRIX, &shape)?;
        let is_same = data.iter::<f32>().eq(embedding.weight().into_data().iter::<f32>());
        Ok(if is_same { OutputMatrix::Tied } else { OutputMatrix::Own(self.own_embedding(data)) })
    }

    /// A site without a bias.
    ///
    /// # Errors
    ///
    /// When the source has no weight of its name and shape, or its values are not finite.
    pub fn linear(&mut self, site: Site) -> Result<SwitchableLinear<B>> {
        self.layer(site, None)
    }

    /// A site with a bias.
    ///
    /// # Errors
    ///
    /// When the source has no weight or bias of its name and shape, or their values are not finite.
    pub fn linear_with_bias(&mut self, site: Site) -> Result<SwitchableLinear<B>> {
        let [_, d_out] = self.sites.shape(site);
        self.layer(site, Some(d_out))
    }

    /// The weight is read before the bias: random values are drawn in this order.
    fn layer(&mut self, site: Site, bias: Option<usize>) -> Result<SwitchableLinear<B>> {
        let (shape, name) = (self.sites.shape(site), format!("{}{}", self.body, self.sites.name(site)));
        let weight_name = format!("{name}.weight");
        if let Some(weights) = self.values.packed(&weight_name, shape)? {
            let (bias, options) = (self.bias(&name, bias)?, self.options);
            return Ok(SwitchableLinear::from_packed(weights, bias, options.linear, &options.cache, self.device));
        }
        let data = self.values.data(&weight_name, &self.layout.in_file(shape))?;
        let data = match self.layout {
            WeightLayout::InOut => data,
            WeightLayout::OutIn => {
                let values = data.into_vec().expect("sources give f32");
                TensorData::new(self.layout.from_file(values, shape), shape)
            }
        };
        let weight = Tensor::from_data(data, self.device);
        let bias = self.bias(&name, bias)?;
        Ok(SwitchableLinear::new(weight, bias, self.options.linear, &self.options.cache))
    }

    fn bias(&mut self, name: &str, len: Option<usize>) -> Result<Option<Tensor<B, 1>>> {
        let bias = |len| Ok(Tensor::from_data(self.values.data(&format!("{name}.bias"), &[len])?, self.device));
        len.map(bias).transpose()
    }

    fn parameter<const D: usize>(&self, data: TensorData) -> Param<Tensor<B, D>> {
        let train = self.options.linear.base == BasePolicy::Trainable;
        Param::initialized(ParamId::new(), Tensor::from_data(data, self.device)).set_require_grad(train)
    }
}

impl<B: Backend> fmt::Debug for ModelBuilder<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelBuilder")
            .field("options", self.options)
            .field("device", self.device)
            .finish_non_exhaustive()
    }
}
