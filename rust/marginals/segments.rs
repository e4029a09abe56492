//! Segments of the keys, and what is summed over each of them.

use super::sums::{RowSums, add_squared_differences, shifted};
use crate::error::InputError;
use crate::simd::{LANES, Simd};

/// Key positions where each segment after the first begins; k of them make k + 1 segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments(Vec<usize>);

impl Segments {
    /// Checks that boundaries increase and lie within the keys; equal ones make an empty segment.
    ///
    /// # Errors
    /// [`InputError::Segments`].
    pub fn new(boundaries: Vec<usize>, keys: usize) -> Result<Self, InputError> {
        if boundaries.is_sorted() && boundaries.last().is_none_or(|&last| last <= keys) {
            Ok(Self(boundaries))
        } else {
            Err(InputError::Segments { segments: boundaries, keys })
        }
    }

    /// How many segments there are.
    pub fn count(&self) -> usize {
        self.0.len() + 1
    }

    /// The key before which a segment ends; none for the last.
    #[inline(always)]
    fn end(&self, segment: usize) -> usize {
        self.0.get(segment).copied().unwrap_or(usize::MAX)
    }
}

/// The roughness of each segment of a row, in float64; those that never begin have none.
#[cold]
pub(crate) fn exact_roughs(weights: &[f64], segments: &Segments, roughs: &mut [f32]) {
    let mut begin = 0;
    for (segment, rough) in roughs.iter_mut().enumerate() {
        let end = segments.end(segment).min(weights.len());
        let padded = [&[0.0; 2], &weights[begin..end], &[0.0; 2]].concat();
        let differences = padded.windows(3).map(|w| w[0] - 2.0 * w[1] + w[2]);
        *rough = differences.map(|difference| difference * difference).sum::<f64>().sqrt() as f32;
        begin = end;
    }
}

/// The largest mass of a segment that is one of a row after softmax: those of bfloat16 reach 1.004. What a
/// smaller weight loses of its entropy and roughness is within tolerance.
pub(crate) const LARGE: f32 = 1.05;

/// Where the values of each segment of a few rows go, one row after the other.
#[derive(Debug)]
pub(crate) struct SegmentValues<'a> {
    /// Sums of weights.
    pub masses: &'a mut [f32],
    /// Square roots of sums of squared second differences.
    pub roughs: &'a mut [f32],
}

/// Sums over the segments of a few rows, from the first block of 16 keys to the last.
pub(crate) struct SegmentSums<S: Simd, const ROWS: usize> {
    /// Of weights.
    pub masses: RowSums<S, ROWS>,
    /// Of squared second differences.
    pub roughs: RowSums<S, ROWS>,
    /// The last block of each row, 0.0 before the current segment.
    pub last: [S::Floats; ROWS],
    /// The current segment.
    segment: usize,
    /// The largest mass so far.
    pub largest: f32,
}

impl<S: Simd, const ROWS: usize> SegmentSums<S, ROWS> {
    /// No key yet.
    #[inline(always)]
    pub fn new(simd: S) -> Self {
        Self {
            masses: RowSums::new(simd),
            roughs: RowSums::new(simd),
            last: [simd.splat(0.0); ROWS],
            segment: 0,
            largest: 0.0,
        }
    }

    /// The block in which the current segment ends, maybe before its first key. All blocks before it may be
    /// added to the sums.
    #[inline(always)]
    pub fn cut(&self, segments: &Segments) -> usize {
        segments.end(self.segment) / LANES
    }

    /// Takes a block of each row; segments may end in it.
    #[inline(always)]
    pub fn add(
        &mut self,
        simd: S,
        number: usize,
        weights: &mut [S::Floats; ROWS],
        segments: &Segments,
        values: &mut SegmentValues<'_>,
    ) {
        while number == self.cut(segments) {
            let keys = segments.end(self.segment) % LANES;
            for (row, weights) in weights.iter_mut().enumerate() {
                let before = simd.keep_first(*weights, keys);
                *weights = simd.sub(*weights, before);
                self.add_row(simd, row, before);
            }
            self.end_segment(simd, keys, segments, values);
        }
        for (row, &weights) in weights.iter().enumerate() {
            self.add_row(simd, row, weights);
        }
    }

    /// Takes a block of a row in which no segment ends.
    #[inline(always)]
    fn add_row(&mut self, simd: S, row: usize, weights: S::Floats) {
        self.masses.lanes[row] = simd.add(self.masses.lanes[row], weights);
        let three = shifted(simd, self.last[row], weights);
        self.roughs.lanes[row] = add_squared_differences(simd, self.roughs.lanes[row], three);
        self.last[row] = weights;
    }

    /// Ends a piece of the sums.
    #[inline(always)]
    pub fn end_piece(&mut self, simd: S) {
        self.masses.end_piece(simd);
        self.roughs.end_piece(simd);
    }

    /// Ends a segment, of which the last block has so many keys at most; those that never begin keep their
    /// zeros.
    #[inline(always)]
    pub fn end_segment(
        &mut self,
        simd: S,
        keys: usize,
        segments: &Segments,
        values: &mut SegmentValues<'_>,
    ) {
        let zeros = simd.splat(0.0);
        // Two differences reach over the end: beyond the block where the last keys are in its last lanes.
        if keys + 2 > LANES {
            for row in 0..ROWS {
                self.add_row(simd, row, zeros);
            }
        }
        self.last = [zeros; ROWS];
        let masses = self.masses.finish(simd).map(|mass| mass as f32);
        let roughs = self.roughs.finish(simd).map(|squares| squares.sqrt() as f32);
        for row in 0..ROWS {
            let at = row * segments.count() + self.segment;
            // Adding 0.0 turns -0.0 into 0.0.
            values.masses[at] = masses[row] + 0.0;
            values.roughs[at] = roughs[row];
            self.largest = if masses[row] > self.largest { masses[row] } else { self.largest };
        }
        self.segment += 1;
    }
}
