//! What may become the edges of a row.

use super::kth_largest::{ranks, window};
use super::ties::Cut;
use crate::edges::EdgeBand;
use crate::simd::{LANES, Row, Simd, Stored};

/// Candidates in the order of their keys, with room for one more block; zeros fill up their last.
#[derive(Debug)]
pub(super) struct Candidates {
    pub count: usize,
    pub weights: Vec<f32>,
    pub keys: Vec<i32>,
}

impl Candidates {
    /// Room for the candidates of rows of at most so many keys.
    pub fn new(keys: usize) -> Self {
        let room = room(keys);
        Self { count: 0, weights: vec![0.0; room], keys: vec![0; room] }
    }

    /// The candidates in blocks, zeros in the lanes beyond them.
    #[inline(always)]
    pub fn blocks(&self) -> &[[f32; LANES]] {
        &self.weights.as_chunks().0[..self.count.div_ceil(LANES)]
    }

    /// One of the blocks.
    #[inline(always)]
    pub fn load<S: Simd>(&self, simd: S, block: usize) -> S::Floats {
        simd.load(&self.weights.as_chunks().0[block])
    }

    /// Begins anew.
    #[inline(always)]
    pub fn begin(&mut self) -> Collector<'_> {
        Collector::new(&mut self.weights, &mut self.keys)
    }

    /// Ends what has been collected.
    #[inline(always)]
    pub fn end(&mut self, count: usize) {
        self.count = count;
        *window(&mut self.weights, count) = [0.0; LANES];
    }

    /// Ends what has been collected of keys alone, with their weights.
    #[inline(always)]
    pub fn end_keys<S: Simd, T: Stored>(&mut self, simd: S, weights: &[T], count: usize) {
        self.count = count;
        for block in 0..count.div_ceil(LANES) {
            let gathered = self.gather(simd, weights, block);
            simd.store(gathered, &mut self.weights.as_chunks_mut().0[block]);
        }
    }

    /// The weights of the keys of a block, 0.0 in the lanes beyond the candidates.
    #[inline(always)]
    pub fn gather<S: Simd, T: Stored>(&self, simd: S, weights: &[T], block: usize) -> S::Floats {
        let keys = &self.keys.as_chunks().0[block];
        T::gather(simd, weights, keys, self.count - block * LANES)
    }

    /// Cuts, in place: what is written never reaches beyond the block that was read.
    #[inline(always)]
    pub fn keep<S: Simd>(&mut self, simd: S, cut: Cut) {
        let (mut cutting, mut kept) = (cut.begin(simd), 0);
        for block in 0..self.count.div_ceil(LANES) {
            let weights = self.load(simd, block);
            let keys = simd.load_ints(&self.keys.as_chunks().0[block]);
            let hits = cutting.kept(simd, weights);
            simd.compress(weights, hits, window(&mut self.weights, kept));
            simd.compress_ints(keys, hits, window(&mut self.keys, kept));
            kept += hits.count_ones() as usize;
        }
        self.end(kept);
    }

    /// Writes the k first in descending order of at most 16 candidates, whose weights are in `block`, where the
    /// edges of the row will be, in the order of keys, and gives how many those are.
    #[inline(always)]
    pub fn write_first<S: Simd>(
        &self,
        simd: S,
        k: usize,
        block: S::Floats,
        edges: &mut EdgeBand,
    ) -> usize {
        let count = k.min(self.count);
        let keys = simd.load_ints(&self.keys.as_chunks().0[0]);
        let [ranks] = ranks(simd, [block]);
        let limit = (count as u32).cast_signed();
        let mut first = simd.below(ranks, limit);
        if first.count_ones() as usize > count {
            // The last has an equal that is not among them.
            let tie = simd.least_below(block, ranks, limit);
            let above = simd.at_least(block, simd.splat(tie.next_up())).count_ones() as usize;
            first = Cut::above(tie, count - above).begin(simd).kept(simd, block);
        }
        let (to_keys, to_weights) = edges.room(LANES);
        simd.compress_ints(keys, first, window(to_keys, 0));
        simd.compress(block, first, window(to_weights, 0));
        count
    }

    /// Writes the candidates where the edges of the row will be.
    #[inline(always)]
    pub fn write_to(&self, edges: &mut EdgeBand) {
        let blocks = self.blocks();
        let (keys, weights) = edges.room(blocks.len() * LANES);
        let (keys, weights) = (keys.as_chunks_mut::<LANES>().0, weights.as_chunks_mut::<LANES>().0);
        // Whole blocks, whose copies need no call.
        for (to, from) in keys.iter_mut().zip(self.keys.as_chunks::<LANES>().0) {
            *to = *from;
        }
        for (to, from) in weights.iter_mut().zip(blocks) {
            *to = *from;
        }
    }
}

/// Collects candidates: registers alone know how many there are, until [`Candidates::end`].
pub(super) struct Collector<'a> {
    pub count: usize,
    weights: &'a mut [f32],
    keys: &'a mut [i32],
}

impl<'a> Collector<'a> {
    /// Nothing yet, with room for what will be kept and a block after it.
    #[inline(always)]
    pub fn new(weights: &'a mut [f32], keys: &'a mut [i32]) -> Self {
        Self { count: 0, weights, keys }
    }

    /// Appends the hits of a block that begins at `key`.
    #[inline(always)]
    pub fn push<S: Simd>(&mut self, simd: S, block: S::Floats, hits: u32, key: usize) {
        simd.compress(block, hits, window(self.weights, self.count));
        simd.lanes_of(hits, (key as u32).cast_signed(), window(self.keys, self.count));
        self.count += hits.count_ones() as usize;
    }

    /// Appends the keys alone of the hits of a block.
    #[inline(always)]
    pub fn push_keys<S: Simd>(&mut self, simd: S, keys: S::Ints, hits: u32) {
        simd.compress_ints(keys, hits, window(self.keys, self.count));
        self.count += hits.count_ones() as usize;
    }

    /// Appends what reaches `least` of four blocks that begin at `key`, whether or not that is anything;
    /// its keys alone, or its weights as well.
    #[inline(always)]
    pub fn push_four<S: Simd>(
        &mut self,
        simd: S,
        four: [S::Floats; 4],
        least: S::Floats,
        key: usize,
        with_weights: bool,
    ) {
        let weights: &mut [f32; 4 * LANES] =
            self.weights[self.count..].first_chunk_mut().expect("room");
        let keys: &mut [i32; 4 * LANES] = self.keys[self.count..].first_chunk_mut().expect("room");
        let (mut count, mut numbers) = (0, simd.count_from((key as u32).cast_signed()));
        for block in four {
            let hits = simd.at_least(block, least);
            if with_weights {
                simd.compress(block, hits, window(weights, count));
            }
            simd.compress_ints(numbers, hits, window(keys, count));
            count += hits.count_ones() as usize;
            numbers = simd.count_on(numbers);
        }
        self.count += count;
    }

    /// Appends the hits of a chunk that begins at `key`, one after the other.
    #[inline(always)]
    pub fn push_each<T: Stored>(&mut self, row: Row<'_, T>, mut hits: u64, key: usize) {
        while hits != 0 {
            let key = key + hits.trailing_zeros() as usize;
            self.weights[self.count] = row.elements()[key].widen();
            self.keys[self.count] = (key as u32).cast_signed();
            self.count += 1;
            hits &= hits - 1;
        }
    }
}

/// Elements that the candidates of so many keys need: a window of 64 is written where they end.
pub(super) fn room(keys: usize) -> usize {
    (keys / LANES + 5) * LANES
}
