//! The edges of rows, four at a time: each step of all of them, so that while one waits the others go on.
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
//! 3. At most 16 candidates are ranked, and the k first written at once. The k-th largest of at most 32 is
//!    found in registers, see [`nth_largest`]; of more by bisection, see [`bisect`], whose steps are bounded
//!    whatever the row, so that flat, sorted and striped rows stay linear.
//! 4. Where the threshold is the largest weight, all candidates are equal and the first k do.
//! 5. Without `top_k` and `top_mass` the candidates are the edges.
//! 6. `top_mass` is found by bisection as well, see [`mass`].
//! 7. Where k is at most 8 and the row short, it is found without chunks, see [`short_rows`]. Such rows go one
//!    by one, and so do rows of combined heads and those left over when a band ends.
//! 8. With AVX-512, where k is at most 16 the keys of the candidates are collected alone, and their weights
//!    gathered in the end.
//! 9. While rows are read nothing is asked for: the processor sees what comes next, and brings it faster. It
//!    does not while rows are selected, so then the first lines of the next ones are asked for, a few
//!    after each step.
//!
//! Tried and left out: guessing the threshold from the row before.

mod candidates;
mod chunks;
mod collect;
mod kth_largest;
mod mass;
mod row_state;
mod short_rows;
mod sorting_network;
mod ties;

use super::Rules;
use crate::edges::EdgeBand;
use crate::simd::{Kernel, LANES, LARGEST, Row, Rows, Simd, Stored};
use candidates::{Candidates, room};
use row_state::RowState;
use short_rows::SHORT;
use sorting_network::EIGHT;

/// Rows that are selected together.
const TOGETHER: usize = 4;

/// A row with a weight that is NaN, infinite or negative, by its number.
#[derive(Debug)]
pub(crate) struct Unsound(pub usize);

/// Applies the rules to one row after another.
#[derive(Debug)]
pub(crate) struct Selector {
    rules: Rules,
    /// The blocks of a short row, widened.
    blocks: Vec<[f32; LANES]>,
    /// Rows selected together, or one.
    states: Vec<RowState>,
    /// Room for the weights of a bisection.
    undecided: Vec<f32>,
}

impl Selector {
    /// A selector for rows of at most `keys` weights, which come `rows` at a time at most.
    pub fn new(rules: Rules, keys: usize, rows: usize) -> Self {
        let rows_at_once = if keys <= SHORT && small_k(rules).is_some() { 1 } else { TOGETHER };
        Self {
            rules,
            blocks: vec![[0.0; LANES]; keys.min(SHORT).div_ceil(LANES) + EIGHT],
            states: (0..rows_at_once.min(rows)).map(|_| RowState::new(keys)).collect(),
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

    /// Rows of which one looks unsound: without their -0.0, if that is all.
    #[cold]
    fn select_odd<S: Simd, T: Stored>(
        &mut self,
        simd: S,
        rows: &Rows<'_, T>,
        edges: &mut EdgeBand,
    ) -> Result<(), Unsound> {
        for number in 0..rows.count() {
            let row = rows.get(number);
            if row.find_unsound().is_some() {
                return Err(Unsound(number));
            }
            let weights = row.normalised();
            let rows = &Row::new(&weights[..], weights.len(), 0).into();
            simd.run(SelectTogether { selector: self, rows, edges })?;
        }
        Ok(())
    }
}

/// k, where it is so small that the edges of a short row are found without chunks.
fn small_k(rules: Rules) -> Option<usize> {
    rules.top_k().filter(|&k| k <= EIGHT && rules.top_mass().is_none())
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
        let small_k = small_k(selector.rules);
        let mut number = 0;
        while number < rows.count() {
            let row = rows.get(number);
            let count = if let Some(k) = small_k.filter(|_| row.keys() <= SHORT) {
                selector.select_short(simd, k, row, edges).map(|()| 1)
            } else {
                let rows = &rows.part(number, selector.states.len());
                simd.run(SelectTogether { selector, rows, edges }).map(|()| rows.count())
            };
            number += count.map_err(|Unsound(at)| Unsound(number + at))?;
        }
        Ok(())
    }
}

/// Any rows, at most as many as are selected together.
struct SelectTogether<'a, 'b, T> {
    selector: &'a mut Selector,
    /// By reference: what is copied just after it was written waits until it has reached the cache.
    rows: &'a Rows<'b, T>,
    edges: &'a mut EdgeBand,
}

impl<T: Stored> Kernel for SelectTogether<'_, '_, T> {
    type Output = Result<(), Unsound>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { selector, rows, edges } = self;
        let Selector { rules, states, undecided, .. } = selector;
        let mut each = [rows.get(0); TOGETHER];
        for (at, row) in each.iter_mut().enumerate().take(rows.count()) {
            *row = rows.get(at);
        }
        let states = &mut states[..rows.count()];
        if let Some(states) = states.first_chunk_mut() {
            chunks::scan(simd, &each, states.each_mut().map(|state| &mut state.chunks));
        } else {
            for (state, &row) in states.iter_mut().zip(&each) {
                state.chunks.scan(simd, row);
            }
        }
        if states.iter().any(|state| state.chunks.top > LARGEST) {
            return selector.select_odd(simd, rows, edges);
        }
        // Rows that come alone are combined heads, or the last of a band: the next lie elsewhere.
        let lines = if states.len() == TOGETHER { each[0].lines() } else { 0 };
        let mut next = Next { rows: &each, line: 0, lines };
        for (state, row) in states.iter_mut().zip(&each) {
            state.find_threshold(simd, rules, undecided, row.keys());
            next.ask(simd, 1);
        }
        for state in &mut *states {
            state.list(simd, rules, undecided);
            next.ask(simd, 1);
        }
        for (state, &row) in states.iter_mut().zip(&each) {
            state.collect(simd, rules, row);
            next.ask(simd, 2);
        }
        for (state, &row) in states.iter_mut().zip(&each) {
            state.finish(simd, rules, undecided, row, edges);
            next.ask(simd, 2);
        }
        Ok(())
    }
}

/// The rows after those that are selected.
struct Next<'a, 'b, T> {
    /// Those that are.
    rows: &'a [Row<'b, T>; TOGETHER],
    /// The first line that has not been asked for.
    line: usize,
    /// How many lines a row has: asked anew each time, 2% more instructions for top-100 of 112 keys.
    lines: usize,
}

impl<T: Stored> Next<'_, '_, T> {
    /// Asks for some more lines of each.
    #[inline(always)]
    fn ask<S: Simd>(&mut self, simd: S, lines: usize) {
        if self.line >= self.lines {
            return;
        }
        for line in self.line..self.line + lines {
            for row in self.rows {
                row.prefetch_line(simd, TOGETHER, line);
            }
        }
        self.line += lines;
    }
}
