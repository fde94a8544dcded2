//! One token of GPT-2 small after a cached context.
//!
//! ```text
//! cargo bench -p switchable-quant-benches --bench decode
//! ```
//!
//! Ids are `decode/WIDTHS/BATCHxCONTEXT/DEVICE`; the throughput is in tokens.

fn main() {
    switchable_quant_benches::measure("decode", 30);
}
