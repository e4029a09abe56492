//! The k-th largest of some weights, without a branch that a row could mislead.

use std::hint::black_box;

use super::ties::Cut;
use crate::simd::{LANES, Simd, load_four};

/// How many of 16 · `N` weights exceed each.
///
/// As many comparisons as there are pairs, but none of them is a branch: four times as fast as sorting.
#[inline(always)]
pub(super) fn ranks<S: Simd, const N: usize>(simd: S, lanes: [S::Floats; N]) -> [S::Ints; N] {
    let mut weights = [[0.0; LANES]; N];
    for (lanes, weights) in lanes.iter().zip(&mut weights) {
        simd.store(*lanes, weights);
    }
    let mut ranks = [simd.load_ints(&[0; LANES]); N];
    // From memory, where comparing with one of them takes one instruction; compilers that see what was
    // stored take it out of the register instead, lane by lane.
    for &weight in black_box(&weights).as_flattened() {
        let weight = simd.splat(weight);
        for (rank, &lanes) in ranks.iter_mut().zip(&lanes) {
            *rank = simd.count_above(*rank, weight, lanes);
        }
    }
    ranks
}

/// [`nth_largest`] of 16 weights: by its lane where it has no equal, which takes less than a minimum.
#[inline(always)]
pub(super) fn nth_lane<S: Simd>(simd: S, lanes: S::Floats, k: usize) -> f32 {
    let mut weights = [0.0; LANES];
    simd.store(lanes, &mut weights);
    let [ranks] = ranks(simd, [lanes]);
    let k = (k as u32).cast_signed();
    let lane = simd.below(ranks, k) & !simd.below(ranks, k - 1);
    if lane == 0 {
        return simd.least_below(lanes, ranks, k);
    }
    weights[lane.trailing_zeros() as usize % LANES]
}

/// The k-th largest of 16 · `N` weights, 1 <= k <= 16 · `N`: the least of those that fewer than k
/// exceed.
#[inline(always)]
pub(super) fn nth_largest<S: Simd, const N: usize>(
    simd: S,
    lanes: [S::Floats; N],
    k: usize,
) -> f32 {
    let mut least = f32::INFINITY;
    for (&rank, &lanes) in ranks(simd, lanes).iter().zip(&lanes) {
        least = least.min(simd.least_below(lanes, rank, (k as u32).cast_signed()));
    }
    least
}

/// The cut that keeps k, where `last` is the k-th largest.
#[inline(always)]
pub(super) fn cut_at<S: Simd>(simd: S, blocks: &[[f32; LANES]], last: f32, k: usize) -> Cut {
    if count(simd, blocks, last) == k {
        return Cut { from: last, tie: last, ties: 0 };
    }
    Cut::above(last, k - count(simd, blocks, last.next_up()))
}

/// The cut that keeps k of weights of which k reach `low` and none exceeds `high`, both as bits.
///
/// The bits of weights are in their order, so at most 31 halvings find the k-th largest, and fewer where
/// k weights lie apart from the rest. Every few halvings, what has been decided is left out, and the
/// rest says between which weights to go on, so that ties end it.
#[inline(always)]
pub(super) fn bisect<S: Simd>(
    simd: S,
    mut undecided: Undecided<'_>,
    k: usize,
    low: u32,
    high: u32,
) -> Cut {
    // k weights reach `low`, fewer reach `above`; of those, `gone` are left out.
    let (mut low, mut above) = (low, high + 1);
    let (mut exceeding, mut gone) = (0, 0);
    let mut steps = 0_u32;
    while above - low > 1 {
        let middle = low + (above - low) / 2;
        let threshold = f32::from_bits(middle);
        let reaching = gone + count(simd, undecided.blocks(), threshold);
        if reaching == k {
            return Cut { from: threshold, tie: threshold, ties: 0 };
        }
        if reaching > k {
            low = middle;
        } else {
            (above, exceeding) = (middle, reaching);
        }
        steps += 1;
        if steps.is_multiple_of(NARROW) {
            undecided.narrow(simd, low, above);
            gone = exceeding;
            (low, above) = undecided.span(simd);
        }
    }
    Cut { from: f32::from_bits(above), tie: f32::from_bits(low), ties: k - exceeding }
}

