//! The work that is measured, apart from who measures it.
//!
//! A [`Case`] is one piece of work, whose tensors are made and whose answer is checked when it is
//! prepared. The criterion benches time cases in process; `peer_cases` times them on request, so that
//! a driver can take turns with the same work in another framework. Ids are `group/case/params`, the
//! same on both sides; criterion's end in the device.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod answer;
mod built_in;
mod calibrated;
mod case;
mod damage;
mod gpt2;
mod measure;
mod packed;
mod quantise;
mod rotation;
mod switch;
mod switchable_linear;

pub use case::{Case, Unit, Work, cases};
pub use measure::measure;
