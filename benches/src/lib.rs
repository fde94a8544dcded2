//! The work that is measured, apart from who measures it.
//!
//! A [`Case`] is one piece of work with its tensors ready. The criterion benches time cases in
//! process; `peer_cases` times them on request, so that a driver can take turns with the same work
//! in another framework. Ids are `group/case/params`, the same on both sides.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod case;
mod gpt2;
mod quantise;

pub use case::{Case, Unit, build, known_ids};
