//! Data-parallel training: copies of a model on other devices, each with its part of a step's micro-batches.
//!
//! ```text
//! g = Σ_i gᵢ        micro-batch i is computed on device i mod n; the sum is in the order of i, on the first device
//! ```
//!
//! Only the first device has an optimiser. Its model is the one that is trained; what a step has changed is brought to
//! the copies before the next. The sum has the same terms in the same order on one device and on several, so that
//! devices of one kind give the model of one of them. Source of the scheme: Dean et al., *Large Scale Distributed Deep
//! Networks*, NIPS 2012, with synchronous steps (Chen et al., arXiv:1604.00981).

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::{Device as _, DeviceId};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;

/// The copies of a model on further devices.
pub(crate) struct Replicas<B: QuantAutodiffBackend, M> {
    home: B::Device,
    copies: Vec<(B::Device, M)>,
}

impl<B: QuantAutodiffBackend, M: AutodiffModule<B>> Replicas<B, M> {
    /// Copies of `model`, which is on `home`, on each of `others`.
    pub(crate) fn new(model: &M, home: &B::Device, others: &[DeviceId]) -> Self {
        let on = |id: &DeviceId| {
            let device = B::Device::from_id(*id);
            (device.clone(), model.clone().fork(&device))
        };
        Self { home: home.clone(), copies: others.iter().map(on).collect() }
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
    pub(crate) fn home(&self, gradients: GradientsParams, copy: &M) -> GradientsParams {
        if self.copies.is_empty() { gradients } else { gradients.to_device(&self.home, copy) }
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
            self.trained.0.register(param.id, value.inner().to_device(self.device));
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
