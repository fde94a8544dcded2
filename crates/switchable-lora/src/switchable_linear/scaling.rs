//! A layer between factors: what comes in divided by them, what goes out divided by others.
//!
//! ```text
//! inputs divided by s [d_in]       (x / s)·(diag(s)·W) = x·W          A ← diag(s)·A
//! outputs divided by s [d_out]     x·W·diag(s)⁻¹ = (x·W) / s          b ← b / s,  B ← B·diag(s)⁻¹
//! ```
//!
//! Adapters stay the same function at full precision. What they repair of the error of quantisation is that of the
//! weight as it was.

use std::sync::Arc;

use burn::{
    module::Param,
    tensor::{Tensor, TensorData},
};

use quant_kernels::backends::quant_backend::QuantBackend;

use super::SwitchableLinear;
use crate::{
    adapter_pair::LoraAdapterPair,
    error::{Error, Result},
    known_moments::KnownMoments,
    lora_bank::LoraBank,
};

impl<B: QuantBackend> SwitchableLinear<B> {
    /// The layer for inputs that were divided by factors: the same outputs at full precision. What is known of the
    /// inputs is divided too.
    ///
    /// # Shapes
    ///
    /// - `factors`: `[d_in]`
    ///
    /// # Errors
    ///
    /// As [`check_scaling`](Self::check_scaling), and [`Error::Quantisation`] where moments stop being finite.
    ///
    /// # Panics
    ///
    /// If there are more or fewer factors than inputs.
    ///
    /// ```
    /// use burn::{backend::Flex, tensor::Tensor};
    /// use switchable_lora::{LinearSettings, QuantizedCache, SitePrecision, SwitchableLinear};
    ///
    /// let weight = Tensor::<Flex, 2>::from_floats([[1.0, 0.25], [0.5, -1.0]], &Default::default());
    /// let layer = SwitchableLinear::new(weight, None, LinearSettings::default(), &QuantizedCache::default());
    /// let layer = layer.for_divided_inputs(&[2.0, 0.5])?;
    ///
    /// // Instead of [3, 1]:
    /// let x = Tensor::<Flex, 2>::from_floats([[1.5, 2.0]], &Default::default());
    /// let y = layer.forward(x, &SitePrecision::FULL);
    /// assert_eq!(y.into_data().to_vec::<f32>().unwrap(), [3.5, -0.25]);
    /// # Ok::<(), switchable_lora::Error>(())
    /// ```
    pub fn for_divided_inputs(self, factors: &[f32]) -> Result<Self> {
        self.check_scaling()?;
        let d_in = self.d_in();
        assert_eq!(factors.len(), d_in, "factors of {d_in} inputs");
        let moments = match self.moments.get() {
            Some(moments) => KnownMoments::of(Arc::new(moments.divided_by(factors)?)),
            None => KnownMoments::default(),
        };
        let rows = self.factors(factors, [d_in, 1]);
        let base = self.base.with_values(detached(self.weight()) * rows.clone(), self.bias().map(detached));
        let bank = scaled_bank(&self.bank, |pair| LoraAdapterPair { a: times(pair.a, rows.clone()), ..pair });
        Ok(Self { base, bank, moments, ..self })
    }

    /// The layer whose outputs are divided by factors at full precision.
    ///
    /// # Shapes
    ///
    /// - `factors`: `[d_out]`
    ///
    /// # Errors
    ///
    /// As [`check_scaling`](Self::check_scaling).
    ///
    /// # Panics
    ///
    /// If there are more or fewer factors than outputs.
    pub fn with_divided_outputs(self, factors: &[f32]) -> Result<Self> {
        self.check_scaling()?;
        let d_out = self.d_out();
        assert_eq!(factors.len(), d_out, "factors of {d_out} outputs");
        let columns = self.factors(factors, [1, d_out]).recip();
        let bias = self.bias().map(|bias| detached(bias) * columns.clone().reshape([d_out]));
        let base = self.base.with_values(detached(self.weight()) * columns.clone(), bias);
        let bank = scaled_bank(&self.bank, |pair| LoraAdapterPair { b: times(pair.b, columns.clone()), ..pair });
        Ok(Self { base, bank, ..self })
    }

    /// Checks that the layer can take factors.
    ///
    /// # Errors
    ///
    /// [`Error::PackedScaling`] if its weight is only there packed, [`Error::StepScaling`] if an adapter has a learned
    /// step.
    pub fn check_scaling(&self) -> Result<()> {
        if self.packed_weights().is_some() {
            return Err(Error::PackedScaling);
        }
        match self.bank.iter().find(|(_, pair)| pair.step().is_some()) {
            Some((bits, _)) => Err(Error::StepScaling { bits }),
            None => Ok(()),
        }
    }

    fn factors(&self, factors: &[f32], shape: [usize; 2]) -> Tensor<B, 2> {
        Tensor::from_data(TensorData::new(factors.to_vec(), shape), &self.weight().device())
    }
}

fn scaled_bank<B: QuantBackend>(
    bank: &LoraBank<B>,
    scaled: impl Fn(LoraAdapterPair<B>) -> LoraAdapterPair<B>,
) -> LoraBank<B> {
    let pairs = bank.pairs.iter().map(|pair| scaled(pair.clone())).collect();
    LoraBank { pairs, widths: bank.widths.clone(), shared: bank.shared.clone() }
}

/// A factor of an adapter, trained as before.
fn times<B: QuantBackend>(param: Param<Tensor<B, 2>>, factors: Tensor<B, 2>) -> Param<Tensor<B, 2>> {
    param.map(|values| {
        let is_trained = values.is_require_grad();
        (detached(values) * factors).set_require_grad(is_trained)
    })
}

fn detached<B: QuantBackend, const D: usize>(values: Tensor<B, D>) -> Tensor<B, D> {
    values.set_require_grad(false)
}
