//! Models trained on attacks.
//!
//! | file | what |
//! |---|---|
//! | `adversarial_training` | [`adversarial_training()`](adversarial_training::adversarial_training): training on attacks, in rounds |
//! | `adversarial_study` | [`Hardening`](adversarial_study::Hardening): the trained models attacked beside the untrained one |

pub mod adversarial_study;
pub mod adversarial_training;
