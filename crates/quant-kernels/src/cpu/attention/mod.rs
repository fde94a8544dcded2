//! Causal self-attention, forward and backward, one head at a time.
//!
//! ```text
//! P = softmax(s·Q·Kᵀ + M)                     y = P·V
//! dV = Pᵀ·dy     dP = dy·Vᵀ     dS = s·P∘(dP − rowsum(P∘dP))     dQ = dS·K     dK = dSᵀ·Q
//! ```
//!
//! `M` hides from query `i` every key behind `offset + i`, where `offset` is the number of keys
//! older than the first query. Heads are tasks of their own, and queries go through in blocks, so
//! that scores stay in a core's cache and hidden ones are mostly not computed. The backward pass
//! computes the scores again instead of keeping them: Dao et al., *FlashAttention*,
//! arXiv:2205.14135, from which the form of the gradient comes too.

mod causal_pairs;
mod heads;
mod product;

use rayon::prelude::*;

use self::causal_pairs::CausalPairs;
use self::product::{Pointer, product};
use crate::cpu::{elementary::exp, instruction_set::InstructionSet, multiversion::multiversion};

pub(crate) use self::heads::{HeadStrides, Heads};

/// Queries that go through together.
const BLOCK: usize = 64;

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    pub(crate) batch: usize,
    /// Heads of queries.
    pub(crate) heads: usize,
    /// Heads of queries that share one head of keys and values.
    pub(crate) sharing: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) width: usize,
    /// Multiplies the scores.
    pub(crate) scale: f32,
}

impl AttentionShape {
    /// Where heads lie in `[batch, tokens, parts · heads · width]`.
    pub(crate) fn packed_strides(&self, tokens: usize, parts: usize) -> HeadStrides {
        let token = parts * self.heads * self.width;
        HeadStrides { batch: tokens * token, head: self.width, token }
    }

    fn check(&self, heads: Heads<'_>, count: usize, tokens: usize) {
        let HeadStrides { batch, head, token } = heads.strides;
        if self.batch * count * tokens * self.width > 0 {
            let last = (self.batch - 1) * batch + (count - 1) * head + (tokens - 1) * token + self.width;
            assert!(last <= heads.values.len(), "heads reach past their {} numbers", heads.values.len());
        }
        assert!(self.queries <= self.keys, "{} queries are more than {} keys", self.queries, self.keys);
    }

    /// The output, `[batch, queries, heads · width]`.
    pub(crate) fn forward(&self, set: InstructionSet, q: Heads<'_>, k: Heads<'_>, v: Heads<'_>) -> Vec<f32> {
        self.check(q, self.heads, self.queries);
        self.check(k, self.heads.div_ceil(self.sharing), self.keys);
        self.check(v, self.heads.div_ceil(self.sharing), self.keys);
        let strides = self.packed_strides(self.queries, 1);
        let mut out = vec![0.0; self.batch * self.queries * strides.token];
        let shared = Shared(out.as_mut_ptr());
        self.for_each_head(|batch, head| {
            let q = q.at(batch, head);
            let [k, v] = [k, v].map(|heads| heads.at(batch, head / self.sharing));
            let mut scores = vec![0.0; BLOCK.min(self.queries) * self.keys];
            for first in (0..self.queries).step_by(BLOCK) {
                let rows = BLOCK.min(self.queries - first);
                self.probabilities(set, q, k, first, rows, &mut scores);
                let pairs = CausalPairs { weights: &scores, first: self.keys - self.queries + first, rows };
                let y = shared.at(strides.of(batch, head) + first * strides.token, strides.token);
                // SAFETY: the rows and columns lie in their slices as checked above, and no other head writes to
                // these columns of the output.
                #[expect(unsafe_code, reason = "the product takes pointers")]
                unsafe {
                    pairs.with_keys(v, self.width, y);
                }
            }
        });
        out
    }

    /// The gradient of `[batch, tokens, 3 · heads · width]`, queries, keys and values side by side,
    /// from that of the output.
    pub(crate) fn backward_of_packed(&self, set: InstructionSet, qkv: &[f32], gradient: &[f32]) -> Vec<f32> {
        assert_eq!(self.queries, self.keys, "packed queries and keys are of the same tokens");
        assert_eq!(self.sharing, 1, "packed keys are as many as queries");
        let strides = self.packed_strides(self.keys, 3);
        let d = self.heads * self.width;
        let part = |values, index: usize| Heads { values, strides }.skip(index * d);
        let dy = Heads { values: gradient, strides: self.packed_strides(self.queries, 1) };
        self.check(dy, self.heads, self.queries);
        assert_eq!(qkv.len(), self.batch * strides.batch, "queries, keys and values of every token");
        let mut out = vec![0.0; qkv.len()];
        let shared = Shared(out.as_mut_ptr());
        self.for_each_head(|batch, head| {
            let [q, k, v] = [0, 1, 2].map(|index| part(qkv, index).at(batch, head));
            let dy = dy.at(batch, head);
            let to = |index: usize, token: usize| {
                shared.at(strides.of(batch, head) + index * d + token * strides.token, strides.token)
            };
            let size = BLOCK.min(self.queries) * self.keys;
            let (mut p, mut ds) = (vec![0.0; size], vec![0.0; size]);
            for first in (0..self.queries).step_by(BLOCK) {
                let rows = BLOCK.min(self.queries - first);
                let seen = first + rows;
                let width = self.width;
                self.probabilities(set, q, k, first, rows, &mut p);
                let scores = Pointer { start: ds.as_mut_ptr(), stride: seen };
                // SAFETY: as in `forward`; the scratch has room for `rows · seen` numbers.
                #[expect(unsafe_code, reason = "the product takes pointers")]
                unsafe {
                    product([rows, width, seen], dy.matrix(first), v.matrix(0).transposed(), scores, false);
                }
                score_gradients(set, &p[..rows * seen], &mut ds[..rows * seen], [rows, seen, first + 1], self.scale);
                let [p, ds] = [&p, &ds].map(|weights| CausalPairs { weights, first, rows });
                // SAFETY: as above.
                #[expect(unsafe_code, reason = "the product takes pointers")]
                unsafe {
                    ds.with_keys(k, width, to(0, first));
                    ds.with_queries(q.starting_at(first), width, to(1, 0));
                    p.with_queries(dy.starting_at(first), width, to(2, 0));
                }
            }
        });
        out
    }

