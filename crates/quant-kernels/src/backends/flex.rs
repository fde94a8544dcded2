//! The CPU kernels on the tensors of burn's flex backend.
//!
//! A contiguous tensor is read where it lies, and so is one whose last two dimensions are
//! exchanged; any other layout is copied first. f16 and bf16 are computed in f32 and rounded once
//! at the end; f64 runs on plain tensor operations.

use burn::{
    backend::{
        Flex,
        flex::{FlexTensor, Layout},
    },
    tensor::{Bytes, DType, FloatDType, Shape, TensorMetadata, ops::FloatTensorOps},
};

use crate::{
    backends::{
        head_split::{CachedShapes, HeadSplit},
        linear_terms::LinearTerms,
        plain::{
            self,
            matrices::matrices_of,
            precision::{narrowed_primitive, widened_primitive},
        },
        primitive_params::PrimitiveParams,
        quant_backend::{
            QuantBackend, half_linear_backward_of_floats, half_linear_of_floats, packed_linear_of_dequantized,
        },
        transformer_backend::TransformerBackend,
    },
    cpu::{
        attention::{AttentionShape, HeadStrides, Heads},
        blocks::{BlockParams, SliceQuantizer},
        elementary::{gelu_backward_run, gelu_run},
        instruction_set::InstructionSet,
        learned_step::StepKernel,
        parallel::in_parallel,
        rotary::turn_heads,
    },
    packed::{
        half_weight::HalfWeight,
        packed_view::PackedView,
        product::{
            activations::ActivationBits,
            epilogue::{Epilogue, LowRankTerm},
            options::Product,
        },
    },
    rotation::hadamard::{Direction, HadamardTransform},
    spec::{quantizer::Quantizer, range_estimator::RangeEstimator, step_quantizer::StepQuantizer},
};

impl QuantBackend for Flex {
    fn fake_quantize(x: FlexTensor, quantizer: &Quantizer) -> FlexTensor {
        if quantizer.spec().range != RangeEstimator::MinMax {
            let params = Self::choose_params(x.clone(), quantizer);
            return Self::fake_quantize_by(x, &params, quantizer);
        }
        let dtype = x.dtype();
        let x = widened_primitive::<Self>(x);
        let y = if let Some(matrices) = Matrices::of(&x, quantizer) {
            matrices.tensor(matrices.kernel.round_trip(matrices.values()))
        } else {
            let params = Self::choose_params(x.clone(), quantizer);
            plain::quantisation::fake_quantize::<Self>(x, &params, quantizer)
        };
        narrowed_primitive::<Self>(y, dtype)
    }

    fn choose_params(x: FlexTensor, quantizer: &Quantizer) -> PrimitiveParams<Self> {
        let x = widened_primitive::<Self>(x);
        // The scales of exchanged dimensions would lie in another order than is promised.
        let matrices = match quantizer.spec().range {
            RangeEstimator::Percentile(_) => None,
            _ => Matrices::of(&x.to_contiguous(), quantizer),
        };
        match matrices {
            Some(matrices) => {
                let BlockParams { scales, zero_points } = match quantizer.spec().range {
                    RangeEstimator::MinMax => matrices.kernel.params(matrices.values()),
                    // Without inputs all values count the same.
                    _ => matrices.kernel.searched_params(matrices.values()),
                };
                let shape = Shape::from(matrices.kernel.shape.param_shape());
                let tensor = |values| tensor_of(values, Layout::contiguous(shape.clone()));
                PrimitiveParams { scale: tensor(scales), zero_point: zero_points.map(tensor) }
            }
            None => plain::quantisation::choose_params(x, quantizer),
        }
    }

    fn fake_quantize_by(x: FlexTensor, params: &PrimitiveParams<Self>, quantizer: &Quantizer) -> FlexTensor {
        let dtype = x.dtype();
        let x = widened_primitive::<Self>(x);
        let y = match given(&x, params, quantizer) {
            Some((matrices, params)) => matrices.tensor(matrices.kernel.round_trip_by(matrices.values(), &params)),
            None => plain::quantisation::fake_quantize(x, params, quantizer),
        };
        narrowed_primitive::<Self>(y, dtype)
    }

    fn pass_inside(
        x: FlexTensor,
        params: &PrimitiveParams<Self>,
        gradient: FlexTensor,
        quantizer: &Quantizer,
    ) -> FlexTensor {
        assert_eq!(x.shape(), gradient.shape(), "there is one gradient for each value");
        let x = widened_primitive::<Self>(x);
        let contiguous = gradient.to_contiguous();
        match (given(&x, params, quantizer), contiguous.as_slice::<f32>()) {
            (Some((matrices, params)), Some(gradient)) => {
                matrices.tensor(matrices.kernel.pass_inside(matrices.values(), &params, gradient))
            }
            _ => plain::quantisation::pass_inside(x, params, gradient, quantizer),
        }
    }

