use serde::Deserialize;

use super::*;

/// What `transformers` leaves of fixed scores: `tests/golden/make_generation.py` writes it.
const GOLDEN: &str = include_str!("../../../tests/golden/scores.json");

#[derive(Debug, Deserialize)]
struct Golden {
    rows: Vec<Vec<f32>>,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    row: usize,
    seen: HashSet<u32>,
    repetition_penalty: f32,
    draws: Draws,
    tokens: Vec<u32>,
    probabilities: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Draws {
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
}

fn probabilities(candidates: &[Candidate]) -> Vec<f64> {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    candidates.iter().map(|candidate| candidate.weight / total).collect()
}

fn tokens(candidates: &[Candidate]) -> Vec<u32> {
    candidates.iter().map(|candidate| candidate.token).collect()
}

#[test]
fn the_tokens_that_are_kept_and_their_probabilities_are_those_of_transformers() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    assert!(golden.cases.len() > 200, "{} cases", golden.cases.len());
    for case in golden.cases {
        let mut scores = golden.rows[case.row].clone();
        penalise(&mut scores, &case.seen, case.repetition_penalty);
        let Draws { temperature, top_k, top_p } = case.draws;
        let got = candidates(&scores, &DrawOptions { temperature, top_k, top_p, seed: 0 });
        assert_eq!(tokens(&got), case.tokens, "{case:?}");
        for (got, want) in probabilities(&got).iter().zip(&case.probabilities) {
            // The scores of `transformers` are f32 behind each of its steps.
            assert!((got - want).abs() < 2e-6, "{got} instead of {want}: {case:?}");
        }
    }
}

/// A nucleus by the sentence that defines it: left out one after another, from the least probable up.
fn nucleus_by_hand(scores: &[f32], top_p: f64) -> Vec<u32> {
    let total: f64 = scores.iter().map(|&score| f64::from(score).exp()).sum();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut below = 0.0;
    let mut kept: Vec<u32> = Vec::new();
    for (rank, &token) in order.iter().enumerate() {
        below += f64::from(scores[token]).exp() / total;
        if below > 1.0 - top_p || rank + 1 == order.len() {
            kept.push(token as u32);
        }
    }
    kept.sort_unstable();
    kept
}

#[test]
fn a_nucleus_of_a_large_vocabulary_is_that_of_the_plain_loop() {
    let mut state = 7_u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as f32 / u32::MAX as f32
    };
    for (size, spread) in [(1, 1.0), (2, 3.0), (1000, 0.01), (1000, 4.0), (5000, 30.0)] {
        let scores: Vec<f32> = (0..size).map(|_| spread * uniform()).collect();
        for top_p in [1e-9, 0.1, 0.5, 0.9, 0.999_999] {
            let got = candidates(&scores, &DrawOptions { top_p: Some(top_p), ..Default::default() });
            let want = nucleus_by_hand(&scores, f64::from(top_p));
            assert_eq!(tokens(&got), want, "{size} scores of spread {spread}, top-p {top_p}");
        }
    }
}

#[test]
fn hidden_tokens_are_never_candidates_whatever_is_kept() {
    let scores = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 0.0];
    for (top_k, top_p) in [(None, None), (Some(3), None), (Some(9), Some(0.999)), (None, Some(0.9999))] {
        let got = candidates(&scores, &DrawOptions { top_k, top_p, ..Default::default() });
        assert_eq!(tokens(&got), [1, 3], "{top_k:?} {top_p:?}");
    }
}
