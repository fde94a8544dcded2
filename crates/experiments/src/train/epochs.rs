//! The order in which a run sees its items, epoch after epoch.

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

/// Items in another order in every epoch, which follows from the seed; whole micro-batches alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epochs {
    /// Items of an epoch, at least as many as a micro-batch has.
    pub(crate) items: usize,
    /// Items of a micro-batch.
    pub(crate) micro_batch: usize,
    /// Seed of the orders.
    pub(crate) seed: u64,
}

impl Epochs {
    /// The places of the items of each micro-batch, from a position on that is counted from the start of the run;
    /// without end.
    pub(crate) fn micro_batches_from(self, position: usize) -> impl Iterator<Item = Vec<usize>> {
        let per_epoch = self.items / self.micro_batch;
        let first = position / per_epoch;
        (first..).flat_map(move |epoch| {
            let done = if epoch == first { position % per_epoch } else { 0 };
            let batches: Vec<Vec<usize>> =
                self.order(epoch).chunks_exact(self.micro_batch).skip(done).map(<[usize]>::to_vec).collect();
            batches
        })
    }

    fn order(self, epoch: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(epoch as u64);
        let mut order: Vec<usize> = (0..self.items).collect();
        order.shuffle(&mut rng);
        order
    }
}
