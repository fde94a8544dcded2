//! Work on several batches at once.
//!
//! On a CPU most operations of a small model run on one core. A worker is a thread with a rayon
//! pool of its own, one thread wide, so that what it computes stays on its core and does not wait
//! for the others. Results come back in the order of the input, whatever the number of workers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A fixed number of workers.
#[derive(Debug, Clone)]
pub struct Workers {
    pools: Arc<Vec<ThreadPool>>,
}

impl Workers {
    /// `n` workers; at least one.
    ///
    /// # Panics
    ///
    /// When the system refuses to start a thread.
    pub fn new(n: usize) -> Self {
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build().expect("a thread can be started");
        // A single worker runs on the caller's thread, where operations may use every core.
        let pools = if n <= 1 { Vec::new() } else { (0..n).map(pool).collect() };
        Self { pools: Arc::new(pools) }
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

impl Default for Workers {
    /// One worker, on the caller's thread.
    fn default() -> Self {
        Self::new(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_in_order_for_any_number_of_workers() {
        let items: Vec<usize> = (0..101).collect();
        for n in [0, 1, 2, 5] {
            let squares = Workers::new(n).map(&items, |i, item| i * item);
            assert_eq!(squares, items.iter().map(|i| i * i).collect::<Vec<_>>());
        }
        assert!(Workers::new(3).map(&[] as &[u8], |_, _| 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "worker")]
    fn a_panic_in_the_work_reaches_the_caller() {
        Workers::new(2).map(&[1, 2, 3], |_, _| panic!("worker"));
    }
}
