//! Quantisation and its reverse in one.
//!
//! ```text
//! small blocks    x ──→ y                  a cube finds the range of its blocks, then rounds them
//! large blocks    x ──→ s, z;  x, s, z ──→ y
//! ```

use burn::tensor::{DType, TensorMetadata};
use burn_cubecl::{CubeRuntime, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use crate::{
    backends::plain::precision::largest_of,
    cube::{
        DeviceParams, address_type,
        block_view::{BlockView, Blocks, Lanes, Spread, param_of, share_of_unit},
        choose_params::{empty_like, params_of},
        extent::{Extent, asymmetric_params, of_column, symmetric_scale},
        rounding::{Levels, LevelsLaunch, level_of, round_trip},
    },
    spec::{
        block_shape::BlockShape,
        formats::{code_book::LevelRange, format::Format},
    },
};

/// The values of `x` after quantisation by the range of each block.
///
/// # Shapes
///
/// - `x` and output: any shape of `block`'s values, not empty
pub(crate) fn fake_quantize<R: CubeRuntime>(
    x: CubeTensor<R>,
    block: BlockShape,
    levels: LevelRange,
    format: Format,
) -> CubeTensor<R> {
    let x = into_contiguous(x);
    let view = BlockView::new(block);
    if view.in_chunks(&x.client).is_whole() {
        return fused(&x, view, levels, format);
    }
    let params = params_of(&x, block, levels, format);
    by_params(x, params, view, levels)
}

/// The values of `x` after quantisation by given scales.
///
/// # Shapes
///
/// - `x` and output: any shape of `block`'s values, not empty
/// - `params`: [`BlockShape::param_shape`]
pub(crate) fn apply_params<R: CubeRuntime>(
    x: CubeTensor<R>,
    params: DeviceParams<R>,
    block: BlockShape,
    levels: LevelRange,
) -> CubeTensor<R> {
    by_params(into_contiguous(x), params.into_contiguous(), BlockView::new(block), levels)
}

/// `gradient` where the level of `x` is not clamped, 0 elsewhere.
///
/// # Shapes
///
/// - `x`, `gradient` and output: any shape of `block`'s values, not empty
/// - `params`: [`BlockShape::param_shape`]
pub(crate) fn pass_gradient_inside<R: CubeRuntime>(
    x: CubeTensor<R>,
    params: DeviceParams<R>,
    gradient: CubeTensor<R>,
    block: BlockShape,
    levels: LevelRange,
) -> CubeTensor<R> {
    let [x, gradient] = [x, gradient].map(into_contiguous);
    let DeviceParams { scale, zero_point } = params.into_contiguous();
    let view = BlockView::new(block);
    let y = empty_like(&gradient, gradient.shape(), gradient.dtype);
    let values = block.len();
    let cube_dim = CubeDim::new(&x.client, values);
    let dtype = x.dtype;
    let dtypes = [dtype.into(), gradient.dtype.into(), scale.dtype.into()];
    // SAFETY: units past the last value stop, and the tensors have the shapes of the view.
    #[expect(unsafe_code, reason = "bounds are checked once per value instead of once per access")]
    unsafe {
        gradient_of_values::launch_unchecked::<R>(
            &y.client,
            calculate_cube_count_elemwise(&y.client, values, cube_dim),
            cube_dim,
            address_type([&x, &gradient, &y]),
            x.into_array_arg(),
            gradient.into_array_arg(),
            scale.into_array_arg(),
            zero_point.map(CubeTensor::into_array_arg).into(),
            y.clone().into_array_arg(),
            view.launch(),
            launch(levels, dtype),
            values,
            dtypes,
        );
    }
    y
}

fn fused<R: CubeRuntime>(x: &CubeTensor<R>, view: BlockView, levels: LevelRange, format: Format) -> CubeTensor<R> {
    let spread: Spread = view.whole_blocks(&x.client);
    let y = empty_like(x, x.shape(), x.dtype);
    // SAFETY: units past the last column or value are stopped by `share_of_unit`, and the tensors
    // have the shapes of the view.
    #[expect(unsafe_code, reason = "bounds are checked once per share instead of once per value")]
    unsafe {
        values_of_blocks::launch_unchecked::<R>(
            &x.client,
            spread.cube_count(&x.client),
            spread.cube_dim(),
            address_type([x, &y]),
            x.clone().into_array_arg(),
            y.clone().into_array_arg(),
            view.launch(),
            launch(levels, x.dtype),
            spread.cubes,
            format,
            spread.lanes,
            x.dtype.into(),
        );
    }
    y
}

fn by_params<R: CubeRuntime>(
    x: CubeTensor<R>,
    DeviceParams { scale, zero_point }: DeviceParams<R>,
    view: BlockView,
    levels: LevelRange,
) -> CubeTensor<R> {
    let y = empty_like(&x, x.shape(), x.dtype);
    let values = x.meta.num_elements();
    let cube_dim = CubeDim::new(&x.client, values);
    let dtype = x.dtype;
    let dtypes = [dtype.into(), scale.dtype.into()];
    // SAFETY: units past the last value stop, and the tensors have the shapes of the view.
    #[expect(unsafe_code, reason = "bounds are checked once per value instead of once per access")]
    unsafe {
        values_by_params::launch_unchecked::<R>(
            &y.client,
            calculate_cube_count_elemwise(&y.client, values, cube_dim),
            cube_dim,
            address_type([&x, &y, &scale]),
            x.into_array_arg(),
            scale.into_array_arg(),
            zero_point.map(CubeTensor::into_array_arg).into(),
            y.clone().into_array_arg(),
            view.launch(),
            launch(levels, dtype),
            values,
            dtypes,
        );
    }
    y
}

/// Levels as kernels on values of a type are told them.
fn launch<R: CubeRuntime>(levels: LevelRange, dtype: DType) -> LevelsLaunch<R> {
    LevelsLaunch::new(levels.low as f32, levels.high as f32, largest_of(dtype) as f32)
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn values_of_blocks<F: Float>(
    x: &Array<F>,
    y: &mut Array<F>,
    blocks: Blocks,
    levels: Levels,
    cubes: usize,
    #[comptime] format: Format,
    #[comptime] lanes: Lanes,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let share = share_of_unit(&blocks, blocks.group, lanes);
    let mut extent = Extent::of_nothing();
    let mut value = share.first;
    while value < share.end {
        extent.include(f32::cast_from(x[share.origin + value * blocks.inner]));
        value += comptime!(lanes.per_column);
    }
    let extent = of_column(extent, lanes);
    let mut value = share.first;
    if comptime!(format == Format::Symmetric) {
        let scale = symmetric_scale(extent, &levels);
        while value < share.end {
            let position = share.origin + value * blocks.inner;
            let restored = round_trip(f32::cast_from(x[position]), scale, ComptimeOption::new_None(), &levels);
            y[position] = F::cast_from(restored);
            value += comptime!(lanes.per_column);
        }
    } else {
        let params = asymmetric_params(extent, &levels);
        let scale = params.scale;
        let zero_point = params.zero_point;
        while value < share.end {
            let position = share.origin + value * blocks.inner;
            let zero_point = ComptimeOption::new_Some(zero_point);
            let restored = round_trip(f32::cast_from(x[position]), scale, zero_point, &levels);
            y[position] = F::cast_from(restored);
            value += comptime!(lanes.per_column);
        }
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn values_by_params<F: Float, S: Float>(
    x: &Array<F>,
    scale: &Array<S>,
    zero_point: &ComptimeOption<Array<S>>,
    y: &mut Array<F>,
    blocks: Blocks,
    levels: Levels,
    values: usize,
    #[define(F, S)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS >= values {
        terminate!();
    }
    let param = param_of(&blocks, ABSOLUTE_POS);
    let scale = f32::cast_from(scale[param]);
    let zero_point = zero_point.as_ref().map(|zero_point| f32::cast_from(zero_point[param]));
    let restored = round_trip(f32::cast_from(x[ABSOLUTE_POS]), scale, zero_point, &levels);
    y[ABSOLUTE_POS] = F::cast_from(restored);
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn gradient_of_values<F: Float, G: Float, S: Float>(
    x: &Array<F>,
    gradient: &Array<G>,
    scale: &Array<S>,
    zero_point: &ComptimeOption<Array<S>>,
    y: &mut Array<G>,
    blocks: Blocks,
    levels: Levels,
    values: usize,
    #[define(F, G, S)] _dtypes: [StorageType; 3],
) {
    if ABSOLUTE_POS >= values {
        terminate!();
    }
    let param = param_of(&blocks, ABSOLUTE_POS);
    let scale = f32::cast_from(scale[param]);
    let zero_point = zero_point.as_ref().map(|zero_point| f32::cast_from(zero_point[param]));
    let level = level_of(f32::cast_from(x[ABSOLUTE_POS]), scale, zero_point);
    // A level that is NaN is inside of nothing.
    let inside = level >= levels.low && level <= levels.high;
    y[ABSOLUTE_POS] = select(inside, gradient[ABSOLUTE_POS], G::new(0.0));
}
