//! How well a cache of quantised weights served.

use std::fmt;

use serde::Serialize;

/// How often a cache had what was looked up, and what it had no room for.
///
/// ```
/// use switchable_lora::{QuantizedCache, cache_statistics::CacheStatistics};
///
/// let statistics: CacheStatistics = QuantizedCache::new(256 << 20).statistics();
/// assert_eq!((statistics.hits, statistics.misses), (0, 0));
/// assert!(!statistics.is_too_small());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct CacheStatistics {
    /// Weights that were kept when they were looked up.
    pub hits: u64,
    /// Weights that were quantised because they were not.
    pub misses: u64,
    /// Those of the misses that had been quantised before, and dropped or not kept for want of room.
    pub computed_again: u64,
    /// Bytes that are kept.
    pub used_bytes: usize,
    /// The most bytes that are kept.
    pub cap_bytes: usize,
}

impl CacheStatistics {
    /// Whether the cache costs time and saves none: weights came round again, and none was ever kept
    /// until then.
    pub fn is_too_small(&self) -> bool {
        self.hits == 0 && self.computed_again > 0
    }
}

impl fmt::Display for CacheStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hits, misses, computed_again, used_bytes, cap_bytes } = *self;
        let gib = |bytes: usize| bytes as f64 / f64::from(1u32 << 30);
        let lookups = hits + misses;
        let share = 100.0 * hits as f64 / lookups.max(1) as f64;
        write!(f, "{hits} of {lookups} quantised weights were kept from before ({share:.1} %)")?;
        if computed_again > 0 {
            write!(f, ", {computed_again} quantised again for want of room")?;
        }
        write!(f, "; {:.2} of {:.2} GiB in use", gib(used_bytes), gib(cap_bytes))?;
        if self.is_too_small() {
            write!(f, "; the cache is too small to keep anything until it is used again, and only costs time")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_was_kept_and_what_had_no_room() {
        let statistics =
            CacheStatistics { hits: 3, misses: 1, computed_again: 0, used_bytes: 1 << 29, cap_bytes: 1 << 30 };
        let text = "3 of 4 quantised weights were kept from before (75.0 %); 0.50 of 1.00 GiB in use";
        assert_eq!(statistics.to_string(), text);
        assert!(!statistics.is_too_small());
        let none = CacheStatistics { hits: 0, misses: 8, computed_again: 4, ..statistics };
        assert!(none.is_too_small());
        let text = none.to_string();
        assert!(text.contains("4 quantised again") && text.contains("too small"), "{text}");
        assert!(!CacheStatistics::default().to_string().contains("NaN"));
    }
}
