//! Many comparisons at once.
//!
//! ```text
//! p̃₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1)·p₍ⱼ₎)                 m comparisons, p ascending
//! ```
//!
//! One in twenty would differ at 5 % by chance. With adjusted p values the chance that any comparison without a
//! difference is called one is 5 % at most.
//!
//! Source: Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 1979.

/// The p values of a family of comparisons, each adjusted for all of them, in the order given.
///
/// ```
/// use span_reader::statistics::holm::adjusted;
///
/// let three = adjusted(&[0.03, 0.01, 0.04]);
/// assert_eq!(three, [0.06, 0.03, 0.06]);
/// ```
pub fn adjusted(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let (mut adjusted, mut largest) = (vec![1.0; p_values.len()], 0.0_f64);
    for (place, &index) in order.iter().enumerate() {
        let left = p_values.len() - place;
        largest = largest.max((left as f64 * p_values[index]).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_least_counts_for_all_and_none_is_below_a_lesser_one() {
        // 5·0.01, 4·0.02, 3·0.03, then 2·0.04 and 0.05, which are below 0.09.
        let close = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        };
        close(adjusted(&[0.01, 0.02, 0.03, 0.04, 0.05]), &[0.05, 0.08, 0.09, 0.09, 0.09]);
        close(adjusted(&[0.001, 0.5, 0.0125, 0.9]), &[0.004, 1.0, 0.0375, 1.0]);
        close(adjusted(&[]), &[]);
        close(adjusted(&[0.2]), &[0.2]);
    }

    #[test]
    fn a_family_without_a_difference_is_called_different_as_rarely_as_promised() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut families = |calls: fn(&[f64]) -> bool| {
            (0..2000).filter(|_| calls(&(0..20).map(|_| rng.random()).collect::<Vec<f64>>())).count()
        };
        let with = families(|p| adjusted(p).iter().any(|p| *p < 0.05));
        let without = families(|p| p.iter().any(|p| *p < 0.05));
        // 100 expected of 2,000 with a standard deviation of 10; without, 1 − 0.95²⁰ of them.
        assert!((70..=130).contains(&with) && without > 1200, "{with} {without}");
    }
}
