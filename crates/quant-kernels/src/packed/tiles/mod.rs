//! Shapes that kernels and products share.
//!
//! ```text
//! packed bytes ──widen──→ quads ──decode──→ strips ──products──→ sums
//! ```
//!
//! | shape | file |
//! |---|---|
//! | a tile of 32 × 16 packed codes: where each bit stands | `layout` |
//! | which codes are wanted of a tile | `source` |
//! | ratios of scales, where codes are cut by them | `ratios` |
//! | its codes, one a byte | `quads` |
//! | its values | `strip` |
//! | its values in bf16, two rows together | `pairs` |
//! | scales and codes of 0 of 16 columns | `params` |
//! | runs of rows that share scales | `segments` |
//! | weights of the columns that a kernel takes at once | `columns` |
//! | rows of activations | `rows` |
//! | what a kernel adds up | `sums` |

pub(crate) mod columns;
pub(crate) mod layout;
pub(crate) mod pairs;
pub(crate) mod params;
pub(crate) mod quads;
pub(crate) mod ratios;
pub(crate) mod rows;
pub(crate) mod segments;
pub(crate) mod source;
pub(crate) mod strip;
pub(crate) mod sums;
