//! Exact summaries of attention before it is pruned, per head.
//!
//! Of row i, which stands at position p = i + `first_query`, and over the raw weights:
//!
//! ```text
//! diagonal[i] = A[i, p]                 entropy[i] = - Σ_j A[i, j] · ln A[i, j]
//! previous[i] = A[i, p - 1]             received[j] = Σ A[i, j] over the rows i with p > j
//! square[i] = Σ_j A[i, j]²              mass[i, s] = Σ A[i, j] over the keys j of segment s
//! rough[i, s] = √ Σ_j (a[j - 1] - 2 a[j] + a[j + 1])² over all j, where a[j] = A[i, j] at the keys j of
//!     segment s up to p, and 0 at all others, so that the sum has a term for the key before the first and
//!     one for the key after the last
//! ```
//!
//! `square` is the Rényi entropy of order 2 before its logarithm (Head Entropy, arXiv 2602.13699). `rough`
//! is the norm of the row after the filter [1, -2, 1] (frequency-aware detection, arXiv 2602.18145).
//!
//! How sums along a row run is told in [`sums`]. `received` is a float32 sum over the at most 64 rows of
//! a band, then float64 in the order of bands.

mod segments;
mod sums;

use std::ops::Range;

use crate::simd::{InstructionSet, Kernel, LANES, Row, Simd, Stored};
pub use segments::Segments;
pub(crate) use segments::{LARGE, SegmentSums, SegmentValues, exact_roughs};
pub(crate) use sums::{
    Logarithm, MeanLog, PIECE, RowSums, add_square, add_squared_differences, entropies,
    exact_entropy, shifted,
};

/// The marginals of one matrix, row-major, one row of everything per head.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Marginals {
    /// `[heads, queries]`.
    pub diagonal: Vec<f32>,
    /// `[heads, queries]`.
    pub previous: Vec<f32>,
    /// `[heads, keys]`.
    pub received: Vec<f32>,
    /// `[heads, queries]`, in nats.
    pub entropy: Vec<f32>,
    /// `[heads, queries]`.
    pub square: Vec<f32>,
    /// `[heads, queries, segments]`.
    pub mass: Vec<f32>,
    /// `[heads, queries, segments]`.
    pub rough: Vec<f32>,
}

/// Which rows of a matrix give what.
#[derive(Debug, Clone, Default)]
pub(crate) struct MarginalRows {
    /// Rows that give `diagonal` and `square`.
    pub diagonal: Range<usize>,
    /// Rows of these that give `previous`, `entropy`, `mass` and `rough` too.
    pub detail: Range<usize>,
    /// Rows that are summed into `received`.
    pub received: Range<usize>,
    /// Segments of `mass` and `rough`.
    pub segments: Segments,
}

/// Which marginals a row gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowMarginals {
    /// `diagonal` and `square`.
    pub diagonal: bool,
    /// `previous`, `entropy`, `mass` and `rough`.
    pub detail: bool,
    /// Its part of `received`.
    pub received: bool,
}

/// The marginals of a band of rows.
#[derive(Debug)]
pub(crate) struct MarginalBand {
    diagonal_rows: Range<usize>,
    detail_rows: Range<usize>,
    received_rows: Range<usize>,
    /// Whole blocks of 16.
    received_keys: usize,
    received: Vec<f32>,
    /// All but `received`.
    values: Marginals,
}

impl MarginalBand {
    /// Room for the rows of a band; its rows read at most `keys` keys.
    pub fn new(wanted: &MarginalRows, heads: usize, rows: &Range<usize>, keys: usize) -> Self {
        let diagonal_rows = intersect(&wanted.diagonal, rows);
        let detail_rows = intersect(&wanted.detail, rows);
        let received_rows = intersect(&wanted.received, rows);
        let whole_blocks = keys.next_multiple_of(LANES);
        let received_keys = if received_rows.is_empty() { 0 } else { whole_blocks };
        let details = heads * detail_rows.len();
        let values = Marginals {
            diagonal: vec![0.0; heads * diagonal_rows.len()],
            previous: vec![0.0; details],
            received: Vec::new(),
            entropy: vec![0.0; details],
            square: vec![0.0; heads * diagonal_rows.len()],
            mass: vec![0.0; details * wanted.segments.count()],
            rough: vec![0.0; details * wanted.segments.count()],
        };
        Self {
            diagonal_rows,
            detail_rows,
            received_rows,
            received_keys,
            received: vec![0.0; heads * received_keys],
            values,
        }
    }

    /// Whether no row gives anything.
    pub fn is_empty(&self) -> bool {
        [&self.diagonal_rows, &self.detail_rows, &self.received_rows]
            .iter()
            .all(|rows| rows.is_empty())
    }

    /// What a row gives.
    pub fn of_row(&self, row: usize) -> RowMarginals {
        RowMarginals {
            diagonal: self.diagonal_rows.contains(&row),
            detail: self.detail_rows.contains(&row),
            received: self.received_rows.contains(&row),
        }
    }

    /// The sums of a head's columns, in whole blocks of 16 keys, and the values of some of its rows for
    /// each of so many segments; none of these where the rows have no detail.
    #[inline(always)]
    pub fn sums(
        &mut self,
        head: usize,
        rows: &Range<usize>,
        segments: usize,
    ) -> (&mut [f32], SegmentValues<'_>) {
        let begin = head * self.received_keys;
        let received = &mut self.received[begin..begin + self.received_keys];
        let kept = &self.detail_rows;
        let masses = values_of(&mut self.values.mass, segments, kept, head, rows);
        let roughs = values_of(&mut self.values.rough, segments, kept, head, rows);
        (received, SegmentValues { masses, roughs })
    }