    fn learned_step(x: FlexTensor, step: FlexTensor, quantizer: &StepQuantizer) -> FlexTensor {
        let dtype = x.dtype();
        let [x, step] = [x, step].map(|tensor| widened_primitive::<Self>(tensor).to_contiguous());
        let y = match (x.as_slice(), step.as_slice()) {
            (Some(values), Some(steps)) => {
                let y = StepKernel::new(x.shape().dims(), quantizer).forward(values, steps);
                tensor_of(y, Layout::contiguous(x.shape()))
            }
            _ => plain::learned_step::learned_step::<Self>(x, step, quantizer),
        };
        narrowed_primitive::<Self>(y, dtype)
    }

    fn learned_step_backward(
        x: FlexTensor,
        step: FlexTensor,
        gradient: FlexTensor,
        quantizer: &StepQuantizer,
    ) -> [FlexTensor; 2] {
        let [x, step, gradient] = [x, step, gradient].map(|tensor| tensor.to_contiguous());
        match (x.as_slice(), step.as_slice(), gradient.as_slice()) {
            (Some(values), Some(steps), Some(gradients)) => {
                let kernel = StepKernel::new(x.shape().dims(), quantizer);
                let (of_x, of_step) = kernel.backward(values, steps, gradients);
                [tensor_of(of_x, Layout::contiguous(x.shape())), tensor_of(of_step, Layout::contiguous(step.shape()))]
            }
            _ => plain::learned_step::learned_step_backward::<Self>(x, step, gradient, quantizer),
        }
    }

    fn rotate(x: FlexTensor, transform: &HadamardTransform, direction: Direction) -> FlexTensor {
        let dtype = x.dtype();
        let x = widened_primitive::<Self>(x).to_contiguous();
        let y = match x.as_slice() {
            Some(values) => tensor_of(transform.rows(direction).of(values), Layout::contiguous(x.shape())),
            None => plain::rotation::rotate::<Self>(x, transform, direction),
        };
        narrowed_primitive::<Self>(y, dtype)
    }

    fn packed_linear(
        x: FlexTensor,
        weight: PackedView<'_>,
        activations: ActivationBits,
        terms: LinearTerms<Self>,
    ) -> FlexTensor {
        if !is_f32(&x, &terms) || !weight.takes(activations) {
            return packed_linear_of_dequantized::<Self>(x, weight, activations, terms);
        }
        with_epilogue(&x, weight.shape()[1], terms, |x, rows, epilogue| {
            weight.matmul(x, rows, &Product { activations, epilogue, ..Default::default() })
        })
    }

    fn multiplies_bf16() -> bool {
        InstructionSet::best() >= InstructionSet::Avx512Bf16
    }

    fn half_linear(x: FlexTensor, weight: &HalfWeight, terms: LinearTerms<Self>) -> FlexTensor {
        if !is_f32(&x, &terms) {
            return half_linear_of_floats::<Self>(x, weight, terms);
        }
        with_epilogue(&x, weight.shape()[1], terms, |x, rows, epilogue| {
            weight.matmul(x, rows, &Product { epilogue, ..Default::default() })
        })
    }

    fn half_linear_backward(gradient: FlexTensor, weight: &HalfWeight, adapter: Option<[FlexTensor; 2]>) -> FlexTensor {
        let contiguous = gradient.to_contiguous();
        let adapter = adapter.map(|factors| factors.map(|factor| factor.to_contiguous()));
        let values = match &adapter {
            Some([down, up]) => down.as_slice::<f32>().zip(up.as_slice::<f32>()).map(Some),
            None => Some(None),
        };
        let (Some(numbers), Some(factors)) = (contiguous.as_slice::<f32>(), values) else {
            return half_linear_backward_of_floats::<Self>(gradient, weight, adapter);
        };
        let [rows, d_in] = [gradient.shape()[0], weight.shape()[0]];
        let low_rank = factors.map(|(down, up)| LowRankTerm { down, up, rank: up.len() / d_in.max(1), scaling: 1.0 });
        let epilogue = Epilogue { low_rank, ..Epilogue::default() };
        let product = weight.matmul_transposed(numbers, rows, &Product { epilogue, ..Product::default() });
        tensor_of(product, Layout::contiguous(Shape::new([rows, d_in])))
    }
}

/// Whether all that a layer multiplies and adds is f32.
fn is_f32(x: &FlexTensor, terms: &LinearTerms<Flex>) -> bool {
    let factors = terms.adapter.iter().flat_map(|(a, b, _)| [a, b]);
    [x].into_iter().chain(&terms.bias).chain(factors).all(|tensor| tensor.dtype() == DType::F32)
}

