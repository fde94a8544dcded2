//! What a layer does at a precision, and whether it can.

use std::sync::Arc;

use burn::tensor::Tensor;

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    packed::{packed_spec::PackedSpec, scales::ScaleFormat},
    rotation::hadamard::HadamardTransform,
    spec::{
        bit_width::BitWidth, formats::format::Format, quant_spec::QuantSpec, range_estimator::RangeEstimator,
        rounding_method::RoundingMethod,
    },
    tensor::learned_step::LearnedStep,
};

use super::SwitchableLinear;
use crate::{
    adapter_step::{AdapterStep, check_spec},
    error::{Error, Result},
    linear_settings::BasePolicy,
    placement::Placement,
    quantisation_settings::QuantisationSettings,
    site_precision::{SitePrecision, SiteRounding},
};

impl<B: QuantBackend> SwitchableLinear<B> {
    /// Quantisers and placement at a precision: what it says, and else those of the settings.
    pub fn quantisation(&self, precision: &SitePrecision) -> QuantisationSettings {
        precision.quantisation(self.settings().quantisation())
    }

    /// The rotation of the inputs at a precision, if anything is quantised behind one.
    pub fn rotation_at(&self, precision: &SitePrecision) -> Option<Arc<HadamardTransform>> {
        let is_quantised = !(precision.weights.is_full() && precision.activations.is_full());
        HadamardTransform::of(self.quantisation(precision).rotation, self.d_in()).filter(|_| is_quantised)
    }

    /// The precision with all that it leaves to this layer said.
    ///
    /// ```
    /// use burn::{backend::Flex, tensor::Tensor};
    /// use switchable_lora::{BitWidth, LinearSettings, QuantizedCache, SitePrecision, SwitchableLinear};
    ///
    /// let weight = Tensor::<Flex, 2>::from_floats([[1.0, 0.2]], &Default::default());
    /// let layer = SwitchableLinear::new(weight, None, LinearSettings::default(), &QuantizedCache::default());
    /// let four = SitePrecision::uniform(BitWidth::B4).without_adapter();
    /// let said = layer.explicit(&four);
    /// assert_eq!(said.quantizer, Some(LinearSettings::default().weight));
    /// assert_eq!(layer.implicit(&said), four);
    /// ```
    pub fn explicit(&self, precision: &SitePrecision) -> SitePrecision {
        // Codes do not tell whether their scales were learned while the adapter is not there.
        let is_absent = |width| self.bank.get(width).is_none();
        let is_unknown = self.packed_weights().is_some_and(|codes| {
            let bits = precision.weights;
            precision.adapter.is_some_and(is_absent) || (codes.has_own_scales(bits) && is_absent(bits))
        });
        let own = match self.learned_step(precision).or(self.step_of_codes(precision.weights)) {
            Some(_) => Some(SiteRounding::LearnedStep),
            None => (!is_unknown).then_some(self.method.into()),
        };
        SitePrecision {
            rounding: precision.rounding.or(own),
            ..precision.with_quantisation(self.quantisation(precision))
        }
    }

    /// The precision without what this layer does of itself, so that precisions that compute the same are
    /// equal.
    pub fn implicit(&self, precision: &SitePrecision) -> SitePrecision {
        let own = self.settings();
        let step = self.step_at(*precision).map(AdapterStep::get).or(self.step_of_codes(precision.weights));
        let own_rounding = if step.is_some() { SiteRounding::LearnedStep } else { self.method.into() };
        SitePrecision {
            quantizer: precision.quantizer.filter(|spec| match self.packed_weights() {
                Some(codes) => codes.quantizer(*spec) != *spec,
                None => *spec != own.weight,
            }),
            activation_quantizer: precision.activation_quantizer.filter(|spec| *spec != own.activation),
            placement: precision.placement.filter(|placement| *placement != own.placement),
            rounding: precision.rounding.filter(|rounding| match self.packed_weights() {
                Some(_) => *rounding != SiteRounding::LearnedStep && *rounding != own_rounding,
                None => *rounding != own_rounding,
            }),
            rotation: precision.rotation.filter(|rotation| *rotation != own.rotation),
            ..*precision
        }
    }

