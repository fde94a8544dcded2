//! The adapters of a layer: how they come, what they were trained for, and how they go.

use burn::tensor::Tensor;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};

use super::SwitchableLinear;
use crate::{
    adapter_pair::LoraAdapterPair,
    error::{Error, Result},
    lora_bank::LoraBank,
    lora_config::{LoraConfig, LoraInit, WeightScales},
    quantisation_settings::{QuantisationSettings, SettingsDifference},
    site_precision::SitePrecision,
    starting_step::starting_step,
};

impl<B: QuantBackend> SwitchableLinear<B> {
    /// Adds the adapter for a width, in place of any that was there.
    ///
    /// # Errors
    ///
    /// [`Error::AdapterShape`] if it is for a weight of another shape, [`Error::PackedPlacement`] if it is to be
    /// merged and the weight is only there packed; where it has a learned step,
    /// [`Error::StepWidth`], [`Error::Quantisation`] for its shape, [`Error::StepFormat`] and [`Error::StepGranularity`]
    /// if the weight cannot be quantised by it at that width, and [`Error::PackedStep`] if the weight is
    /// only there packed, by other scales.
    pub fn insert_adapter(&mut self, width: BitWidth, pair: LoraAdapterPair<B>) -> Result<()> {
        let (got, expected) = (pair.adapts(), [self.d_in(), self.d_out()]);
        if got != expected {
            return Err(Error::AdapterShape { got, expected });
        }
        self.check_placement()?;
        if let Some(step) = pair.step() {
            self.check_step(width, step, &self.weight_spec)?;
        }
        self.bank.insert(width, pair);
        self.trained_for.remove(&width);
        self.calibrated_on.remove(&width);
        Ok(())
    }

    /// Says what the adapter of a width was trained for: [`check`](Self::check) then refuses it under other
    /// quantisers. One that is inserted after that may be used under any.
    pub fn set_trained_for(&mut self, width: BitWidth, settings: QuantisationSettings) {
        self.trained_for.insert(width, settings);
    }

    /// Says which windows the codes went by that the adapter of a width was trained on: the hash that
    /// [`windows_of`](super::windows_of) gives.
    pub fn set_calibrated_on(&mut self, width: BitWidth, windows: &str) {
        self.calibrated_on.insert(width, windows.into());
    }

    /// The windows that the codes went by which the adapter of a width was trained on, where that is known.
    pub fn calibrated_on(&self, width: BitWidth) -> Option<&str> {
        self.calibrated_on.get(&width).map(|windows| &**windows)
    }

    /// Says that the adapter of a width is added at some widths: see [`LoraBank::share`].
    pub fn share_adapter(&mut self, width: BitWidth, by: &[BitWidth]) {
        self.bank.share(width, by);
    }

    /// Says that no adapter is shared any more, if one of some widths has a part in it.
    pub fn unshare_adapters(&mut self, widths: &[BitWidth]) {
        self.bank.unshare(widths);
    }

    /// What the adapter of a width was trained for, where it is known.
    pub fn trained_for(&self, width: BitWidth) -> Option<QuantisationSettings> {
        self.trained_for.get(&width).copied()
    }

    /// Checks that the adapter of a precision was not trained for other quantisers.
    pub(super) fn check_trained_for(&self, precision: &SitePrecision) -> Result<()> {
        for trained in precision.adapters().filter_map(|width| self.trained_for.get(&width)) {
            self.check_trained(precision, trained)?;
        }
        Ok(())
    }

    fn check_trained(&self, precision: &SitePrecision, trained: &QuantisationSettings) -> Result<()> {
        let mut here = self.quantisation(precision);
        // What rounds nothing does not matter.
        if precision.weights.is_full() {
            (here.weight, here.placement) = (trained.weight, trained.placement);
        }
        if precision.activations.is_full() {
            here.activation = trained.activation;
        }
        // The method has no part where a step rounds.
        if precision.weights.is_full() || self.learned_step(precision).is_some() {
            here.rounding = trained.rounding;
        }
        if precision.weights.is_full() && precision.activations.is_full() {
            here.rotation = trained.rotation;
        }
        match trained.first_difference(&here) {
            Some(SettingsDifference { field, got: trained, expected: here }) => {
                Err(Error::TrainedFor { field, trained, here })
            }
            None => Ok(()),
        }
    }

