//! Requests on their way from the connections to the threads that compute, and back.
//!
//! ```text
//! connection → queue → worker → connection        a request whose client has gone is dropped before it is computed
//!            ↘ 503 where the queue is full
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use switchable_quant::reader::running::workers::Workers;
use switchable_quant::reader::serving::plan_choice::PlanChoice;

use super::problem::Problem;
use super::queue::{Abandonable, NotTaken, Queue};
use super::requests::Task;
use super::served_model::{Said, ServedModel};

/// The longest time that a client is told to wait before it tries again, in seconds.
const LONGEST_RETRY: u64 = 60;

/// A request that waits for a worker.
#[derive(Debug)]
pub(super) struct Job {
    task: Task,
    choice: PlanChoice,
    since: Instant,
    reply: oneshot::Sender<Result<Reply, Problem>>,
}

impl Abandonable for Job {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// What came of a request, and when.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Reply {
    #[serde(flatten)]
    said: Said,
    milliseconds: Milliseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Milliseconds {
    waited: f64,
    computed: f64,
}

/// What became of requests.
#[derive(Debug, Default)]
struct Counters {
    answered: AtomicU64,
    refused: AtomicU64,
    overloaded: AtomicU64,
    abandoned: AtomicU64,
    faults: AtomicU64,
    /// Requests that workers are computing.
    computing: AtomicU64,
    /// Microseconds that answered requests were computed for.
    computed: AtomicU64,
}

/// The counters as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Computed and handed to their connections.
    answered: u64,
    /// Refused by the model.
    refused: u64,
    /// Refused because the queue was full.
    overloaded: u64,
    /// Left by their clients before or while they were computed.
    abandoned: u64,
    /// Ended by a fault of the program.
    faults: u64,
    /// Being computed.
    computing: u64,
    /// In the queue.
    waiting: usize,
    /// Room of the queue.
    queue: usize,
    /// Threads that compute.
    workers: usize,
}

/// The queue with its workers and their counters.
#[derive(Debug)]
pub(super) struct Jobs {
    queue: Queue<Job>,
    counters: Counters,
    workers: usize,
}

impl Jobs {
    /// A queue with room for some requests, for some workers.
    pub(super) fn new(queue: usize, workers: usize) -> Self {
        Self { queue: Queue::new(queue), counters: Counters::default(), workers }
    }

    /// Hands a task to the workers and waits for what comes of it. Where this future is dropped, because the client has
    /// hung up, the task is dropped as well.
    pub(super) async fn ask(&self, task: Task, choice: PlanChoice) -> Result<Reply, Problem> {
        let (reply, answer) = oneshot::channel();
        match self.queue.push(Job { task, choice, since: Instant::now(), reply }) {
            Ok(thrown_out) => _ = self.counters.abandoned.fetch_add(thrown_out as u64, Ordering::Relaxed),
            Err(NotTaken::Closed) => return Err(Problem::Stopping),
            Err(NotTaken::Full(waiting)) => {
                count(&self.counters.overloaded);
                return Err(Problem::Overloaded { waiting, retry_after: self.retry_after(waiting) });
            }
        }
        answer.await.unwrap_or(Err(Problem::Stopping))
    }

    /// Seconds until what waits is likely to be done.
    fn retry_after(&self, waiting: usize) -> u64 {
        let done = self.counters.answered.load(Ordering::Relaxed).max(1);
        let each = Duration::from_micros(self.counters.computed.load(Ordering::Relaxed) / done);
        let seconds = each.as_secs_f64() * waiting as f64 / self.workers as f64;
        (seconds.ceil() as u64).clamp(1, LONGEST_RETRY)
    }

    /// Takes nothing more; what waits is still computed.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Computes what comes until the queue is closed, on one core.
    pub(super) fn work(&self, model: &dyn ServedModel) {
        let core = Workers::new(1);
        while let Some(job) = self.queue.pop() {
            if job.is_abandoned() {
                count(&self.counters.abandoned);
                continue;
            }
            count(&self.counters.computing);
            let computed = core.map(std::slice::from_ref(&job), |_, job| compute(model, job)).pop();
            if let Some(computed) = computed {
                self.hand_back(job, computed);
            }
        }
    }

    fn hand_back(&self, job: Job, computed: Computed) {
        let Computed { said, waited, time } = computed;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let milliseconds = Milliseconds { waited: milliseconds(waited), computed: milliseconds(time) };
        let counter = match &said {
            Ok(_) => &self.counters.answered,
            Err(Problem::Fault) => &self.counters.faults,
            Err(_) => &self.counters.refused,
        };
        if said.is_ok() {
            self.counters.computed.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
        }
        // Counted first: whoever has the answer finds it counted.
        count(counter);
        self.counters.computing.fetch_sub(1, Ordering::Relaxed);
        if job.reply.send(said.map(|said| Reply { said, milliseconds })).is_err() {
            counter.fetch_sub(1, Ordering::Relaxed);
            count(&self.counters.abandoned);
        }
    }

    /// What became of requests so far.
    pub(super) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            answered: of(&self.counters.answered),
            refused: of(&self.counters.refused),
            overloaded: of(&self.counters.overloaded),
            abandoned: of(&self.counters.abandoned),
            faults: of(&self.counters.faults),
            computing: of(&self.counters.computing),
            waiting: self.queue.waiting(),
            queue: self.queue.room(),
            workers: self.workers,
        }
    }
}

/// What a worker made of a job.
struct Computed {
    said: Result<Said, Problem>,
    waited: Duration,
    time: Duration,
}

fn compute(model: &dyn ServedModel, job: &Job) -> Computed {
    let (waited, start) = (job.since.elapsed(), Instant::now());
    // A fault ends the request that ran into it, and no other.
    let said = catch_unwind(AssertUnwindSafe(|| model.compute(&job.task, &job.choice, &|| job.is_abandoned())));
    Computed { said: said.unwrap_or(Err(Problem::Fault)), waited, time: start.elapsed() }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
