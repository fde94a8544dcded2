//! Work on several batches at once.
//!
//! On a CPU most operations of a small model run on one core. A worker is a thread with a rayon
//! pool of its own, one thread wide, so that what it computes stays on its core and does not wait
//! for the others. Results come back in the order of the input, and are the same to the bit for every
//! number of workers: no product is shared by several cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A fixed number of workers.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    /// Empty for the caller's thread.
    pools: Arc<Vec<ThreadPool>>,
}

impl Workers {
    /// `n` workers; at least one. Also a single one has a core to itself, so that it computes what several
    /// compute.
    ///
    /// # Panics
    ///
    /// When the system refuses to start a thread.
    pub fn new(n: usize) -> Self {
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build().expect("a thread can be started");
        Self { pools: Arc::new((0..n.max(1)).map(pool).collect()) }
    }

    /// One worker on the caller's thread, where operations may use every core, or queue their work on a GPU.
    /// Sums that cores share may differ in the last bit from those of [`Workers::new`].
    pub fn callers_thread() -> Self {
        Self::default()
    }

    /// Number of workers.
    pub fn len(&self) -> usize {
        self.pools.len().max(1)
    }

    /// Never: there is at least one worker.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Applies a function to every item, several at once; results are in the order of the items.
    ///
    /// # Panics
    ///
    /// When the function panics.
    pub fn map<I: Sync, O: Send>(&self, items: &[I], work: impl Fn(usize, &I) -> O + Sync) -> Vec<O> {
        if self.pools.is_empty() {
            return items.iter().enumerate().map(|(i, item)| work(i, item)).collect();
        }
        let next = AtomicUsize::new(0);
        let slots: Vec<Mutex<Option<O>>> = items.iter().map(|_| Mutex::new(None)).collect();
        let drain = || {
            while let Some((i, item)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, items.get(i)?)))
            {
                let output = work(i, item);
                *slots[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
            }
        };
        std::thread::scope(|scope| {
            let drain = &drain;
            let threads: Vec<_> = self.pools.iter().map(|pool| scope.spawn(move || pool.install(drain))).collect();
            for thread in threads {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        let take = |slot: Mutex<Option<O>>| slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        slots.into_iter().map(|slot| take(slot).expect("every item was worked on")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_in_order_for_any_number_of_workers() {
        let items: Vec<usize> = (0..101).collect();
        for workers in [0, 1, 2, 5].map(Workers::new).into_iter().chain([Workers::callers_thread()]) {
            let squares = workers.map(&items, |i, item| i * item);
            assert_eq!(squares, items.iter().map(|i| i * i).collect::<Vec<_>>());
        }
        assert!(Workers::new(3).map(&[] as &[u8], |_, _| 0).is_empty());
    }

    #[test]
    fn work_runs_on_one_core_for_any_number_of_workers() {
        for n in [0, 1, 2, 3] {
            for items in [1, 2, 3] {
                let threads = Workers::new(n).map(&vec![(); items], |_, ()| rayon::current_num_threads());
                assert_eq!(threads, vec![1; items], "{n} workers");
            }
        }
    }

    #[test]
    #[should_panic(expected = "worker")]
    fn a_panic_in_the_work_reaches_the_caller() {
        Workers::new(2).map(&[1, 2, 3], |_, _| panic!("worker"));
    }
}
