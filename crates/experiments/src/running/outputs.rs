//! Results of this process, each made once.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::error::Result;

/// What stages have given so far, by their names and options.
#[derive(Debug, Default)]
pub struct Outputs(RefCell<BTreeMap<String, Rc<dyn Any>>>);

impl Outputs {
    /// The result of that key, or that of `compute`, which is asked once.
    ///
    /// # Errors
    ///
    /// Those of `compute`.
    pub fn get_or<T: 'static>(&self, key: String, compute: impl FnOnce() -> Result<T>) -> Result<Rc<T>> {
        let known = self.0.borrow().get(&key).cloned();
        if let Some(known) = known.and_then(|known| known.downcast::<T>().ok()) {
            return Ok(known);
        }
        // Not borrowed meanwhile: what is computed may ask for other results.
        let made = Rc::new(compute()?);
        self.0.borrow_mut().insert(key, made.clone());
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_made_once_and_may_need_others() {
        let outputs = Outputs::default();
        let inner = || outputs.get_or("inner".into(), || Ok(20));
        let outer = outputs.get_or("outer".into(), || Ok(*inner()? + 1)).unwrap();
        let again = outputs.get_or::<i32>("inner".into(), || panic!("it is known")).unwrap();
        assert_eq!((*outer, *again), (21, 20));
    }
}
