//! Exact allocation: bits per site under a byte budget.
//!
//! ```text
//! minimise    Σᵢ damageᵢ(bᵢ)    subject to    Σᵢ bytesᵢ(bᵢ) ≤ budget,    bᵢ from the choices
//!
//! F₀ = {(0, 0)}
//! Fᵢ = {(B + bytesᵢ(b), D + damageᵢ(b)) : (B, D) ∈ Fᵢ₋₁, b a choice}, dominated pairs left out
//! ```
//!
//! `damageᵢ(b)` is measured with site i alone at b. That damages add up is a model, so what it finds is
//! [verified](damage::DamageTable::verify) by evaluation and [refined](damage::DamageTable::refine_by_swaps) by swaps.
//! Under the model the result is exact: a pair that is no smaller and no less harmful than another
//! stays so whatever the later sites add, in `f64` sums as well. The last `F` is the whole Pareto
//! front, so one solve serves every budget.
//!
//! With S sites of C choices it costs O(S · |F| · C · log(|F| · C)) time and O(S · |F|) memory. |F| is
//! at most the number of different byte sums, which is small where sites have few shapes.
//!
//! Sources: Nemhauser and Ullmann, *Discrete Dynamic Programming and Capital Allocation*, Management
//! Science 1969 (lists of undominated states); Kellerer, Pferschy and Pisinger, *Knapsack Problems*,
//! 2004, chapter 11 (multiple choice); Dong et al., *HAWQ-V2*, arXiv:1911.03852 (damages of layers
//! that add up, and their Pareto front).

pub mod budgets;
pub mod damage;
pub mod equal_bytes;
pub mod pareto;
pub mod swaps;
pub mod verify;
