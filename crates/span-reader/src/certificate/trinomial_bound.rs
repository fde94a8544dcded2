//! The largest loss that a number of questions leaves open, exactly.
//!
//! ```text
//! D = b − c,  m = b + c                   b questions that only the original answers, c that only the other does
//! D ~ sum of n steps of +1, −1, 0 with p₁₀, p₀₁, 1 − ψ        Δ = p₁₀ − p₀₁,   ψ = p₁₀ + p₀₁
//! ψ⁺ = max { ψ : P(M ≤ m) > γ },   M ~ Binomial(n, ψ),   γ = α / 10
//! Δ⁺ = max { Δ ≤ ψ⁺ : max over |Δ| ≤ ψ ≤ ψ⁺ of P(D' ≤ D; Δ, ψ) > α − γ }
//! ```
//!
//! The loss Δ is at most Δ⁺ with probability 1 − α or more, for every n, Δ and ψ: either ψ exceeds ψ⁺, which
//! has probability γ at most, or the test of the true Δ and ψ rejects them, which has α − γ at most. No
//! question that differs leaves a bound of about 4/n, not 0.
//!
//! P(D' ≤ D) is summed over the discordant pairs, `Σ P(M = k) · P(B ≤ ⌊(k + D)/2⌋ | k)`, `B ~ Binomial(k, p₁₀/ψ)`.
//! The largest over ψ is looked for among three values; it stands at the end ψ⁺, as more discordant pairs
//! of the same mean spread D.
//!
//! Source: Berger and Boos, *P values maximized over a confidence set for the nuisance parameter*, JASA 1994;
//! Clopper and Pearson, *The use of confidence or fiducial limits*, Biometrika 1934, for ψ⁺.

/// Questions, and on how many of them two models differ, as whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PairCounts {
    /// Questions.
    pub(super) questions: usize,
    /// `b + c`, at most the questions.
    pub(super) discordant: usize,
    /// `b − c`, of a size that the discordant ones allow.
    pub(super) lost: i64,
}

/// Share of the error probability that the discordance rate takes.
const NUISANCE_SHARE: f64 = 0.1;
/// Values of the discordance rate that are tried.
const RATES: usize = 3;
/// Halvings of an interval: to a millionth of a percent.
const HALVINGS: usize = 28;

impl PairCounts {
    /// The upper bound of the loss, a share of the questions from −1 to 1, that is exceeded with probability
    /// `alpha` at most.
    pub(super) fn loss_bound(self, alpha: f64) -> f64 {
        if self.questions == 0 {
            return 1.0;
        }
        let factorials = LogFactorials::up_to(self.questions);
        let gamma = NUISANCE_SHARE * alpha;
        let highest = largest([0.0, 1.0], |rate| {
            // At a rate of 1 all pairs are discordant.
            rate < 1.0 && factorials.binomial_tail(self.questions, self.discordant, rate) > gamma
        });
        let highest = if self.discordant == self.questions { 1.0 } else { highest };
        largest([-highest, highest], |loss| {
            let lowest = loss.abs();
            (0..RATES).any(|step| {
                let rate = highest - (highest - lowest) * step as f64 / (RATES - 1) as f64;
                self.tail(&factorials, loss, rate) > alpha - gamma
            })
        })
    }

    /// `P(D' ≤ D)` at a loss and a discordance rate.
    fn tail(self, factorials: &LogFactorials, loss: f64, rate: f64) -> f64 {
        let n = self.questions;
        if rate <= 0.0 {
            return if self.lost >= 0 { 1.0 } else { 0.0 };
        }
        let share = (f64::midpoint(rate, loss) / rate).clamp(0.0, 1.0);
        let mean = n as f64 * rate;
        // What lies beyond has a probability that no digit shows.
        let reach = 9.0 * (mean * (1.0 - rate)).sqrt() + 12.0;
        let first = (mean - reach).max(0.0) as usize;
        let last = ((mean + reach) as usize).min(n);
        // P(B ≤ k | m) and P(B ≤ k | m + 1) differ by a term; so do those of k and k + 1.
        let below = |pairs: usize| (pairs as i64 + self.lost).div_euclid(2);
        let mut limit = below(first);
        let mut cdf: f64 = (0..=limit).map(|k| factorials.binomial(first, k, share)).sum();
        let mut tail = 0.0;
        for pairs in first..=last {
            if pairs > first {
                cdf -= share * factorials.binomial(pairs - 1, limit, share);
                let next = below(pairs);
                if next > limit {
                    limit = next;
                    cdf += factorials.binomial(pairs, limit, share);
                }
            }
            tail += factorials.binomial(n, pairs as i64, rate) * cdf.clamp(0.0, 1.0);
        }
        tail
    }
}

