//! The edges of one row.
//!
//! ```text
//! threshold = max(floor, k-th largest of the maxima of 16 to 64 lanes)     k weights reach it at least
//! list the blocks of 16 keys with a weight >= threshold, without a branch
//! for each of them:
//!     collect (weight, key) of those weights
//!     if the buffer is full: keep its k first in descending order, threshold = just above the k-th
//! keep the k first, then the n that `top_mass` asks for, and put them in the order of keys
//! ```
//!
//! 1. Without `top_k` and `top_mass` what reaches the floor is written straight out.
//! 2. The buffer is pruned so that flat and sorted rows stay linear: after a prune, equal weights at
//!    later keys lose, which is the tie rule.
//! 3. `top_mass` is defined by a sum in descending order, which would sort every row. The sum in lanes
//!    differs from it by less than a margin; only a row whose prefix ends within the margin is sorted.
//!
//! Tried and left out: guessing the threshold from the row before.

use super::Rules;
use super::kernels::{LANES, hits, lane_maxima, nth_largest, total};
use crate::edges::EdgeBand;

/// A weight and its key in one word: ascending words are descending weights, then ascending keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate(u64);

impl Candidate {
    fn new(weight: f32, key: usize) -> Self {
        Self(u64::from(!weight.to_bits()) << 32 | key as u64)
    }

    fn weight(self) -> f32 {
        f32::from_bits(!((self.0 >> 32) as u32))
    }

    fn key(self) -> i32 {
        (self.0 as u32).cast_signed()
    }
}

/// Applies the rules to one row after another.
#[derive(Debug)]
pub(crate) struct Selector {
    rules: Rules,
    /// The first `found` are candidates; beyond them is room for one more block.
    buffer: Vec<Candidate>,
    found: usize,
    /// Room for (number, hits) of each block.
    blocks: Vec<(u32, u32)>,
}

impl Selector {
    /// A selector for rows of at most `keys` weights.
    pub fn new(rules: Rules, keys: usize) -> Self {
        let limit = rules.top_k().map_or(keys, |k| k.saturating_mul(2).max(64).min(keys));
        Self {
            rules,
            buffer: vec![Candidate::default(); limit + LANES],
            found: 0,
            blocks: vec![(0, 0); keys / LANES + 1],
        }
    }

    /// Appends the edges of a row of finite weights, none negative, and closes the row.
    pub fn select(&mut self, weights: &[f32], edges: &mut EdgeBand) {
        let begin = edges.keys.len();
        let mass = total(weights);
        if self.rules.top_k().is_none() && self.rules.top_mass().is_none() {
            keep_all(weights, self.rules.floor(), edges);
        } else {
            self.collect(weights);
            self.keep_top();
            if let Some(share) = self.rules.top_mass() {
                self.keep_mass(weights, share, mass);
            }
            let kept = &mut self.buffer[..self.found];
            kept.sort_unstable_by_key(|candidate| candidate.key());
            edges.keys.extend(kept.iter().map(|candidate| candidate.key()));
            edges.weights.extend(kept.iter().map(|candidate| candidate.weight()));
        }
        let kept: f64 = edges.weights[begin..].iter().map(|&weight| f64::from(weight)).sum();
        let retained = if mass > 0.0 { (kept / mass).min(1.0) } else { 1.0 };
        edges.close_row(begin, retained as f32);
    }

    /// Fills the buffer with a superset of the k largest weights that reach the floor.
    fn collect(&mut self, weights: &[f32]) {
        let least = self.threshold(weights);
        let (blocks, tail) = weights.as_chunks::<LANES>();
        let mut hit = 0;
        for (number, block) in blocks.iter().enumerate() {
            let hits = hits(block, least);
            self.blocks[hit] = (number as u32, hits);
            hit += usize::from(hits != 0);
        }
        self.found = 0;
        let mut threshold = least;
        for at in 0..hit {
            let (number, mut hits_left) = self.blocks[at];
            let block = &blocks[number as usize];
            if threshold > least {
                hits_left = hits(block, threshold);
            }
            threshold = self.collect_block(block, number as usize, hits_left, threshold);
        }
        let mut block = [0.0; LANES];
        block[..tail.len()].copy_from_slice(tail);
        self.collect_block(&block, blocks.len(), hits(&block, threshold), threshold);
    }

    /// A weight that the k largest reach, and all that is kept.
    fn threshold(&self, weights: &[f32]) -> f32 {
        let floor = self.rules.floor();
        match self.rules.top_k() {
            Some(k @ 1..=8) => floor.max(nth_largest(&lane_maxima::<16>(weights), k)),
            Some(k @ 9..=16) => floor.max(nth_largest(&lane_maxima::<32>(weights), k)),
            Some(k @ 17..=64) => floor.max(nth_largest(&lane_maxima::<64>(weights), k)),
            _ => floor,
        }
    }

