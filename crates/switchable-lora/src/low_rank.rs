//! The best approximation of a matrix by one of low rank.
//!
//! ```text
//! M ≈ U · diag(σ) · Vᵀ      σ₁ ≥ σ₂ ≥ …
//! ```
//!
//! Randomised subspace iteration (Halko, Martinsson and Tropp, arXiv:0909.4061): a few random
//! directions are multiplied by M and Mᵀ in turn, which turns them towards the largest singular
//! vectors; what remains is a matrix of few rows, which one-sided Jacobi rotations decompose. It
//! runs on the host in f64 from a fixed seed, so that the result is the same everywhere.

use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Directions beyond the rank asked for, which make the iteration converge faster.
const OVERSAMPLING: usize = 8;
/// Jacobi sweeps: they converge quadratically, so this many are never reached.
const MAX_SWEEPS: usize = 60;

/// A dense matrix in row-major order.
pub(crate) struct Matrix {
    pub(crate) values: Vec<f64>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Singular values in falling order, with the vectors of each.
pub(crate) struct Component {
    pub(crate) left: Vec<f64>,
    pub(crate) singular_value: f64,
    pub(crate) right: Vec<f64>,
}

/// The `rank` largest components of `matrix`, fewer if it has fewer rows or columns.
pub(crate) fn largest_components(matrix: &Matrix, rank: usize, iterations: usize) -> Vec<Component> {
    let directions = (rank + OVERSAMPLING).min(matrix.rows).min(matrix.columns);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut random = |len| (0..len).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f64>>();
    let start: Vec<_> = (0..directions).map(|_| random(matrix.columns)).collect();

    let mut left = matrix.times(&start);
    orthonormalise(&mut left);
    for _ in 0..iterations {
        let mut right = matrix.transposed_times(&left);
        orthonormalise(&mut right);
        left = matrix.times(&right);
        orthonormalise(&mut left);
    }
    let right = matrix.transposed_times(&left);
    let mut components = decompose(left, right);
    components.truncate(rank);
    components
}

impl Matrix {
    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns)
    }

    /// M · v for each vector.
    fn times(&self, vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut products = vec![Vec::with_capacity(self.rows); vectors.len()];
        for row in self.rows() {
            for (product, vector) in products.iter_mut().zip(vectors) {
                product.push(dot(row, vector));
            }
        }
        products
    }

    /// Mᵀ · v for each vector.
    fn transposed_times(&self, vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut products = vec![vec![0.0; self.columns]; vectors.len()];
        for (index, row) in self.rows().enumerate() {
            for (product, vector) in products.iter_mut().zip(vectors) {
                add_scaled(product, vector[index], row);
            }
        }
        products
    }
}

/// Gram-Schmidt, twice over for accuracy. Vectors that depend on earlier ones become 0.
fn orthonormalise(vectors: &mut [Vec<f64>]) {
    for index in 0..vectors.len() {
        let (earlier, rest) = vectors.split_at_mut(index);
        let vector = &mut rest[0];
        let length = norm(vector);
        for _ in 0..2 {
            for other in &*earlier {
                let along = dot(vector, other);
                add_scaled(vector, -along, other);
            }
        }
        let remaining = norm(vector);
        let scale = if remaining > length * 1e-12 { remaining.recip() } else { 0.0 };
        for value in vector {
            *value *= scale;
        }
    }
}

/// The components of Σ leftᵢ · rightᵢᵀ, where the left vectors are orthonormal.
///
/// Rotating two right vectors and the left vectors with them leaves the sum as it is; rotations
/// that make the right vectors orthogonal turn them into σ · v.
fn decompose(mut left: Vec<Vec<f64>>, mut right: Vec<Vec<f64>>) -> Vec<Component> {
    for _ in 0..MAX_SWEEPS {
        let mut rotated = false;
        for i in 0..right.len() {
            for j in i + 1..right.len() {
                let (aa, bb) = (dot(&right[i], &right[i]), dot(&right[j], &right[j]));
                let ab = dot(&right[i], &right[j]);
                if ab.abs() <= 1e-15 * (aa * bb).sqrt() {
                    continue;
                }
                rotated = true;
                let tau = (bb - aa) / (2.0 * ab);
                let tangent = tau.signum() / (tau.abs() + tau.hypot(1.0));
                let cosine = tangent.hypot(1.0).recip();
                rotate(&mut right, i, j, cosine, tangent * cosine);
                rotate(&mut left, i, j, cosine, tangent * cosine);
            }
        }
        if !rotated {
            break;
        }
    }
    let mut components: Vec<_> = left
        .into_iter()
        .zip(right)
        .map(|(left, mut right)| {
            let singular_value = norm(&right);
            if singular_value > 0.0 {
                for value in &mut right {
                    *value /= singular_value;
                }
            }
            Component { left, singular_value, right }
        })
        .collect();
    components.sort_by(|a, b| b.singular_value.total_cmp(&a.singular_value));
    components
}