/// The largest number of a range at which something holds that holds up to some number; the range's start where
/// it holds nowhere.
fn largest([mut low, mut high]: [f64; 2], holds: impl Fn(f64) -> bool) -> f64 {
    if holds(high) {
        return high;
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    // The end that is on the safe side.
    high
}

/// `ln k!`, so that probabilities of thousands of questions do not underflow on their way.
struct LogFactorials(Vec<f64>);

impl LogFactorials {
    fn up_to(n: usize) -> Self {
        let mut sum = 0.0;
        Self(
            std::iter::once(0.0)
                .chain((1..=n).map(|k| {
                    sum += (k as f64).ln();
                    sum
                }))
                .collect(),
        )
    }

    /// `P(B = k)`, `B ~ Binomial(n, p)`; 0 outside of 0 to n.
    fn binomial(&self, n: usize, k: i64, p: f64) -> f64 {
        let Some(k) = usize::try_from(k).ok().filter(|k| *k <= n) else { return 0.0 };
        // 0·ln 0 is 0 here.
        let times = |count: usize, log: f64| if count == 0 { 0.0 } else { count as f64 * log };
        let ways = self.0[n] - self.0[k] - self.0[n - k];
        (ways + times(k, p.ln()) + times(n - k, (-p).ln_1p())).exp()
    }

    /// `P(B ≤ k)`.
    fn binomial_tail(&self, n: usize, k: usize, p: f64) -> f64 {
        (0..=k as i64).map(|k| self.binomial(n, k, p)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn counts(questions: usize, only_first: usize, only_second: usize) -> PairCounts {
        let lost = only_first as i64 - only_second as i64;
        PairCounts { questions, discordant: only_first + only_second, lost }
    }

    #[test]
    fn tails_are_those_of_the_trinomial_counted_out() {
        let n = 7;
        let factorials = LogFactorials::up_to(n);
        for (loss, rate) in [(0.1, 0.3), (-0.2, 0.5), (0.0, 1.0), (0.4, 0.4), (0.3, 0.9)] {
            let [p, q] = [f64::midpoint(rate, loss), f64::midpoint(rate, -loss)];
            for lost in -7..=7_i64 {
                let mut expected = 0.0;
                for b in 0..=n {
                    for c in 0..=n - b {
                        if b as i64 - c as i64 <= lost {
                            let ways = factorials.0[n] - factorials.0[b] - factorials.0[c] - factorials.0[n - b - c];
                            let power = |base: f64, count: usize| base.max(0.0).powi(count as i32);
                            expected += ways.exp() * power(p, b) * power(q, c) * power(1.0 - rate, n - b - c);
                        }
                    }
                }
                let found = PairCounts { questions: n, discordant: 7, lost }.tail(&factorials, loss, rate);
                assert!((found - expected).abs() < 1e-9, "{loss} {rate} {lost}: {found}, {expected}");
            }
        }
    }

    #[test]
    fn questions_that_all_agree_leave_a_loss_open_that_shrinks_with_their_number() {
        for n in [1, 10, 100, 1000, 10_000] {
            let bound = counts(n, 0, 0).loss_bound(0.05);
            // No bound of such data can be below that of a one-sided exact test of p₁₀ alone.
            let least = 1.0 - 0.05f64.powf(1.0 / n as f64);
            assert!(bound >= least && bound <= (1.55 * least).min(1.0), "{n}: {bound}, {least}");
        }
        assert!((counts(0, 0, 0).loss_bound(0.05) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn bounds_lie_beyond_the_difference_and_follow_it() {
        for n in [30, 400] {
            let mut last = f64::NEG_INFINITY;
            for lost in -20..=20_i64 {
                let bound = PairCounts { questions: n, discordant: 20, lost }.loss_bound(0.05);
                assert!(bound > lost as f64 / n as f64 && bound >= last, "{n} {lost}: {bound} {last}");
                last = bound;
            }
            let one = counts(n, 9, 4);
            assert!(one.loss_bound(0.025) > one.loss_bound(0.05));
        }
        // Everything is lost.
        assert!((counts(5, 5, 0).loss_bound(0.05) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn bounds_of_many_questions_are_near_those_of_the_normal_distribution() {
        let [b, c, n] = [600.0f64, 500.0, 10_000.0];
        let bound = counts(10_000, 600, 500).loss_bound(0.05);
        let normal = (b - c) / n + 1.644_854 * ((b + c) / n / n).sqrt();
        assert!(bound > normal && bound < normal + 0.15 * (normal - (b - c) / n), "{bound}, {normal}");
    }

    #[test]
    fn the_true_loss_is_below_the_bound_as_often_as_promised() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut least = 1.0f64;
        for (n, draws, rates) in [
            (30_u32, 4000_u32, [0.003f64, 0.03, 0.1, 0.6]),
            (200, 2000, [0.001, 0.01, 0.1, 0.5]),
            (2000, 800, [0.0005, 0.002, 0.01, 0.1]),
        ] {
            for rate in rates {
                for share in [0.5f64, 0.75, 1.0] {
                    let truth: f64 = rate * (2.0 * share - 1.0);
                    let mut known = HashMap::new();
                    let mut covered = 0;
                    for _ in 0..draws {
                        let (mut b, mut c) = (0, 0);
                        let mut at = 0.0f64;
                        loop {
                            // How many questions agree before the next that does not.
                            let skipped: f64 = rng.random();
                            at += 1.0 + ((1.0 - skipped).ln() / (-rate).ln_1p()).floor();
                            if at > f64::from(n) {
                                break;
                            }
                            if rng.random_bool(share) { b += 1 } else { c += 1 }
                        }
                        let bound = known.entry((b, c)).or_insert_with(|| counts(n as usize, b, c).loss_bound(0.05));
                        covered += usize::from(*bound >= truth);
                    }
                    let coverage = covered as f64 / f64::from(draws);
                    least = least.min(coverage);
                    // Three standard errors of a share of 95 %.
                    let error = 3.0 * (0.95 * 0.05 / f64::from(draws)).sqrt();
                    assert!(coverage >= 0.95 - error, "n = {n}, rate {rate}, {share}: {coverage}");
                }
            }
        }
        // The bound is not so wide that nothing could miss it.
        assert!(least < 0.98, "{least}");
    }
}
