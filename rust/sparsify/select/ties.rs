//! Which weights are kept: a threshold, and of the weights equal to it those of the lowest keys.

use crate::simd::Simd;

/// What is kept: weights from `from` on, and the first `ties` of those equal to `tie`, next below.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub from: f32,
    pub tie: f32,
    pub ties: usize,
}

/// A [`Cut`] on its way over blocks, in order.
pub(super) struct Cutting<S: Simd> {
    from: S::Floats,
    tie: S::Floats,
    ties: usize,
}

impl Cut {
    /// What exceeds a weight, and the first `ties` of those equal to it.
    #[inline(always)]
    pub fn above(tie: f32, ties: usize) -> Self {
        Self { from: tie.next_up(), tie, ties }
    }

    /// Begins to cut.
    #[inline(always)]
    pub fn begin<S: Simd>(self, simd: S) -> Cutting<S> {
        Cutting { from: simd.splat(self.from), tie: simd.splat(self.tie), ties: self.ties }
    }
}

impl<S: Simd> Cutting<S> {
    /// The lanes of the next block that are kept.
    #[inline(always)]
    pub fn kept(&mut self, simd: S, block: S::Floats) -> u32 {
        let kept = simd.at_least(block, self.from);
        if self.ties == 0 {
            return kept;
        }
        let equal = first_bits(simd.at_least(block, self.tie) & !kept, self.ties);
        self.ties -= equal.count_ones() as usize;
        kept | equal
    }
}

/// The lowest `count` bits that are set.
#[inline(always)]
fn first_bits(mask: u32, count: usize) -> u32 {
    if mask.count_ones() as usize <= count {
        return mask;
    }
    let mut rest = mask;
    for _ in 0..count {
        rest &= rest - 1;
    }
    mask ^ rest
}
