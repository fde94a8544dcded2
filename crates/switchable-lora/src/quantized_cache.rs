//! Quantised weights that are computed once and kept, under a cap in bytes.
//!
//! A form belongs to one value of a weight: whatever changes the value takes a slot that no value had
//! before, and forms are found by their slot alone.
//!
//! Where there is no room for all, the least recently used goes first. A rotation of more forms than there
//! is room for would then drop each form just before it is wanted again, so a form that comes back after
//! it was dropped takes the place of the others that came back, and leaves alone those that stayed. One in
//! eight of them is taken as a form that comes for the first time is, so that what is not used any more
//! leaves.

use std::{
    any::{Any, TypeId},
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::{
    packed::{half_weight::HalfWeight, packed_tensor::PackedTensor},
    spec::{bit_width::BitWidth, quant_spec::QuantSpec, rotation::Rotation, rounding_method::RoundingMethod},
};

use crate::{adapter_step::StepVersion, cache_statistics::CacheStatistics, weight_rounding::RoundingKey};

/// Quantised weights shared by all layers of a model, the least recently used dropped first.
///
/// [`default`](Self::default) sizes the cache by the weights that share it; [`statistics`](Self::statistics)
/// tells how well it serves.
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
    cap: Cap,
    next_slot: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Clone, Copy)]
enum Cap {
    Bytes(usize),
    /// By the weights that share the cache.
    OfWeights,
}

#[derive(Default)]
struct Kept {
    weights: HashMap<Key, Weight>,
    used_bytes: usize,
    uses: u64,
    /// Bytes in floats of the weights that have a slot.
    float_bytes: usize,
    /// What was dropped, or not kept, for want of room.
    dropped: HashSet<Key>,
    hits: u64,
    misses: u64,
    computed_again: u64,
}

/// One quantised form of one layer's weight: a tensor of some backend, as a model and its validation
/// copy share a slot, or packed codes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    slot: u64,
    form: TypeId,
    bits: BitWidth,
    spec: QuantSpec,
    method: RoundingMethod,
    rotation: Rotation,
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

impl Form for HalfWeight {
    /// With the transpose, which training makes later.
    fn bytes(&self) -> usize {
        self.bytes_both_ways()
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
    /// The least cap of [`QuantizedCache::default`]: 1 GiB.
    pub const DEFAULT_CAP_BYTES: usize = 1 << 30;
    /// The forms of each weight for which [`QuantizedCache::default`] has room.
    pub const FORMS_OF_EACH_WEIGHT: usize = 4;

    /// An empty cache that keeps at most `cap_bytes` of weights. A cap of 0 keeps nothing.
    pub fn new(cap_bytes: usize) -> Self {
        Self::with_cap(Cap::Bytes(cap_bytes))
    }

    fn with_cap(cap: Cap) -> Self {
        Self { shared: Arc::new(Shared { cap, next_slot: AtomicU64::new(0), kept: Mutex::default() }) }
    }

    /// A cache that keeps nothing: weights are quantised in each call.
    pub fn disabled() -> Self {
        Self::new(0)
    }

    /// The most bytes that are kept.
    pub fn cap_bytes(&self) -> usize {
        self.cap_of(&self.kept())
    }

    fn cap_of(&self, kept: &Kept) -> usize {
        match self.shared.cap {
            Cap::Bytes(bytes) => bytes,
            Cap::OfWeights => kept.float_bytes.saturating_mul(Self::FORMS_OF_EACH_WEIGHT).max(Self::DEFAULT_CAP_BYTES),
        }
    }

    /// How often weights were there when they were looked up, since the cache was made.
    pub fn statistics(&self) -> CacheStatistics {
        let kept = self.kept();
        let Kept { used_bytes, hits, misses, computed_again, .. } = *kept;
        CacheStatistics { hits, misses, computed_again, used_bytes, cap_bytes: self.cap_of(&kept) }
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
        let mut kept = self.kept();
        kept.weights.clear();
        kept.dropped.clear();
        kept.used_bytes = 0;
    }

    /// A place for the forms of one value of a layer's weight, which has `float_bytes` itself.
    pub(crate) fn slot(&self, float_bytes: usize) -> CacheSlot {
        let id = self.shared.next_slot.fetch_add(1, Ordering::Relaxed);
        self.kept().float_bytes += float_bytes;
        CacheSlot { owner: Arc::new(SlotOwner { id, float_bytes, cache: self.clone() }) }
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
        }
        kept.uses += 1;
        let now = kept.uses;
        let found = kept.weights.get_mut(key).and_then(|weight| {
            weight.last_use = now;
            weight.form.downcast_ref::<T>().cloned()
        });
        if found.is_some() {
            kept.hits += 1;
        } else {
            kept.misses += 1;
            kept.computed_again += u64::from(kept.dropped.contains(key));
        }
        found
    }

