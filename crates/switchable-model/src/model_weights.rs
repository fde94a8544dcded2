//! A model from random weights, from a Hugging Face folder, and back to one.

use std::path::Path;

use burn::tensor::TensorData;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use quant_kernels::backends::quant_backend::QuantBackend;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::model::SwitchableModel;
use crate::options::ModelOptions;
use crate::packed::folder::tensor_name;
use crate::parameters::{ParameterRef, transposed};
use crate::weights::builder::ModelBuilder;
use crate::weights::export::write_folder;
use crate::weights::opening::open_model;
use crate::weights::source::WeightSource;
use crate::weights::tensors::WeightSet;

/// A model from random weights, from a Hugging Face folder, and back to one.
///
/// It is implemented for every model.
pub trait ModelWeights<B: QuantBackend>: SwitchableModel<B> {
    /// A model with random weights, drawn as [`ModelOptions::initial`] says, biases zero.
    ///
    /// The numbers depend on the seed alone, not on the backend.
    ///
    /// # Errors
    ///
    /// When the configuration's numbers do not fit together.
    fn random(config: &Self::Config, options: &ModelOptions, seed: u64, device: &B::Device) -> Result<Self> {
        config.check(Path::new("<config>"))?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = |name: &str, shape: &[usize]| {
            let values = config.initial_values(options.initial, &mut rng, name, shape)?;
            Ok(TensorData::new(values, shape.to_vec()))
        };
        Self::build(config, &mut ModelBuilder::new(config, options, device, &mut values))
    }

    /// Reads a Hugging Face folder: `config.json` and `model.safetensors`, or a sharded index; or a
    /// [GGUF file](crate::gguf).
    ///
    /// Weights may be f32, f16 or bf16 and may carry the prefix of the body, such as `transformer.`, or
    /// not, and before all names `module.`, which torch puts there.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or the weights do not fit the configuration; the error
    /// names the file and the tensor or field.
    fn load(dir: impl AsRef<Path>, options: &ModelOptions, device: &B::Device) -> Result<Self> {
        let (config, weights) = open_model::<Self::Config>(dir.as_ref())?;
        from_weights(&config, &weights, options, device)
    }

    /// Reads weights from files that need not be in a folder, such as bytes in the program.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    fn from_sources(
        config: &Self::Config,
        sources: Vec<WeightSource>,
        options: &ModelOptions,
        device: &B::Device,
    ) -> Result<Self> {
        from_weights(config, &WeightSet::new::<Self::Config>("<weights>", sources)?, options, device)
    }

    /// Writes `config.json` and `model.safetensors`, as the family's language model loads them.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written; nothing partial is left behind.
    fn export(&self, dir: impl AsRef<Path>) -> Result<()> {
        let config = self.config().to_json(Self::Config::LANGUAGE_MODEL);
        write_folder(dir.as_ref(), &all_values(self, self.named_parameters()), &config)
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> ModelWeights<B> for M {}

pub(crate) fn from_weights<B: QuantBackend, M: SwitchableModel<B>>(
    config: &M::Config,
    mut weights: &WeightSet,
    options: &ModelOptions,
    device: &B::Device,
) -> Result<M> {
    weights.check_blocks(config)?;
    let model = M::build(config, &mut ModelBuilder::new(config, options, device, &mut weights))?;
    weights.check_names::<M::Config>(model.named_parameters().into_iter().map(|(name, _)| name))?;
    Ok(model)
}

/// Names, shapes and values of all parameters as files have them. Weights that are only there packed
/// are what their codes stand for.
pub(crate) fn all_values<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    parameters: Vec<(String, ParameterRef<'_, B>)>,
) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut tensors: Vec<_> =
        parameters.into_iter().map(|(name, parameter)| (name, parameter.shape(), parameter.values())).collect();
    let layout = M::Config::LAYOUT;
    tensors.extend(model.sites().iter().filter_map(|site| {
        let weights = model.site(site).packed_weights()?.stored();
        let name = format!("{}{}.weight", M::Config::BODY, model.sites().name(site));
        let shape = weights.shape();
        Some((name, layout.in_file(shape).to_vec(), layout.to_file(weights.dequantize(), shape)))
    }));
    tensors.extend(model.sites().embeddings().filter_map(|site| {
        let codes = model.embedding_site(site).packed_weights()?.stored();
        let [width, rows] = codes.shape();
        let name = tensor_name::<M::Config>(model.sites(), site);
        Some((name, vec![rows, width], transposed(&codes.dequantize(), [width, rows])))
    }));
    tensors
}
