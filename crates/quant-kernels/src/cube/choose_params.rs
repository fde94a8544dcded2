//! Scales and zero points.
//!
//! ```text
//! x ──→ extents [blocks, chunks, inner] ──→ s, z        a kernel each
//! ```
//!
//! The first kernel spreads large blocks over many cubes, the second brings the extents of each
//! block together. Without atomics both run on every runtime, and the result does not depend on
//! the order in which cubes end: maxima are exact.

use burn::tensor::{DType, Shape};
use burn_cubecl::{
    CubeRuntime, kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor,
};
use cubecl::prelude::*;

use crate::{
    cube::{
        DeviceParams, address_type,
        block_view::{BlockView, Blocks, Lanes, Spread, share_of_unit},
        extent::{Extent, asymmetric_params, of_column, symmetric_scale},
        rounding::{Levels, LevelsLaunch},
    },
    spec::{
        block_shape::BlockShape,
        formats::{code_book::LevelRange, format::Format},
    },
};

/// Scales and zero points of `x`, in f32.
///
/// # Shapes
///
/// - `x`: any shape of `block`'s values, not empty
/// - output: [`BlockShape::param_shape`]
pub(crate) fn choose_params<R: CubeRuntime>(
    x: CubeTensor<R>,
    block: BlockShape,
    levels: LevelRange,
    format: Format,
) -> DeviceParams<R> {
    params_of(&into_contiguous(x), block, levels, format)
}

/// The same for a contiguous tensor.
pub(super) fn params_of<R: CubeRuntime>(
    x: &CubeTensor<R>,
    block: BlockShape,
    levels: LevelRange,
    format: Format,
) -> DeviceParams<R> {
    let view = BlockView::new(block);
    let spread = view.in_chunks(&x.client);
    let extents = extents_of_chunks(x, view, spread);
    let chunks = view.of_chunks(spread.chunks);
    let spread = chunks.whole_blocks(&x.client);
    let param = || empty_like(x, block.param_shape().into(), DType::F32);
    let scale = param();
    let zero_point = format.has_zero_points().then(param);
    let [above, below] = extents;
    let address_type = address_type([&above, &below, &scale]);
    // SAFETY: units past the last column or value are stopped by `share_of_unit`, and the tensors
    // have the shapes of the view.
    #[expect(unsafe_code, reason = "bounds are checked once per share instead of once per value")]
    unsafe {
        params_of_extents::launch_unchecked::<R>(
            &x.client,
            spread.cube_count(&x.client),
            spread.cube_dim(),
            address_type,
            above.into_array_arg(),
            below.into_array_arg(),
            scale.clone().into_array_arg(),
            zero_point.clone().map(CubeTensor::into_array_arg).into(),
            chunks.launch(),
            LevelsLaunch::new(levels.low as f32, levels.high as f32, f32::MAX),
            spread.cubes,
            spread.lanes,
        );
    }
    DeviceParams { scale, zero_point }
}

/// What each chunk of each block holds above and below 0.
fn extents_of_chunks<R: CubeRuntime>(x: &CubeTensor<R>, view: BlockView, spread: Spread) -> [CubeTensor<R>; 2] {
    let chunks = view.of_chunks(spread.chunks);
    let extents = [(); 2].map(|()| empty_like(x, [chunks.outer, chunks.values, chunks.inner].into(), DType::U32));
    let [above, below] = &extents;
    // SAFETY: units past the last column or value are stopped by `share_of_unit`, and the tensors
    // have the shapes of the view.
    #[expect(unsafe_code, reason = "bounds are checked once per share instead of once per value")]
    unsafe {
        extents_of_values::launch_unchecked::<R>(
            &x.client,
            spread.cube_count(&x.client),
            spread.cube_dim(),
            address_type([x, above, below]),
            x.clone().into_array_arg(),
            above.clone().into_array_arg(),
            below.clone().into_array_arg(),
            view.launch(),
            spread.chunk,
            spread.cubes,
            spread.lanes,
            x.dtype.into(),
        );
    }
    extents
}

pub(super) fn empty_like<R: CubeRuntime>(x: &CubeTensor<R>, shape: Shape, dtype: DType) -> CubeTensor<R> {
    empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, dtype)
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn extents_of_values<F: Float>(
    x: &Array<F>,
    above: &mut Array<u32>,
    below: &mut Array<u32>,
    blocks: Blocks,
    chunk: usize,
    cubes: usize,
    #[comptime] lanes: Lanes,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let share = share_of_unit(&blocks, chunk, lanes);
    let mut extent = Extent::of_nothing();
    let mut value = share.first;
    while value < share.end {
        extent.include(f32::cast_from(x[share.origin + value * blocks.inner]));
        value += comptime!(lanes.per_column);
    }
    let extent = of_column(extent, lanes);
    if UNIT_POS < comptime!(lanes.columns as u32) && share.column < blocks.inner {
        let chunks = blocks.group.div_ceil(chunk);
        let position = (share.block * chunks + share.chunk) * blocks.inner + share.column;
        above[position] = extent.above;
        below[position] = extent.below;
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn params_of_extents(
    above: &Array<u32>,
    below: &Array<u32>,
    scale: &mut Array<f32>,
    zero_point: &mut ComptimeOption<Array<f32>>,
    chunks: Blocks,
    levels: Levels,
    cubes: usize,
    #[comptime] lanes: Lanes,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let share = share_of_unit(&chunks, chunks.group, lanes);
    let mut extent = Extent::of_nothing();
    let mut chunk = share.first;
    while chunk < share.end {
        let position = share.origin + chunk * chunks.inner;
        extent.join(above[position], below[position]);
        chunk += comptime!(lanes.per_column);
    }
    let extent = of_column(extent, lanes);
    if UNIT_POS < comptime!(lanes.columns as u32) && share.column < chunks.inner {
        let param = share.block * chunks.inner + share.column;
        #[comptime]
        match zero_point {
            ComptimeOption::None => scale[param] = symmetric_scale(extent, &levels),
            ComptimeOption::Some(zero_point) => {
                let of_block = asymmetric_params(extent, &levels);
                scale[param] = of_block.scale;
                zero_point[param] = of_block.zero_point;
            }
        }
    }
}
