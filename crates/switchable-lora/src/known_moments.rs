//! What a layer may know of its inputs.

use std::{fmt, sync::Arc};

use quant_kernels::calibrated::input_moments::InputMoments;

/// The moments of a layer's inputs, if they were collected. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct KnownMoments(Option<Arc<InputMoments>>);

impl KnownMoments {
    pub(crate) fn of(moments: Arc<InputMoments>) -> Self {
        Self(Some(moments))
    }

    pub(crate) fn get(&self) -> Option<&InputMoments> {
        self.0.as_deref()
    }
}

/// Millions of numbers are not for reading.
impl fmt::Debug for KnownMoments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(moments) => write!(f, "moments of {} rows", moments.rows()),
            None => f.write_str("none"),
        }
    }
}