    /// Takes what single weights of some rows give; the first row stands at `position`.
    #[inline(always)]
    pub fn take<T: Stored>(
        &mut self,
        head: usize,
        rows: &Range<usize>,
        position: usize,
        weights: &[Row<'_, T>],
    ) {
        let diagonal = values_of(&mut self.values.diagonal, 1, &self.diagonal_rows, head, rows);
        for (at, (value, weights)) in diagonal.iter_mut().zip(weights).enumerate() {
            *value = weights.get(position + at);
        }
        let previous = values_of(&mut self.values.previous, 1, &self.detail_rows, head, rows);
        for (at, (value, weights)) in previous.iter_mut().zip(weights).enumerate() {
            *value = (position + at).checked_sub(1).map_or(0.0, |key| weights.get(key));
        }
    }

    /// Takes the squares of some rows, if they give them.
    #[inline(always)]
    pub fn take_squares(&mut self, head: usize, rows: &Range<usize>, squares: &[f32]) {
        let kept = values_of(&mut self.values.square, 1, &self.diagonal_rows, head, rows);
        for (kept, &square) in kept.iter_mut().zip(squares) {
            *kept = square;
        }
    }

    /// Takes the entropies of some rows that have detail.
    #[inline(always)]
    pub fn take_entropies(&mut self, head: usize, rows: &Range<usize>, entropies: &[f32]) {
        values_of(&mut self.values.entropy, 1, &self.detail_rows, head, rows)
            .copy_from_slice(entropies);
    }
}

/// The marginals of a whole matrix on their way: the bands that came so far.
#[derive(Debug)]
pub(crate) struct MarginalSums {
    rows: MarginalRows,
    heads: usize,
    keys: usize,
    /// Empty until a band has some.
    received: Vec<f64>,
    /// All but `received`, band by band.
    values: Vec<Marginals>,
}

impl MarginalSums {
    /// Nothing yet of the rows wanted.
    pub fn new(rows: MarginalRows, heads: usize, keys: usize) -> Self {
        Self { rows, heads, keys, received: Vec::new(), values: Vec::new() }
    }

    /// The rows that were asked for.
    pub fn rows(&self) -> &MarginalRows {
        &self.rows
    }

    /// Takes the band that follows.
    pub fn add(&mut self, set: InstructionSet, band: MarginalBand) {
        if band.received_keys > 0 {
            self.received.resize(self.heads * self.keys, 0.0);
            set.run(AddColumns { sums: &mut self.received, keys: self.keys, band: &band });
        }
        self.values.push(band.values);
    }

    /// The marginals, `received` divided by `count(key)`.
    ///
    /// Columns of fewer than 2^31 rows stay finite: the square of each weight is.
    pub fn finish(mut self, count: impl Fn(usize) -> f64) -> Marginals {
        self.received.resize(self.heads * self.keys, 0.0);
        let counts: Vec<f64> = (0..self.keys).map(count).collect();
        let mut received = Vec::with_capacity(self.received.len());
        for sums in self.received.chunks_exact(self.keys.max(1)) {
            received.extend(sums.iter().zip(&counts).map(|(sum, count)| (sum / count) as f32));
        }
        let join = |of: fn(&Marginals) -> &[f32]| join(self.heads, &self.values, of);
        Marginals {
            diagonal: join(|values| &values.diagonal),
            previous: join(|values| &values.previous),
            received,
            entropy: join(|values| &values.entropy),
            square: join(|values| &values.square),
            mass: join(|values| &values.mass),
            rough: join(|values| &values.rough),
        }
    }
}

/// One kind of values, head by head, from those of each band, head by head.
fn join(heads: usize, bands: &[Marginals], of: fn(&Marginals) -> &[f32]) -> Vec<f32> {
    let mut all = Vec::with_capacity(bands.iter().map(|band| of(band).len()).sum());
    for head in 0..heads {
        for values in bands.iter().map(of) {
            let width = values.len() / heads;
            all.extend_from_slice(&values[head * width..(head + 1) * width]);
        }
    }
    all
}

/// Adds the columns of a band, which has some, to those of all.
struct AddColumns<'a> {
    sums: &'a mut [f64],
    keys: usize,
    band: &'a MarginalBand,
}

impl Kernel for AddColumns<'_> {
    type Output = ();

    /// The compiler makes vectors.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let new = self.band.received.chunks_exact(self.band.received_keys);
        for (sums, new) in self.sums.chunks_exact_mut(self.keys).zip(new) {
            for (sum, &new) in sums.iter_mut().zip(new) {
                *sum += f64::from(new);
            }
        }
    }
}

/// What rows of a head have in values of some width, of which the rows kept have all or none.
#[inline(always)]
fn values_of<'a>(
    values: &'a mut [f32],
    width: usize,
    kept: &Range<usize>,
    head: usize,
    rows: &Range<usize>,
) -> &'a mut [f32] {
    if !kept.contains(&rows.start) {
        return &mut [];
    }
    let begin = (head * kept.len() + rows.start - kept.start) * width;
    &mut values[begin..begin + rows.len() * width]
}

/// The rows in both.
fn intersect(one: &Range<usize>, other: &Range<usize>) -> Range<usize> {
    let start = one.start.max(other.start);
    start..one.end.min(other.end).max(start)
}
