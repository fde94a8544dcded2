//! Copies of packed weights on devices.
//!
//! The first product on a device copies codes, scales and zero points to it; later ones find them
//! here. Packed weights do not change, so a copy is never stale. Clones of the weights share their
//! copies, and the last clone that goes takes them along.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A copy for each device that the weights were used on. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct DeviceCopies(Arc<Mutex<Vec<Box<dyn Any + Send + Sync>>>>);

impl DeviceCopies {
    /// The copy that `is_wanted`, made by `make` where there is none.
    pub(crate) fn get_or_make<C: Any + Clone + Send + Sync>(
        &self,
        is_wanted: impl Fn(&C) -> bool,
        make: impl FnOnce() -> C,
    ) -> C {
        // Held while the copy is made: another thread waits for it instead of making its own.
        let mut copies = self.lock();
        if let Some(copy) = copies.iter().filter_map(|copy| copy.downcast_ref()).find(|copy| is_wanted(copy)) {
            return C::clone(copy);
        }
        let copy = make();
        copies.push(Box::new(copy.clone()));
        copy
    }

    /// The number of copies.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<dyn Any + Send + Sync>>> {
        // A panic while a copy is made leaves the list as it was.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DeviceCopies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copies on {} devices", self.len())
    }
}

#[cfg(test)]
mod tests {
    use crate::packed::device_copies::DeviceCopies;

    #[test]
    fn a_copy_is_made_once_for_each_kind_and_device() {
        let copies = DeviceCopies::default();
        let get = |device: u8| copies.get_or_make(|copy: &(u8, String)| copy.0 == device, || (device, "made".into()));
        assert_eq!(get(0), (0, "made".into()));
        let unmade = || unreachable!("there is a copy");
        assert_eq!(copies.clone().get_or_make(|copy: &(u8, String)| copy.0 == 0, unmade).1, "made");
        get(1);
        assert_eq!(copies.len(), 2);
        assert_eq!(copies.get_or_make(|_: &u8| true, || 7_u8), 7);
        assert_eq!(copies.len(), 3);
    }
}
