//! The edges of one row.
//!
//! ```text
//! pass 1: maxima of each chunk of 64 keys, in 16 lanes; maxima of 16 or 32 lanes over the row; the sum
//! threshold = max(floor, k-th largest of those maxima)                     k weights reach it at least
//! list the chunks with a maximum >= threshold, without a branch
//! pass 2, over those chunks: collect (weight, key) of what reaches it, in the order of keys
//! cut to the k first in descending order, then to the n that `top_mass` asks for
//! ```
//!
//! 1. Weights are not negative, so their bits order them, unsigned; the maximum of the bits tells at
//!    the end of pass 1 whether a weight was NaN, infinite or negative. -0.0 looks negative too: such a
//!    row is copied without it and done again.
//! 2. Where k is more than 16, or the threshold of the lanes is reached all over the row because large
//!    weights share a lane, it comes from the maxima of chunks, by bisection.
//! 3. The k-th largest of at most 32 candidates is found in registers, see [`nth_largest`]; of more by
//!    bisection, see [`bisect`], whose steps are bounded whatever the row, so that flat, sorted and
//!    striped rows stay linear.
//! 4. Where the threshold is the largest weight, all candidates are equal and the first k do.
//! 5. Without `top_k` and `top_mass` the candidates are the edges.
//! 6. `top_mass` is found by bisection as well, see [`mass`].
//! 7. Where k is at most 8 and the row short, a network gives the k-th largest of all, see [`short`].
//!
//! Tried and left out: guessing the threshold from the row before.

mod candidates;
mod cut;
mod mass;
mod network;
mod short;

use super::Rules;
use crate::edges::EdgeBand;
use crate::simd::{Kernel, LANES, LARGEST, Row, Simd, Stored};
use candidates::{Candidates, room};
use cut::{Undecided, bisect, count, cut_at, nth_largest};
use network::EIGHT;
use short::SHORT;

/// Blocks of a chunk.
const CHUNK: usize = 4;

/// Times k that so many maxima of chunks make a threshold a poor one.
const POOR: usize = 6;

/// Blocks that are summed in float32 before float64 takes over.
const PIECE: usize = 64;

/// A row with a weight that is NaN, infinite or negative.
#[derive(Debug)]
pub(crate) struct Unsound;

/// Applies the rules to one row after another.
#[derive(Debug)]
pub(crate) struct Selector {
    rules: Rules,
    /// Maxima of each chunk.
    chunks: Vec<[f32; LANES]>,
    /// Room for the numbers of chunks, and one more.
    hit_chunks: Vec<u32>,
    found: Candidates,
    /// Room for the weights of a bisection.
    undecided: Vec<f32>,
}

/// What pass 1 gives.
struct Scan<S: Simd> {
    /// Maxima of 32 lanes.
    lanes: [S::Floats; 2],
    /// The bits of the largest.
    top: u32,
    /// The sum of the row: 16 lanes of float32 over 1024 keys, then float64.
    mass: f64,
}

/// Chunks that pass 2 has to look at.
struct Hits {
    /// How many.
    chunks: usize,
    /// Lanes of theirs that reach the threshold.
    lanes: usize,
}

/// The edges that a row keeps.
struct Kept {
    count: usize,
    sum: f64,
    /// Whether they are all the positive weights.
    is_whole: bool,
}

impl Selector {
    /// A selector for rows of at most `keys` weights.
    pub fn new(rules: Rules, keys: usize) -> Self {
        let blocks_of_short = keys.min(SHORT).div_ceil(LANES) + EIGHT;
        let chunks = (keys / LANES / CHUNK + 1).max(blocks_of_short);
        Self {
            rules,
            chunks: vec![[0.0; LANES]; chunks],
            hit_chunks: vec![0; chunks + 1],
            found: Candidates::new(keys),
            undecided: vec![0.0; room(keys)],
        }
    }

