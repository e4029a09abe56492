//! The edges of one row.
//!
//! ```text
//! pass 1: maxima of each chunk of 64 keys, in 16 lanes; maxima of 16 or 32 lanes over the row; the sum
//! threshold = max(floor, k-th largest of those maxima)                     k weights reach it at least
//! list the chunks with a maximum >= threshold, without a branch                    see [`chunks`]
//! pass 2, over those chunks: collect (weight, key) of what reaches it, in the order of keys
//! cut to the k first in descending order, then to the n that `top_mass` asks for
//! ```
//!
//! 1. Weights are not negative, so their bits order them, unsigned; the maximum of the bits tells at
//!    the end of pass 1 whether a weight was NaN, infinite or negative. -0.0 looks negative too: such a
//!    row is copied without it and done again.
//! 2. Where k is more than 16, or the threshold of the lanes is reached all over the row because large
//!    weights share a lane, it comes from the maxima of chunks, by bisection.
//! 3. At most 16 candidates are ranked, and the k first written at once where the last has no equal. The
//!    k-th largest of at most 32 is found in registers, see [`nth_largest`]; of more by bisection, see
//!    [`bisect`], whose steps are bounded whatever the row, so that flat, sorted and striped rows stay
//!    linear.
//! 4. Where the threshold is the largest weight, all candidates are equal and the first k do.
//! 5. Without `top_k` and `top_mass` the candidates are the edges.
//! 6. `top_mass` is found by bisection as well, see [`mass`].
//! 7. Where k is at most 8 and the row short, it is found without chunks, see [`short`].
//!
//! Tried and left out: guessing the threshold from the row before.

mod candidates;
mod chunks;
mod collect;
mod cut;
mod mass;
mod network;
mod short;

use super::Rules;
use crate::edges::EdgeBand;
use crate::simd::{Kernel, LANES, LARGEST, Row, Rows, Simd, Stored};
use candidates::{Candidates, room};
use chunks::{Chunks, Hits, Scan};
use collect::Collect;
use cut::{Undecided, bisect, count, cut_at, nth_largest};
use network::EIGHT;
use short::SHORT;

/// Times k that so many maxima of chunks make a threshold a poor one.
const POOR: usize = 6;

/// A row with a weight that is NaN, infinite or negative, by its number.
#[derive(Debug)]
pub(crate) struct Unsound(pub usize);

/// Applies the rules to one row after another.
#[derive(Debug)]
pub(crate) struct Selector {
    rules: Rules,
    /// The blocks of a short row, widened.
    blocks: Vec<[f32; LANES]>,
    chunks: Chunks,
    found: Candidates,
    /// Room for the weights of a bisection.
    undecided: Vec<f32>,
}

impl Selector {
    /// A selector for rows of at most `keys` weights.
    pub fn new(rules: Rules, keys: usize) -> Self {
        Self {
            rules,
            blocks: vec![[0.0; LANES]; keys.min(SHORT).div_ceil(LANES) + EIGHT],
            chunks: Chunks::new(keys),
            found: Candidates::new(keys),
            undecided: vec![0.0; room(keys)],
        }
    }

