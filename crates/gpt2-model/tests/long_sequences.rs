//! Sequences so long that the backend's attention kernel works in tiles.

use burn::tensor::{Bool, Int, Tensor, TensorData};

use gpt2_model::{Gpt2, Gpt2Config, KvCache, ModelOptions, ModelWeights, QuantBackend, SwitchableModel};

use crate::support::{Plain, Train, full, largest_difference, skip_without_device, values};

const TOKENS: usize = 600;

fn model<B: QuantBackend>() -> Gpt2<B> {
    let config = Gpt2Config::new(50, TOKENS, 16, 2, 2).with_initializer_range(0.3);
    Gpt2::random(&config, &ModelOptions::default(), 4, &B::Device::default()).expect("a model")
}

fn ids<B: QuantBackend>() -> Tensor<B, 2, Int> {
    let ids: Vec<i64> = (0..2 * TOKENS as i64).map(|i| i * i % 49).collect();
    Tensor::from_data(TensorData::new(ids, [2, TOKENS]), &B::Device::default())
}

/// The first row padded by `padded` tokens on the left, the second not at all.
fn padding<B: QuantBackend>(padded: usize) -> Tensor<B, 2, Bool> {
    let mask: Vec<bool> = (0..2 * TOKENS).map(|i| i < padded).collect();
    Tensor::from_data(TensorData::new(mask, [2, TOKENS]), &B::Device::default())
}

/// Final hidden states of the real tokens.
fn hidden<B: QuantBackend>(padded: Option<usize>) -> Vec<f32> {
    let model = model::<B>();
    let padding = padded.map(|padded| padding::<B>(padded));
    let hidden = values(model.forward(ids(), padding.as_ref(), &full(&model)));
    assert!(hidden.iter().all(|v| v.is_finite()));
    hidden[padded.unwrap_or(0) * model.config().n_embd..].to_vec()
}

#[test]
fn the_tiled_kernel_gives_what_the_plain_products_give() {
    skip_without_device!();
    // 500 positions of padding hide whole tiles.
    for padded in [None, Some(0), Some(3), Some(500)] {
        // Without a mask both would run the kernel for causal attention; with one that hides nothing, tensors
        // with gradients go through plain products.
        let plain_products = hidden::<Train>(padded.or(Some(0)));
        let difference = largest_difference(&hidden::<Plain>(padded), &plain_products);
        assert!(difference < 5e-5, "padded by {padded:?}: {difference:e}");
    }
}

#[test]
fn a_long_cache_gives_the_whole_forward() {
    skip_without_device!();
    let model = model::<Plain>();
    let (ids, plan) = (ids::<Plain>(), full(&model));
    let mut cache = KvCache::new(&model.shape(), 2, TOKENS, &ids.device());
    let pieces = [0..580, 580..599, 599..600]
        .map(|tokens| model.forward_cached(ids.clone().slice([0..2, tokens]), &mut cache, &plan));
    let whole = values(model.forward(ids, None, &plan));
    let difference = largest_difference(&values(Tensor::cat(pieces.to_vec(), 1)), &whole);
    assert!(difference < 5e-5, "{difference:e}");
}
