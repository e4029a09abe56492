//! The edges of a short row where k is small: question answering, head by head.
//!
//! ```text
//! pass 1 has kept every block, widened, as a chunk of its own
//! last = the k-th largest of all, by a network
//! of every block, write what reaches it where the edges will be
//! where that was more than k: once more, the first alone of those equal to `last`
//! ```
//!
//! 1. Where k lanes have the largest weight it is the k-th largest, and the first k that reach it are the
//!    edges: rows that are flat or full of ties.

use super::candidates::Collector;
use super::cut::{cut_at, window};
use super::network::{EIGHT, kth_largest};
use super::{Kept, LANES, Scan, Selector};
use crate::edges::EdgeBand;
use crate::simd::{Kernel, Simd};

/// Keys of the longest row of the kind: finding its largest weights costs less than looking at less.
pub(super) const SHORT: usize = 512;

/// Edges of a row, and a block that is written after them.
const ROOM: usize = EIGHT + LANES;

impl Selector {
    /// Writes the edges where they will be.
    #[inline(always)]
    pub(super) fn keep_few<S: Simd>(
        &mut self,
        simd: S,
        k: usize,
        keys: usize,
        scan: &Scan<S>,
        edges: &mut EdgeBand,
    ) -> Kept {
        let blocks = keys.div_ceil(LANES);
        let zeros = EIGHT * S::COLUMN / LANES - 1;
        for block in &mut self.chunks[blocks..blocks + zeros] {
            simd.store(simd.splat(0.0), block);
        }
        let (floor, top) = (self.rules.floor(), f32::from_bits(scan.top));
        let lanes = simd.max_bits(scan.lanes[0], scan.lanes[1]);
        let topmost = simd.at_least(lanes, simd.splat(top)).count_ones() as usize;
        let last = if topmost >= k { top } else { kth_largest(simd, &self.chunks, keys, k) };
        // Where all that reach it are equal, the first k do.
        let enough = if last < top { k + 1 } else { k };
        let (room, room_of_weights) = edges.room(ROOM);
        let keys: &mut [i32; ROOM] = room.first_chunk_mut().expect("room");
        let weights: &mut [f32; ROOM] = room_of_weights.first_chunk_mut().expect("room");
        let blocks = &self.chunks[..blocks];
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
            count = simd.run(WithTies { blocks, last, k, keys, weights });
        }
        let count = count.min(k);
        *window(weights, count) = [0.0; LANES];
        let mut sum = 0.0;
        for &weight in &weights[..EIGHT] {
            sum += f64::from(weight);
        }
        Kept { count, sum, is_whole: last < floor && floor.to_bits() == 1 }
    }
}

/// The edges of a row where more than k weights reach the k-th largest.
struct WithTies<'a> {
    blocks: &'a [[f32; LANES]],
    last: f32,
    k: usize,
    keys: &'a mut [i32; ROOM],
    weights: &'a mut [f32; ROOM],
}

impl Kernel for WithTies<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        let mut cutting = cut_at(simd, self.blocks, self.last, self.k).begin(simd);
        let mut found = Collector::new(self.weights, self.keys);
        for (number, block) in self.blocks.iter().enumerate() {
            let block = simd.load(block);
            let kept = cutting.kept(simd, block);
            found.push(simd, block, kept, number * LANES);
        }
        found.count
    }
}
