//! Pass 1, and the chunks that pass 2 has to look at.

use super::cut::load_four;
use super::{LANES, Row, Simd, Stored};
use crate::marginals::PIECE;

/// Blocks of a chunk.
pub(super) const CHUNK: usize = 4;

/// Blocks of a chunk of the row after the next that pass 1 asks for; listing asks for the others.
///
/// All of them in pass 1 are more than a core can wait for at once, and memory then rests while edges are
/// selected: 20 instead of 17 ms for top-8 of 2,048 tokens.
const AHEAD: usize = 2;

/// Chunks that are listed at once.
const GROUP: usize = 4;

/// The chunks of one row after another.
#[derive(Debug)]
pub(super) struct Chunks {
    /// How many the row has.
    count: usize,
    /// Maxima of each, and zeros up to a whole group.
    maxima: Vec<[f32; LANES]>,
    /// The blocks of the row after the last whole chunk, widened, and zeros.
    last: [[f32; LANES]; CHUNK],
    /// The numbers of those listed, and room for a group and those it writes beyond them.
    listed: Vec<u32>,
}

/// What pass 1 gives.
pub(super) struct Scan<S: Simd> {
    /// Maxima of 32 lanes.
    pub lanes: [S::Floats; 2],
    /// The bits of the largest.
    pub top: u32,
    /// The sum of the row: 16 lanes of float32 over 1024 keys, then float64.
    pub mass: f64,
}

/// Chunks that pass 2 has to look at.
pub(super) struct Hits {
    /// How many.
    pub chunks: usize,
    /// Lanes of theirs that reach the threshold.
    pub lanes: usize,
}

impl Chunks {
    /// Room for the chunks of rows of at most so many keys.
    pub fn new(keys: usize) -> Self {
        let chunks = keys.div_ceil(LANES * CHUNK) + GROUP;
        Self {
            count: 0,
            maxima: vec![[0.0; LANES]; chunks],
            last: [[0.0; LANES]; CHUNK],
            listed: vec![0; chunks + GROUP],
        }
    }

    /// Maxima of each chunk.
    #[inline(always)]
    pub fn maxima(&self) -> &[[f32; LANES]] {
        &self.maxima[..self.count]
    }

    /// The first of the chunks that were listed.
    #[inline(always)]
    pub fn listed(&self, count: usize) -> &[u32] {
        &self.listed[..count]
    }

    /// The blocks of a chunk.
    #[inline(always)]
    pub fn load<S: Simd, T: Stored>(
        &self,
        simd: S,
        row: Row<'_, T>,
        number: usize,
    ) -> [S::Floats; CHUNK] {
        match row.blocks().as_chunks().0.get(number) {
            Some([a, b, c, d]) => {
                [T::load(simd, a), T::load(simd, b), T::load(simd, c), T::load(simd, d)]
            }
            None => load_four(simd, &self.last),
        }
    }

    /// Pass 1.
    #[inline(always)]
    pub fn scan<S: Simd, T: Stored>(&mut self, simd: S, row: Row<'_, T>) -> Scan<S> {
        let none = simd.splat(0.0);
        let (mut lanes, mut sums, mut mass) = ([none; 2], none, 0.0);
        let (chunks, rest) = row.blocks().as_chunks::<CHUNK>();
        for (number, (chunk, maxima)) in chunks.iter().zip(&mut self.maxima).enumerate() {
            let mut pair = [none; 2];
            for (at, block) in chunk.iter().enumerate() {
                if at < AHEAD && Row::<T>::is_first_of_line(at) {
                    row.prefetch(simd, 2, number * CHUNK + at);
                }
                let block = T::load(simd, block);
                sums = simd.add(sums, block);
                pair[at % 2] = simd.max_bits(pair[at % 2], block);
            }
            lanes = [simd.max_bits(lanes[0], pair[0]), simd.max_bits(lanes[1], pair[1])];
            simd.store(simd.max_bits(pair[0], pair[1]), maxima);
            if number % (PIECE / CHUNK) == PIECE / CHUNK - 1 {
                mass += f64::from(simd.sum(sums));
                sums = none;
            }
        }
        for block in &mut self.last {
            simd.store(none, block);
        }
        let tail = row.tail(simd);
        let mut last = tail;
        simd.store(tail, &mut self.last[rest.len()]);
        lanes[1] = simd.max_bits(lanes[1], tail);
        for (at, block) in rest.iter().enumerate() {
            row.prefetch(simd, 2, chunks.len() * CHUNK + at);
            let block = T::load(simd, block);
            sums = simd.add(sums, block);
            lanes[at % 2] = simd.max_bits(lanes[at % 2], block);
            last = simd.max_bits(last, block);
            simd.store(block, &mut self.last[at]);
        }
        sums = simd.add(sums, tail);
        simd.store(last, &mut self.maxima[chunks.len()]);
        self.count = row.keys().div_ceil(LANES * CHUNK);
        for maxima in &mut self.maxima[self.count..self.count + GROUP - 1] {
            simd.store(none, maxima);
        }
        let top = simd.largest_bits(simd.max_bits(lanes[0], lanes[1]));
        Scan { lanes, top, mass: mass + f64::from(simd.sum(sums)) }
    }

    /// Lists the chunks with a maximum that reaches the threshold, which is positive.
    #[inline(always)]
    pub fn list_hits<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        row: Row<'_, T>,
        threshold: f32,
    ) -> Hits {
        let threshold = simd.splat(threshold);
        let mut hits = Hits { chunks: 0, lanes: 0 };
        let groups = &self.maxima.as_chunks().0[..self.count.div_ceil(GROUP)];
        for (group, begin) in groups.iter().zip((0_u32..).step_by(GROUP)) {
            for chunk in begin as usize..begin as usize + GROUP {
                for at in (AHEAD..CHUNK).filter(|&at| Row::<T>::is_first_of_line(at)) {
                    row.prefetch(simd, 2, chunk * CHUNK + at);
                }
            }
            let mask = simd.at_least_of_four(load_four(simd, group), threshold);
            // Larger than needed, so that the compiler sees that what is counted below is within.
            let room: &mut [u32; 2 * GROUP] =
                self.listed[hits.chunks..].first_chunk_mut().expect("room");
            let mut count = 0;
            for at in 0..GROUP {
                room[count] = begin + at as u32;
                count += usize::from((mask >> (at * LANES)) as u16 != 0);
            }
            hits.chunks += count;
            hits.lanes += mask.count_ones() as usize;
        }
        hits
    }
}