/// How many weights reach a threshold, which is positive.
#[inline(always)]
pub(super) fn count<S: Simd>(simd: S, blocks: &[[f32; LANES]], threshold: f32) -> usize {
    let threshold = simd.splat(threshold);
    let (fours, rest) = blocks.as_chunks();
    let mut count = 0;
    for four in fours {
        count += simd.at_least_of_four(load_four(simd, four), threshold).count_ones() as usize;
    }
    for block in rest {
        count += simd.at_least(simd.load(block), threshold).count_ones() as usize;
    }
    count
}

/// Halvings after which what they decided is left out. That costs as much as five halvings: after each
/// of them it was slower than never.
pub(super) const NARROW: u32 = 4;

/// Weights of which it is not yet decided whether they are kept; zeros may be among them.
pub(super) struct Undecided<'a> {
    /// With room for one more block.
    weights: &'a mut [f32],
    count: usize,
}

impl<'a> Undecided<'a> {
    /// A copy of some blocks.
    #[inline(always)]
    pub fn new(room: &'a mut [f32], blocks: &[[f32; LANES]]) -> Self {
        let count = blocks.len() * LANES;
        room[..count].copy_from_slice(blocks.as_flattened());
        Self { weights: room, count }
    }

    /// The weights, and zeros.
    #[inline(always)]
    pub fn blocks(&self) -> &[[f32; LANES]] {
        &self.weights.as_chunks().0[..self.count.div_ceil(LANES)]
    }

    /// The bits of the least weight, and those above the largest; there is one at least, and no zero.
    #[inline(always)]
    pub fn span<S: Simd>(&self, simd: S) -> (u32, u32) {
        let (zero, mut top, mut least) = (simd.splat(0.0), simd.splat(0.0), f32::INFINITY);
        let mut negative = simd.splat(f32::NEG_INFINITY);
        let (whole, rest) = self.weights[..self.count].as_chunks();
        for block in whole {
            let weights = simd.load(block);
            top = simd.max_bits(top, weights);
            negative = simd.max(simd.sub(zero, weights), negative);
        }
        if !rest.is_empty() {
            let weights = simd.load(&self.weights.as_chunks().0[whole.len()]);
            top = simd.max_bits(top, weights);
            let end = (rest.len() as u32).cast_signed();
            least = simd.least_below(weights, simd.count_from(0), end);
        }
        let mut lanes = [0.0; LANES];
        simd.store(negative, &mut lanes);
        for lane in lanes {
            least = least.min(-lane);
        }
        (least.to_bits(), simd.largest_bits(top) + 1)
    }

    /// Keeps the weights from `low` to below `above`, both as bits.
    #[inline(always)]
    pub fn narrow<S: Simd>(&mut self, simd: S, low: u32, above: u32) {
        let (low, above) = (simd.splat(f32::from_bits(low)), simd.splat(f32::from_bits(above)));
        let mut kept = 0;
        for block in 0..self.count.div_ceil(LANES) {
            let weights = simd.load(&self.weights.as_chunks().0[block]);
            let mask = simd.at_least(weights, low) & !simd.at_least(weights, above);
            // Never beyond the block that was read.
            simd.compress(weights, mask, window(self.weights, kept));
            kept += mask.count_ones() as usize;
        }
        self.count = kept;
        *window(self.weights, kept) = [0.0; LANES];
    }
}

/// The 16 elements from `at` on.
#[inline(always)]
pub(super) fn window<T>(elements: &mut [T], at: usize) -> &mut [T; LANES] {
    &mut elements[at..at + LANES].as_chunks_mut().0[0]
}