/// A product of `x`, its rows and what is done to its outputs, of which there are `d_out` a row.
fn with_epilogue(
    x: &FlexTensor,
    d_out: usize,
    terms: LinearTerms<Flex>,
    product: impl FnOnce(&[f32], usize, Epilogue<'_>) -> Vec<f32>,
) -> FlexTensor {
    let rows = x.shape()[0];
    let adapter = terms
        .adapter
        .map(|(a, b, scaling)| (Flex::float_matmul(x.clone(), a).to_contiguous(), b.to_contiguous(), scaling as f32));
    let low_rank = adapter.as_ref().map(|(down, up, scaling)| LowRankTerm {
        down: f32s(down),
        up: f32s(up),
        rank: up.shape()[0],
        scaling: *scaling,
    });
    let bias = terms.bias.as_ref().map(FlexTensor::to_contiguous);
    let x = x.to_contiguous();
    let epilogue = Epilogue { bias: bias.as_ref().map(f32s), low_rank, addend: None, function: terms.function };
    tensor_of(product(f32s(&x), rows, epilogue), Layout::contiguous(Shape::new([rows, d_out])))
}

impl TransformerBackend for Flex {
    fn gelu_tanh(x: FlexTensor) -> FlexTensor {
        let contiguous = x.to_contiguous();
        match contiguous.as_slice::<f32>() {
            Some(values) => tensor_of(
                in_parallel(values.len(), |range, y| gelu_run(InstructionSet::best(), &values[range], y)),
                Layout::contiguous(x.shape()),
            ),
            None => in_f32(x, Self::gelu_tanh, plain::gelu::gelu_tanh::<Self>),
        }
    }

    fn gelu_tanh_backward(x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        assert_eq!(x.shape(), gradient.shape(), "there is one gradient for each value");
        let (values, gradients) = (x.to_contiguous(), gradient.to_contiguous());
        match (values.as_slice::<f32>(), gradients.as_slice::<f32>()) {
            (Some(values), Some(gradients)) => tensor_of(
                in_parallel(values.len(), |range, y| {
                    gelu_backward_run(InstructionSet::best(), &values[range.clone()], &gradients[range], y);
                }),
                Layout::contiguous(x.shape()),
            ),
            _ => plain::gelu::gelu_tanh_backward::<Self>(x, gradient),
        }
    }

    fn causal_attention(qkv: FlexTensor, split: HeadSplit) -> FlexTensor {
        let contiguous = qkv.to_contiguous();
        let Some(values) = contiguous.as_slice::<f32>() else {
            return plain::attention::causal_attention::<Self>(qkv, split);
        };
        let shape = attention_shape(&contiguous, split);
        let d = shape.heads * shape.width;
        let strides = shape.packed_strides(shape.keys, 3);
        let [q, k, v] = [0, d, 2 * d].map(|start| Heads { values: values.get(start..).unwrap_or_default(), strides });
        let out = shape.forward(InstructionSet::best(), q, k, v);
        tensor_of(out, Layout::contiguous(Shape::new([shape.batch, shape.queries, d])))
    }

    fn causal_attention_backward(qkv: FlexTensor, gradient: FlexTensor, split: HeadSplit) -> FlexTensor {
        let (values, gradients) = (qkv.to_contiguous(), gradient.to_contiguous());
        match (values.as_slice::<f32>(), gradients.as_slice::<f32>()) {
            (Some(numbers), Some(gradients)) => {
                let shape = attention_shape(&values, split);
                let expected = [shape.batch, shape.queries, shape.heads * shape.width];
                assert_eq!(gradient.shape().as_slice(), expected, "there is one gradient for each output");
                let out = shape.backward_of_packed(InstructionSet::best(), numbers, gradients);
                tensor_of(out, Layout::contiguous(qkv.shape()))
            }
            _ => plain::attention::causal_attention_backward::<Self>(qkv, gradient, split),
        }
    }

    fn cached_attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, scale: f64) -> FlexTensor {
        let [of_q, of_k, of_v] = [&q, &k, &v].map(|x| x.shape().dims());
        CachedShapes { q: of_q, k: of_k, v: of_v }.check();
        let all = [&q, &k, &v].map(heads_of);
        let [Some(q_heads), Some(k_heads), Some(v_heads)] = all else {
            return plain::attention::cached_attention::<Self>(q, k, v, scale);
        };
        let [batch, heads, queries, width] = q.shape().dims();
        let sharing = (heads / k.shape()[1].max(1)).max(1);
        let shape = AttentionShape { batch, heads, sharing, queries, keys: k.shape()[2], width, scale: scale as f32 };
        let out = shape.forward(InstructionSet::best(), q_heads, k_heads, v_heads);
        tensor_of(out, Layout::contiguous(Shape::new([batch, queries, heads * width])))
    }

    fn turn_heads(x: FlexTensor, terms: [FlexTensor; 2], heads: usize) -> FlexTensor {
        let (x, terms) = (x.to_contiguous(), terms.map(|terms| terms.to_contiguous()));
        let [_, _, d] = x.shape().dims();
        match (x.as_slice::<f32>(), terms.each_ref().map(FlexTensor::as_slice::<f32>)) {
            (Some(values), [Some(cos), Some(sin)]) => {
                tensor_of(turn_heads(values, [cos, sin], d, d / heads / 2), Layout::contiguous(x.shape()))
            }
            _ => plain::rotary::turn_heads::<Self>(x, terms, heads),
        }
    }
}

