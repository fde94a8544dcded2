//! Blocks of values that share a scale, as kernels see them.
//!
//! ```text
//! x [outer, values, inner]     a block is `group` values of one outer and one inner index, `inner`
//!                              apart in memory; the last group of an outer index may be shorter
//! scale [outer, ⌈values / group⌉, inner]
//! ```
//!
//! Every cut of [`BlockShape`](crate::spec::block_shape::BlockShape) is such a view of the same memory,
//! scales included, so one kernel serves them all. A cube of units is laid over some columns of
//! `inner` and over the values of their blocks:
//!
//! ```text
//! unit = lane · columns + column      neighbouring units read neighbouring memory
//! ```

use cubecl::{prelude::*, server::CubeCountSelection};

use crate::spec::block_shape::{BlockShape, Cut};

/// Units of a cube, where blocks are large enough for them.
const UNITS: usize = 256;
/// The most columns that a cube covers: in f32, a cache line of the widest GPUs.
const WIDEST: usize = 32;
/// Values that a unit takes before a block is spread over several cubes.
const VALUES_PER_UNIT: usize = 32;

/// A view of a tensor as blocks, on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockView {
    pub(super) outer: usize,
    pub(super) values: usize,
    pub(super) group: usize,
    pub(super) inner: usize,
}

/// A view of a tensor as blocks, on the device.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Blocks {
    pub(super) values: usize,
    pub(super) group: usize,
    pub(super) groups: usize,
    pub(super) inner: usize,
}

/// How the units of a cube are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lanes {
    pub(super) columns: usize,
    pub(super) per_column: usize,
}

/// How blocks are spread over cubes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    pub(super) lanes: Lanes,
    /// Values of a block that a cube takes.
    pub(super) chunk: usize,
    /// Cubes that a block is spread over.
    pub(super) chunks: usize,
    pub(super) cubes: usize,
}

/// Where a unit finds its values: at `origin + value · inner` for each `per_column`-th value from
/// `first` to before `end`.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Share {
    pub(super) origin: usize,
    pub(super) first: usize,
    pub(super) end: usize,
    /// Number of the outer index and group, counted together.
    pub(super) block: usize,
    pub(super) column: usize,
    /// Number of the cube among those of its block.
    pub(super) chunk: usize,
}

impl BlockView {
    pub(super) fn new(shape: BlockShape) -> Self {
        let BlockShape { outer, rows, columns, cut } = shape;
        match cut {
            Cut::Whole => Self { outer: 1, values: shape.len(), group: shape.len(), inner: 1 },
            Cut::DownColumns(group) => Self { outer, values: rows, group, inner: columns },
            Cut::AlongRows(group) => Self { outer: outer * rows, values: columns, group, inner: 1 },
        }
    }

    /// What several cubes found for each block, as blocks of their own.
    pub(super) fn of_chunks(self, chunks: usize) -> Self {
        Self { outer: self.blocks(), values: chunks, group: chunks, inner: self.inner }
    }

    pub(super) fn launch<R: Runtime>(self) -> BlocksLaunch<R> {
        BlocksLaunch::new(self.values, self.group, self.groups(), self.inner)
    }

    /// A cube for each block and its neighbours in `inner`, whatever the size of the block.
    pub(super) fn whole_blocks<R: Runtime>(self, client: &ComputeClient<R>) -> Spread {
        self.spread(client, usize::MAX)
    }

    /// As many cubes for each block as it takes to keep a unit's share small.
    pub(super) fn in_chunks<R: Runtime>(self, client: &ComputeClient<R>) -> Spread {
        self.spread(client, VALUES_PER_UNIT)
    }

    fn spread<R: Runtime>(self, client: &ComputeClient<R>, values_per_unit: usize) -> Spread {
        let limit = client.properties().hardware.max_units_per_cube as usize;
        let units = UNITS.min(1 << limit.ilog2());
        let columns = self.inner.next_power_of_two().min(WIDEST).min(units);
        let per_column = (units / columns).min(self.group.next_power_of_two());
        let chunk = self.group.min(per_column.saturating_mul(values_per_unit));
        let chunks = self.group.div_ceil(chunk);
        let cubes = self.blocks() * chunks * self.inner.div_ceil(columns);
        Spread { lanes: Lanes { columns, per_column }, chunk, chunks, cubes }
    }

    fn groups(self) -> usize {
        self.values.div_ceil(self.group)
    }

    fn blocks(self) -> usize {
        self.outer * self.groups()
    }
}

impl Lanes {
    pub(super) fn units(self) -> usize {
        self.columns * self.per_column
    }
}

impl Spread {
    /// Whether one cube sees all of a block.
    pub(super) fn is_whole(self) -> bool {
        self.chunks == 1
    }

    pub(super) fn cube_dim(self) -> CubeDim {
        CubeDim::new_1d(self.lanes.units() as u32)
    }

    /// At least `cubes` cubes; kernels stop those past it.
    pub(super) fn cube_count<R: Runtime>(self, client: &ComputeClient<R>) -> CubeCount {
        CubeCountSelection::new(client, self.cubes as u32).cube_count()
    }
}

/// The share of this unit when each block is cut into chunks of `chunk` values.
#[cube]
pub(super) fn share_of_unit(blocks: &Blocks, chunk: usize, #[comptime] lanes: Lanes) -> Share {
    let columns = comptime!(lanes.columns);
    let unit = UNIT_POS as usize;
    let strips = blocks.inner.div_ceil(columns);
    let chunks = blocks.group.div_ceil(chunk);
    let column = CUBE_POS % strips * columns + unit % columns;
    let task = CUBE_POS / strips;
    let block = task / chunks;
    let within = task % chunks * chunk;
    let group = block % blocks.groups * blocks.group;
    let end_of_group = min(group + blocks.group, blocks.values);
    let end = min(group + within + chunk, end_of_group);
    let first = group + within + unit / columns;
    Share {
        origin: block / blocks.groups * blocks.values * blocks.inner + column,
        first,
        end: select(column < blocks.inner, end, first),
        block,
        column,
        chunk: task % chunks,
    }
}

/// The place among scales of the value at `position`.
#[cube]
pub(super) fn param_of(blocks: &Blocks, position: usize) -> usize {
    let column = position % blocks.inner;
    let row = position / blocks.inner;
    let outer = row / blocks.values;
    let group = row % blocks.values / blocks.group;
    (outer * blocks.groups + group) * blocks.inner + column
}
