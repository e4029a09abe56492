//! The loops over blocks that lie before the positions of all rows of a tile.

use std::ops::Range;

use super::{CHUNK, Chunk, Sums, Tile, combine};
use crate::marginals::{add_square, add_squared_differences, shifted};
use crate::simd::{LANES, Row, Simd, Stored};

impl<S: Simd, T: Stored, const ROWS: usize, const SQUARES: bool, const DETAIL: bool>
    Tile<'_, '_, S, T, ROWS, SQUARES, DETAIL>
{
    /// Adds blocks to the columns and to the heads combined; without detail to the squares, and in one loop to
    /// everything.
    #[inline(always)]
    pub(super) fn add_columns(&mut self, numbers: Range<usize>) {
        let simd = self.simd;
        let mut blocks: [&[[T; LANES]]; ROWS] = [&[]; ROWS];
        // Copies of what the loop adds to, and of nothing else.
        let with_squares = SQUARES && (S::ONE_LOOP || !DETAIL);
        let zeros = [simd.splat(0.0); ROWS];
        let mut squares = if with_squares { self.squares.lanes } else { zeros };
        let (mut entropies, mut masses, mut roughs, mut last) = (zeros, zeros, zeros, zeros);
        if DETAIL && S::ONE_LOOP {
            entropies = self.entropies.lanes;
            masses = self.of_segments.masses.lanes;
            roughs = self.of_segments.roughs.lanes;
            last = self.of_segments.last;
        }
        for (blocks, row) in blocks.iter_mut().zip(self.rows) {
            *blocks = &row.blocks()[numbers.clone()];
        }
        let mut bits = self.bits;
        let Sums { received, combined, combine: how, widened, .. } = &mut *self.sums;
        let widened: &mut [Chunk; ROWS] = widened.first_chunk_mut().expect("as many rows");
        let how = *how;
        let (mut rest, _) = combined.as_chunks_mut::<LANES>();
        let stride = rest.len() / ROWS;
        let mut combined: [&mut [[f32; LANES]]; ROWS] = [(); ROWS].map(|()| &mut [][..]);
        for combined in &mut combined {
            let (row, others) = rest.split_at_mut(stride);
            (*combined, rest) = (&mut row[numbers.clone()], others);
        }
        let received = &mut received.as_chunks_mut().0[numbers.clone()];
        for ((block, number), received) in numbers.enumerate().zip(received) {
            let mut columns = simd.load(received);
            for row in 0..ROWS {
                let weights = T::load(simd, &blocks[row][block]);
                bits = simd.or_bits(bits, weights);
                columns = simd.add(columns, weights);
                combine(simd, how, weights, &mut combined[row][block]);
                if T::IS_NARROW && DETAIL && !S::ONE_LOOP {
                    simd.store(weights, &mut widened[row][block % CHUNK]);
                }
                if with_squares {
                    squares[row] = add_square(simd, squares[row], weights);
                }
                if DETAIL && S::ONE_LOOP {
                    entropies[row] = self.logarithm.add_w_log_w(simd, entropies[row], weights);
                    masses[row] = simd.add(masses[row], weights);
                    let three = shifted(simd, last[row], weights);
                    roughs[row] = add_squared_differences(simd, roughs[row], three);
                    last[row] = weights;
                }
                if S::ONE_LOOP || !DETAIL {
                    self.rows[row].prefetch(simd, 1, number);
                }
            }
            simd.store(columns, received);
        }
        self.bits = bits;
        if with_squares {
            self.squares.lanes = squares;
        }
        if DETAIL && S::ONE_LOOP {
            self.entropies.lanes = entropies;
            self.of_segments.masses.lanes = masses;
            self.of_segments.roughs.lanes = roughs;
            self.of_segments.last = last;
        }
    }

    /// Adds blocks to the masses, squares and squared differences, one row after the other.
    ///
    /// What stands one and two keys before is loaded again, but for the first block, where it may belong to
    /// another segment.
    #[inline(always)]
    pub(super) fn add_to_segments(&mut self, numbers: Range<usize>) {
        let simd = self.simd;
        for (at, row) in self.rows.iter().enumerate() {
            let blocks = single(row, &self.sums.widened[at], numbers.clone());
            let elements = blocks.as_flattened();
            let Some((first, blocks)) = blocks.split_first() else { return };
            let one_before = elements[LANES - 1..].as_chunks().0;
            let two_before = elements[LANES - 2..].as_chunks().0;
            let mut last = simd.load(first);
            let three = shifted(simd, self.of_segments.last[at], last);
            let mut masses = simd.add(self.of_segments.masses.lanes[at], last);
            let mut squares = add_square(simd, self.squares.lanes[at], last);
            let mut roughs =
                add_squared_differences(simd, self.of_segments.roughs.lanes[at], three);
            for ((two, one), block) in two_before.iter().zip(one_before).zip(blocks) {
                last = simd.load(block);
                masses = simd.add(masses, last);
                squares = add_square(simd, squares, last);
                let three = [simd.load(two), simd.load(one), last];
                roughs = add_squared_differences(simd, roughs, three);
            }
            self.of_segments.masses.lanes[at] = masses;
            self.squares.lanes[at] = squares;
            self.of_segments.roughs.lanes[at] = roughs;
            self.of_segments.last[at] = last;
        }
    }

    /// Adds blocks to the entropies, one row after the other.
    #[inline(always)]
    pub(super) fn add_entropies(&mut self, numbers: Range<usize>) {
        for (at, (row, sum)) in self.rows.iter().zip(&mut self.entropies.lanes).enumerate() {
            let mut lanes = *sum;
            let blocks = single(row, &self.sums.widened[at], numbers.clone());
            for (block, number) in blocks.iter().zip(numbers.clone()) {
                row.prefetch(self.simd, 1, number);
                lanes = self.logarithm.add_w_log_w(self.simd, lanes, self.simd.load(block));
            }
            *sum = lanes;
        }
    }
}

/// Blocks of a row within a chunk, which was widened where it had to be.
#[inline(always)]
fn single<'a, T: Stored>(
    row: &Row<'a, T>,
    widened: &'a Chunk,
    numbers: Range<usize>,
) -> &'a [[f32; LANES]] {
    let begin = numbers.start % CHUNK;
    T::single(&row.blocks()[numbers.clone()], &widened[begin..begin + numbers.len()])
}
