//! Against attention computed number by number in f64.

use super::*;

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Attention of one head; `visible` says how many keys a query sees.
fn by_hand(q: &[Vec<f64>], k: &[Vec<f64>], v: &[Vec<f64>], scale: f64) -> Vec<Vec<f64>> {
    let offset = k.len() - q.len();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    q.iter()
        .enumerate()
        .map(|(i, q)| {
            let weights: Vec<f64> = k[..=offset + i].iter().map(|k| (scale * dot(q, k)).exp()).collect();
            let total: f64 = weights.iter().sum();
            (0..q.len()).map(|c| weights.iter().zip(v).map(|(w, v)| w * v[c]).sum::<f64>() / total).collect()
        })
        .collect()
}

fn rows(heads: Heads<'_>, batch: usize, head: usize, tokens: usize, width: usize) -> Vec<Vec<f64>> {
    (0..tokens)
        .map(|token| {
            let start = heads.strides.of(batch, head) + token * heads.strides.token;
            heads.values[start..start + width].iter().map(|&x| f64::from(x)).collect()
        })
        .collect()
}

fn output_by_hand(shape: AttentionShape, q: Heads<'_>, k: Heads<'_>, v: Heads<'_>) -> Vec<f64> {
    let AttentionShape { batch, heads, sharing, queries, keys, width, scale } = shape;
    let mut out = vec![0.0; batch * queries * heads * width];
    for b in 0..batch {
        for h in 0..heads {
            let y = by_hand(
                &rows(q, b, h, queries, width),
                &rows(k, b, h / sharing, keys, width),
                &rows(v, b, h / sharing, keys, width),
                f64::from(scale),
            );
            for (i, row) in y.iter().enumerate() {
                let start = ((b * queries + i) * heads + h) * width;
                out[start..start + width].copy_from_slice(row);
            }
        }
    }
    out
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(*got) - expected).abs() < tolerance, "element {index} is {got}, expected {expected}");
    }
}

/// Sizes below, at and above the block of queries, one token, and a width that fills no register.
const SHAPES: [(usize, usize, usize, usize); 5] =
    [(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 64, 16), (2, 2, 65, 8), (1, 1, 150, 5)];

fn shape((batch, heads, tokens, width): (usize, usize, usize, usize)) -> AttentionShape {
    AttentionShape { batch, heads, sharing: 1, queries: tokens, keys: tokens, width, scale: 0.7 }
}

fn parts(shape: &AttentionShape, qkv: &[f32]) -> [usize; 3] {
    assert_eq!(qkv.len(), shape.batch * shape.keys * 3 * shape.heads * shape.width);
    [0, 1, 2].map(|index| index * shape.heads * shape.width)
}

#[test]
fn packed_attention_equals_the_formula_on_every_instruction_set() {
    for set in InstructionSet::available() {
        for sizes in SHAPES {
            let shape = shape(sizes);
            let strides = shape.packed_strides(shape.keys, 3);
            let qkv = numbers(shape.batch * strides.batch, 5);
            let [q, k, v] = parts(&shape, &qkv).map(|start| Heads { values: &qkv[start..], strides });
            assert_close(&shape.forward(set, q, k, v), &output_by_hand(shape, q, k, v), 2e-5);
        }
    }
}

#[test]
fn keys_of_a_longer_buffer_are_read_where_they_lie() {
    let shape = AttentionShape { batch: 2, heads: 3, sharing: 1, queries: 2, keys: 9, width: 4, scale: 0.5 };
    let capacity = 16;
    let buffer = HeadStrides { batch: 3 * capacity * 4, head: capacity * 4, token: 4 };
    let (q, k, v) = (numbers(2 * 2 * 12, 1), numbers(2 * 3 * capacity * 4, 2), numbers(2 * 3 * capacity * 4, 3));
    let q = Heads { values: &q, strides: shape.packed_strides(2, 1) };
    let [k, v] = [&k, &v].map(|values| Heads { values, strides: buffer });
    assert_close(&shape.forward(InstructionSet::best(), q, k, v), &output_by_hand(shape, q, k, v), 1e-5);
}

#[test]
fn heads_of_queries_share_keys_that_are_not_repeated() {
    let (heads, sharing, keys, width) = (6, 3, 70, 4);
    let shape = AttentionShape { batch: 2, heads, sharing, queries: 66, keys, width, scale: 0.5 };
    let few = HeadStrides { batch: 2 * keys * width, head: keys * width, token: width };
    let (q, k, v) = (numbers(2 * 66 * heads * width, 1), numbers(2 * few.batch, 2), numbers(2 * few.batch, 3));
    let q = Heads { values: &q, strides: shape.packed_strides(66, 1) };
    let [k, v] = [&k, &v].map(|values| Heads { values, strides: few });
    assert_close(&shape.forward(InstructionSet::best(), q, k, v), &output_by_hand(shape, q, k, v), 2e-5);
}

#[test]
fn the_gradient_equals_differences_of_the_formula() {
    for set in InstructionSet::available() {
        for sizes in SHAPES {
            let shape = shape(sizes);
            let strides = shape.packed_strides(shape.keys, 3);
            let qkv = numbers(shape.batch * strides.batch, 7);
            let gradient = numbers(shape.batch * shape.queries * shape.heads * shape.width, 8);
            let got = shape.backward_of_packed(set, &qkv, &gradient);
            // The whole gradient in one direction, and single elements.
            let loss = |qkv: &[f32]| -> f64 {
                let [q, k, v] = parts(&shape, qkv).map(|start| Heads { values: &qkv[start..], strides });
                output_by_hand(shape, q, k, v).iter().zip(&gradient).map(|(y, g)| y * f64::from(*g)).sum()
            };
            for index in (0..qkv.len()).step_by(qkv.len().div_ceil(40)) {
                let step = 1.0 / 1024.0;
                let at = |sign: f32| {
                    let mut moved = qkv.clone();
                    moved[index] += sign * step;
                    (loss(&moved), f64::from(moved[index]))
                };
                let ((up, x_up), (down, x_down)) = (at(1.0), at(-1.0));
                let expected = (up - down) / (x_up - x_down);
                assert!(
                    (f64::from(got[index]) - expected).abs() < 1e-4,
                    "{sizes:?} {index}: {} {expected}",
                    got[index]
                );
            }
        }
    }
}

