//! Work that waits, bounded: a queue that is full refuses at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Something that may no longer be worth doing.
pub(super) trait Abandonable {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
}

/// Why a queue did not take something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// So many wait already.
    Full(usize),
    /// It was closed.
    Closed,
}

/// A queue for several threads.
#[derive(Debug)]
pub(super) struct Queue<T> {
    room: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T: Abandonable> Queue<T> {
    /// A queue in which at most `room` wait.
    pub(super) fn new(room: usize) -> Self {
        let state = State { waiting: VecDeque::with_capacity(room.min(1024)), closed: false };
        Self { room, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Puts something at the end; gives back how many were thrown out because nobody waited for them any more, which
    /// happens where there is no other room.
    pub(super) fn push(&self, item: T) -> Result<usize, NotTaken> {
        let mut state = self.lock();
        if state.closed {
            return Err(NotTaken::Closed);
        }
        let before = state.waiting.len();
        if before >= self.room {
            state.waiting.retain(|waiting| !waiting.is_abandoned());
        }
        if state.waiting.len() >= self.room {
            return Err(NotTaken::Full(state.waiting.len()));
        }
        let thrown_out = before - state.waiting.len();
        state.waiting.push_back(item);
        self.changed.notify_one();
        Ok(thrown_out)
    }

    /// Takes the first, waiting for it; `None` where the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.waiting.pop_front() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes nothing more; what waits is still given out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// How many may wait.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
