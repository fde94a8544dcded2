//! Quantisation of one value after another, written apart from the library.

use std::collections::BTreeMap;

use quant_kernels::spec::{
    formats::{code_book::LevelRange, format::Format},
    granularity::Granularity,
};

/// Which scale an element of a `[matrices, rows, columns]` tensor uses.
pub(crate) fn scale_index(granularity: Granularity, dims: [usize; 3], index: usize) -> usize {
    let [_, rows, columns] = dims;
    let (matrix, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
    // Not divided in the arm of the groups: see `PackedSpec::scale_index`.
    let size = if let Granularity::PerGroup(size) = granularity { size.get() } else { rows.max(1) };
    match granularity {
        Granularity::PerTensor => 0,
        Granularity::PerToken => index / columns,
        Granularity::PerChannel | Granularity::PerGroup(_) => {
            (matrix * rows.div_ceil(size) + row / size) * columns + column
        }
    }
}

/// The values that share each scale.
pub(crate) fn sharing(x: &[f32], dims: [usize; 3], granularity: Granularity) -> BTreeMap<usize, Vec<f32>> {
    let mut sharing = BTreeMap::<usize, Vec<f32>>::new();
    for (index, &x) in x.iter().enumerate() {
        sharing.entry(scale_index(granularity, dims, index)).or_default().push(x);
    }
    sharing
}

/// The value at a fraction of sorted values, interpolated between its neighbours in f32.
fn quantile(sorted: &[f32], fraction: f64) -> f32 {
    let last = sorted.len() - 1;
    let position = (fraction * last as f64).clamp(0.0, last as f64);
    let (below, weight) = (position.floor() as usize, (position - position.floor()) as f32);
    if weight == 0.0 { sorted[below] } else { sorted[below] * (1.0 - weight) + sorted[below + 1] * weight }
}

/// Scale and zero point of the range between percentiles.
pub(crate) fn percentile(values: &[f32], percent: f64, format: Format, levels: LevelRange) -> (f32, Option<f32>) {
    let sorted = |values: Vec<f32>| {
        let mut values = values;
        values.sort_by(f32::total_cmp);
        values
    };
    let ends = if format == Format::Symmetric {
        vec![quantile(&sorted(values.iter().map(|x| x.abs()).collect()), percent / 100.0)]
    } else {
        let sorted = sorted(values.to_vec());
        [1.0 - percent / 100.0, percent / 100.0].map(|fraction| quantile(&sorted, fraction)).to_vec()
    };
    min_max(&ends, format, levels)
}

/// Scale and zero point of the min-max range.
pub(crate) fn min_max(values: &[f32], format: Format, levels: LevelRange) -> (f32, Option<f32>) {
    let count = levels.high as f32;
    let one_if_zero = |scale: f32| if scale == 0.0 { 1.0 } else { scale };
    match format {
        Format::Symmetric => {
            let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            (one_if_zero(largest / count), None)
        }
        Format::Asymmetric => {
            let low = values.iter().fold(0.0f32, |low, &x| low.min(x));
            let high = values.iter().fold(0.0f32, |high, &x| high.max(x));
            let scale = one_if_zero(high / count - low / count);
            (scale, Some((-low / scale).round_ties_even().clamp(0.0, count)))
        }
        Format::Nf4 => unreachable!("tables have tests of their own"),
    }
}

/// The level of a value.
pub(crate) fn level(x: f32, (scale, zero_point): (f32, Option<f32>), levels: LevelRange) -> f32 {
    let level = (x / scale).round_ties_even();
    // Adding a zero point of 0 would lose the sign of −0.
    zero_point.map_or(level, |zero_point| level + zero_point).clamp(levels.low as f32, levels.high as f32)
}

/// The levels of a tensor, and the values that they stand for.
pub(crate) fn quantise(
    x: &[f32],
    dims: [usize; 3],
    granularity: Granularity,
    format: Format,
    levels: LevelRange,
) -> (Vec<f32>, Vec<f32>) {
    let params: BTreeMap<_, _> = sharing(x, dims, granularity)
        .into_iter()
        .map(|(index, values)| (index, min_max(&values, format, levels)))
        .collect();
    x.iter()
        .enumerate()
        .map(|(index, &x)| {
            let (scale, zero_point) = params[&scale_index(granularity, dims, index)];
            let q = level(x, (scale, zero_point), levels);
            (q, zero_point.map_or(q, |zero_point| q - zero_point) * scale)
        })
        .unzip()
}
