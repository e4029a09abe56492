//! A few rows of one head in one pass: everything that each of their weights adds to.
//!
//! ```text
//! for each chunk of keys that lies before all the rows' positions:
//!     for each block of 16 keys: add the weights of each row to the columns and to the heads combined
//!     for each row: add w · log2 w of its weights to its entropy
//!     for each row: add its weights to its mass, and squares of them and of their second differences
//! the same with the keys that are left, one block or two, of which a row may have none
//! ```
//!
//! 1. The rows share one running maximum of the bits, which tells whether all are sound; which of them is
//!    not is looked for afterwards.
//! 2. A chunk stays in the cache while three loops read it. One loop for everything needs more registers than
//!    AVX2 has: its sums went through memory, and 2,048 tokens took a quarter longer. With AVX-512 one loop
//!    takes up to a tenth less, because what is asked for has more time to come. Where there are three, weights
//!    of 16 bits are widened once.
//! 3. The loop over segments alone stops at a block in which one ends, and that block is cut into its segments.
//!    With one loop such a block is taken as one that is left.

mod loops;

use std::ops::Range;

use crate::marginals::{
    Logarithm, PIECE, RowSums, SegmentSums, SegmentValues, Segments, add_square, entropies,
};
use crate::simd::{Kernel, LANES, Row, Simd, Stored};
use crate::sparsify::Combine;

/// Blocks of 16 keys that stay in the first cache while all is made of them.
pub(super) const CHUNK: usize = 16;

/// A chunk of one row.
pub(super) type Chunk = [[f32; LANES]; CHUNK];

/// What the weights of a tile are added to, in whole blocks of 16 keys.
#[derive(Debug)]
pub(super) struct Sums<'a> {
    /// The columns of the head.
    pub received: &'a mut [f32],
    /// The heads combined, one row after the other; left alone with [`Combine::Each`].
    pub combined: &'a mut [f32],
    /// How heads combine.
    pub combine: Combine,
    /// The segments of the rows.
    pub segments: &'a Segments,
    /// What each segment of the rows comes to; none where there is no detail.
    pub values: SegmentValues<'a>,
    /// Room for a chunk of each row, widened.
    pub widened: &'a mut [Chunk],
}

/// What a tile gives.
#[derive(Debug)]
pub(super) struct TileResult<const ROWS: usize> {
    /// The bits that the weights of a lane have, largest of all lanes: above [`LARGEST`](crate::simd::LARGEST)
    /// where a weight is unsound, and never where all are below 2.0.
    pub bits: u32,
    /// Sums of squares, where they are asked for.
    pub squares: [f32; ROWS],
    /// Entropies, where there is detail.
    pub entropies: [f32; ROWS],
    /// The largest mass of a segment, where there is detail.
    pub largest: f32,
}

/// The pass over rows that stand at `position` and after. Rows with detail give squares too.
#[derive(Debug)]
pub(super) struct Pass<'a, T, const ROWS: usize, const SQUARES: bool, const DETAIL: bool> {
    /// Where they lie: copies of what was just written wait until it has reached the cache.
    pub rows: &'a [Row<'a, T>; ROWS],
    pub position: usize,
    pub sums: Sums<'a>,
}

impl<T: Stored, const ROWS: usize, const SQUARES: bool, const DETAIL: bool> Kernel
    for Pass<'_, T, ROWS, SQUARES, DETAIL>
{
    type Output = TileResult<ROWS>;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> TileResult<ROWS> {
        let mut tile = Tile::<S, T, ROWS, SQUARES, DETAIL> {
            simd,
            rows: self.rows,
            position: self.position,
            sums: &mut self.sums,
            bits: simd.splat(0.0),
            squares: RowSums::new(simd),
            of_segments: SegmentSums::new(simd),
            entropies: RowSums::new(simd),
            logarithm: Logarithm::new(simd),
        };
        let common = self.position.min(self.rows[0].keys()) / LANES;
        for begin in (0..common).step_by(CHUNK) {
            tile.add_chunk(begin..common.min(begin + CHUNK));
        }
        // No row has more keys than the last.
        for number in common..self.rows[ROWS - 1].keys().div_ceil(LANES) {
            tile.add_end(number);
        }
        tile.finish()
    }
}

/// A tile on its way.
struct Tile<'a, 'b, S: Simd, T, const ROWS: usize, const SQUARES: bool, const DETAIL: bool> {
    simd: S,
    rows: &'a [Row<'a, T>; ROWS],
    position: usize,
    sums: &'a mut Sums<'b>,
    bits: S::Floats,
    squares: RowSums<S, ROWS>,
    of_segments: SegmentSums<S, ROWS>,
    entropies: RowSums<S, ROWS>,
    logarithm: Logarithm<S>,
}

