//! What a product at a width of nested weights takes beside one of codes of that width alone: a measurement, not a
//! test.
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo test --release -p quant-kernels --test packed -- --ignored --nocapture nested_speed
//! ```
//!
//! The matrices are those of GPT-2 small's twelve blocks, each with memory of its own, so that no more of them stays
//! in the caches than of a model's. All ways take turns; what is printed are medians of the ratios within a turn.
//!
//! Codes of b + 1 bits alone read as many bytes as would a layout of planes from which b bits and the one to
//! round by are taken. They are put together from at most three planes, where such a layout has one a bit.

use std::{hint::black_box, time::Instant};

use quant_kernels::{
    cpu::instruction_set::InstructionSet,
    packed::{
        nested::NestedTensor,
        packed_spec::PackedSpec,
        packed_tensor::PackedTensor,
        packed_view::PackedView,
        product::{activations::ActivationBits, options::Product},
        scales::ScaleFormat,
    },
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity},
};

use super::cases::Numbers;

const SHAPES: [[usize; 2]; 4] = [[768, 2304], [768, 768], [768, 3072], [3072, 768]];
const BLOCKS: usize = 12;

fn model(numbers: &mut Numbers) -> Vec<NestedTensor> {
    let matrix = |shape: [usize; 2]| {
        let (bits, format, granularity) = (BitWidth::B8, Format::Symmetric, Granularity::PerChannel);
        let spec = PackedSpec { shape, bits, format, granularity, scale_format: ScaleFormat::F32 };
        let bell = |numbers: &mut Numbers| 128.0 + 40.0 * (numbers.float() + numbers.float() + numbers.float());
        let codes: Vec<u8> = (0..shape[0] * shape[1]).map(|_| bell(numbers).clamp(1.0, 255.0) as u8).collect();
        let scales: Vec<f32> = (0..shape[1]).map(|_| 0.01 + 0.001 * numbers.float()).collect();
        NestedTensor::new(PackedTensor::from_codes(spec, &codes, &scales, &[]).unwrap()).unwrap()
    };
    [SHAPES; BLOCKS].concat().into_iter().map(matrix).collect()
}

fn views(all: &[NestedTensor], bits: BitWidth) -> Vec<PackedView<'_>> {
    all.iter().map(|nested| nested.at(bits).unwrap()).collect()
}

/// Seconds of a product with each matrix.
fn pass(views: &[PackedView<'_>], x: &[f32], rows: usize, product: &Product<'_>) -> f64 {
    let start = Instant::now();
    for view in views {
        let [d_in, _] = view.shape();
        black_box(view.matmul(&x[..rows * d_in], rows, product));
    }
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "a measurement, for a release build on a machine that does nothing else"]
fn nested_speed() {
    let mut numbers = Numbers::new(1);
    let cut = model(&mut numbers);
    println!("{:?}", InstructionSet::best());
    println!("| bits | rows | activations | alone, ms | bits + 1 alone | cut | own scales | 8 bits |");
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for bits in [2, 3, 4, 5, 6].map(|bits| BitWidth::new(bits).unwrap()) {
        let own = |nested: &NestedTensor| {
            let (mut scales, format) = nested.scales(bits).unwrap();
            for scale in &mut scales {
                *scale *= 1.1;
            }
            nested.clone().with_scales(bits, format, &scales).unwrap()
        };
        let own: Vec<NestedTensor> = cut.iter().map(own).collect();
        let slices = |bits| cut.iter().map(|nested| nested.slice_to(bits).unwrap()).collect::<Vec<_>>();
        let (alone, above) = (slices(bits), slices(BitWidth::new(bits.bits() + 1).unwrap()));
        let ways: [Vec<PackedView<'_>>; 5] = [
            alone.iter().map(PackedTensor::view).collect(),
            above.iter().map(PackedTensor::view).collect(),
            views(&cut, bits),
            views(&own, bits),
            views(&cut, BitWidth::B8),
        ];
        for (rows, turns) in [(1, 41), (4, 41), (256, 9)] {
            let x = numbers.floats(rows * 3072);
            for activations in [BitWidth::FULL, BitWidth::B8] {
                let product = Product { activations: ActivationBits::new(activations).unwrap(), ..Product::default() };
                let turn = |turn: usize| {
                    let mut seconds = [0.0; 5];
                    for at in 0..ways.len() {
                        let way = (at + turn) % ways.len();
                        seconds[way] = pass(&ways[way], &x, rows, &product);
                    }
                    seconds
                };
                turn(0);
                let seconds: Vec<[f64; 5]> = (0..turns).map(turn).collect();
                let ratio = |way: usize| median(seconds.iter().map(|all| all[way] / all[0]).collect());
                let alone = 1e3 * median(seconds.iter().map(|all| all[0]).collect());
                let ratios = [1, 2, 3, 4].map(|way| format!("{:.2}", ratio(way))).join(" | ");
                println!("| {bits} | {rows} | {activations} | {alone:.2} | {ratios} |");
            }
        }
    }
}
