//! Factors become part of a model.

use std::collections::HashMap;

use burn::module::{ModuleMapper, Param, ParamId};
use burn::tensor::{Tensor, TensorData};

use quant_kernels::backends::quant_backend::QuantBackend;

use super::pair::{FoldablePair, Producer};
use crate::config::ModelConfig as _;
use crate::error::{Error, Result, at_site};
use crate::model::SwitchableModel;
use crate::parameters::ParameterRef;
use crate::sites::{Site, sub_module::SubModule};

/// A pair of a block with its factors.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaledPair {
    /// The block.
    pub block: usize,
    /// The pair.
    pub pair: FoldablePair,
    /// What the producer is divided by and the rows of the consumers are multiplied by, `[pair.factors]`.
    pub factors: Vec<f32>,
}

impl ScaledPair {
    /// The sites that read what the producer gives.
    pub fn consumers(&self) -> impl Iterator<Item = Site> {
        let block = self.block;
        self.pair.consumers.iter().map(move |&module| Site::in_block(block, module))
    }
}

/// A model that factors fold into. It is implemented for every model; which pairs it has is said by its family.
pub trait FoldScaling<B: QuantBackend>: SwitchableModel<B> {
    /// The pair whose factors fold into the inputs of a site.
    ///
    /// # Errors
    ///
    /// [`Error::NotFoldable`], which names the site, where there is none: what stands between it and the matrix before
    /// is not linear, as the activation of GPT-2's MLP is not.
    fn foldable_pair(&self, site: Site) -> Result<FoldablePair> {
        let pairs = self.config().foldable_pairs();
        let found = site.block.and_then(|_| pairs.iter().find(|pair| pair.consumers.contains(&site.module)));
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = pairs.iter().flat_map(|pair| pair.consumers).map(SubModule::name).collect();
            let foldable = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Error::NotFoldable { site: self.sites().name(site), foldable }
        })
    }

    /// The model with factors folded in: the same function at full precision. Adapters stay what they are of that
    /// function, and what is known of inputs is divided with them.
    ///
    /// # Errors
    ///
    /// [`Error::NotFoldable`] for a pair that is none of the model's, [`Error::FactorCount`] and [`Error::Factor`] for
    /// factors that do not fit, and an error that names the site where a weight is only there packed or an adapter has
    /// a learned step. All of it is checked before anything is changed.
    fn folded(self, scaled: &[ScaledPair]) -> Result<Self> {
        for pair in scaled {
            check(&self, pair)?;
        }
        let mut norms = HashMap::new();
        for pair in scaled {
            divide_norm(&self, pair, &mut norms);
        }
        let mut model = if norms.is_empty() { self } else { self.map(&mut Divide(norms)) };
        for pair in scaled {
            fold_matrices(&mut model, pair)?;
        }
        Ok(model)
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> FoldScaling<B> for M {}

/// Checks a pair against a model.
fn check<B: QuantBackend, M: SwitchableModel<B>>(model: &M, scaled: &ScaledPair) -> Result<()> {
    let sites = model.sites();
    let first = scaled.consumers().next();
    let name = |site: Site| sites.name(site);
    let is_there = scaled.block < sites.blocks() && model.config().foldable_pairs().contains(&scaled.pair);
    let Some(reader) = first.filter(|_| is_there) else {
        let site = first.map(name).unwrap_or_default();
        return Err(Error::NotFoldable { site, foldable: format!("the pairs of the {} blocks", sites.blocks()) });
    };
    let (got, expected) = (scaled.factors.len(), scaled.pair.factors);
    if got != expected {
        return Err(Error::FactorCount { site: name(reader), got, expected });
    }
    if let Some(index) = scaled.factors.iter().position(|factor| !(factor.is_finite() && *factor > 0.0)) {
        return Err(Error::Factor { site: name(reader), index, got: scaled.factors[index] });
    }
    let producer = match scaled.pair.producer {
        Producer::Outputs { module, .. } => Some(Site::in_block(scaled.block, module)),
        Producer::Normalisation(_) => None,
    };
    for site in scaled.consumers().chain(producer) {
        model.site(site).check_scaling().map_err(|error| at_site(name(site), error))?;
    }
    Ok(())
}

/// Adds the factors of a normalisation to those that vectors are divided by.
fn divide_norm<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    scaled: &ScaledPair,
    norms: &mut HashMap<ParamId, Vec<f32>>,
) {
    let Producer::Normalisation(norm) = scaled.pair.producer else { return };
    let prefix = format!("{}{}.{norm}.", M::Config::BODY, model.sites().block_name(scaled.block));
    for (_, parameter) in model.named_parameters().iter().filter(|(name, _)| name.starts_with(&prefix)) {
        if let ParameterRef::Vector(vector) = parameter {
            let divisors = norms.entry(vector.id).or_insert_with(|| vec![1.0; scaled.factors.len()]);
            divisors.iter_mut().zip(&scaled.factors).for_each(|(divisor, factor)| *divisor *= factor);
        }
    }
}

/// Folds the factors of a pair into its matrices.
fn fold_matrices<B: QuantBackend, M: SwitchableModel<B>>(model: &mut M, scaled: &ScaledPair) -> Result<()> {
    let sites = model.sites().clone();
    if let Producer::Outputs { module, first } = scaled.pair.producer {
        let site = Site::in_block(scaled.block, module);
        let layer = model.site_mut(site);
        let mut factors = vec![1.0; layer.d_out()];
        factors[first..first + scaled.factors.len()].copy_from_slice(&scaled.factors);
        *layer = layer.clone().with_divided_outputs(&factors).map_err(|error| at_site(sites.name(site), error))?;
    }
    let factors = scaled.pair.of_inputs(&scaled.factors);
    for site in scaled.consumers() {
        let layer = model.site_mut(site);
        *layer = layer.clone().for_divided_inputs(&factors).map_err(|error| at_site(sites.name(site), error))?;
    }
    Ok(())
}

/// Divides vectors by their identifiers.
struct Divide(HashMap<ParamId, Vec<f32>>);

impl<B: QuantBackend> ModuleMapper<B> for Divide {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(factors) = self.0.remove(&param.id) else { return param };
        param.map(|values| {
            let (is_trained, dims) = (values.is_require_grad(), values.dims());
            let factors = Tensor::from_data(TensorData::new(factors, dims), &values.device());
            (values.set_require_grad(false) / factors).set_require_grad(is_trained)
        })
    }
}
