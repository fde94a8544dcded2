//! The operations around quantised products: kernels against plain tensor operations.

use burn::tensor::{Tensor, TensorPrimitive, backend::AutodiffBackend};

use quant_kernels::{
    backends::{
        head_split::{HeadSplit, repeat_heads},
        linear_terms::LinearTerms,
        quant_backend::QuantBackend,
        transformer_backend::TransformerBackend,
    },
    packed::{
        nested::NestedTensor,
        packed_spec::PackedSpec,
        packed_tensor::PackedTensor,
        product::{activations::ActivationBits, epilogue::OutputFunction},
        scales::ScaleFormat,
    },
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
    tensor::{
        attention::{cached_attention, causal_attention},
        gelu::gelu_tanh,
        packed_linear::packed_linear,
        rotary::turn_heads,
    },
};

use crate::support::{Other, Plain, Tracked, numbers, tensor, values};

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "element {index} is {got}, expected {expected}");
    }
}

/// The gradient of `Σ w·f(x)`.
fn gradient(x: &[f32], dims: [usize; 3], f: impl Fn(Tensor<Tracked, 3>) -> Tensor<Tracked, 3>) -> (Vec<f32>, Vec<f32>) {
    let x = tensor::<Tracked, 3>(x, dims).require_grad();
    let y = f(x.clone());
    let weights = tensor::<Tracked, 3>(&numbers(y.shape().num_elements(), 71), y.dims());
    let gradients = (y.clone() * weights).sum().backward();
    let dx = x.grad(&gradients).expect("x gets a gradient");
    (values(&y), values::<<Tracked as AutodiffBackend>::InnerBackend, 3>(&dx))
}

fn primitive(x: Tensor<Tracked, 3>) -> burn::tensor::ops::FloatTensor<Tracked> {
    x.into_primitive().tensor()
}

#[test]
fn gelu_and_its_gradient_equal_plain_operations() {
    let x: Vec<f32> = numbers(2 * 37 * 19, 61).iter().map(|x| x * 4.0).collect();
    let dims = [2, 37, 19];
    let (y, dx) = gradient(&x, dims, gelu_tanh);
    // The same formula, differentiated by burn.
    let plain = |x: Tensor<Tracked, 3>| {
        let inner = (x.clone().powi_scalar(3) * 0.044_715 + x.clone()) * (2.0 / std::f64::consts::PI).sqrt();
        x * 0.5 * (inner.tanh() + 1.0)
    };
    let (expected_y, expected_dx) = gradient(&x, dims, plain);
    assert_close(&y, &expected_y, 4e-6);
    assert_close(&dx, &expected_dx, 4e-6);
    // Rows and columns exchanged, and a backend without a kernel of its own.
    let exchanged = tensor::<Plain, 3>(&x, [2, 19, 37]).swap_dims(1, 2);
    let other = gelu_tanh(tensor::<Other, 3>(&values(&exchanged), dims));
    assert_close(&values(&gelu_tanh(exchanged)), &values(&other), 4e-6);
}

#[test]
fn attention_and_its_gradient_equal_plain_operations() {
    for (batch, tokens, heads, width) in [(1, 1, 1, 1), (2, 9, 3, 4), (1, 70, 2, 8)] {
        let dims = [batch, tokens, 3 * heads * width];
        let x: Vec<f32> = numbers(dims.iter().product(), 62).iter().map(|x| x * 3.0).collect();
        let split = HeadSplit { heads, scale: 0.6 };
        let (y, dx) = gradient(&x, dims, |x| causal_attention(x, split));
        let plain = |x: Tensor<Tracked, 3>| {
            let x = x.reshape([batch, tokens, 3 * heads, width]);
            let [q, k, v] = [0, 1, 2].map(|part| x.clone().narrow(2, part * heads, heads).swap_dims(1, 2));
            let hidden = Tensor::<Tracked, 2, burn::tensor::Bool>::tril_mask([tokens, tokens], 0, &x.device());
            let scores = q.matmul(k.transpose()).mul_scalar(0.6).mask_fill(hidden.unsqueeze(), f32::MIN);
            let p = burn::tensor::activation::softmax(scores, 3);
            p.matmul(v).swap_dims(1, 2).reshape([batch, tokens, heads * width])
        };
        let (expected_y, expected_dx) = gradient(&x, dims, plain);
        assert_close(&y, &expected_y, 1e-5);
        assert_close(&dx, &expected_dx, 2e-5);
        // The default methods, through a backend without kernels for attention.
        let other = tensor::<Other, 3>(&x, dims);
        assert_close(&values(&causal_attention(other.clone(), split)), &y, 1e-5);
        let weights = tensor::<Other, 3>(&numbers(y.len(), 71), [batch, tokens, heads * width]);
        let default =
            Other::causal_attention_backward(other.into_primitive().tensor(), weights.into_primitive().tensor(), split);
        assert_close(&values(&Tensor::<Other, 3>::from_primitive(TensorPrimitive::Float(default))), &dx, 2e-5);
    }
}