    /// Checks that codes are what a precision says that the weight is quantised to.
    pub(super) fn check_codes(&self, precision: &SitePrecision) -> Result<()> {
        let Some(codes) = self.packed_weights() else { return Ok(()) };
        if let Some(got) = precision.quantizer
            && codes.quantizer(got) != got
        {
            return Err(Error::PackedQuantizer { got, expected: codes.quantizer(got) });
        }
        if let Some(got) = precision.rotation.filter(|&got| got != self.rotation) {
            return Err(Error::PackedRotation { got, expected: self.rotation });
        }
        let method = precision.rounding.and_then(SiteRounding::method);
        if let Some(got) = method.filter(|&got| got != self.method && self.step_of_codes(precision.weights).is_none()) {
            return Err(Error::PackedRounding { got, expected: self.method });
        }
        match self.quantisation(precision).placement {
            Placement::Merged if precision.adapters().next().is_some() => Err(Error::PackedPlacement),
            _ => Ok(()),
        }
    }

    /// The step of the adapter that is named, if the weight is at the width that it was learned for.
    pub(super) fn step_at(&self, precision: SitePrecision) -> Option<&AdapterStep<B>> {
        let width = precision.adapter.filter(|&width| width == precision.weights)?;
        self.bank.get(width)?.adapter_step()
    }

    /// The step that is the scale of the codes at a width, whatever adapter a precision names. One that is not
    /// was refused when its adapter came.
    fn step_of_codes(&self, bits: BitWidth) -> Option<&LearnedStep<B>> {
        self.packed_weights()?;
        self.bank.get(bits)?.step()
    }

    /// The step that a precision rounds by, checked against the quantiser that it names: a step belongs to
    /// one quantiser, and that of the layer may have been replaced since the step came.
    pub(super) fn active_step(&self, precision: SitePrecision) -> Result<Option<&AdapterStep<B>>> {
        let bits = precision.weights;
        match (precision.rounding, self.step_at(precision)) {
            (Some(rounding), _) if rounding.method().is_some() && self.step_of_codes(bits).is_some() => {
                Err(Error::PackedStep { bits, expected: "codes that were rounded to the nearest level" })
            }
            // Codes are what the step made of the weight, whether it is there or not.
            (Some(SiteRounding::LearnedStep), None) if self.packed_weights().is_none() => Err(Error::NoStep { bits }),
            (_, None) => Ok(None),
            (Some(rounding), _) if rounding.method().is_some() => Ok(None),
            (_, Some(step)) => {
                if self.packed_weights().is_none() {
                    check_spec(step.get(), &self.quantisation(&precision).weight)?;
                }
                Ok(Some(step))
            }
        }
    }

    /// Checks that an adapter can be added where the settings say: there is nothing to merge it into where
    /// the weight is only there packed.
    pub(super) fn check_placement(&self) -> Result<()> {
        match (self.placement, self.packed_weights()) {
            (Placement::Merged, Some(_)) => Err(Error::PackedPlacement),
            _ => Ok(()),
        }
    }

    /// Checks that the weight can be quantised by a step at a width.
    pub(super) fn check_step(&self, width: BitWidth, step: &LearnedStep<B>, spec: &QuantSpec) -> Result<()> {
        if step.bits() != width {
            return Err(Error::StepWidth { got: step.bits(), expected: width });
        }
        step.check_fits(self.base.shape())?;
        match self.packed_weights() {
            Some(weights) => weights.check_step(step),
            None => check_spec(step, spec),
        }
    }

    /// The learned step that the weight is quantised by at a precision, in place of the scales that its
    /// quantiser finds.
    ///
    /// There is one if the adapter that the precision names has one and the weights are at the width of
    /// that adapter, unless it asks for rounding to the nearest level.
    pub fn learned_step(&self, precision: &SitePrecision) -> Option<&LearnedStep<B>> {
        let is_by_method = precision.rounding.is_some_and(|rounding| rounding.method().is_some());
        let step = self.step_at(*precision).filter(|_| !is_by_method);
        step.map(AdapterStep::get)
    }

