//! The codes that a model's sites are packed as, embeddings among them.

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    packed::{nested::NestedTensor, packed_tensor::PackedTensor},
    spec::{bit_width::BitWidth, formats::format::Format},
};
use switchable_lora::{
    packed_weights::PackedWeights, placement::Placement, site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use super::form::{PackOptions, PackedForm, WidthScales};
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
        PackedForm::Nested => {
            let plan = model.uniform_plan(NESTED);
            model.sites().iter().fold(plan, |plan, site| plan.with(site, nested_precision(model.site(site))))
        }
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

/// The precision of nested codes.
const NESTED: SitePrecision = SitePrecision::uniform(BitWidth::B8).without_adapter();

/// The precision that nested codes of a site are packed at: with the adapter of 8 bits where that has a learned
/// step, which then is the scale of the codes.
fn nested_precision<B: QuantBackend>(layer: &SwitchableLinear<B>) -> SitePrecision {
    let has_step = layer.bank().get(BitWidth::B8).is_some_and(|pair| pair.step().is_some());
    if has_step { SitePrecision::uniform(BitWidth::B8) } else { NESTED }
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
            Some(_) => layer.merged_at(&precision).map_err(|error| at_site(sites.name(site), error))?,
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
) -> Result<Vec<(Site, PackedWeights)>> {
    let mut packed = Vec::new();
    for site in model.sites().iter() {
        if let Some(weights) = pack_site(model, site, form, options)? {
            packed.push((site, weights));
        }
    }
    Ok(packed)
}

/// Codes of an embedding as the model holds them: those of 8 bits in a model of nested codes serve the lower
/// widths too.
pub(crate) fn as_embedding(tensor: PackedTensor, nested: bool) -> Result<PackedWeights> {
    Ok(if serves_several(&tensor, nested) {
        PackedWeights::Nested(NestedTensor::new(tensor)?)
    } else {
        PackedWeights::Fixed(tensor)
    })
}

/// Whether codes of an embedding serve the widths below their own.
pub(crate) fn serves_several(tensor: &PackedTensor, nested: bool) -> bool {
    nested && tensor.bits() == BitWidth::B8 && tensor.format() == Format::Symmetric
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
) -> Result<Option<PackedWeights>> {
    let (layer, named) = (model.site(site), |error| at_site(model.sites().name(site), error));
    let precision = match form {
        PackedForm::Plan(plan) => plan.get(site),
        PackedForm::Nested => nested_precision(layer),
    };
    let bits = precision.weights;
    if bits > BitWidth::B8 {
        return Ok(None);
    }
    // Codes that are there already are taken as they are, or cut to fewer bits; others cannot be made of them.
    match (layer.packed_weights(), form) {
        (Some(PackedWeights::Fixed(tensor)), _) if tensor.bits() == bits => {
            let weights = fixed_or_nested(tensor.clone(), form).map_err(|error| named(error.into()))?;
            return Ok(Some(weights));
        }
        (Some(weights @ PackedWeights::Nested(_)), PackedForm::Nested) => return Ok(Some(weights.clone())),
        (Some(PackedWeights::Nested(codes)), PackedForm::Plan(_)) => {
            let cut = codes.slice_to(bits).map_err(|error| named(error.into()))?;
            return Ok(Some(PackedWeights::Fixed(cut)));
        }
        _ => layer.check(&precision).map_err(named)?,
    }
    let rounding = layer.rounding_at(&precision).map_err(named)?;
    let packed = rounding.pack(&layer.weight(), options.scale_format).map_err(named)?;
    let weights = fixed_or_nested(packed, form).map_err(|error| named(error.into()))?;
    Ok(Some(match weights {
        PackedWeights::Nested(nested) => PackedWeights::Nested(with_scales(layer, nested, options).map_err(named)?),
        fixed @ PackedWeights::Fixed(_) => fixed,
    }))
}

/// Codes as a layer holds them.
fn fixed_or_nested(tensor: PackedTensor, form: PackedForm<'_>) -> quant_kernels::Result<PackedWeights> {
    Ok(match form {
        PackedForm::Plan(_) => PackedWeights::Fixed(tensor),
        PackedForm::Nested => PackedWeights::Nested(NestedTensor::new(tensor)?),
    })
}

/// Nested codes with the scales of lower widths: the learned steps of their adapters, and else what the options
/// say.
fn with_scales<B: QuantBackend>(
    layer: &SwitchableLinear<B>,
    mut nested: NestedTensor,
    options: PackOptions,
) -> switchable_lora::Result<NestedTensor> {
    for bits in BitWidth::quantised().filter(|bits| (BitWidth::B2..BitWidth::B8).contains(bits)) {
        let precision = SitePrecision::uniform(bits);
        let rounding = match layer.learned_step(&precision) {
            Some(_) => layer.rounding_at(&precision)?,
            None if options.width_scales == WidthScales::Quantizer => {
                layer.rounding_at(&precision.without_adapter())?
            }
            None => continue,
        };
        nested = nested.with_scales(bits, options.scale_format, &rounding.scales(&layer.weight())?)?;
    }
    Ok(nested)
}
