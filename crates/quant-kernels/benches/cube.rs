//! The `CubeCL` kernels against the plain tensor operations of the same backend.
//!
//! ```text
//! cargo bench -p quant-kernels --features cuda --bench cube
//! ```
//!
//! Ids are `fake_quant/<granularity>/<mapping>/q<bits>/<rows>x<columns>/<backend>/<how>`. A run is
//! one tensor, the device synchronised after it.

use std::hint::black_box;

use burn::{
    backend::{Flex, flex::FlexDevice},
    tensor::{Distribution, Tensor},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{bit_width::BitWidth, gradient_rule::GradientRule, quant_spec::QuantSpec},
    tensor::{fake_quantize::fake_quantize, reference},
};

/// A weight of GPT-2 small, and the activations of a batch.
const SHAPES: [[usize; 2]; 2] = [[3072, 768], [3072, 3072]];
const SPECS: [&str; 5] = ["per-tensor", "per-channel", "per-group:64", "per-token", "per-token,asymmetric"];

fn fake_quant<B: QuantBackend>(criterion: &mut Criterion, name: &str, device: &B::Device) {
    let (bits, rule) = (BitWidth::B4, GradientRule::Identity);
    let mut group = criterion.benchmark_group("fake_quant");
    for [rows, columns] in SHAPES {
        let x = Tensor::<B, 2>::random([rows, columns], Distribution::Default, device);
        group.throughput(Throughput::Bytes((rows * columns * size_of::<f32>()) as u64));
        for text in SPECS {
            let spec: QuantSpec = text.parse().expect("it is a quantiser");
            let kernel = || fake_quantize(x.clone(), bits, &spec, rule).expect("it fits");
            let plain = || reference::fake_quantize(x.clone(), bits, &spec, rule).expect("it fits");
            let on_cpu = Tensor::<Flex, 2>::from_data(x.to_data(), &FlexDevice);
            let expected = reference::fake_quantize(on_cpu, bits, &spec, rule).expect("it fits");
            assert_eq!(kernel().into_data(), expected.into_data(), "{text}");

            let id = |how| {
                let params = format!("q{bits}/{rows}x{columns}/{name}/{how}");
                BenchmarkId::new(format!("{}/{}", spec.granularity, spec.format), params)
            };
            group.bench_function(id("kernel"), |bencher| bencher.iter(|| finished(kernel(), device)));
            group.bench_function(id("plain"), |bencher| bencher.iter(|| finished(plain(), device)));
        }
    }
    group.finish();
}

fn finished<B: QuantBackend>(y: Tensor<B, 2>, device: &B::Device) {
    black_box(y);
    B::sync(device).expect("the device works");
}

fn every_backend(criterion: &mut Criterion) {
    #[cfg(feature = "cuda")]
    fake_quant::<burn::backend::Cuda>(criterion, "cuda", &burn::backend::cuda::CudaDevice::default());
    #[cfg(feature = "wgpu")]
    fake_quant::<burn::backend::Wgpu>(criterion, "wgpu", &burn::backend::wgpu::WgpuDevice::default());
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    let _ = (criterion, fake_quant::<Flex>);
}

criterion_group!(benches, every_backend);
criterion_main!(benches);