    /// Appends the edges of rows, and closes those.
    #[inline(always)]
    pub fn select<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        rows: Rows<'_, T>,
        edges: &mut EdgeBand,
    ) -> Result<(), Unsound> {
        simd.run(SelectRows { selector: self, rows, edges })
    }

    /// A row that looks unsound: without its -0.0, if that is all. Gives whether it is sound.
    #[cold]
    fn select_odd<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        row: Row<'_, T>,
        edges: &mut EdgeBand,
    ) -> bool {
        if row.find_unsound().is_some() {
            return false;
        }
        let weights = row.normalised();
        let row = Row::new(&weights[..], weights.len(), 0);
        simd.run(SelectAny { selector: self, row, edges })
    }

    /// Finds the candidates, and gives the threshold that they reach.
    #[inline(always)]
    fn find<S: Simd, T: Stored>(&mut self, simd: S, row: Row<'_, T>, scan: &Scan<S>) -> f32 {
        let (threshold, hits) = self.threshold(simd, row, scan);
        // Departure 4.
        let enough = match self.rules.top_k() {
            Some(k) if threshold.to_bits() == scan.top => k,
            _ => usize::MAX,
        };
        let (chunks, found) = (&self.chunks, &mut self.found);
        simd.run(Collect { row, chunks, hits: hits.chunks, threshold, enough, found });
        threshold
    }

    /// A weight that the k largest reach, and all that is kept; and where it is reached.
    #[inline(always)]
    fn threshold<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        row: Row<'_, T>,
        scan: &Scan<S>,
    ) -> (f32, Hits) {
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
                let hits = self.chunks.list_hits(simd, row, threshold);
                if hits.lanes <= POOR * k || threshold.to_bits() == scan.top {
                    return (threshold, hits);
                }
                self.refine(simd, k, threshold, scan.top)
            }
            // As many maxima must reach the floor.
            Some(k) if count(simd, self.chunks.maxima(), floor) >= k => {
                self.refine(simd, k, floor, scan.top)
            }
            _ => floor,
        };
        (threshold, self.chunks.list_hits(simd, row, threshold))
    }

    /// The k-th largest of the maxima of chunks, of which k reach `low`.
    #[inline(always)]
    fn refine<S: Simd>(&mut self, simd: S, k: usize, low: f32, top: u32) -> f32 {
        let undecided = Undecided::new(&mut self.undecided, self.chunks.maxima());
        bisect(simd, undecided, k, low.to_bits(), top).tie
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

/// [`Selector::select`].
///
/// In a function of its own, because in that of a whole band registers are short, and because there are
/// several places that select: compiling each of them took four times as long.
struct SelectRows<'a, 'b, T> {
    selector: &'a mut Selector,
    rows: Rows<'b, T>,
    edges: &'a mut EdgeBand,
}

impl<T: Stored> Kernel for SelectRows<'_, '_, T> {
    type Output = Result<(), Unsound>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { selector, rows, edges } = self;
        let (top_k, top_mass) = (selector.rules.top_k(), selector.rules.top_mass());
        let few = top_k.filter(|&k| k <= EIGHT && top_mass.is_none());
        for number in 0..rows.count() {
            let row = rows.get(number);
            let is_sound = match few.filter(|_| row.keys() <= SHORT) {
                Some(k) => selector.select_few(simd, k, row, edges),
                None => simd.run(SelectAny { selector, row, edges }),
            };
            if !is_sound {
                return Err(Unsound(number));
            }
        }
        Ok(())
    }
}

/// Any row; gives whether it is sound.
struct SelectAny<'a, 'b, T> {
    selector: &'a mut Selector,
    row: Row<'b, T>,
    edges: &'a mut EdgeBand,
}

impl<T: Stored> Kernel for SelectAny<'_, '_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { selector, row, edges } = self;
        let scan = selector.chunks.scan(simd, row);
        if scan.top > LARGEST {
            return selector.select_odd(simd, row, edges);
        }
        let threshold = selector.find(simd, row, &scan);
        let candidates = selector.found.count;
        let (top_k, top_mass) = (selector.rules.top_k(), selector.rules.top_mass());
        let written = match top_k.filter(|_| top_mass.is_none() && candidates <= LANES) {
            Some(k) => selector.found.write_first(simd, k, edges),
            None => None,
        };
        let count = if let Some(count) = written {
            count
        } else {
            selector.keep_top(simd, threshold, scan.top);
            let Selector { found, undecided, .. } = selector;
            if let Some(share) = top_mass {
                mass::keep(simd, found, undecided, row, share);
            }
            found.write_to(edges);
            found.count
        };
        let is_whole = threshold.to_bits() == 1 && count == candidates;
        edges.close_row(count, if is_whole { 0.0 } else { scan.mass });
        true
    }
}
