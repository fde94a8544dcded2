//! Products with packed weights.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench packed_matmul
//! ```
//!
//! Ids are `packed_matmul/WIDTHS/ROWSxINPUTSxOUTPUTS/DEVICE`; the throughput is in multiply-accumulate operations.

fn main() {
    switchable_quant_benches::measure("packed_matmul", 30);
}
