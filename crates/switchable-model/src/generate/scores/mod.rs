//! What penalty, temperature, top-k and top-p leave of the scores of the next token.
//!
//! ```text
//! top-k:   z ≥ the k-th largest z
//! top-p:   tokens from the least probable up are left out as long as those left out have at most 1 − p together
//! ```
//!
//! As in `transformers`, tokens that are as good as the k-th are kept with it; of equals at the boundary of top-p the
//! first are left out; the best token always stays.

use std::collections::HashSet;

use super::options::DrawOptions;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) token: u32,
    /// Its probability times a number that all candidates share.
    pub(super) weight: f64,
}

/// Divides scores above 0 of tokens that were seen by the penalty, and multiplies those below.
pub(super) fn penalise(scores: &mut [f32], seen: &HashSet<u32>, penalty: f32) {
    for &token in seen {
        let score = &mut scores[token as usize];
        *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
    }
}

/// The first score from which no token can be chosen: a NaN or +∞, or −∞ where none is a number.
pub(super) fn fault(scores: &[f32]) -> Option<f32> {
    let broken = scores.iter().copied().find(|score| score.is_nan() || *score == f32::INFINITY);
    broken.or_else(|| (!scores.iter().any(|score| score.is_finite())).then_some(f32::NEG_INFINITY))
}

/// The tokens that may be drawn, in the order of their ids, from scores of which one is a number.
pub(super) fn candidates(scores: &[f32], options: &DrawOptions) -> Vec<Candidate> {
    let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let lowest = options.top_k.map_or(f32::NEG_INFINITY, |top_k| kth_largest(scores, top_k));
    let weight = |score: f32| ((f64::from(score) - f64::from(best)) / f64::from(options.temperature)).exp();
    let kept = scores.iter().enumerate().filter(|&(_, &score)| score >= lowest && score > f32::NEG_INFINITY);
    let mut kept: Vec<Candidate> =
        kept.map(|(token, &score)| Candidate { token: token as u32, weight: weight(score) }).collect();
    if let Some(top_p) = options.top_p.filter(|&top_p| top_p < 1.0) {
        keep_nucleus(&mut kept, f64::from(top_p));
    }
    kept
}

fn kth_largest(scores: &[f32], k: usize) -> f32 {
    if k >= scores.len() {
        return f32::NEG_INFINITY;
    }
    let mut scores = scores.to_vec();
    *scores.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// Keeps the fewest candidates of the highest weight that together have a share of `top_p`.
fn keep_nucleus(candidates: &mut Vec<Candidate>, top_p: f64) {
    let spare = (1.0 - top_p) * candidates.iter().map(|candidate| candidate.weight).sum::<f64>();
    // All that are this light are left out without being sorted: together they have no more than is spared.
    let light = spare / candidates.len() as f64;
    let mut left_out = 0.0;
    let mut rest: Vec<Candidate> = Vec::new();
    for candidate in candidates.iter() {
        if candidate.weight < light {
            left_out += candidate.weight;
        } else {
            rest.push(*candidate);
        }
    }
    // Stable, so that of equals the first ids are left out first.
    rest.sort_by(|a, b| a.weight.total_cmp(&b.weight));
    let most = rest.len().saturating_sub(1);
    let below = rest.iter().take(most).take_while(|candidate| {
        left_out += candidate.weight;
        left_out <= spare
    });
    let below = below.count();
    rest.drain(..below);
    rest.sort_unstable_by_key(|candidate| candidate.token);
    *candidates = rest;
}

#[cfg(test)]
mod tests;