#[test]
fn backward_passes_called_by_name_are_constants() {
    let dims = [1, 3, 6];
    let x = tensor::<Tracked, 3>(&numbers(18, 5), dims).require_grad();
    let dy = tensor::<Tracked, 3>(&numbers(18, 6), dims);
    let out = Tracked::gelu_tanh_backward(primitive(x), primitive(dy));
    assert!(!Tensor::<Tracked, 3>::from_primitive(TensorPrimitive::Float(out)).is_require_grad());
}

#[test]
fn cached_attention_reads_parts_of_longer_buffers() {
    let (batch, heads, old, new, width, capacity) = (2, 3, 5, 2, 4, 11);
    let buffer =
        |seed| tensor::<Plain, 4>(&numbers(batch * heads * capacity * width, seed), [batch, heads, capacity, width]);
    let [k, v] = [1, 2].map(|seed| buffer(seed).narrow(2, 0, old + new));
    let qkv = tensor::<Plain, 4>(&numbers(batch * new * heads * width, 3), [batch, new, heads, width]);
    let q = qkv.swap_dims(1, 2);
    let got = cached_attention(q.clone(), k.clone(), v.clone(), 0.5);
    let other = |x: Tensor<Plain, 4>| tensor::<Other, 4>(&values(&x), x.dims());
    let expected = cached_attention(other(q), other(k), other(v), 0.5);
    assert_close(&values(&got), &values(&expected), 1e-5);
}

#[test]
fn cached_attention_shares_keys_among_heads_on_every_backend() {
    let of = |heads: usize, tokens: usize, seed| {
        tensor::<Plain, 4>(&numbers(2 * heads * tokens * 4, seed), [2, heads, tokens, 4])
    };
    let (q, k, v) = (of(6, 3, 1), of(2, 7, 2), of(2, 7, 3));
    let got = cached_attention(q.clone(), k.clone(), v.clone(), 0.5);
    let other = |x: &Tensor<Plain, 4>| tensor::<Other, 4>(&values(x), x.dims());
    assert_close(&values(&got), &values(&cached_attention(other(&q), other(&k), other(&v), 0.5)), 1e-5);
    let repeated = cached_attention(q, repeat_heads(k, 3), repeat_heads(v, 3), 0.5);
    assert_eq!(values(&got), values(&repeated), "the same sums");
}

#[test]
fn heads_are_turned_as_by_plain_operations() {
    for rows in [1, 2] {
        let [x, cos, sin] = [([2, 5, 24], 1), ([rows, 5, 4], 2), ([rows, 5, 4], 3)]
            .map(|(dims, seed)| tensor::<Plain, 3>(&numbers(dims.iter().product(), seed), dims));
        let got = turn_heads(x.clone(), [cos.clone(), sin.clone()], 3);
        let other = |x: &Tensor<Plain, 3>| tensor::<Other, 3>(&values(x), x.dims());
        let expected = values(&turn_heads(other(&x), [other(&cos), other(&sin)], 3));
        assert_close(&values(&got), &expected, 1e-6);
        // Views are read as what they are of.
        let view = x.swap_dims(0, 1).swap_dims(0, 1);
        assert_eq!(values(&turn_heads(view, [cos, sin], 3)), values(&got));
    }
}

/// Attention of two new tokens to values of another shape than that of the seven keys.
fn attention_to<B: TransformerBackend>(q: [usize; 4], k: [usize; 4], v: [usize; 4]) {
    let of = |dims: [usize; 4]| tensor::<B, 4>(&numbers(dims.iter().product(), 4), dims);
    let _ = cached_attention(of(q), of(k), of(v), 0.5);
}

