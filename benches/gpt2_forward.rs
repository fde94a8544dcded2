//! Forward pass of the built-in model on one batch at several widths.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench gpt2_forward
//! ```
//!
//! Ids are `gpt2_forward/WIDTH/BATCHxTOKENS/flex`; the throughput is in tokens.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use switchable_quant::backend::Flex;
use switchable_quant::burn::backend::flex::FlexDevice;
use switchable_quant::burn::tensor::{Int, Tensor, TensorData};
use switchable_quant::default_model::{self, DefaultModel};
use switchable_quant::kernels::BitWidth;
use switchable_quant::model::{ModelOptions, SitePrecision};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 32;
const TOKENS: usize = 96;

fn gpt2_forward(criterion: &mut Criterion) {
    let DefaultModel { model, .. } =
        default_model::load::<Flex>(&ModelOptions::default(), &FlexDevice).expect("it loads");
    let vocabulary = model.config().vocab_size as i64;
    let ids: Vec<i64> = (0..(BATCH * TOKENS) as i64).map(|i| (i * 7919) % vocabulary).collect();
    let ids = Tensor::<Flex, 2, Int>::from_data(TensorData::new(ids, [BATCH, TOKENS]), &FlexDevice);
    let run = |bits: BitWidth| {
        let plan = model.transformer.uniform_plan(SitePrecision::uniform(bits));
        model.forward(ids.clone(), None, &plan).start.into_data()
    };
    let full = run(BitWidth::FULL);

    let mut group = criterion.benchmark_group("gpt2_forward");
    group.throughput(Throughput::Elements((BATCH * TOKENS) as u64));
    for bits in [BitWidth::FULL, BitWidth::B8, BitWidth::B4] {
        // The width is really used.
        assert_eq!(run(bits) == full, bits.is_full(), "{bits} bits");
        let id = BenchmarkId::new(bits.to_string(), format!("{BATCH}x{TOKENS}/flex"));
        group.bench_function(id, |bencher| bencher.iter(|| black_box(run(bits))));
    }
    group.finish();
}

criterion_group!(benches, gpt2_forward);
criterion_main!(benches);