fn rotate(vectors: &mut [Vec<f64>], i: usize, j: usize, cosine: f64, sine: f64) {
    let (head, tail) = vectors.split_at_mut(j);
    for (a, b) in head[i].iter_mut().zip(&mut tail[0]) {
        (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
    }
}

/// The inner product, summed in 8 interleaved parts so that the compiler can use vectors.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_parts, a_rest) = a.as_chunks::<8>();
    let (b_parts, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_parts.iter().zip(b_parts) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

fn add_scaled(to: &mut [f64], factor: f64, from: &[f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix with the singular values given, and random singular vectors.
    fn matrix_with(singular_values: &[f64], rows: usize, columns: usize) -> Matrix {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut basis = |len| {
            let mut random = || (0..len).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f64>>();
            let mut vectors: Vec<_> = singular_values.iter().map(|_| random()).collect();
            orthonormalise(&mut vectors);
            vectors
        };
        let (left, right) = (basis(rows), basis(columns));
        let mut values = vec![0.0; rows * columns];
        for ((left, right), sigma) in left.iter().zip(&right).zip(singular_values) {
            for (row, left) in values.chunks_exact_mut(columns).zip(left) {
                add_scaled(row, sigma * left, right);
            }
        }
        Matrix { values, rows, columns }
    }

    fn error_of(matrix: &Matrix, components: &[Component]) -> f64 {
        let mut rest = matrix.values.clone();
        for component in components {
            for (row, left) in rest.chunks_exact_mut(matrix.columns).zip(&component.left) {
                add_scaled(row, -component.singular_value * left, &component.right);
            }
        }
        norm(&rest)
    }

    #[test]
    fn the_error_is_that_of_the_components_left_out() {
        // Eckart and Young: no approximation of rank 3 does better than √(σ₄² + σ₅²).
        let matrix = matrix_with(&[5.0, 3.0, 1.0, 0.4, 0.3], 20, 31);
        let components = largest_components(&matrix, 3, 4);
        let found: Vec<_> = components.iter().map(|c| c.singular_value).collect();
        for (found, expected) in found.iter().zip([5.0, 3.0, 1.0]) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
        assert!((error_of(&matrix, &components) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_slowly_falling_spectrum_comes_within_a_percent_of_the_best() {
        let spectrum: Vec<f64> = (0..40).map(|i| 0.95f64.powi(i)).collect();
        let matrix = matrix_with(&spectrum, 60, 48);
        let best = spectrum[6..].iter().map(|sigma| sigma * sigma).sum::<f64>().sqrt();
        let components = largest_components(&matrix, 6, 4);
        assert!(error_of(&matrix, &components) < best * 1.01);
    }

    #[test]
    fn a_rank_beyond_the_matrix_reproduces_it() {
        for (rows, columns) in [(3, 9), (9, 3), (1, 5), (5, 1)] {
            let matrix = matrix_with(&[2.0], rows, columns);
            let components = largest_components(&matrix, 12, 1);
            assert_eq!(components.len(), rows.min(columns));
            assert!(error_of(&matrix, &components) < 1e-12);
        }
    }

    #[test]
    fn a_matrix_of_zeros_has_singular_values_of_zero() {
        let matrix = Matrix { values: vec![0.0; 12], rows: 3, columns: 4 };
        let components = largest_components(&matrix, 2, 2);
        assert!(components.iter().all(|c| c.singular_value == 0.0 && c.right.iter().all(|v| v.is_finite())));
    }

    #[test]
    fn the_result_does_not_change_from_call_to_call() {
        let matrix = matrix_with(&[3.0, 2.0, 1.0], 10, 10);
        let [a, b] = [0, 1].map(|_| largest_components(&matrix, 2, 2));
        assert!(a.iter().zip(&b).all(|(a, b)| a.left == b.left && a.right == b.right));
    }
}
