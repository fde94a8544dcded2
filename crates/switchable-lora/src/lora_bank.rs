//! Adapters indexed by bit-width.

use burn::tensor::backend::Backend;

use quant_kernels::spec::bit_width::BitWidth;

use crate::{
    adapter_pair::LoraAdapterPair,
    error::{Error, Result},
};

/// The adapters of one layer, at most one for each bit-width, each with its own rank and alpha. One of them may be
/// shared: other widths add it too, beside their own or alone.
///
/// A record of it holds the adapters, not who shares one, and decides which adapters there are after it is loaded.
///
/// ```
/// use burn::backend::Flex;
/// use switchable_lora::{BitWidth, LoraAdapterPair, LoraBank, LoraConfig};
///
/// let mut bank = LoraBank::<Flex>::new();
/// for (width, rank) in [(BitWidth::B8, 2), (BitWidth::B4, 8)] {
///     let config = LoraConfig::new(rank, 16.0)?;
///     bank.insert(width, LoraAdapterPair::adding_nothing(&config, [32, 32], 0, &Default::default()));
/// }
/// assert_eq!(bank.widths(), [BitWidth::B4, BitWidth::B8]);
/// assert_eq!(bank.get(BitWidth::B4).map(LoraAdapterPair::rank), Some(8));
/// # Ok::<(), switchable_lora::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LoraBank<B: Backend> {
    /// In the order of `widths`.
    pub(crate) pairs: Vec<LoraAdapterPair<B>>,
    /// In rising order.
    pub(crate) widths: Vec<BitWidth>,
    /// The width of the adapter that is shared, and the widths that add it.
    pub(crate) shared: Option<(BitWidth, Vec<BitWidth>)>,
}

impl<B: Backend> LoraBank<B> {
    /// A bank without adapters.
    pub fn new() -> Self {
        Self { pairs: Vec::new(), widths: Vec::new(), shared: None }
    }

    /// The adapter for a width.
    pub fn get(&self, width: BitWidth) -> Option<&LoraAdapterPair<B>> {
        self.widths.binary_search(&width).ok().map(|index| &self.pairs[index])
    }

    /// Adds an adapter, which is not shared, and returns the one that it replaces.
    pub fn insert(&mut self, width: BitWidth, pair: LoraAdapterPair<B>) -> Option<LoraAdapterPair<B>> {
        self.shared.take_if(|(of, _)| *of == width);
        match self.widths.binary_search(&width) {
            Ok(index) => Some(std::mem::replace(&mut self.pairs[index], pair)),
            Err(index) => {
                self.widths.insert(index, width);
                self.pairs.insert(index, pair);
                None
            }
        }
    }

    /// Says that the adapter of a width is added at some widths, in the place of what was said before.
    ///
    /// ```
    /// use burn::backend::Flex;
    /// use switchable_lora::{BitWidth, LoraBank};
    ///
    /// let mut bank = LoraBank::<Flex>::new();
    /// bank.share(BitWidth::FULL, &[BitWidth::B4, BitWidth::B2]);
    /// assert_eq!(bank.shared_at(BitWidth::B4), Some(BitWidth::FULL));
    /// assert_eq!(bank.shared_at(BitWidth::B8), None);
    /// ```
    pub fn share(&mut self, width: BitWidth, by: &[BitWidth]) {
        let mut by = by.to_vec();
        by.sort_unstable();
        by.dedup();
        self.shared = (!by.is_empty()).then_some((width, by));
    }

    /// Says that no adapter is shared any more, if one of some widths has a part in it.
    pub fn unshare(&mut self, widths: &[BitWidth]) {
        self.shared.take_if(|(of, by)| widths.iter().any(|width| width == of || by.contains(width)));
    }

    /// The width whose adapter is added at another, if one is shared with it.
    pub fn shared_at(&self, bits: BitWidth) -> Option<BitWidth> {
        self.shared.as_ref().filter(|(_, by)| by.contains(&bits)).map(|(width, _)| *width)
    }

    /// The widths that add the adapter of a width, ascending; none where it is not shared.
    pub fn sharers(&self, width: BitWidth) -> &[BitWidth] {
        self.shared.as_ref().filter(|(of, _)| *of == width).map_or(&[], |(_, by)| by)
    }

    /// Takes an adapter out.
    pub fn remove(&mut self, width: BitWidth) -> Option<LoraAdapterPair<B>> {
        self.shared.take_if(|(of, _)| *of == width);
        let index = self.widths.binary_search(&width).ok()?;
        self.widths.remove(index);
        Some(self.pairs.remove(index))
    }

    /// The widths that have an adapter, in rising order.
    pub fn widths(&self) -> &[BitWidth] {
        &self.widths
    }

    /// The adapters with their widths, in rising order of these.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (BitWidth, &LoraAdapterPair<B>)> {
        self.widths.iter().copied().zip(&self.pairs)
    }

    /// The number of adapters.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no adapters.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The adapter for a width.
    ///
    /// # Errors
    ///
    /// [`Error::MissingAdapter`] if there is none.
    pub fn expect(&self, width: BitWidth) -> Result<&LoraAdapterPair<B>> {
        self.get(width).ok_or_else(|| Error::MissingAdapter { bits: width, available: self.widths.clone() })
    }
}

impl<B: Backend> Default for LoraBank<B> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[expect(clippy::default_trait_access, reason = "there is one device, that of the backend")]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::lora_config::LoraConfig;

    fn pair(rank: usize) -> LoraAdapterPair<Flex> {
        LoraAdapterPair::adding_nothing(&LoraConfig::new(rank, 1.0).unwrap(), [4, 3], 0, &Default::default())
    }

    #[test]
    fn widths_stay_sorted_and_adapters_stay_with_them() {
        let mut bank = LoraBank::new();
        for width in [BitWidth::B8, BitWidth::B2, BitWidth::FULL, BitWidth::B4] {
            assert!(bank.insert(width, pair(width.bits().into())).is_none());
        }
        assert_eq!(bank.widths(), [BitWidth::B2, BitWidth::B4, BitWidth::B8, BitWidth::FULL]);
        assert!(bank.iter().all(|(width, pair)| pair.rank() == usize::from(width.bits())));

        assert_eq!(bank.insert(BitWidth::B4, pair(5)).map(|old| old.rank()), Some(4));
        assert_eq!(bank.remove(BitWidth::B2).map(|old| old.rank()), Some(2));
        assert!(bank.remove(BitWidth::B2).is_none());
        assert_eq!(bank.get(BitWidth::B4).unwrap().rank(), 5);
        assert_eq!(bank.len(), 3);
    }

    #[test]
    fn a_missing_adapter_names_what_there_is() {
        let mut bank = LoraBank::new();
        let message = |bank: &LoraBank<Flex>| bank.expect(BitWidth::B3).unwrap_err().to_string();
        assert_eq!(message(&bank), "no adapter for 3 bits, available: none");
        bank.insert(BitWidth::B8, pair(1));
        bank.insert(BitWidth::B4, pair(1));
        assert_eq!(message(&bank), "no adapter for 3 bits, available: 4, 8");
    }
}