    /// What multiplies the input at a precision, its rounding left aside: the quantised weight, and with it the
    /// adapter that the precision names.
    ///
    /// ```text
    /// residual   Qw(W) + s · A · B
    /// merged     Qw(W + s · A · B)
    /// ```
    ///
    /// # Shapes
    ///
    /// `[d_in, d_out]`.
    ///
    /// # Errors
    ///
    /// Those of [`check`](Self::check).
    pub fn effective_weight(&self, precision: &SitePrecision) -> Result<Tensor<B, 2>> {
        self.check(precision)?;
        let quantisation = self.quantisation(precision);
        let rounding = self.rounding_by(precision.weights, quantisation, self.active_step(*precision)?);
        let Some(update) = self.update_at(precision)? else { return self.base.at(rounding, self.gradient) };
        match quantisation.placement {
            Placement::Merged if !precision.weights.is_full() => {
                rounding.apply(self.weight() + update.product(), self.gradient)
            }
            Placement::Merged | Placement::Residual => Ok(self.base.at(rounding, self.gradient)? + update.product()),
        }
    }

    /// Checks that the layer can compute at a precision.
    ///
    /// # Errors
    ///
    /// [`Error::MissingAdapter`] if the bank lacks the adapter, [`Error::AdapterShape`] if it does not fit the
    /// weight, [`Error::Quantisation`] if a width
    /// does not fit its quantiser, the `Step…` errors if the weight cannot be quantised by the
    /// adapter's learned step, as where the precision names another quantiser than the step was learned
    /// for, [`Error::NoStep`] if there is none to round by, and [`Error::PackedQuantizer`], [`Error::PackedRotation`]
    /// and [`Error::PackedPlacement`] if the weight is only there packed, by another quantiser.
    pub fn check(&self, precision: &SitePrecision) -> Result<()> {
        self.check_codes(precision)?;
        self.check_trained_for(precision)?;
        let quantisation = self.quantisation(precision);
        self.base.check(precision.weights, &quantisation.weight)?;
        quantisation.activation.check(precision.activations, 2)?;
        if !precision.activations.is_full() && quantisation.activation.range == RangeEstimator::Importance {
            return Err(quant_kernels::Error::Uncalibrated { what: "range `importance` of activations" }.into());
        }
        for width in precision.adapters() {
            let (got, expected) = (self.bank.expect(width)?.adapts(), self.base.shape());
            if got != expected {
                return Err(Error::AdapterShape { got, expected });
            }
        }
        self.update_at(precision)?;
        match self.active_step(*precision)? {
            Some(step) => self.check_step(precision.weights, step.get(), &quantisation.weight),
            None => self.check_method(precision, quantisation),
        }
    }

    /// Checks that the weight can be rounded by the method and the range of its quantiser.
    fn check_method(&self, precision: &SitePrecision, quantisation: QuantisationSettings) -> Result<()> {
        let QuantisationSettings { weight, rounding, .. } = quantisation;
        let rounded = self.rounding_by(precision.weights, quantisation, None);
        if precision.weights.is_full() || self.packed_weights().is_some() || !rounded.is_calibrated() {
            return Ok(());
        }
        if rounding.needs_moments(weight) && self.moments().is_none() {
            let what = if rounding == RoundingMethod::Gptq { "rounding `gptq`" } else { "range `importance`" };
            return Err(quant_kernels::Error::Uncalibrated { what }.into());
        }
        if (2..=8).contains(&precision.weights.bits()) {
            // Such roundings give codes, whether they are held or dequantised.
            let QuantSpec { granularity, format, .. } = weight;
            let (shape, bits, scale_format) = ([self.d_in(), self.d_out()], precision.weights, ScaleFormat::F32);
            PackedSpec { shape, bits, format, granularity, scale_format }.check()?;
        }
        if rounding == RoundingMethod::Nested {
            // Weights are trained through it, and merged before it, as with rounding to the nearest.
            return if (2..=8).contains(&precision.weights.bits()) { check_nested(weight) } else { Ok(()) };
        }
        if self.base.policy() == BasePolicy::Trainable {
            return Err(Error::CalibratedWeight { what: "a weight that is trained" });
        }
        match (quantisation.placement, precision.adapter) {
            (Placement::Merged, Some(_)) => {
                Err(Error::CalibratedWeight { what: "a weight that an adapter is merged into" })
            }
            _ => Ok(()),
        }
    }
}

/// Checks that codes of 8 bits by a quantiser hold the lower widths.
fn check_nested(weight: QuantSpec) -> Result<()> {
    match weight.format {
        Format::Symmetric => Ok(()),
        format => Err(quant_kernels::Error::NestedSource { bits: BitWidth::B8, format }.into()),
    }
}