    /// Adds a fresh adapter for a width, in place of any that was there. The seed decides its random
    /// numbers.
    ///
    /// Where the configuration asks for learned scales, the adapter gets a step for the weight, and `LoftQ`
    /// starts from what quantisation by that step leaves. The step starts as the paper's,
    /// `2·mean|W| / √Q`, or as the scale that the weight's quantiser finds, whichever leaves the smaller
    /// squared error. Its granularity is that of the quantiser.
    ///
    /// # Errors
    ///
    /// [`Error::RankOfWeight`] if the rank is above both sides of the weight together, [`Error::Quantisation`] if the adapter
    /// starts from the quantisation residual and the width
    /// does not fit the quantiser. With learned scales [`Error::StepFormat`] if the weight's quantiser is
    /// asymmetric, [`Error::Quantisation`] if it is per token or the width is full precision or 1 bit,
    /// [`Error::PackedStep`] if the weight is only there packed.
    pub fn init_adapter(&mut self, width: BitWidth, config: &LoraConfig, seed: u64) -> Result<()> {
        config.check_weight(self.base.shape())?;
        let pair = match config.scales() {
            WeightScales::Found => self.fresh_pair(config, seed, || self.base_at(width, None))?,
            WeightScales::Learned => {
                if self.packed_weights().is_some() {
                    return Err(Error::PackedStep { bits: width, expected: "a weight in floats to learn it for" });
                }
                let weight = self.weight().set_require_grad(false);
                let rounding = self.rounding(width, None);
                let step = starting_step(&weight, rounding)?;
                self.fresh_pair(config, seed, || Ok(rounding.apply_step(weight, &step)))?.with_step(step)
            }
        };
        self.insert_adapter(width, pair)
    }

    /// A pair that starts as the configuration says. `quantized` gives the weight as the pair will find
    /// it.
    fn fresh_pair(
        &self,
        config: &LoraConfig,
        seed: u64,
        quantized: impl FnOnce() -> Result<Tensor<B, 2>>,
    ) -> Result<LoraAdapterPair<B>> {
        let weight = self.weight().set_require_grad(false);
        Ok(match config.init() {
            LoraInit::ZeroB => LoraAdapterPair::adding_nothing(config, weight.dims(), seed, &weight.device()),
            LoraInit::LoftQ { iterations } => {
                let quantized = quantized()?.set_require_grad(false);
                LoraAdapterPair::from_residual(config, &(weight - quantized), iterations, seed)
            }
        })
    }

    /// A layer whose base weight is `W + s · A · B`, without adapters: what merged placement computes
    /// at the adapter's width, with the quantised weight kept from call to call. It shares the cache.
    ///
    /// # Errors
    ///
    /// [`Error::MissingAdapter`] if there is no adapter for the width, [`Error::MergedStep`] if it has a
    /// learned step, which goes with the adapter.
    pub fn merged_with(&self, width: BitWidth) -> Result<Self> {
        self.merged_at(&SitePrecision::FULL.with_adapter(width))
    }

    /// The same with every adapter that a precision adds.
    ///
    /// # Errors
    ///
    /// As [`merged_with`](Self::merged_with), and [`Error::SharedAlone`].
    pub fn merged_at(&self, precision: &SitePrecision) -> Result<Self> {
        let has_step = |width: &BitWidth| self.bank.get(*width).is_some_and(|pair| pair.step().is_some());
        if let Some(bits) = precision.adapters().find(has_step) {
            return Err(Error::MergedStep { bits, what: "a layer without adapters" });
        }
        let added = self.update_at(precision)?.map(|update| update.product());
        let weight = added.into_iter().fold(self.weight(), |weight, added| weight + added);
        let base = self.base.with_values(weight.set_require_grad(false), self.bias());
        Ok(Self { base, bank: LoraBank::new(), ..self.clone() })
    }

    /// Takes the adapter for a width out.
    pub fn remove_adapter(&mut self, width: BitWidth) -> Option<LoraAdapterPair<B>> {
        self.bank.remove(width)
    }
}
