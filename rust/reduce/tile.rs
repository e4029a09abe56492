//! A few rows of one head in one pass: everything that each of their weights adds to.
//!
//! ```text
//! for each block of 16 keys that lies before all the rows' positions:
//!     load what the columns have received
//!     for each row: load 16 weights, add them to the columns, to the heads combined, and w · log2 w to
//!                   the entropy
//!     store the columns
//! for each row: the same with the keys that are left, one block or two
//! ```
//!
//! 1. The rows share one running maximum of the bits, which tells whether all are sound; which of them is
//!    not is looked for afterwards.

use std::ops::Range;

use crate::marginals::{Entropy, PIECE};
use crate::simd::{Kernel, LANES, Row, Simd, Stored};
use crate::sparsify::Combine;

/// What the weights of a tile are added to, in whole blocks of 16 keys.
#[derive(Debug)]
pub(super) struct Sums<'a> {
    /// The columns of the head.
    pub received: &'a mut [f32],
    /// The heads combined, one row after the other; left alone with [`Combine::Each`].
    pub combined: &'a mut [f32],
    /// How heads combine.
    pub combine: Combine,
}

/// What a tile gives.
#[derive(Debug)]
pub(super) struct Passed<const ROWS: usize> {
    /// The largest bits of any weight.
    pub top: u32,
    /// Entropies, if asked for.
    pub entropies: [f32; ROWS],
}

/// The pass over rows that stand at `position` and after.
#[derive(Debug)]
pub(super) struct Pass<'a, T, const ROWS: usize, const ENTROPY: bool> {
    pub rows: [Row<'a, T>; ROWS],
    pub position: usize,
    pub sums: Sums<'a>,
}

impl<T: Stored, const ROWS: usize, const ENTROPY: bool> Kernel for Pass<'_, T, ROWS, ENTROPY> {
    type Output = Passed<ROWS>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Passed<ROWS> {
        let Self { rows, position, sums } = self;
        let mut tile = Tile::<S, ROWS, ENTROPY> {
            simd,
            combine: sums.combine,
            top: simd.splat(0.0),
            entropies: [Entropy::new(simd); ROWS],
        };
        let common = position.min(rows[0].keys()) / LANES;
        let (received, _) = sums.received.as_chunks_mut::<LANES>();
        let mut rest = sums.combined;
        let stride = rest.len() / ROWS;
        let mut combined: [&mut [[f32; LANES]]; ROWS] = std::array::from_fn(|_| Default::default());
        for combined in &mut combined {
            let (row, after) = rest.split_at_mut(stride);
            (*combined, rest) = (row.as_chunks_mut().0, after);
        }
        for begin in (0..common).step_by(PIECE) {
            let piece = begin..common.min(begin + PIECE);
            tile.pass_common(&rows, piece, received, &mut combined);
        }
        for (number, row) in rows.iter().enumerate() {
            tile.pass_rest(number, *row, common, position + number, received, combined[number]);
        }
        let top = simd.largest_bits(tile.top);
        let mut entropies = [0.0; ROWS];
        for (entropy, sum) in entropies.iter_mut().zip(tile.entropies) {
            *entropy = sum.finish(simd);
        }
        Passed { top, entropies }
    }
}

/// A tile on its way.
struct Tile<S: Simd, const ROWS: usize, const ENTROPY: bool> {
    simd: S,
    combine: Combine,
    top: S::Floats,
    entropies: [Entropy<S>; ROWS],
}

impl<S: Simd, const ROWS: usize, const ENTROPY: bool> Tile<S, ROWS, ENTROPY> {
    /// A piece of blocks that lie before all positions.
    #[inline(always)]
    fn pass_common<T: Stored>(
        &mut self,
        rows: &[Row<'_, T>; ROWS],
        piece: Range<usize>,
        received: &mut [[f32; LANES]],
        combined: &mut [&mut [[f32; LANES]]; ROWS],
    ) {
        let simd = self.simd;
        let (begin, count) = (piece.start, piece.len());
        let received = &mut received[piece.clone()];
        let mut blocks: [&[[T; LANES]]; ROWS] = [&[]; ROWS];
        for (blocks, row) in blocks.iter_mut().zip(rows) {
            *blocks = &row.blocks()[piece.clone()];
        }
        for block in 0..count {
            let mut columns = simd.load(&received[block]);
            for row in 0..ROWS {
                rows[row].prefetch(simd, begin + block);
                let weights = T::load(simd, &blocks[row][block]);
                columns = simd.add(columns, weights);
                self.take(row, weights, &mut combined[row][begin + block]);
            }
            simd.store(columns, &mut received[block]);
        }
        if ENTROPY && count == PIECE {
            for entropy in &mut self.entropies {
                entropy.end_piece(simd);
            }
        }
    }

    /// The blocks of one row from number `begin` on.
    #[inline(always)]
    fn pass_rest<T: Stored>(
        &mut self,
        number: usize,
        row: Row<'_, T>,
        begin: usize,
        position: usize,
        received: &mut [[f32; LANES]],
        combined: &mut [[f32; LANES]],
    ) {
        let simd = self.simd;
        for block in begin..row.keys().div_ceil(LANES) {
            let key = block * LANES;
            let weights = row.load_first(simd, key, LANES);
            let before = simd.keep_first(weights, position.saturating_sub(key).min(LANES));
            let columns = simd.add(simd.load(&received[block]), before);
            simd.store(columns, &mut received[block]);
            if ENTROPY && block > 0 && block % PIECE == 0 {
                self.entropies[number].end_piece(simd);
            }
            self.take(number, weights, &mut combined[block]);
        }
    }

    /// Takes a block of one row, apart from its columns.
    #[inline(always)]
    fn take(&mut self, row: usize, weights: S::Floats, combined: &mut [f32; LANES]) {
        let simd = self.simd;
        self.top = simd.max_bits(self.top, weights);
        let so_far = simd.load(combined);
        match self.combine {
            Combine::Each => {}
            Combine::Mean => simd.store(simd.add(so_far, weights), combined),
            Combine::Max => simd.store(simd.max(weights, so_far), combined),
        }
        if ENTROPY {
            self.entropies[row].add(simd, weights);
        }
    }
}

/// Divides sums over heads by their number.
#[inline(always)]
pub(super) fn divide<S: Simd>(simd: S, sums: &mut [f32], heads: f32) {
    let heads = simd.splat(heads);
    for block in sums.as_chunks_mut::<LANES>().0 {
        simd.store(simd.div(simd.load(block), heads), block);
    }
}
