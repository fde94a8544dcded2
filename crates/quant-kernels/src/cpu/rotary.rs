//! Rotary positions, one pass over the heads of every token.

/// The heads of tokens turned by the angles of their tokens.
///
/// # Shapes
///
/// - `x` `[tokens, d]`, the same out
/// - `cos`, `sin` `[some of the tokens, half]`, again and again from the first on; `d` is a multiple of `2 · half`
pub(crate) fn turn_heads(x: &[f32], [cos, sin]: [&[f32]; 2], d: usize, half: usize) -> Vec<f32> {
    let mut out = x.to_vec();
    if x.is_empty() || half == 0 {
        return out;
    }
    let terms = cos.chunks_exact(half).zip(sin.chunks_exact(half)).cycle();
    for (token, (cos, sin)) in out.chunks_exact_mut(d).zip(terms) {
        for head in token.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
    out
}
