//! Rotations of inputs, by the kernel and by a product with the rotation's matrix.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench rotation
//! ```
//!
//! Ids are `rotation/hadamard/ROWSxWIDTH[/product]/DEVICE`; the throughput is in bytes of the input.

fn main() {
    switchable_quant_benches::measure("rotation", 30);
}