    fn insert<T: Form>(&self, key: Key, step: Option<StepVersion>, form: T) {
        let bytes = form.bytes();
        let mut kept = self.kept();
        let cap = self.cap_of(&kept);
        if bytes > cap {
            kept.dropped.insert(key);
            return;
        }
        kept.uses += 1;
        let comes_back = kept.dropped.contains(&key) && !kept.computed_again.is_multiple_of(8);
        kept.remove(&key);
        while kept.used_bytes + bytes > cap {
            let oldest = kept.weights.iter().min_by_key(|(_, weight)| weight.last_use);
            let Some((&oldest, _)) = oldest else { break };
            kept.remove(&oldest);
            kept.dropped.insert(oldest);
        }
        // The oldest of all until it is used again.
        let last_use = if comes_back { 0 } else { kept.uses };
        kept.used_bytes += bytes;
        kept.weights.insert(key, Weight { form: Box::new(form), step, bytes, last_use });
    }

    fn clear_slot(&self, slot: u64) {
        let mut kept = self.kept();
        kept.dropped.retain(|key| key.slot != slot);
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
    /// A cache with room for [`FORMS_OF_EACH_WEIGHT`](Self::FORMS_OF_EACH_WEIGHT) forms of every weight
    /// that shares it, and for [`DEFAULT_CAP_BYTES`](Self::DEFAULT_CAP_BYTES) at least.
    fn default() -> Self {
        Self::with_cap(Cap::OfWeights)
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

/// The forms of one value of a layer's weight in the cache.
///
/// Clones of a layer share a slot until the weight of one changes, which gives that one a slot of
/// its own, whether anything is kept or not. The forms are dropped with the last layer that shares them.
#[derive(Clone)]
pub(crate) struct CacheSlot {
    owner: Arc<SlotOwner>,
}

struct SlotOwner {
    id: u64,
    float_bytes: usize,
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
        let RoundingKey { bits, spec, method, rotation, step } = how;
        let (slot, form, by_step) = (self.owner.id, TypeId::of::<T>(), step.is_some());
        Key { slot, form, bits, spec, method, rotation, by_step }
    }

    /// The cache that the slot is in.
    pub(crate) fn cache(&self) -> &QuantizedCache {
        &self.owner.cache
    }

    /// An empty slot in the same cache, for another value of the weight.
    pub(crate) fn renewed(&self) -> Self {
        self.owner.cache.slot(self.owner.float_bytes)
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
        self.cache.kept().float_bytes -= self.float_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_cap_grows_with_the_weights_that_share_the_cache() {
        let cache = QuantizedCache::default();
        assert_eq!(cache.cap_bytes(), QuantizedCache::DEFAULT_CAP_BYTES);
        let gib = 1 << 30;
        let slots = [cache.slot(gib), cache.slot(gib)];
        let copies = slots.clone();
        let room = QuantizedCache::FORMS_OF_EACH_WEIGHT * 2 * gib;
        assert_eq!(cache.cap_bytes(), room, "copies share their forms");
        let renewed = slots[0].renewed();
        assert_eq!(cache.cap_bytes(), room + QuantizedCache::FORMS_OF_EACH_WEIGHT * gib);
        cache.clear();
        assert_eq!(cache.statistics().cap_bytes, cache.cap_bytes());
        drop((slots, copies));
        assert_eq!(cache.cap_bytes(), QuantizedCache::FORMS_OF_EACH_WEIGHT * gib);
        drop(renewed);
        assert_eq!(cache.cap_bytes(), QuantizedCache::DEFAULT_CAP_BYTES);
        let fixed = QuantizedCache::new(7);
        let _slot = fixed.slot(gib);
        assert_eq!(fixed.cap_bytes(), 7);
    }
}
