//! Data-parallel training: copies of a model on other devices, each with its part of a step's micro-batches.
//!
//! ```text
//! g = Σ_i gᵢ        micro-batch i is computed on device i mod n; the sum is in the order of i, on the first device
//! ```
//!
//! Copies between devices go through the host: burn's own way from one GPU to another wants NCCL, and is on some backends not
//! there at all, which is found out in the midst of a step.
//!
//! Only the first device has an optimiser. Its model is the one that is trained; what a step has changed is brought to
//! the copies before the next. The sum has the same terms in the same order on one device and on several, so that
//! devices of one kind give the model of one of them. Source of the scheme: Dean et al., *Large Scale Distributed Deep
//! Networks*, NIPS 2012, with synchronous steps (Chen et al., arXiv:1604.00981).

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::{Backend, Device as _, DeviceId};
use burn::tensor::{Bool, Int, Tensor};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;

use crate::error::{Error, Result};

/// The copies of a model on further devices.
pub(crate) struct Replicas<B: QuantAutodiffBackend, M> {
    home: B::Device,
    copies: Vec<(B::Device, M)>,
}

impl<B: QuantAutodiffBackend, M: AutodiffModule<B>> Replicas<B, M> {
    /// Copies of `model`, which is on `home`, on each of `others`.
    ///
    /// # Errors
    ///
    /// When a part of the model stays where it is.
    pub(crate) fn new(model: &M, home: &B::Device, others: &[DeviceId]) -> Result<Self> {
        let on = |id: &DeviceId| {
            let device = B::Device::from_id(*id);
            // Not by a record: what is loaded goes to the device of the model that loads it.
            let copy = model.clone().map(&mut Move { device: &device });
            let found = copy.devices();
            if found.iter().any(|other| *other != device) {
                let expected = format!("all of a copy on {device:?}");
                return Err(Error::option("beside", format!("parts on {found:?}"), expected));
            }
            Ok((device, copy))
        };
        Ok(Self { home: home.clone(), copies: others.iter().map(on).collect::<Result<_>>()? })
    }

    /// Brings what is trained of `model` to the copies. The rest is there.
    pub(crate) fn follow(&mut self, model: &M) {
        for (device, copy) in &mut self.copies {
            let mut trained = Trained(GradientsParams::new());
            model.visit(&mut Collect { trained: &mut trained, device });
            *copy = copy.clone().map(&mut trained);
        }
    }

    /// The model that computes micro-batch `part`: `model` itself or one of its copies.
    pub(crate) fn of_part<'a>(&'a self, part: usize, model: &'a M) -> &'a M {
        match part % (self.copies.len() + 1) {
            0 => model,
            copy => &self.copies[copy - 1].1,
        }
    }

    /// Gradients that `copy` gave, on the device of the model that is trained.
    pub(crate) fn home(&self, mut gradients: GradientsParams, copy: &M) -> GradientsParams {
        if self.copies.is_empty() {
            return gradients;
        }
        let mut home = GradientsParams::new();
        copy.visit(&mut Bring::<B> { from: &mut gradients, to: &mut home, device: &self.home });
        home
    }
}

/// A tensor on another device, by way of the host.
fn on_device<B: Backend, const D: usize>(tensor: Tensor<B, D>, device: &B::Device) -> Tensor<B, D> {
    if tensor.device() == *device { tensor } else { Tensor::from_data(tensor.into_data(), device) }
}

/// Takes every parameter to another device, trained or not as it is.
struct Move<'a, B: QuantAutodiffBackend> {
    device: &'a B::Device,
}

impl<B: QuantAutodiffBackend> ModuleMapper<B> for Move<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|value| {
            let trained = value.is_require_grad();
            Tensor::from_inner(on_device(value.inner(), self.device)).set_require_grad(trained)
        })
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<B, D, Int>>) -> Param<Tensor<B, D, Int>> {
        param.map(|value| Tensor::from_data(value.into_data(), self.device))
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<B, D, Bool>>) -> Param<Tensor<B, D, Bool>> {
        param.map(|value| Tensor::from_data(value.into_data(), self.device))
    }
}

/// Values of trained parameters by their identifiers, held as gradients are.
struct Trained(GradientsParams);

struct Collect<'a, B: QuantAutodiffBackend> {
    trained: &'a mut Trained,
    device: &'a B::Device,
}

impl<B: QuantAutodiffBackend> ModuleVisitor<B> for Collect<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let value = param.val();
        if value.is_require_grad() {
            self.trained.0.register(param.id, on_device(value.inner(), self.device));
        }
    }
}

impl<B: QuantAutodiffBackend> ModuleMapper<B> for Trained {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match self.0.remove::<B::InnerBackend, D>(param.id) {
            Some(value) => param.map(|_| Tensor::from_inner(value).require_grad()),
            None => param,
        }
    }
}

struct Bring<'a, B: QuantAutodiffBackend> {
    from: &'a mut GradientsParams,
    to: &'a mut GradientsParams,
    device: &'a B::Device,
}

impl<B: QuantAutodiffBackend> ModuleVisitor<B> for Bring<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.from.remove::<B::InnerBackend, D>(param.id) {
            self.to.register(param.id, on_device(gradient, self.device));
        }
    }
}
