//! Bands of rows, shared between threads.
//!
//! Bands are a function of the shape alone and are joined in order, so the result does not depend on the
//! number of threads. A small block stays on the thread that called: waking another costs more, see
//! [`threads`](crate::threads).

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::band::{Band, Block, reduce_band};
use super::row_ranges::TILE_ROWS;
use crate::error::InputError;
use crate::simd::InstructionSet;
use crate::threads::{end_call, in_a_row, run_in_parallel};

/// Work from which on a second thread that is awake is worth having, in weights: some 0.1 ms.
const PARALLEL: usize = 150_000;

/// Work from which on a second thread is worth waking, in weights: some 0.4 ms.
const LARGE: usize = 1_000_000;

/// What selecting the edges of a row costs beside reading it, in weights.
const SELECTION: usize = 64;

/// The same with a share of the mass.
const SHARE: usize = 512;

/// Reduces blocks, and gives (number of the block, band) in order.
pub(super) fn sweep(
    set: InstructionSet,
    blocks: &[Block<'_>],
) -> Result<Vec<(usize, Band)>, InputError> {
    let tasks: Vec<(usize, Range<usize>)> = blocks
        .iter()
        .enumerate()
        .flat_map(|(number, block)| bands(block.view.queries()).map(move |rows| (number, rows)))
        .collect();
    let reduce = |task: usize| {
        let (number, rows) = tasks[task].clone();
        reduce_band(set, &blocks[number], rows).map(|band| (number, band))
    };
    let work: usize = blocks.iter().map(Block::work).sum();
    let in_a_row = in_a_row();
    let least = if in_a_row { PARALLEL } else { LARGE };
    let threads = if work < least { 1 } else { tasks.len() };
    let bands = run_tasks(tasks.len(), threads, in_a_row, reduce);
    end_call();
    bands
}

/// Does tasks on so many threads at most, and gives their results in order.
///
/// The last tasks come first, because causal rows are longer and longer.
fn run_tasks<R: Send + Sync>(
    tasks: usize,
    threads: usize,
    awake: bool,
    run: impl Fn(usize) -> Result<R, InputError> + Sync,
) -> Result<Vec<R>, InputError> {
    let done: Vec<OnceLock<Result<R, InputError>>> = (0..tasks).map(|_| OnceLock::new()).collect();
    let taken = AtomicUsize::new(0);
    run_in_parallel(threads, awake, || {
        while let Some(task) = tasks.checked_sub(1 + taken.fetch_add(1, Ordering::Relaxed)) {
            done[task].get_or_init(|| run(task));
        }
    });
    // In order, so that the error is always the same.
    done.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// The bands of a block: eight of them, within 8 and 64 rows each.
fn bands(queries: usize) -> impl Iterator<Item = Range<usize>> {
    let size = queries.div_ceil(8).next_multiple_of(TILE_ROWS).clamp(8, 64);
    (0..queries).step_by(size).map(move |begin| begin..queries.min(begin + size))
}

impl Block<'_> {
    /// What there is to do, in weights.
    fn work(&self) -> usize {
        let rows = 0..self.view.queries();
        let selected = self.plan.combine.graphs(self.view.heads()) * rows.len();
        let read = self.view.heads() * rows.map(|query| self.view.readable(query)).sum::<usize>();
        read + selected * if self.plan.rules.top_mass().is_some() { SHARE } else { SELECTION }
    }
}
