//! Ways to edit an item so that the model answers it wrongly.
//!
//! | file | what |
//! |---|---|
//! | `attack` | [`Attack`](attack::Attack): what an attack gets and gives |
//! | `budget` | [`AttackBudget`](budget::AttackBudget): when a search for an edit ends |
//! | `table` | [`Attacks`](table::Attacks): these and those of other crates by name |
//! | `attack_kind` | [`AttackKind`](attack_kind::AttackKind): each of this folder by name |
//! | `typos`, `misspellings`, `distractor` | attacks that need no model |
//! | `hot_flip` | [`HotFlip`](hot_flip::HotFlip): swaps chosen by the gradient |
//! | `word_substitution` | [`WordSubstitution`](word_substitution::WordSubstitution): substitutes proposed by the model |

pub mod attack;
pub mod attack_kind;
pub mod budget;
pub mod distractor;
pub mod hot_flip;
pub mod misspellings;
pub mod table;
pub mod typos;
pub mod word_substitution;
