//! Sites by the score of their next step, the lowest first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A site and what its next step scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scored {
    /// Harm per byte saved; −∞ where it is not known.
    pub(super) score: f64,
    /// Position of the site.
    pub(super) site: usize,
}

impl Eq for Scored {}

/// The greatest of a heap is the lowest score; of equals the site that comes first.
impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(other.site.cmp(&self.site))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The sites that have a step left.
pub(super) type SiteQueue = BinaryHeap<Scored>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_score_comes_first_and_what_is_not_known_before_all() {
        let scored = |site, score| Scored { score, site };
        let scores = [0.5, f64::NEG_INFINITY, -0.1, 0.5, f64::INFINITY];
        let mut queue: SiteQueue = scores.iter().enumerate().map(|(site, score)| scored(site, *score)).collect();
        let order: Vec<usize> = std::iter::from_fn(|| queue.pop()).map(|scored| scored.site).collect();
        assert_eq!(order, [1, 2, 0, 3, 4]);
    }
}