#[test]
#[should_panic(expected = "keys of shape [1, 2, 7, 4] and values of shape [1, 2, 6, 4] are not of the same tokens")]
fn values_of_fewer_tokens_than_keys_panic() {
    attention_to::<Plain>([1, 2, 2, 4], [1, 2, 7, 4], [1, 2, 6, 4]);
}

#[test]
#[should_panic(expected = "keys of shape [1, 2, 7, 4] and values of shape [1, 2, 8, 4] are not of the same tokens")]
fn values_of_more_tokens_than_keys_panic() {
    attention_to::<Plain>([1, 2, 2, 4], [1, 2, 7, 4], [1, 2, 8, 4]);
}

#[test]
#[should_panic(expected = "keys of shape [1, 2, 7, 4] and values of shape [1, 2, 7, 8] are not of the same tokens")]
fn values_of_another_width_panic_on_a_backend_without_a_kernel() {
    attention_to::<Other>([1, 2, 2, 4], [1, 2, 7, 4], [1, 2, 7, 8]);
}

#[test]
#[should_panic(expected = "queries of shape [1, 2, 8, 4] are not of the last tokens of keys of shape [1, 2, 7, 4]")]
fn more_queries_than_keys_panic() {
    attention_to::<Plain>([1, 2, 8, 4], [1, 2, 7, 4], [1, 2, 7, 4]);
}

#[test]
#[should_panic(expected = "queries of shape [1, 1, 2, 4] are not of the last tokens of keys of shape [1, 2, 7, 4]")]
fn queries_of_fewer_heads_panic() {
    attention_to::<Plain>([1, 1, 2, 4], [1, 2, 7, 4], [1, 2, 7, 4]);
}

#[test]
#[should_panic(expected = "keys of shape [1, 1, 3, 4] and values of shape [1, 1, 2, 4] are not of the same tokens")]
fn the_kernel_itself_looks_at_the_shapes() {
    let of = |dims: [usize; 4]| tensor::<Plain, 4>(&numbers(dims.iter().product(), 4), dims).into_primitive().tensor();
    // Values of a longer buffer, of which one row is stale.
    let v = tensor::<Plain, 4>(&numbers(16, 4), [1, 1, 4, 4]).narrow(2, 0, 2).into_primitive().tensor();
    let _ = Plain::cached_attention(of([1, 1, 1, 4]), of([1, 1, 3, 4]), v, 0.5);
}

fn terms<B: QuantBackend>([d_in, d_out, rank]: [usize; 3], function: OutputFunction) -> LinearTerms<B> {
    let matrix =
        |seed, dims: [usize; 2]| tensor::<B, 2>(&numbers(dims[0] * dims[1], seed), dims).into_primitive().tensor();
    LinearTerms {
        bias: Some(tensor::<B, 1>(&numbers(d_out, 6), [d_out]).into_primitive().tensor()),
        adapter: Some((matrix(3, [d_in, rank]), matrix(4, [rank, d_out]), 1.5)),
        function,
    }
}

#[test]
fn packed_linear_layers_equal_dequantised_ones() {
    let [rows, d_in, d_out, rank] = [7, 45, 33, 3];
    let weights = numbers(d_in * d_out, 1);
    let x = numbers(rows * d_in, 2);
    let spec = |bits, granularity: Granularity| PackedSpec {
        shape: [d_in, d_out],
        bits,
        format: Format::Symmetric,
        granularity,
        scale_format: ScaleFormat::F32,
    };
    let scales = vec![0.02; d_out];
    let eight =
        PackedTensor::from_weights(spec(BitWidth::B8, Granularity::PerChannel), &weights, &scales, &[]).unwrap();
    let nested = NestedTensor::new(eight.clone()).unwrap();
    let operands = [eight.view(), nested.at(BitWidth::B3).unwrap()];
    for operand in operands {
        for activations in [ActivationBits::FULL, ActivationBits::new(BitWidth::B8).unwrap()] {
            for function in [OutputFunction::Identity, OutputFunction::GeluTanh] {
                let kernel = packed_linear(
                    tensor::<Plain, 2>(&x, [rows, d_in]),
                    operand,
                    activations,
                    terms([d_in, d_out, rank], function),
                );
                let plain = packed_linear(
                    tensor::<Other, 2>(&x, [rows, d_in]),
                    operand,
                    activations,
                    terms([d_in, d_out, rank], function),
                );
                assert_close(&values(&kernel), &values(&plain), 2e-5);
            }
        }
    }
    assert!(nested.at(BitWidth::B16).is_err());
}