/// A tensor of f32 as the kernels see it.
struct Matrices {
    tensor: FlexTensor,
    kernel: SliceQuantizer,
    layout: Layout,
}

impl Matrices {
    /// `None` if the numbers are not f32.
    fn of(x: &FlexTensor, quantizer: &Quantizer) -> Option<Self> {
        if x.dtype() != DType::F32 {
            return None;
        }
        let kernel = SliceQuantizer::new(matrices_of(x), quantizer);
        let rank = x.shape().num_dims();
        if !x.is_contiguous() && rank >= 2 {
            let exchanged = x.transpose(rank - 2, rank - 1);
            if exchanged.is_contiguous() {
                let layout = Layout::contiguous(exchanged.shape()).transpose(rank - 2, rank - 1);
                return Some(Self { tensor: exchanged, kernel: kernel.transposed(), layout });
            }
        }
        let tensor = if x.is_contiguous() { x.clone() } else { x.to_contiguous() };
        let layout = Layout::contiguous(tensor.shape());
        Some(Self { tensor, kernel, layout })
    }

    fn values(&self) -> &[f32] {
        f32s(&self.tensor)
    }

    /// Results in the layout of the input.
    fn tensor(&self, values: Vec<f32>) -> FlexTensor {
        tensor_of(values, self.layout.clone())
    }
}

fn tensor_of(values: Vec<f32>, layout: Layout) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}

fn f32s(x: &FlexTensor) -> &[f32] {
    match x.as_slice() {
        Some(values) => values,
        None => unreachable!("it is contiguous and of f32"),
    }
}

fn attention_shape(qkv: &FlexTensor, split: HeadSplit) -> AttentionShape {
    let [batch, tokens, packed] = qkv.shape().dims();
    let (heads, width) = (split.heads, packed / (3 * split.heads));
    AttentionShape { batch, heads, sharing: 1, queries: tokens, keys: tokens, width, scale: split.scale as f32 }
}

/// The heads of `[batch, heads, tokens, width]` where they lie, if the numbers are f32 and those of
/// one head of one token stand side by side.
fn heads_of(x: &FlexTensor) -> Option<Heads<'_>> {
    let layout = x.layout();
    let [batch, head, token, 1] = *layout.strides() else { return None };
    let [batch, head, token] = [batch, head, token].map(usize::try_from);
    let strides = HeadStrides { batch: batch.ok()?, head: head.ok()?, token: token.ok()? };
    let values: &[f32] = (x.dtype() == DType::F32).then(|| x.storage())?;
    Some(Heads { values: values.get(layout.start_offset()..)?, strides })
}

/// A tensor with parameters that were chosen before, if all are f32.
fn given(x: &FlexTensor, params: &PrimitiveParams<Flex>, quantizer: &Quantizer) -> Option<(Matrices, BlockParams)> {
    let matrices = Matrices::of(&x.to_contiguous(), quantizer)?;
    let values = |param: &FlexTensor| param.to_contiguous().as_slice::<f32>().map(<[f32]>::to_vec);
    let expected = matrices.kernel.shape.param_shape();
    assert_eq!(params.scale.shape().as_slice(), expected, "scales do not fit a tensor of shape {:?}", x.shape());
    let zero_points = match (&params.zero_point, quantizer.spec().format.has_zero_points()) {
        (Some(zero_point), true) => Some(values(zero_point)?),
        _ => None,
    };
    Some((matrices, BlockParams { scales: values(&params.scale)?, zero_points }))
}

/// Runs a kernel for f32 on numbers of 16 bits, or `plain` on any others.
fn in_f32(
    x: FlexTensor,
    kernel: impl FnOnce(FlexTensor) -> FlexTensor,
    plain: impl FnOnce(FlexTensor) -> FlexTensor,
) -> FlexTensor {
    let dtype = match x.dtype() {
        DType::F16 => FloatDType::F16,
        DType::BF16 => FloatDType::BF16,
        _ => return plain(x),
    };
    Flex::float_cast(kernel(Flex::float_cast(x, FloatDType::F32)), dtype)
}
