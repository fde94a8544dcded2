//! Inputs by formula, and how far an answer is from the one that is known.

use std::hint::black_box;

use switchable_quant::burn::tensor::backend::Backend;
use switchable_quant::burn::tensor::{ElementConversion as _, Int, Tensor, TensorData};
use switchable_quant::kernels::BitWidth;

/// Values from −1 to 1 that no two neighbours share.
pub(crate) fn matrix<B: Backend>([rows, columns]: [usize; 2], device: &B::Device) -> Tensor<B, 2> {
    let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 10_007) as f32 / 5003.5 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// Token ids below `vocabulary`.
pub(crate) fn token_ids<B: Backend>(
    [batch, tokens]: [usize; 2],
    vocabulary: usize,
    device: &B::Device,
) -> Tensor<B, 2, Int> {
    let ids: Vec<i64> = (0..batch * tokens).map(|i| ((i * 7919) % vocabulary) as i64).collect();
    Tensor::from_data(TensorData::new(ids, [batch, tokens]), device)
}

pub(crate) fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

/// `‖got − expected‖ / ‖expected‖`.
pub(crate) fn relative_error<B: Backend, const D: usize>(got: &Tensor<B, D>, expected: &Tensor<B, D>) -> f32 {
    let squares = |x: Tensor<B, D>| x.square().sum().into_scalar().elem::<f32>();
    (squares(got.clone() - expected.clone()) / squares(expected.clone())).sqrt()
}

/// # Panics
///
/// Unless the relative error is below `limit`.
pub(crate) fn assert_close<B: Backend, const D: usize>(
    got: &Tensor<B, D>,
    expected: &Tensor<B, D>,
    limit: f32,
    id: &str,
) {
    let error = relative_error(got, expected);
    assert!(error < limit, "{id}: the relative error is {error}, expected less than {limit}");
}

/// Waits until the device has computed `output`.
pub(crate) fn finish<B: Backend>(output: impl Sized, device: &B::Device) {
    drop(black_box(output));
    B::sync(device).expect("the device works");
}
