//! `top_mass`: the shortest prefix of the descending order that reaches a share of the row's mass.
//!
//! ```text
//! goal = share · sum of the row
//! bisect for the least weight v with Σ (candidates >= v) >= goal
//! keep what exceeds v, and as many of those equal to v as it takes
//! ```
//!
//! 1. Every few halvings, what has been decided is left out, as in [`super::kth_largest::bisect`].
//! 2. What is less than [`least`] is never kept: it is not collected, and the halvings begin there.
//! 3. The rule is defined by sums in descending order, for which rows would have to be sorted. A sum in
//!    any order differs from that by less than a margin; only where a sum comes that near the goal is
//!    the row sorted.

use super::kth_largest::{NARROW, Undecided};
use super::ties::Cut;
use super::{Candidates, LANES, Row, Simd, Stored};

/// The cut that keeps all.
const ALL: Cut = Cut { from: f32::from_bits(1), tie: 0.0, ties: 0 };

/// What every weight of the prefix reaches, of a row of some mass, nearly, and so many keys.
///
/// Were the last of them less than `(1 - share) · mass / keys`, it and what follows would have less than
/// `(1 - share) · mass`, and those before it would have been enough. An eighth of it, and what float64 may
/// lose in so many sums, is left for roundings.
#[inline(always)]
pub(super) fn least(share: f64, mass: f64, keys: usize) -> f32 {
    let rest = (1.0 - share - 1e-14 * keys as f64).max(0.0);
    let least = 0.875 * rest * mass / keys as f64;
    if least.is_finite() { least as f32 } else { 0.0 }
}

/// Cuts candidates, which are the largest weights of the row, to the shortest prefix.
#[inline(always)]
pub(super) fn keep<S: Simd, T: Stored>(
    simd: S,
    found: &mut Candidates,
    room: &mut [f32],
    row: Row<'_, T>,
    (share, threshold): (f64, f32),
) {
    if found.count == 0 {
        return;
    }
    let goal = share * row.sum(simd);
    let margin = goal * (2 * row.keys() + 16) as f64 * f64::EPSILON;
    let undecided = Undecided::new(room, found.blocks());
    let cut = bisect(simd, undecided, threshold, goal, margin);
    found.keep(simd, cut.unwrap_or_else(|| sorted_cut(found, row, share)));
}

/// `None` where the margin leaves it open. All weights reach `threshold`.
#[inline(always)]
#[expect(clippy::cast_sign_loss, reason = "there is one tie at least")]
fn bisect<S: Simd>(
    simd: S,
    mut undecided: Undecided<'_>,
    threshold: f32,
    goal: f64,
    margin: f64,
) -> Option<Cut> {
    let mut top = simd.splat(0.0);
    for block in undecided.blocks() {
        top = simd.max_bits(top, simd.load(block));
    }
    let is_enough = |sum: f64| ((sum - goal).abs() > margin).then_some(sum > goal);
    if !is_enough(sum(simd, undecided.blocks(), threshold))? {
        return Some(ALL);
    }
    // The weights from `low` on reach the goal, those from `above` on do not; `gone` is the sum of what
    // is left out of those.
    let (mut low, mut above) = (threshold.to_bits(), simd.largest_bits(top) + 1);
    let (mut exceeding, mut gone) = (0.0, 0.0);
    let mut steps = 0_u32;
    while above - low > 1 {
        let middle = low + (above - low) / 2;
        let reaching = gone + sum(simd, undecided.blocks(), f32::from_bits(middle));
        if is_enough(reaching)? {
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
    let tie = f32::from_bits(low);
    let ties = ((goal - exceeding) / f64::from(tie)).ceil();
    let are_enough = |ties| is_enough(exceeding + ties * f64::from(tie));
    let is_least = !are_enough(ties - 1.0)? && are_enough(ties)?;
    is_least.then_some(Cut { from: f32::from_bits(above), tie, ties: ties as usize })
}

/// The sum of the weights that reach a threshold, which is positive.
#[inline(always)]
fn sum<S: Simd>(simd: S, blocks: &[[f32; LANES]], threshold: f32) -> f64 {
    let threshold = simd.splat(threshold);
    let mut sums = simd.no_doubles();
    for block in blocks {
        sums = simd.add_doubles(sums, simd.keep_at_least(simd.load(block), threshold));
    }
    simd.sum_doubles(sums)
}

/// The cut by the definition.
#[cold]
fn sorted_cut<T: Stored>(found: &Candidates, row: Row<'_, T>, share: f64) -> Cut {
    let all = row.elements().iter().map(|weight| weight.widen());
    let goal = share * descending(all).iter().map(|&weight| f64::from(weight)).sum::<f64>();
    let found = descending(found.weights[..found.count].iter().copied());
    let mut sum = 0.0;
    let last = found.iter().position(|&weight| {
        sum += f64::from(weight);
        sum >= goal
    });
    let Some(last) = last else { return ALL };
    let ties = found[..=last].iter().filter(|&&weight| weight.to_bits() == found[last].to_bits());
    Cut::above(found[last], ties.count())
}

fn descending(weights: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut sorted: Vec<f32> = weights.filter(|&weight| weight > 0.0).collect();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    sorted
}
