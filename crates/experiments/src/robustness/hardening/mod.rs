//! Models trained on attacks.
//!
//! | file | what |
//! |---|---|
//! | `adversarial_training` | [`adversarial_training()`](adversarial_training::adversarial_training): training on attacks, in rounds |
//! | `adversarial_study` | [`harden_and_attack`](adversarial_study::harden_and_attack): the trained models attacked beside the untrained one |

pub mod adversarial_study;
pub mod adversarial_training;
