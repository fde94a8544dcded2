//! What each precision of a site changes in the weight that multiplies its input.

use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;

use crate::error::{Error, Result};

/// The changes of one site.
#[derive(Debug)]
pub(super) struct WeightChanges<B: Backend> {
    pub(super) site: Site,
    /// Position of each row among the choices; choices that the reference has are in none.
    changed: Vec<usize>,
    /// Number of choices.
    choices: usize,
    /// `[changed, weights of the site]`; `None` where no choice differs from the reference.
    rows: Option<Tensor<B, 2>>,
}

impl<B: QuantBackend> WeightChanges<B> {
    /// # Errors
    ///
    /// When the site cannot run at a choice, its weight is only there packed, or a choice rounds activations
    /// otherwise than the reference.
    pub(super) fn new<M: SwitchableModel<B>>(
        model: &M,
        reference: &SitePlan,
        site: Site,
        choices: &[SitePrecision],
    ) -> Result<Self> {
        check_floats(model, site)?;
        let unchanged = reference.get(site);
        let before = effective_weight(model, site, &unchanged)?;
        let (mut changed, mut rows) = (Vec::new(), Vec::new());
        for (i, choice) in choices.iter().enumerate().filter(|(_, choice)| **choice != unchanged) {
            if choice.activations != unchanged.activations {
                let got = format!("activations at {} bits", choice.activations);
                let expected =
                    format!("those of the reference, {} bits: estimates are of weights", unchanged.activations);
                return Err(Error::option("choices", got, expected));
            }
            let change = effective_weight(model, site, choice)? - before.clone();
            let weights = change.shape().num_elements();
            rows.push(change.reshape([1, weights]));
            changed.push(i);
        }
        let rows = (!rows.is_empty()).then(|| Tensor::cat(rows, 0));
        Ok(Self { site, changed, choices: choices.len(), rows })
    }

    /// Inner products of a gradient with the change of every choice, 0 for those that change nothing.
    ///
    /// # Shapes
    ///
    /// `gradient`: that of the weight.
    pub(super) fn products(&self, gradient: Tensor<B, 2>) -> Vec<f64> {
        let mut products = vec![0.0; self.choices];
        let Some(rows) = &self.rows else { return products };
        let weights = gradient.shape().num_elements();
        let found = rows.clone().matmul(gradient.reshape([weights, 1])).into_data();
        for (choice, product) in self.changed.iter().zip(found.iter::<f64>()) {
            products[*choice] = product;
        }
        products
    }

    /// Number of choices.
    pub(super) fn choices(&self) -> usize {
        self.choices
    }
}

pub(super) fn check_floats<B: QuantBackend, M: SwitchableModel<B>>(model: &M, site: Site) -> Result<()> {
    let is_packed = match site.block {
        Some(_) => model.site(site).packed_weights().is_some(),
        None => model.embedding_site(site).packed_weights().is_some(),
    };
    let expected = "weights in floats, which estimates take gradients of";
    if is_packed {
        Err(Error::option("weights", format!("codes of {}", model.sites().name(site)), expected))
    } else {
        Ok(())
    }
}

/// What multiplies the input of a site, or the rows that an embedding looks up.
pub(super) fn effective_weight<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    site: Site,
    precision: &SitePrecision,
) -> Result<Tensor<B, 2>> {
    if site.block.is_some() {
        return Ok(model.site(site).effective_weight(precision)?);
    }
    let embedding = model.embedding_site(site);
    embedding.check(precision)?;
    let [rows, _] = embedding.shape();
    Ok(embedding.range(0, rows, precision))
}
