//! Rotary positions.
//!
//! ```text
//! x'ᵢ   = xᵢ·cos(m·ωᵢ) − xᵢ₊ₕ·sin(m·ωᵢ)
//! x'ᵢ₊ₕ = xᵢ·sin(m·ωᵢ) + xᵢ₊ₕ·cos(m·ωᵢ)          h = w/2,   i = 0 … h − 1
//! ```
//!
//! `m` is the position of a token, `w` the width of a head, `ωᵢ` a frequency ([`scaling`]). Number `i`
//! of the first half of a head and number `i` of its second half are turned together, as Hugging Face
//! stores Llama; the paper turns neighbours, which is the same with the columns in another order. The
//! product of a turned query and a turned key depends on how far apart they stand, not on where.
//! Source: Su et al., *RoFormer*, arXiv:2104.09864.

pub mod scaling;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use quant_kernels::{backends::quant_backend::QuantBackend, tensor::rotary::turn_heads};

use crate::rotary::scaling::RopeScaling;

/// What turns the numbers of a head by the position of their token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RotaryPositions {
    /// Radians per position, one for each pair of numbers.
    frequencies: Vec<f32>,
}

impl RotaryPositions {
    pub(crate) fn new(theta: f64, scaling: RopeScaling, head_dim: usize) -> Self {
        Self { frequencies: scaling.frequencies(theta, head_dim) }
    }

    /// Cosines and sines of the angles by which tokens are turned, the same in every block and head.
    ///
    /// # Shapes
    ///
    /// `positions`: `[batch, tokens]`, or `[1, tokens]` where they are the same in all rows; each
    /// `[batch or 1, tokens, w/2]` out.
    pub(crate) fn at<B: Backend>(&self, positions: Tensor<B, 2, Int>) -> [Tensor<B, 3>; 2] {
        let frequencies = TensorData::new(self.frequencies.clone(), [1, 1, self.frequencies.len()]);
        let frequencies = Tensor::<B, 3>::from_data(frequencies, &positions.device());
        let angles = positions.float().unsqueeze_dim(2) * frequencies;
        [angles.clone().cos(), angles.sin()]
    }
}

/// Queries or keys, each head turned by the position of its token.
///
/// # Shapes
///
/// `x`: `[batch, tokens, heads · w]`, the same out; `rotation`: as [`RotaryPositions::at`] gives it.
pub(crate) fn turn<B: QuantBackend>(x: Tensor<B, 3>, heads: usize, rotation: &[Tensor<B, 3>; 2]) -> Tensor<B, 3> {
    turn_heads(x, rotation.clone(), heads)
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use burn::tensor::Distribution;

    use super::*;

    const WIDTH: usize = 8;

    fn rotary() -> RotaryPositions {
        RotaryPositions::new(100.0, RopeScaling::Default, WIDTH)
    }

    fn positions(list: &[i32]) -> Tensor<Flex, 2, Int> {
        Tensor::from_data(TensorData::new(list.to_vec(), [1, list.len()]), &FlexDevice)
    }

    fn turned(x: &Tensor<Flex, 3>, at: &[i32]) -> Vec<f32> {
        let [_, _, width] = x.dims();
        values(turn(x.clone(), width / WIDTH, &rotary().at(positions(at))))
    }

    fn random(tokens: usize, heads: usize) -> Tensor<Flex, 3> {
        Flex::seed(&FlexDevice, 3);
        Tensor::random([2, tokens, heads * WIDTH], Distribution::Normal(0.0, 1.0), &FlexDevice)
    }

    fn values(x: Tensor<Flex, 3>) -> Vec<f32> {
        x.into_data().to_vec().expect("floats")
    }

    #[test]
    fn every_head_is_multiplied_by_the_rotation_matrix_of_its_position() {
        let at = [0, 1, 5, 31];
        let x = random(at.len(), 3);
        let matrix = |position: i32| {
            let mut rows = [[0.0f64; WIDTH]; WIDTH];
            for pair in 0..WIDTH / 2 {
                let angle = f64::from(position) * 100f64.powf(-((2 * pair) as f64) / WIDTH as f64);
                let (sin, cos) = angle.sin_cos();
                let partner = pair + WIDTH / 2;
                (rows[pair][pair], rows[pair][partner]) = (cos, -sin);
                (rows[partner][pair], rows[partner][partner]) = (sin, cos);
            }
            rows
        };
        let product = |rows: [[f64; WIDTH]; WIDTH], head: &[f32]| {
            rows.map(|row| row.iter().zip(head).map(|(m, x)| m * f64::from(*x)).sum::<f64>())
        };
        let (before, after) = (values(x.clone()), turned(&x, &at));
        let tokens = before.chunks(3 * WIDTH).zip(after.chunks(3 * WIDTH)).zip(at.iter().cycle());
        for ((before, after), &position) in tokens {
            for (before, after) in before.chunks(WIDTH).zip(after.chunks(WIDTH)) {
                for (got, want) in after.iter().zip(product(matrix(position), before)) {
                    assert!((f64::from(*got) - want).abs() < 1e-5, "position {position}: {got}, expected {want}");
                }
            }
        }
    }

    #[test]
    fn position_zero_turns_nothing() {
        let x = random(3, 2);
        assert_eq!(turned(&x, &[0; 3]), values(x));
    }

    #[test]
    fn scores_depend_on_the_distance_of_two_tokens_alone() {
        let (q, k) = (random(1, 1), random(1, 1) * 0.5 + 0.1);
        let score = |query: i32, key: i32| -> f32 {
            turned(&q, &[query]).iter().zip(turned(&k, &[key])).take(WIDTH).map(|(q, k)| q * k).sum()
        };
        let near = score(3, 1);
        for shift in [1, 4, 9, 27] {
            assert!((score(3 + shift, 1 + shift) - near).abs() < 1e-5, "moved by {shift}");
        }
        assert!((score(4, 1) - near).abs() > 1e-3, "the distance changes nothing");
    }

    #[test]
    fn rows_may_have_positions_of_their_own() {
        let x = random(2, 2);
        let each = Tensor::<Flex, 2, Int>::from_ints([[0, 1], [7, 8]], &FlexDevice);
        let got = values(turn(x.clone(), 2, &rotary().at(each)));
        let row = |row: usize, at: &[i32]| turned(&x.clone().narrow(0, row, 1), at);
        assert_eq!(got, [row(0, &[0, 1]), row(1, &[7, 8])].concat());
    }
}
