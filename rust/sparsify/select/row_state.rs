//! The steps of selecting one row, between which other rows have theirs.

use super::candidates::Candidates;
use super::chunks::Chunks;
use super::collect::Collect;
use super::kth_largest::{Undecided, bisect, count, cut_at, nth_largest};
use super::sorting_network::EIGHT;
use super::{LANES, mass};
use crate::edges::EdgeBand;
use crate::simd::{Row, Simd, Stored};
use crate::sparsify::Rules;

/// Times k that so many maxima of chunks make a threshold a poor one.
const POOR: usize = 6;

/// The state of a row between the steps.
#[derive(Debug)]
pub(super) struct RowState {
    pub chunks: Chunks,
    /// A weight that the k largest reach, and all that is kept.
    threshold: f32,
    pub found: Candidates,
}

impl RowState {
    /// Room for rows of at most so many keys.
    pub fn new(keys: usize) -> Self {
        Self { chunks: Chunks::new(keys), threshold: 0.0, found: Candidates::new(keys) }
    }

    /// Finds a threshold.
    #[inline(always)]
    pub fn find_threshold<S: Simd>(
        &mut self,
        simd: S,
        rules: &Rules,
        undecided: &mut [f32],
        keys: usize,
    ) {
        let floor = rules.floor();
        let [even, odd] = [simd.load(&self.chunks.lanes[0]), simd.load(&self.chunks.lanes[1])];
        self.threshold = match rules.top_k() {
            Some(k) if k <= EIGHT => floor.max(nth_largest(simd, [simd.max_bits(even, odd)], k)),
            Some(k) if k <= LANES => floor.max(nth_largest(simd, [even, odd], k)),
            // As many maxima must reach the floor.
            Some(k) if count(simd, self.chunks.maxima(), floor) >= k => {
                self.refine(simd, k, floor, undecided)
            }
            _ => floor,
        };
        if let Some(share) = rules.top_mass() {
            self.threshold = self.threshold.max(mass::least(share, self.chunks.mass, keys));
        }
    }

    /// Lists where the threshold is reached, or a better one where that is nearly all over the row.
    #[inline(always)]
    pub fn list<S: Simd>(&mut self, simd: S, rules: &Rules, undecided: &mut [f32]) {
        let lanes = self.chunks.list(simd, self.threshold);
        if let Some(k) = rules.top_k().filter(|&k| k <= LANES && lanes > POOR * k)
            && self.threshold.to_bits() != self.chunks.top
        {
            self.threshold = self.refine(simd, k, self.threshold, undecided);
            self.chunks.list(simd, self.threshold);
        }
    }

    /// The k-th largest of the maxima of chunks, of which k reach `low`.
    #[inline(always)]
    fn refine<S: Simd>(&mut self, simd: S, k: usize, low: f32, undecided: &mut [f32]) -> f32 {
        let undecided = Undecided::new(undecided, self.chunks.maxima());
        bisect(simd, undecided, k, low.to_bits(), self.chunks.top).tie
    }

    /// Collects the candidates.
    #[inline(always)]
    pub fn collect<S: Simd, T: Stored>(&mut self, simd: S, rules: &Rules, row: Row<'_, T>) {
        let Self { chunks, threshold, found } = self;
        // Departure 4.
        let enough = match rules.top_k() {
            Some(k) if threshold.to_bits() == chunks.top => k,
            _ => usize::MAX,
        };
        let small_k = rules.top_k().is_some_and(|k| k <= LANES);
        simd.run(Collect { row, chunks, threshold: *threshold, enough, small_k, found });
    }

    /// Appends the edges of the row, and closes it.
    #[inline(always)]
    pub fn finish<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        rules: &Rules,
        undecided: &mut [f32],
        row: Row<'_, T>,
        edges: &mut EdgeBand,
    ) {
        let candidates = self.found.count;
        let (top_k, top_mass) = (rules.top_k(), rules.top_mass());
        let first = top_k.filter(|_| top_mass.is_none() && candidates <= LANES);
        let count = if let Some(k) = first {
            self.found.write_first(simd, k, self.found.load(simd, 0), edges)
        } else {
            if let Some(k) = top_k.filter(|&k| candidates > k) {
                self.keep_top(simd, k, undecided);
            }
            if let Some(share) = top_mass {
                mass::keep(simd, &mut self.found, undecided, row, (share, self.threshold));
            }
            self.found.write_to(edges);
            self.found.count
        };
        let all = if self.threshold.to_bits() == 1 { candidates } else { row.keys() };
        let is_whole = count == all;
        edges.close_row(count, if is_whole { 0.0 } else { self.chunks.mass });
    }

    /// Cuts to the k first of more candidates.
    #[inline(always)]
    fn keep_top<S: Simd>(&mut self, simd: S, k: usize, undecided: &mut [f32]) {
        let found = &mut self.found;
        let cut = match found.count {
            ..=16 => cut_at(simd, found.blocks(), nth_largest(simd, [found.load(simd, 0)], k), k),
            17..=32 => {
                let lanes = [found.load(simd, 0), found.load(simd, 1)];
                cut_at(simd, found.blocks(), nth_largest(simd, lanes, k), k)
            }
            _ => {
                let undecided = Undecided::new(undecided, found.blocks());
                bisect(simd, undecided, k, self.threshold.to_bits(), self.chunks.top)
            }
        };
        found.keep(simd, cut);
    }
}
