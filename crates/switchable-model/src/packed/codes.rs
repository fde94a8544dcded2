//! The codes that a model's sites are packed as, embeddings among them.

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    packed::{nested::NestedTensor, packed_tensor::PackedTensor},
    spec::{bit_width::BitWidth, formats::format::Format},
    tensor::rounding::Rounding,
};
use switchable_lora::{
    packed_weights::PackedWeights, placement::Placement, site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use super::form::{PackOptions, PackedForm};
use crate::error::{Result, at_site};
use crate::model::SwitchableModel;
use crate::site_plan::SitePlan;
use crate::sites::Site;

/// The plan that a packed model runs at.
pub(crate) fn packed_plan<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    form: PackedForm<'_>,
    options: PackOptions,
) -> Result<SitePlan> {
    let plan = match form {
        PackedForm::Plan(plan) => plan.clone(),
        PackedForm::Nested => model.uniform_plan(SitePrecision::uniform(BitWidth::B8).without_adapter()),
    };
    let plan = match options.embeddings {
        Some(bits) => model.with_embedding_bits(plan, bits),
        None => plan,
    };
    if let PackedForm::Plan(_) = form {
        model.check_plan(&plan)?;
    }
    Ok(plan)
}

/// The model with the adapters that a plan names merged into the weights of their sites, where that is how
/// the sites place them, and the plan without those; `None` where there is nothing to merge.
///
/// Codes have nothing but a weight, so whatever a merged layer multiplies by has to be one before it is
/// packed.
///
/// # Errors
///
/// When an adapter is missing or has a learned step, which names the site; when nested codes, which serve
/// several widths, would have to take the adapters of all of them.
pub(crate) fn merged<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    form: PackedForm<'_>,
) -> Result<Option<(M, SitePlan)>> {
    let sites = model.sites();
    let is_merged = |site: Site, precision: SitePrecision| {
        let layer = model.site(site);
        layer.quantisation(&precision).placement == Placement::Merged && !layer.bank().is_empty()
    };
    let PackedForm::Plan(plan) = form else {
        return match sites.iter().find(|&site| is_merged(site, SitePrecision::FULL)) {
            Some(site) => {
                let error = switchable_lora::Error::MergedCodes { what: "nested codes" };
                Err(at_site(sites.name(site), error).into())
            }
            None => Ok(None),
        };
    };
    if !plan.iter().any(|(site, precision)| is_merged(site, precision)) {
        return Ok(None);
    }
    let (mut merged, mut bare) = (model.clone(), plan.clone());
    for (site, precision) in plan.iter().filter(|&(site, precision)| is_merged(site, precision)) {
        let layer = model.site(site);
        *merged.site_mut(site) = match precision.adapter {
            Some(width) => layer.merged_with(width).map_err(|error| at_site(sites.name(site), error))?,
            None => without_adapters(layer.clone()),
        };
        bare = bare.with(site, precision.without_adapter());
    }
    Ok(Some((merged, bare)))
}

/// A layer without its adapters.
fn without_adapters<B: QuantBackend>(mut layer: SwitchableLinear<B>) -> SwitchableLinear<B> {
    for width in layer.bank().widths().to_vec() {
        layer.remove_adapter(width);
    }
    layer
}

/// The codes of every site that does not stay in f32, in the order of the sites.
pub(crate) fn packed_sites<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    form: PackedForm<'_>,
    options: PackOptions,
) -> Result<Vec<(Site, PackedTensor)>> {
    let mut packed = Vec::new();
    for site in model.sites().iter() {
        if let Some(tensor) = pack_site(model, site, form, options)? {
            packed.push((site, tensor));
        }
    }
    Ok(packed)
}

/// Codes as a layer holds them.
pub(crate) fn as_weights(tensor: PackedTensor, form: PackedForm<'_>) -> Result<PackedWeights> {
    Ok(match form {
        PackedForm::Plan(_) => PackedWeights::Fixed(tensor),
        PackedForm::Nested => PackedWeights::Nested(NestedTensor::new(tensor)?),
    })
}

/// Codes of an embedding as the model holds them: those of 8 bits in a model of nested codes serve the lower
/// widths too.
pub(crate) fn as_embedding(tensor: PackedTensor, nested: bool) -> Result<PackedWeights> {
    let serves_several = nested && tensor.bits() == BitWidth::B8 && tensor.format() == Format::Symmetric;
    Ok(if serves_several { PackedWeights::Nested(NestedTensor::new(tensor)?) } else { PackedWeights::Fixed(tensor) })
}

/// The codes of every embedding and output matrix that does not stay in f32 under a plan.
pub(crate) fn packed_embeddings<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    plan: &SitePlan,
    options: PackOptions,
) -> Result<Vec<(Site, PackedTensor)>> {
    let packed = plan.embeddings().filter(|(_, precision)| precision.weights <= BitWidth::B8);
    let pack = |(site, precision): (Site, SitePrecision)| {
        let codes = model.embedding_site(site).pack(&precision, options.scale_format);
        Ok((site, codes.map_err(|error| at_site(model.sites().name(site), error))?))
    };
    packed.map(pack).collect()
}

/// The codes of a site; `None` where it stays in f32.
fn pack_site<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    site: Site,
    form: PackedForm<'_>,
    options: PackOptions,
) -> Result<Option<PackedTensor>> {
    let (layer, named) = (model.site(site), |error| at_site(model.sites().name(site), error));
    let precision = match form {
        PackedForm::Plan(plan) => plan.get(site),
        PackedForm::Nested => {
            check_nested(layer).map_err(named)?;
            SitePrecision::uniform(BitWidth::B8).without_adapter()
        }
    };
    let bits = precision.weights;
    if bits > BitWidth::B8 {
        return Ok(None);
    }
    // Codes that are there already are taken as they are, or cut to fewer bits; others cannot be made of them.
    match (layer.packed_weights(), form) {
        (Some(PackedWeights::Fixed(tensor)), _) if tensor.bits() == bits => return Ok(Some(tensor.clone())),
        (Some(PackedWeights::Nested(codes)), PackedForm::Nested) => return Ok(Some(codes.tensor().clone())),
        (Some(PackedWeights::Nested(codes)), PackedForm::Plan(_)) => {
            return Ok(Some(codes.slice_to(bits).map_err(|error| named(error.into()))?));
        }
        _ => layer.check(&precision).map_err(named)?,
    }
    let quantisation = layer.quantisation(&precision);
    let rounding = match layer.learned_step(&precision) {
        Some(step) => Rounding::Step(step),
        None => Rounding::Nearest { bits, spec: quantisation.weight },
    };
    let packed = rounding.pack(&layer.weight(), options.scale_format);
    Ok(Some(packed.map_err(|error| named(error.into()))?))
}

/// Nested codes have the scales of one quantisation to 8 bits: an adapter's learned step cannot be one of
/// them.
fn check_nested<B: QuantBackend>(layer: &SwitchableLinear<B>) -> switchable_lora::Result<()> {
    let mut widths = layer.bank().iter().filter(|(_, pair)| pair.step().is_some()).map(|(width, _)| width);
    match widths.find(|&width| width <= BitWidth::B8) {
        Some(bits) => {
            Err(switchable_lora::Error::PackedStep { bits, expected: "codes of that width alone, packed by a plan" })
        }
        None => Ok(()),
    }
}