#[test]
fn a_nan_reaches_the_queries_that_see_it_and_no_other() {
    let shape = shape((1, 1, 6, 4));
    let strides = shape.packed_strides(6, 3);
    let mut qkv = numbers(6 * 12, 9);
    qkv[3 * 12 + 8] = f32::NAN; // a value of token 3
    let [q, k, v] = parts(&shape, &qkv).map(|start| Heads { values: &qkv[start..], strides });
    let clean = numbers(6 * 12, 9);
    let [clean_q, clean_k, clean_v] = parts(&shape, &clean).map(|start| Heads { values: &clean[start..], strides });
    let expected = output_by_hand(shape, clean_q, clean_k, clean_v);
    for set in InstructionSet::available() {
        let y = shape.forward(set, q, k, v);
        for (token, (y, expected)) in y.chunks(4).zip(expected.chunks(4)).enumerate() {
            let sees_it = token >= 3;
            assert_eq!(y[0].is_nan(), sees_it, "token {token}");
            let from = usize::from(sees_it);
            assert_close(&y[from..], &expected[from..], 2e-5);
        }
    }
}

/// The gradient of one head by the formula, over the pairs of a query and a key that it sees: of queries, keys and
/// values, `[tokens][3 · width]`.
fn gradient_by_hand(shape: AttentionShape, qkv: &[f32], gradient: &[f32]) -> Vec<f64> {
    let AttentionShape { queries: tokens, width, scale, .. } = shape;
    let scale = f64::from(scale);
    let of =
        |values: &[f32], start: usize| -> Vec<f64> { values[start..][..width].iter().map(|&x| x.into()).collect() };
    let row = |token: usize, part: usize| of(qkv, (3 * token + part) * width);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut out = vec![0.0; qkv.len()];
    for i in 0..tokens {
        let (q, dy) = (row(i, 0), of(gradient, i * width));
        let scores: Vec<f64> = (0..=i).map(|j| scale * dot(&q, &row(j, 1))).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let p: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let dp: Vec<f64> = (0..=i).map(|j| dot(&dy, &row(j, 2))).collect();
        let mean = dot(&p, &dp);
        for j in 0..=i {
            let ds = scale * p[j] * (dp[j] - mean);
            let mut add = |token: usize, part: usize, by: f64, values: &[f64]| {
                let to = &mut out[(3 * token + part) * width..][..width];
                to.iter_mut().zip(values).for_each(|(to, x)| *to += by * x);
            };
            add(i, 0, ds, &row(j, 1));
            add(j, 1, ds, &q);
            add(j, 2, p[j], &dy);
        }
    }
    out
}

#[test]
fn a_nan_reaches_the_gradients_of_those_that_see_it_and_no_other() {
    // Within one block of queries, and across two.
    for (tokens, place) in [(6, 3), (70, 3), (70, 66)] {
        let shape = shape((1, 1, tokens, 4));
        let clean = [numbers(tokens * 12, 9), numbers(tokens * 4, 10)];
        let mut changed = vec![(clean.clone(), "nothing")];
        for (part, name) in ["query", "key", "value", "gradient"].into_iter().enumerate() {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut numbers = clean.clone();
                match part {
                    3 => numbers[1][place * 4 + 1] = bad,
                    part => numbers[0][place * 12 + part * 4 + 1] = bad,
                }
                changed.push((numbers, name));
            }
        }
        for ([qkv, gradient], name) in changed {
            let expected = gradient_by_hand(shape, &qkv, &gradient);
            for set in InstructionSet::available() {
                let got = shape.backward_of_packed(set, &qkv, &gradient);
                for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let what = format!("{name} of token {place} of {tokens}, {set:?}, element {index}");
                    // The formula's own way may differ where a number is not finite, the place may not.
                    assert_eq!(got.is_finite(), expected.is_finite(), "{what}: {got}, {expected}");
                    if expected.is_finite() {
                        assert!((f64::from(*got) - expected).abs() < 2e-5, "{what}: {got}, {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_query_or_a_key_that_is_nan_reaches_the_queries_that_see_it_and_no_other() {
    let shape = shape((1, 1, 70, 4));
    let strides = shape.packed_strides(70, 3);
    for part in 0..2 {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut qkv = numbers(70 * 12, 9);
            qkv[3 * 12 + 4 * part] = bad;
            let [q, k, v] = parts(&shape, &qkv).map(|start| Heads { values: &qkv[start..], strides });
            let expected = output_by_hand(shape, q, k, v);
            for set in InstructionSet::available() {
                let y = shape.forward(set, q, k, v);
                for (index, (y, expected)) in y.iter().zip(&expected).enumerate() {
                    let sees_it = if part == 0 { index / 4 == 3 } else { index / 4 >= 3 };
                    // An infinite key may be worth nothing to a query.
                    assert!(sees_it || y.is_finite(), "{set:?} {part} {index}");
                    assert!(!bad.is_nan() || y.is_nan() == sees_it, "{set:?} {part} {index}: {y}");
                    if !sees_it {
                        assert!((f64::from(*y) - expected).abs() < 2e-5, "{set:?} {part} {index}");
                    }
                }
            }
        }
    }
}