    /// Appends the edges of a row, and closes it.
    #[inline(always)]
    pub fn select<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        row: Row<'_, T>,
        edges: &mut EdgeBand,
    ) -> Result<(), Unsound> {
        let (top_k, top_mass) = (self.rules.top_k(), self.rules.top_mass());
        let few = top_k.filter(|&k| k <= EIGHT && row.keys() <= SHORT && top_mass.is_none());
        let scan = match few {
            Some(_) => self.scan::<S, T, 1>(simd, row),
            None => self.scan::<S, T, CHUNK>(simd, row),
        };
        if scan.top > LARGEST {
            return self.select_odd(simd, row, edges);
        }
        let kept = match few {
            Some(k) => self.keep_few(simd, k, row.keys(), &scan, edges),
            None => self.keep_any(simd, row, &scan, edges),
        };
        let is_whole = kept.is_whole || scan.mass <= 0.0;
        let retained = if is_whole { 1.0 } else { (kept.sum / scan.mass).min(1.0) };
        edges.close_row(kept.count, retained as f32);
        Ok(())
    }

    /// Writes the edges where they will be.
    #[inline(always)]
    fn keep_any<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        row: Row<'_, T>,
        scan: &Scan<S>,
        edges: &mut EdgeBand,
    ) -> Kept {
        let all = self.find(simd, row, scan);
        if let Some(share) = self.rules.top_mass() {
            mass::keep(simd, &mut self.found, &mut self.undecided, row, share);
        }
        let (count, sum) = (self.found.count, self.found.write_to(simd, edges));
        Kept { count, sum, is_whole: count == all }
    }

    /// A row that looks unsound: without its -0.0, if that is all.
    #[cold]
    fn select_odd<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        row: Row<'_, T>,
        edges: &mut EdgeBand,
    ) -> Result<(), Unsound> {
        if row.find_unsound().is_some() {
            return Err(Unsound);
        }
        simd.run(Again { selector: self, weights: &row.normalised(), edges })
    }

    /// Pass 1.
    #[inline(always)]
    fn scan<S: Simd, T: Stored, const CHUNK: usize>(
        &mut self,
        simd: S,
        row: Row<'_, T>,
    ) -> Scan<S> {
        let none = simd.splat(0.0);
        let (mut lanes, mut sums, mut mass) = ([none; 2], none, 0.0);
        let (chunks, rest) = row.blocks().as_chunks::<CHUNK>();
        for (number, (chunk, maxima)) in chunks.iter().zip(&mut self.chunks).enumerate() {
            let mut pair = [none; 2];
            for (at, block) in chunk.iter().enumerate() {
                row.prefetch(simd, number * CHUNK + at);
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
        let tail = row.tail(simd);
        let mut last = tail;
        lanes[1] = simd.max_bits(lanes[1], tail);
        for (at, block) in rest.iter().enumerate() {
            row.prefetch(simd, chunks.len() * CHUNK + at);
            let block = T::load(simd, block);
            sums = simd.add(sums, block);
            lanes[at % 2] = simd.max_bits(lanes[at % 2], block);
            last = simd.max_bits(last, block);
        }
        sums = simd.add(sums, tail);
        simd.store(last, &mut self.chunks[chunks.len()]);
        let top = simd.largest_bits(simd.max_bits(lanes[0], lanes[1]));
        Scan { lanes, top, mass: mass + f64::from(simd.sum(sums)) }
    }

    /// Finds the edges, and gives how many weights are positive; more than there are if that is not
    /// known.
    #[inline(always)]
    fn find<S: Simd, T: Stored>(&mut self, simd: S, row: Row<'_, T>, scan: &Scan<S>) -> usize {
        let chunks = row.keys().div_ceil(LANES * CHUNK);
        let (threshold, hits) = self.threshold(simd, scan, chunks);
        self.collect(simd, row, hits.chunks, threshold, scan.top);
        let all = if threshold.to_bits() == 1 { self.found.count } else { usize::MAX };
        self.keep_top(simd, threshold, scan.top);
        all
    }

    /// A weight that the k largest reach, and all that is kept; and where it is reached.
    #[inline(always)]
    fn threshold<S: Simd>(&mut self, simd: S, scan: &Scan<S>, chunks: usize) -> (f32, Hits) {
        let floor = self.rules.floor();
        let [even, odd] = scan.lanes;
        let threshold = match self.rules.top_k() {
            Some(k @ 1..=16) => {
                let of_lanes = if k <= EIGHT {
                    nth_largest(simd, [simd.max_bits(even, odd)], k)
                } else {
                    nth_largest(simd, [even, odd], k)
                };
                let threshold = floor.max(of_lanes);
                let hits = self.list_hits(simd, threshold, chunks);
                if hits.lanes <= POOR * k || threshold.to_bits() == scan.top {
                    return (threshold, hits);
                }
                self.refine(simd, k, threshold, scan.top, chunks)
            }
            // As many maxima must reach the floor.
            Some(k) if count(simd, &self.chunks[..chunks], floor) >= k => {
                self.refine(simd, k, floor, scan.top, chunks)
            }
            _ => floor,
        };
        (threshold, self.list_hits(simd, threshold, chunks))
    }

    /// The k-th largest of the maxima of chunks, of which k reach `low`.
    #[inline(always)]
    fn refine<S: Simd>(&mut self, simd: S, k: usize, low: f32, top: u32, chunks: usize) -> f32 {
        let undecided = Undecided::new(&mut self.undecided, &self.chunks[..chunks]);
        bisect(simd, undecided, k, low.to_bits(), top).tie
    }

    /// Lists the chunks with a maximum that reaches the threshold.
    #[inline(always)]
    fn list_hits<S: Simd>(&mut self, simd: S, threshold: f32, chunks: usize) -> Hits {
        let threshold = simd.splat(threshold);
        let mut hits = Hits { chunks: 0, lanes: 0 };
        for (number, maxima) in self.chunks[..chunks].iter().enumerate() {
            let mask = simd.at_least(simd.load(maxima), threshold);
            self.hit_chunks[hits.chunks] = number as u32;
            hits.chunks += usize::from(mask != 0);
            hits.lanes += mask.count_ones() as usize;
        }
        hits
    }

    /// Pass 2: the candidates, a superset of the k largest weights that reach the floor.
    #[inline(always)]
    fn collect<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        row: Row<'_, T>,
        hit_chunks: usize,
        threshold: f32,
        top: u32,
    ) {
        // Departure 4.
        let enough = match self.rules.top_k() {
            Some(k) if threshold.to_bits() == top => k,
            _ => usize::MAX,
        };
        let threshold = simd.splat(threshold);
        let count = row.keys().div_ceil(LANES);
        let mut found = self.found.begin();
        for &number in &self.hit_chunks[..hit_chunks] {
            let begin = number as usize * CHUNK;
            let mut hits = [(0, 0); CHUNK + 1];
            let mut hit = 0;
            for block in begin..count.min(begin + CHUNK) {
                let mask = simd.at_least(block_of(simd, row, block), threshold);
                hits[hit] = (block, mask);
                hit += usize::from(mask != 0);
            }
            for &(block, mask) in &hits[..hit] {
                found.push(simd, block_of(simd, row, block), mask, block * LANES);
            }
            if found.count >= enough {
                break;
            }
        }
        let count = found.count;
        self.found.end(count);
    }

    /// Cuts to the k first.
    #[inline(always)]
    fn keep_top<S: Simd>(&mut self, simd: S, threshold: f32, top: u32) {
        let Some(k) = self.rules.top_k().filter(|&k| self.found.count > k) else { return };
        let found = &mut self.found;
        let cut = match found.count {
            ..=16 => cut_at(simd, found.blocks(), nth_largest(simd, [found.load(simd, 0)], k), k),
            17..=32 => {
                let lanes = [found.load(simd, 0), found.load(simd, 1)];
                cut_at(simd, found.blocks(), nth_largest(simd, lanes, k), k)
            }
            _ => {
                let undecided = Undecided::new(&mut self.undecided, found.blocks());
                bisect(simd, undecided, k, threshold.to_bits(), top)
            }
        };
        found.keep(simd, cut);
    }
}

/// [`Selector::select`] on a row without -0.0.
struct Again<'a> {
    selector: &'a mut Selector,
    weights: &'a [f32],
    edges: &'a mut EdgeBand,
}

impl Kernel for Again<'_> {
    type Output = Result<(), Unsound>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        self.selector.select(simd, Row::new(self.weights, self.weights.len(), 0), self.edges)
    }
}

/// A block of a row, which may be its tail.
#[inline(always)]
fn block_of<S: Simd, T: Stored>(simd: S, row: Row<'_, T>, number: usize) -> S::Floats {
    match row.blocks().get(number) {
        Some(block) => T::load(simd, block),
        None => row.tail(simd),
    }
}
