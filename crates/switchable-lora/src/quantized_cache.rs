//! Quantised weights that are computed once and kept, under a cap in bytes.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::{
    packed::packed_tensor::PackedTensor,
    spec::{bit_width::BitWidth, quant_spec::QuantSpec},
};

use crate::{adapter_step::StepVersion, weight_rounding::RoundingKey};

/// Quantised weights shared by all layers of a model, the least recently used dropped first.
///
/// A clone is another handle to the same memory, so one cache serves every layer, and the model
/// that [`AutodiffModule::valid`](burn::module::AutodiffModule::valid) returns. A layer's weights
/// leave the cache when the layer is dropped or its weights change.
///
/// ```
/// use switchable_lora::QuantizedCache;
///
/// let cache = QuantizedCache::new(256 << 20);
/// assert_eq!((cache.cap_bytes(), cache.used_bytes()), (256 << 20, 0));
/// ```
#[derive(Clone)]
pub struct QuantizedCache {
    shared: Arc<Shared>,
}

struct Shared {
    cap_bytes: usize,
    next_slot: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    weights: HashMap<Key, Weight>,
    used_bytes: usize,
    uses: u64,
}

/// One quantised form of one layer's weight: a tensor of some backend, as a model and its validation
/// copy share a slot, or packed codes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    slot: u64,
    form: TypeId,
    bits: BitWidth,
    spec: QuantSpec,
    /// By a learned step, not by the scales that the quantiser finds.
    by_step: bool,
}

/// What a quantised weight is kept as.
pub(crate) trait Form: Any + Clone + Send {
    /// The bytes that it occupies.
    fn bytes(&self) -> usize;
}

impl<B: Backend> Form for Tensor<B, 2> {
    fn bytes(&self) -> usize {
        self.shape().num_elements() * self.dtype().size()
    }
}

impl Form for PackedTensor {
    fn bytes(&self) -> usize {
        PackedTensor::bytes(self)
    }
}

struct Weight {
    form: Box<dyn Any + Send>,
    /// The state of the learned step that it was quantised by.
    step: Option<StepVersion>,
    bytes: usize,
    last_use: u64,
}

impl QuantizedCache {
    /// The cap of [`QuantizedCache::default`]: 1 GiB.
    pub const DEFAULT_CAP_BYTES: usize = 1 << 30;

