//! The edges of a short row where k is small: question answering, head by head.
//!
//! ```text
//! pass 1: every block, widened; the largest weight in 16 lanes; the sum
//! with ranks:       least = the k-th largest of the lanes                       k weights reach it
//!                   of every block, collect what reaches it; write the k first of at most 16
//! with a network:   last = the k-th largest of all
//!                   of every block, write what reaches it where the edges will be
//!                   where that was more than k: once more, the first alone of those equal to `last`
//! ```
//!
//! 1. Where k lanes have the largest weight it is the k-th largest, and the first k that reach it are the
//!    edges: rows that are flat or full of ties.
//! 2. Ranks give way to the network where more than 16 are collected, unless those are ties of the bound.
//! 3. Keys alone are collected, and their weights looked up: collecting takes twice as long with both.

use super::candidates::Collector;
use super::kth_largest::{count, nth_lane, window};
use super::sorting_network::{EIGHT, kth_largest};
use super::ties::Cut;
use super::{Selector, Unsound};
use crate::edges::EdgeBand;
use crate::simd::{Kernel, LANES, LARGEST, Row, Simd, Stored};

/// Keys of the longest row of the kind: finding its largest weights costs less than looking at less.
pub(super) const SHORT: usize = 512;

/// Edges of a row, and a block that is written after them.
const ROOM: usize = EIGHT + LANES;

impl Selector {
    /// Appends the edges of a row, and closes it; refuses an unsound one.
    #[inline(always)]
    pub(super) fn select_short<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        k: usize,
        row: Row<'_, T>,
        edges: &mut EdgeBand,
    ) -> Result<(), Unsound> {
        let none = simd.splat(0.0);
        let (mut lanes, mut sums) = (none, none);
        for (number, (block, widened)) in row.blocks().iter().zip(&mut self.blocks).enumerate() {
            row.prefetch(simd, 2, number);
            let block = T::load(simd, block);
            sums = simd.add(sums, block);
            lanes = simd.max_bits(lanes, block);
            simd.store(block, widened);
        }
        let tail = row.tail(simd);
        let (lanes, sums) = (simd.max_bits(lanes, tail), simd.add(sums, tail));
        simd.store(tail, &mut self.blocks[row.blocks().len()]);
        let top = simd.largest_bits(lanes);
        if top > LARGEST {
            return self.select_odd(simd, &row.into(), edges);
        }
        let mut mass = f64::from(simd.sum(sums));
        if !mass.is_finite() {
            mass = row.sum(simd);
        }
        let top = f32::from_bits(top);
        let topmost = simd.at_least(lanes, simd.splat(top)).count_ones() as usize;
        let blocks = row.keys().div_ceil(LANES);
        let ranked = if S::MASKS && topmost < k {
            self.keep_ranked(simd, k, blocks, lanes, edges)
        } else {
            None
        };
        let count = if let Some(count) = ranked {
            count
        } else {
            let zeros = EIGHT * S::COLUMN / LANES - 1;
            for block in &mut self.blocks[blocks..blocks + zeros] {
                simd.store(none, block);
            }
            let last =
                if topmost >= k { top } else { kth_largest(simd, &self.blocks, row.keys(), k) };
            self.write_reaching(simd, k, &self.blocks[..blocks], (last, top), edges)
        };
        let is_whole = count < k && !self.rules.has_floor();
        edges.close_row(count, if is_whole { 0.0 } else { mass });
        Ok(())
    }

    /// Writes the edges, found by ranks, where they will be, and gives how many those are.
    #[inline(always)]
    fn keep_ranked<S: Simd>(
        &mut self,
        simd: S,
        k: usize,
        blocks: usize,
        lanes: S::Floats,
        edges: &mut EdgeBand,
    ) -> Option<usize> {
        let floor = self.rules.floor();
        // One block is collected whole.
        let bound = if blocks == 1 { 0.0 } else { nth_lane(simd, lanes, k) };
        let least = simd.splat(if bound > floor { bound } else { floor });
        let candidates = &mut self.states[0].found;
        let mut found = candidates.begin();
        let mut keys = simd.count_from(0);
        for block in &self.blocks[..blocks] {
            found.push_keys(simd, keys, simd.at_least(simd.load(block), least));
            keys = simd.count_on(keys);
        }
        let count = found.count;
        if count > LANES {
            let blocks = &self.blocks[..blocks];
            // Where fewer than k exceed the bound, it is the k-th largest.
            let above = fewer_above(simd, blocks, bound, k)?;
            let cut = Cut::above(bound, k - above);
            return Some(simd.run(WithTies { blocks, cut, edges }));
        }
        candidates.count = count;
        let block = candidates.gather(simd, self.blocks.as_flattened(), 0);
        Some(candidates.write_first(simd, k, block, edges))
    }

    /// Writes the edges where they will be, and gives how many those are.
    #[inline(always)]
    fn write_reaching<S: Simd>(
        &self,
        simd: S,
        k: usize,
        blocks: &[[f32; LANES]],
        (last, top): (f32, f32),
        edges: &mut EdgeBand,
    ) -> usize {
        let floor = self.rules.floor();
        // Where all that reach it are equal, the first k do.
        let enough = if last < top { k + 1 } else { k };
        let (room, room_of_weights) = edges.room(ROOM);
        let keys: &mut [i32; ROOM] = room.first_chunk_mut().expect("room");
        let weights: &mut [f32; ROOM] = room_of_weights.first_chunk_mut().expect("room");
        let threshold = simd.splat(if last > floor { last } else { floor });
        let mut count = 0;
        for (block, key) in blocks.iter().zip((0_i32..).step_by(LANES)) {
            if count >= enough {
                break;
            }
            let (weights, keys) = (window(weights, count), window(keys, count));
            count += simd.take_at_least(simd.load(block), threshold, key, weights, keys);
        }
        if count > k && last < top {
            let above = self::count(simd, blocks, last.next_up());
            count = simd.run(WithTies { blocks, cut: Cut::above(last, k - above), edges });
        }
        count.min(k)
    }
}

/// How many weights exceed a bound, where fewer than k do.
#[inline(always)]
fn fewer_above<S: Simd>(simd: S, blocks: &[[f32; LANES]], bound: f32, k: usize) -> Option<usize> {
    let next = simd.splat(bound.next_up());
    let mut above = 0;
    for block in blocks {
        above += simd.at_least(simd.load(block), next).count_ones() as usize;
        if above >= k {
            return None;
        }
    }
    Some(above)
}

/// The edges of a row where more than k weights reach the k-th largest.
struct WithTies<'a> {
    blocks: &'a [[f32; LANES]],
    cut: Cut,
    edges: &'a mut EdgeBand,
}

impl Kernel for WithTies<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        let mut cutting = self.cut.begin(simd);
        let (keys, weights) = self.edges.room(ROOM);
        let mut found = Collector::new(weights, keys);
        for (number, block) in self.blocks.iter().enumerate() {
            let block = simd.load(block);
            let kept = cutting.kept(simd, block);
            found.push(simd, block, kept, number * LANES);
        }
        found.count
    }
}
