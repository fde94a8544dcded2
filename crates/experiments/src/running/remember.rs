//! Results that are known from before.

use crate::error::Result;

/// Gives the result of that name, known from before or computed now.
///
/// The name tells the result from others of the same analysis. What is given back must be what the
/// computation would give.
pub type Remember<'a, T> = dyn Fn(&str, &mut dyn FnMut() -> Result<T>) -> Result<T> + 'a;
