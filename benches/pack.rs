//! Packing a float matrix.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench pack
//! ```
//!
//! Ids are `pack/WIDTH/ROWSxCOLUMNS/DEVICE`; the throughput is in bytes of the input.

fn main() {
    switchable_quant_benches::measure("pack", 100);
}
