//! One layer of GPT-2 small with an adapter.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench switchable_linear
//! ```
//!
//! Ids are `switchable_linear/WIDTHS/TOKENSxINPUTSxOUTPUTS/DEVICE`; the throughput is in tokens.

fn main() {
    switchable_quant_benches::measure("switchable_linear", 30);
}
