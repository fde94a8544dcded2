//! How much of the model was run, and how much would have been without re-use.
//!
//! ```text
//! computed = Σ over evaluations of  windows read · blocks from the first that changed on
//! plain    = Σ over evaluations of  all windows · all blocks
//! ```
//!
//! Both are counts of one block applied to one window. They depend on the plans and the questions
//! alone, not on the machine.

use std::ops::{AddAssign, Sub};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Block forward passes times windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Work {
    /// What was computed.
    pub blocks_computed: u64,
    /// What the same evaluations need when each runs every block over every window.
    pub blocks_plain: u64,
}

impl Work {
    /// Share of the plain work that was saved; 0 when there was none.
    pub fn saved(&self) -> f64 {
        if self.blocks_plain == 0 { 0.0 } else { 1.0 - self.blocks_computed as f64 / self.blocks_plain as f64 }
    }
}

impl Sub for Work {
    type Output = Self;

    /// The work between two readings.
    fn sub(self, earlier: Self) -> Self {
        Self {
            blocks_computed: self.blocks_computed - earlier.blocks_computed,
            blocks_plain: self.blocks_plain - earlier.blocks_plain,
        }
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, more: Self) {
        self.blocks_computed += more.blocks_computed;
        self.blocks_plain += more.blocks_plain;
    }
}

/// Adds up work.
#[derive(Debug, Default)]
pub(crate) struct WorkMeter {
    computed: AtomicU64,
    plain: AtomicU64,
}

impl WorkMeter {
    pub(crate) fn add_computed(&self, blocks: usize) {
        self.computed.fetch_add(blocks as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_plain(&self, blocks: usize) {
        self.plain.fetch_add(blocks as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Work {
        Work {
            blocks_computed: self.computed.load(Ordering::Relaxed),
            blocks_plain: self.plain.load(Ordering::Relaxed),
        }
    }
}
