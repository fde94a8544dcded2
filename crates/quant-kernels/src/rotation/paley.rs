//! Hadamard matrices of orders that are no powers of two.
//!
//! ```text
//! q prime, q mod 4 = 3    order q + 1       H = 1 + S,   S = [[0, 1], [−1, Q]]
//! q prime, q mod 4 = 1    order 2(q + 1)    H = C ⊗ [[1, 1], [1, −1]] + 1 ⊗ [[1, −1], [−1, −1]],   C = [[0, 1], [1, Q]]
//! Q_ij = χ(i − j): 1 for a square modulo q that is not 0, −1 for any other number, 0 for 0
//! ```
//!
//! Source: Paley, *On orthogonal matrices*, Journal of Mathematics and Physics 12, 1933.

/// A matrix of ones and minus ones with orthogonal rows, row-major; `None` where Paley's constructions give none of
/// the order. The order 1 is one of them.
pub(super) fn hadamard_matrix(order: usize) -> Option<Vec<f32>> {
    match order {
        1 => Some(vec![1.0]),
        _ if order == 0 || !order.is_multiple_of(4) => None,
        _ if is_prime(order - 1) => Some(of_skew(order - 1)),
        _ if is_prime(order / 2 - 1) && (order / 2 - 1) % 4 == 1 => Some(of_symmetric(order / 2 - 1)),
        _ => None,
    }
}

/// The first construction.
fn of_skew(q: usize) -> Vec<f32> {
    let (order, core) = (q + 1, residues(q));
    let entry = |index: usize| match (index / order, index % order) {
        (row, column) if row == column => 1.0,
        (0, _) => 1.0,
        (_, 0) => -1.0,
        (row, column) => core[(row + q - column) % q],
    };
    (0..order * order).map(entry).collect()
}

/// The second construction.
fn of_symmetric(q: usize) -> Vec<f32> {
    let (order, core) = (2 * (q + 1), residues(q));
    let entry = |index: usize| {
        let (row, column) = (index / order, index % order);
        let (outer, inner) = ((row / 2, column / 2), (row % 2, column % 2));
        match outer {
            (i, j) if i == j => [[1.0, -1.0], [-1.0, -1.0]][inner.0][inner.1],
            (0, _) | (_, 0) => [[1.0, 1.0], [1.0, -1.0]][inner.0][inner.1],
            (i, j) => core[(i + q - j) % q] * [[1.0, 1.0], [1.0, -1.0]][inner.0][inner.1],
        }
    };
    (0..order * order).map(entry).collect()
}

/// `χ` of 0 to `q − 1`.
fn residues(q: usize) -> Vec<f32> {
    let mut residues = vec![-1.0; q];
    (1..q).for_each(|root| residues[root * root % q] = 1.0);
    residues[0] = 0.0;
    residues
}

fn is_prime(number: usize) -> bool {
    number > 1 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::hadamard_matrix;

    #[test]
    fn rows_are_orthogonal() {
        for order in [1, 4, 12, 20, 24, 28, 36, 44, 60, 76, 108] {
            let matrix = hadamard_matrix(order).unwrap_or_else(|| panic!("order {order}"));
            assert_eq!(matrix.len(), order * order);
            assert!(matrix.iter().all(|entry| [1.0, -1.0].contains(entry)), "order {order}");
            for (i, a) in matrix.chunks(order).enumerate() {
                for (j, b) in matrix.chunks(order).enumerate() {
                    let product: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    let expected = if i == j { order as i64 } else { 0 };
                    assert_eq!(product as i64, expected, "order {order}, rows {i} and {j}");
                }
            }
        }
    }

    #[test]
    fn other_orders_have_none() {
        // 92 = 91 + 1 = 2 · (45 + 1), and neither 91 nor 45 is prime.
        for order in [0, 2, 3, 6, 10, 14, 92] {
            assert_eq!(hadamard_matrix(order), None, "order {order}");
        }
    }
}