    fn for_each_head(&self, work: impl Fn(usize, usize) + Sync) {
        let tasks = self.batch * self.heads;
        let work = |task: usize| work(task / self.heads, task % self.heads);
        // One query is a few microseconds for each head.
        if self.queries * self.keys * self.width < 1 << 14 {
            (0..tasks).into_par_iter().with_min_len(tasks.div_ceil(2).max(1)).for_each(work);
        } else {
            (0..tasks).into_par_iter().for_each(work);
        }
    }

    /// Writes the probabilities of a block of queries to `scores`, `[rows, seen]`.
    fn probabilities(
        &self,
        set: InstructionSet,
        q: Heads<'_>,
        k: Heads<'_>,
        first: usize,
        rows: usize,
        scores: &mut [f32],
    ) {
        let offset = self.keys - self.queries;
        let seen = offset + first + rows;
        let to = Pointer { start: scores.as_mut_ptr(), stride: seen };
        assert!(rows * seen <= scores.len(), "the scratch is too small");
        // SAFETY: the rows lie in their slices, as the callers checked, and `to` has room.
        #[expect(unsafe_code, reason = "the product takes pointers")]
        unsafe {
            product([rows, self.width, seen], q.matrix(first), k.matrix(0).transposed(), to, false);
        }
        softmax_causal(set, &mut scores[..rows * seen], seen, offset + first + 1, self.scale);
    }
}

/// Memory that heads write different columns of.
struct Shared(*mut f32);

// SAFETY: the pointer is only written through `product`, whose callers keep heads apart.
#[expect(unsafe_code, reason = "heads write to different columns of the same rows")]
unsafe impl Sync for Shared {}

impl Shared {
    fn at(&self, index: usize, stride: usize) -> Pointer {
        Pointer { start: self.0.wrapping_add(index), stride }
    }
}

multiversion! {
    /// Softmax of each row over its first numbers: `visible` of the first row, one more in each
    /// further row. The others become 0.
    fn softmax_causal(scores: &mut [f32], columns: usize, visible: usize, scale: f32) {
        const LANES: usize = 16;
        for (row, scores) in scores.chunks_exact_mut(columns).enumerate() {
            let (seen, hidden) = scores.split_at_mut(visible + row);
            hidden.fill(0.0);
            let mut lanes = [f32::NEG_INFINITY; LANES];
            let chunks = seen.chunks_exact(LANES);
            let mut most = chunks.remainder().iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
            for chunk in chunks {
                for (lane, &x) in lanes.iter_mut().zip(chunk) {
                    *lane = if x > *lane { x } else { *lane };
                }
            }
            for lane in lanes {
                most = if lane > most { lane } else { most };
            }
            let most = most * scale;
            for x in &mut *seen {
                let t = *x * scale - most;
                // e^−87 is 0 next to the 1 of the largest.
                *x = exp(if t < -87.0 { -87.0 } else { t });
            }
            let mut lanes = [0.0; LANES];
            let chunks = seen.chunks_exact(LANES);
            let mut total: f32 = chunks.remainder().iter().sum();
            for chunk in chunks {
                for (lane, &x) in lanes.iter_mut().zip(chunk) {
                    *lane += x;
                }
            }
            total += lanes.iter().sum::<f32>();
            let factor = 1.0 / total;
            for x in seen {
                *x *= factor;
            }
        }
    }
}

multiversion! {
    /// `dS = s·P∘(dP − rowsum(P∘dP))` in place of `dP`, for the first numbers of each row: `visible` of the first
    /// row, one more in each further row. The others become 0. Sizes are rows, columns and `visible`.
    fn score_gradients(p: &[f32], dp: &mut [f32], sizes: [usize; 3], scale: f32) {
        const LANES: usize = 16;
        let [rows, columns, visible] = sizes;
        for row in 0..rows {
            let p = &p[row * columns..][..columns];
            let dp = &mut dp[row * columns..][..columns];
            dp[visible + row..].fill(0.0);
            let mut lanes = [0.0; LANES];
            for (p, dp) in p.chunks_exact(LANES).zip(dp.chunks_exact(LANES)) {
                for lane in 0..LANES {
                    lanes[lane] += p[lane] * dp[lane];
                }
            }
            let whole = columns / LANES * LANES;
            let rest: f32 = p[whole..].iter().zip(&dp[whole..]).map(|(p, dp)| p * dp).sum();
            let mean = lanes.iter().sum::<f32>() + rest;
            for (dp, p) in dp.iter_mut().zip(p).take(visible + row) {
                *dp = scale * p * (*dp - mean);
            }
        }
    }
}

#[cfg(test)]
mod tests;