impl<S: Simd, T: Stored, const ROWS: usize, const SQUARES: bool, const DETAIL: bool>
    Tile<'_, '_, S, T, ROWS, SQUARES, DETAIL>
{
    /// Adds blocks that lie before all positions, within a piece.
    #[inline(always)]
    fn add_chunk(&mut self, chunk: Range<usize>) {
        if !S::ONE_LOOP {
            self.add_columns(chunk.clone());
            if DETAIL {
                self.add_entropies(chunk.clone());
            }
        }
        let mut begin = chunk.start;
        while DETAIL && self.of_segments.cut(self.sums.segments) < chunk.end {
            let cut = self.of_segments.cut(self.sums.segments);
            self.add_run(begin..cut);
            self.add_cut(cut);
            begin = cut + 1;
        }
        self.add_run(begin..chunk.end);
        self.end_piece(chunk.end);
    }

    /// Adds blocks in which no segment ends: to what segments have, and in one loop to everything.
    #[inline(always)]
    fn add_run(&mut self, numbers: Range<usize>) {
        if S::ONE_LOOP {
            self.add_columns(numbers);
        } else if DETAIL {
            self.add_to_segments(numbers);
        }
    }

    /// The same of a block in which a segment ends.
    #[inline(always)]
    fn add_cut(&mut self, number: usize) {
        let mut blocks = [self.simd.splat(0.0); ROWS];
        for (row, block) in self.rows.iter().zip(&mut blocks) {
            *block = T::load(self.simd, &row.blocks()[number]);
        }
        if S::ONE_LOOP {
            let before = blocks;
            return self.add_block(number, &mut blocks, &before);
        }
        let Sums { segments, values, .. } = &mut *self.sums;
        for (sum, &weights) in self.squares.lanes.iter_mut().zip(&blocks) {
            *sum = add_square(self.simd, *sum, weights);
        }
        self.of_segments.add(self.simd, number, &mut blocks, segments, values);
    }

    /// Adds a block in which rows and segments may end.
    #[inline(always)]
    fn add_end(&mut self, number: usize) {
        let key = number * LANES;
        let mut blocks = [self.simd.splat(0.0); ROWS];
        let mut before = blocks;
        for row in 0..ROWS {
            let earlier = (self.position + row).saturating_sub(key).min(LANES);
            // Of a row that has ended, nothing.
            let begin = key.min(self.rows[row].keys());
            blocks[row] = self.rows[row].load_first(self.simd, begin, LANES);
            before[row] = self.simd.keep_first(blocks[row], earlier);
        }
        self.end_piece(number);
        self.add_block(number, &mut blocks, &before);
    }

    /// Adds a block of each row; `before` are the weights before its position.
    #[inline(always)]
    fn add_block(
        &mut self,
        number: usize,
        blocks: &mut [S::Floats; ROWS],
        before: &[S::Floats; ROWS],
    ) {
        let simd = self.simd;
        let Sums { received, combined, combine: how, segments, values, .. } = &mut *self.sums;
        let received = &mut received.as_chunks_mut().0[number];
        let (combined, _) = combined.as_chunks_mut::<LANES>();
        let stride = combined.len() / ROWS;
        let (mut columns, mut bits) = (simd.load(received), self.bits);
        for row in 0..ROWS {
            self.rows[row].prefetch(simd, 1, number);
            bits = simd.or_bits(bits, blocks[row]);
            columns = simd.add(columns, before[row]);
            combine(simd, *how, blocks[row], &mut combined[row * stride + number]);
        }
        simd.store(columns, received);
        self.bits = bits;
        if SQUARES {
            for (sum, &weights) in self.squares.lanes.iter_mut().zip(&*blocks) {
                *sum = add_square(simd, *sum, weights);
            }
        }
        if DETAIL {
            for (sum, &weights) in self.entropies.lanes.iter_mut().zip(&*blocks) {
                *sum = self.logarithm.add_w_log_w(simd, *sum, weights);
            }
            self.of_segments.add(simd, number, blocks, segments, values);
        }
    }

    /// Ends a piece where one ends before a block.
    #[inline(always)]
    fn end_piece(&mut self, number: usize) {
        if !number.is_multiple_of(PIECE) {
            return;
        }
        if SQUARES {
            self.squares.end_piece(self.simd);
        }
        if DETAIL {
            self.of_segments.end_piece(self.simd);
            self.entropies.end_piece(self.simd);
        }
    }

    #[inline(always)]
    fn finish(mut self) -> TileResult<ROWS> {
        let simd = self.simd;
        let mut result = TileResult {
            bits: simd.largest_bits(self.bits),
            squares: [0.0; ROWS],
            entropies: [0.0; ROWS],
            largest: 0.0,
        };
        if SQUARES {
            result.squares = self.squares.finish(simd).map(|sum| sum as f32);
        }
        if DETAIL {
            // No row has more keys in the last block than the last; one of 16 keys counts as none of the next.
            let keys = (self.rows[ROWS - 1].keys() + LANES - 1) % LANES + 1;
            let Sums { segments, values, .. } = &mut *self.sums;
            self.of_segments.end_segment(simd, keys, segments, values);
            result.entropies = entropies(self.entropies.finish(simd));
            result.largest = self.of_segments.largest;
        }
        result
    }
}

/// Combines a block with those of other heads.
#[inline(always)]
fn combine<S: Simd>(simd: S, how: Combine, weights: S::Floats, so_far: &mut [f32; LANES]) {
    match how {
        Combine::Each => {}
        Combine::Mean => simd.store(simd.add(simd.load(so_far), weights), so_far),
        Combine::Max => simd.store(simd.max(weights, simd.load(so_far)), so_far),
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
