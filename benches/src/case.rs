//! One piece of work, and the list of all.

use switchable_quant::device::{Device, WithAutodiff};
use switchable_quant::kernels::QuantAutodiffBackend;

use crate::{built_in, calibrated, damage, gpt2, packed, quantise, rotation, switch, switchable_linear};

/// What a case's throughput counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes read, of the input alone.
    Bytes,
    /// Tokens.
    Tokens,
    /// Multiply-accumulate operations.
    Macs,
}

/// Does a case's work once; the result is there when it returns.
pub type Work = Box<dyn FnMut()>;

/// One piece of work, described.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Case {
    /// `group/case/params`.
    pub id: String,
    /// What one run works on.
    pub amount: (u64, Unit),
    prepare: Box<dyn FnOnce() -> Work>,
}

impl Case {
    pub(crate) fn new<W: FnMut() + 'static>(
        id: String,
        amount: (u64, Unit),
        prepare: impl FnOnce() -> W + 'static,
    ) -> Self {
        Self { id, amount, prepare: Box::new(move || Box::new(prepare())) }
    }

    /// Makes the tensors and checks the answer.
    ///
    /// # Panics
    ///
    /// If the answer is wrong.
    pub fn prepare(self) -> Work {
        (self.prepare)()
    }
}

/// All cases on a device.
pub fn cases(device: &Device) -> Vec<Case> {
    device.dispatch_autodiff(List)
}

struct List;

impl WithAutodiff for List {
    type Output = Vec<Case>;

    fn run<B: QuantAutodiffBackend>(self, device: B::Device) -> Vec<Case> {
        let mut all = quantise::cases::<B::InnerBackend>(&device);
        all.extend(quantise::learned_cases::<B>(&device));
        all.extend(packed::cases::<B::InnerBackend>(&device));
        all.extend(switchable_linear::cases::<B::InnerBackend>(&device));
        all.extend(built_in::cases::<B::InnerBackend>(&device));
        all.extend(switch::cases::<B::InnerBackend>(&device));
        all.extend(gpt2::cases::<B>(&device));
        all.extend(calibrated::cases::<B::InnerBackend>(&device));
        all.extend(rotation::cases::<B::InnerBackend>(&device));
        all.extend(damage::cases::<B>(&device));
        all
    }
}