    /// Collects the hits of one block; gives the threshold from there on.
    fn collect_block(
        &mut self,
        block: &[f32; LANES],
        number: usize,
        mut hits: u32,
        threshold: f32,
    ) -> f32 {
        while hits != 0 {
            let lane = hits.trailing_zeros() as usize;
            self.buffer[self.found] = Candidate::new(block[lane], number * LANES + lane);
            self.found += 1;
            hits &= hits - 1;
        }
        match self.rules.top_k() {
            Some(k) if self.found > k && self.found + LANES > self.buffer.len() => {
                let (_, last, _) = self.buffer[..self.found].select_nth_unstable(k - 1);
                let above = last.weight().next_up();
                self.found = k;
                self.buffer[..k].sort_unstable_by_key(|candidate| candidate.key());
                above
            }
            _ => threshold,
        }
    }

    /// Keeps the k first.
    fn keep_top(&mut self) {
        let Some(k) = self.rules.top_k().filter(|&k| self.found > k) else { return };
        match self.found {
            ..=16 => self.keep_ranked::<16>(k),
            17..=32 => self.keep_ranked::<32>(k),
            _ => {
                self.buffer[..self.found].select_nth_unstable(k - 1);
            }
        }
        self.found = k;
    }

    /// Moves the k first of at most `N` candidates, which stand in the order of keys, to the front.
    fn keep_ranked<const N: usize>(&mut self, k: usize) {
        // Less than any weight.
        let mut weights = [-1.0; N];
        for (weight, candidate) in weights.iter_mut().zip(&self.buffer[..self.found]) {
            *weight = candidate.weight();
        }
        let last = nth_largest(&weights, k);
        let exceeding = weights.iter().filter(|&&weight| weight > last).count();
        let (mut kept, mut ties) = (0, k - exceeding);
        for (at, &weight) in weights.iter().enumerate().take(self.found) {
            self.buffer[kept] = self.buffer[at];
            let is_tie = weight.to_bits() == last.to_bits();
            kept += usize::from(weight > last || is_tie && ties > 0);
            ties = ties.saturating_sub(usize::from(is_tie));
        }
    }

    /// Keeps the shortest prefix that reaches the share of the mass of the whole row.
    fn keep_mass(&mut self, weights: &[f32], share: f64, mass: f64) {
        let goal = share * mass;
        let margin = goal * (weights.len() + 4) as f64 * f64::EPSILON;
        self.found = self.prefix(goal, margin).unwrap_or_else(|| {
            self.prefix(share * descending_sum(weights), 0.0).unwrap_or(self.found)
        });
    }

    /// How many of the first candidates reach `goal`; all, where none do; `None` where the margin of
    /// the goal leaves it open. Sorts no more of the buffer than it needs.
    fn prefix(&mut self, goal: f64, margin: f64) -> Option<usize> {
        let found = &mut self.buffer[..self.found];
        let (mut sum, mut begin, mut step) = (0.0, 0, 32);
        while begin < found.len() {
            let end = found.len().min(begin + step);
            if end < found.len() {
                found[begin..].select_nth_unstable(end - begin - 1);
            }
            found[begin..end].sort_unstable();
            for (number, candidate) in found.iter().enumerate().take(end).skip(begin) {
                sum += f64::from(candidate.weight());
                if sum >= goal - margin {
                    return (sum >= goal + margin).then_some(number + 1);
                }
            }
            (begin, step) = (end, step * 4);
        }
        Some(found.len())
    }
}

/// Writes out all weights that reach the floor.
fn keep_all(weights: &[f32], floor: f32, edges: &mut EdgeBand) {
    for (number, block) in weights.chunks(LANES).enumerate() {
        if <&[f32; LANES]>::try_from(block).is_ok_and(|block| hits(block, floor) == 0) {
            continue;
        }
        for (lane, &weight) in block.iter().enumerate() {
            if weight >= floor {
                edges.keys.push(((number * LANES + lane) as u32).cast_signed());
                edges.weights.push(weight);
            }
        }
    }
}

/// The float64 sum in descending order, by which `top_mass` is defined.
fn descending_sum(weights: &[f32]) -> f64 {
    let mut sorted: Vec<f32> = weights.iter().copied().filter(|&weight| weight > 0.0).collect();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    sorted.iter().map(|&weight| f64::from(weight)).sum()
}