    /// An empty cache that keeps at most `cap_bytes` of weights. A cap of 0 keeps nothing.
    pub fn new(cap_bytes: usize) -> Self {
        let shared = Shared { cap_bytes, next_slot: AtomicU64::new(0), kept: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// A cache that keeps nothing: weights are quantised in each call.
    pub fn disabled() -> Self {
        Self::new(0)
    }

    /// The most bytes that are kept.
    pub fn cap_bytes(&self) -> usize {
        self.shared.cap_bytes
    }

    /// The bytes that are kept at the moment.
    pub fn used_bytes(&self) -> usize {
        self.kept().used_bytes
    }

    /// The number of quantised weights that are kept at the moment.
    pub fn len(&self) -> usize {
        self.kept().weights.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops everything.
    pub fn clear(&self) {
        *self.kept() = Kept::default();
    }

    /// A place for the forms of one layer's weight.
    pub(crate) fn slot(&self) -> CacheSlot {
        let id = self.shared.next_slot.fetch_add(1, Ordering::Relaxed);
        CacheSlot { owner: Arc::new(SlotOwner { id, cache: self.clone() }) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing that holds the lock leaves the map half changed, so a panic elsewhere is no harm.
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept under the key; a form by a step that has changed since is dropped.
    fn get<T: Form>(&self, key: &Key, step: Option<StepVersion>) -> Option<T> {
        let mut kept = self.kept();
        if kept.weights.get(key).is_some_and(|weight| weight.step != step) {
            kept.remove(key);
            return None;
        }
        kept.uses += 1;
        let now = kept.uses;
        let weight = kept.weights.get_mut(key)?;
        weight.last_use = now;
        weight.form.downcast_ref::<T>().cloned()
    }

    fn insert<T: Form>(&self, key: Key, step: Option<StepVersion>, form: T) {
        let bytes = form.bytes();
        if bytes > self.shared.cap_bytes {
            return;
        }
        let mut kept = self.kept();
        kept.uses += 1;
        let weight = Weight { form: Box::new(form), step, bytes, last_use: kept.uses };
        kept.remove(&key);
        while kept.used_bytes + bytes > self.shared.cap_bytes {
            let oldest = kept.weights.iter().min_by_key(|(_, weight)| weight.last_use);
            let Some((&oldest, _)) = oldest else { break };
            kept.remove(&oldest);
        }
        kept.used_bytes += bytes;
        kept.weights.insert(key, weight);
    }

    fn clear_slot(&self, slot: u64) {
        let mut kept = self.kept();
        let of_slot: Vec<_> = kept.weights.keys().filter(|key| key.slot == slot).copied().collect();
        for key in of_slot {
            kept.remove(&key);
        }
    }

    fn has_slot(&self, slot: u64) -> bool {
        self.kept().weights.keys().any(|key| key.slot == slot)
    }
}

impl Kept {
    fn remove(&mut self, key: &Key) {
        if let Some(weight) = self.weights.remove(key) {
            self.used_bytes -= weight.bytes;
        }
    }
}

impl Default for QuantizedCache {
    fn default() -> Self {
        Self::new(Self::DEFAULT_CAP_BYTES)
    }
}

impl fmt::Debug for QuantizedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuantizedCache")
            .field("cap_bytes", &self.cap_bytes())
            .field("used_bytes", &self.used_bytes())
            .finish_non_exhaustive()
    }
}

/// The forms of one layer's weight in the cache.
///
/// Clones of a layer share a slot until the weight of one changes, which gives that one a slot of
/// its own. The forms are dropped with the last layer that shares them.
#[derive(Clone)]
pub(crate) struct CacheSlot {
    owner: Arc<SlotOwner>,
}

struct SlotOwner {
    id: u64,
    cache: QuantizedCache,
}

impl CacheSlot {
    /// The kept form of the weight, if any.
    pub(crate) fn get<T: Form>(&self, how: RoundingKey) -> Option<T> {
        self.owner.cache.get(&self.key::<T>(how), how.step)
    }

    /// Keeps a form of the weight, as far as the cap allows.
    pub(crate) fn keep<T: Form>(&self, how: RoundingKey, form: &T) {
        self.owner.cache.insert(self.key::<T>(how), how.step, form.clone());
    }

    /// Whether a form is kept. Asking is not a use.
    pub(crate) fn has<T: Form>(&self, how: RoundingKey) -> bool {
        let kept = self.owner.cache.kept();
        kept.weights.get(&self.key::<T>(how)).is_some_and(|weight| weight.step == how.step)
    }

    fn key<T: Form>(&self, how: RoundingKey) -> Key {
        let RoundingKey { bits, spec, step } = how;
        Key { slot: self.owner.id, form: TypeId::of::<T>(), bits, spec, by_step: step.is_some() }
    }

    /// The cache that the slot is in.
    pub(crate) fn cache(&self) -> &QuantizedCache {
        &self.owner.cache
    }

    /// An empty slot in the same cache.
    pub(crate) fn renewed(&self) -> Self {
        self.owner.cache.slot()
    }

    /// Whether nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        !self.owner.cache.has_slot(self.owner.id)
    }

    /// Drops the forms.
    pub(crate) fn clear(&self) {
        self.owner.cache.clear_slot(self.owner.id);
    }
}

impl fmt::Debug for CacheSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheSlot({})", self.owner.id)
    }
}

impl Drop for SlotOwner {
    fn drop(&mut self) {
        self.cache.clear_slot(self.id);
    }
}
