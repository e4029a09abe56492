//! Exact summaries of attention before it is pruned, per head.
//!
//! Of row i, which stands at position p = i + `first_query`, and over the raw weights:
//!
//! ```text
//! diagonal[i] = A[i, p]                 entropy[i] = - Σ_j A[i, j] · ln A[i, j]
//! previous[i] = A[i, p - 1]             mass[i, s] = Σ A[i, j] over the keys j of segment s
//!                                       received[j] = Σ A[i, j] over the rows i with p > j
//! ```
//!
//! How sums along a row run is told in [`sums`]. `received` is a float32 sum over the at most 64 rows of
//! a band, then float64 in the order of bands.

mod sums;

use std::ops::Range;

use crate::error::InputError;
use crate::reused::Reused;
use crate::simd::{InstructionSet, Kernel, LANES, Row, Simd, Stored};
pub(crate) use sums::{
    LARGE, Masses, MeanLog, PIECE, RowSums, add_w_log_w, entropies, exact_entropy,
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
    /// `[heads, queries, segments]`.
    pub mass: Vec<f32>,
}

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

/// Which rows of a matrix give what.
#[derive(Debug, Clone, Default)]
pub(crate) struct MarginalRows {
    /// Rows that give their diagonal.
    pub diagonal: Range<usize>,
    /// Rows that give `previous`, `entropy` and `mass`.
    pub detail: Range<usize>,
    /// Rows that are summed into `received`.
    pub received: Range<usize>,
    /// Segments of `mass`.
    pub segments: Segments,
}

/// Which marginals a row gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    /// Its diagonal.
    pub diagonal: bool,
    /// `previous`, `entropy` and `mass`.
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
    received: Reused<f32>,
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
            mass: vec![0.0; details * wanted.segments.count()],
        };
        Self {
            diagonal_rows,
            detail_rows,
            received_rows,
            received_keys,
            received: Reused::zeros(heads * received_keys),
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
    pub fn given(&self, row: usize) -> Given {
        Given {
            diagonal: self.diagonal_rows.contains(&row),
            detail: self.detail_rows.contains(&row),
            received: self.received_rows.contains(&row),
        }
    }

    /// The sums of a head's columns, in whole blocks of 16 keys, and the masses of some of its rows, of
    /// `segments` each; no masses where the rows have no detail.
    #[inline(always)]
    pub fn sums(
        &mut self,
        head: usize,
        rows: &Range<usize>,
        segments: usize,
    ) -> (&mut [f32], &mut [f32]) {
        let begin = head * self.received_keys;
        let received = &mut self.received[begin..begin + self.received_keys];
        (received, values_of(&mut self.values.mass, segments, &self.detail_rows, head, rows))
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

    /// The marginals, `received` divided by `count(key)`; or head and key of a sum that float32 does not
    /// hold.
    pub fn finish(mut self, count: impl Fn(usize) -> f64) -> Result<Marginals, (usize, usize)> {
        self.received.resize(self.heads * self.keys, 0.0);
        let counts: Vec<f64> = (0..self.keys).map(count).collect();
        let mut received = Vec::with_capacity(self.received.len());
        for sums in self.received.chunks_exact(self.keys.max(1)) {
            received.extend(sums.iter().zip(&counts).map(|(sum, count)| (sum / count) as f32));
        }
        if let Some(at) = received.iter().position(|sum| !sum.is_finite()) {
            return Err((at / self.keys, at % self.keys));
        }
        let join = |of: fn(&Marginals) -> &[f32]| join(self.heads, &self.values, of);
        Ok(Marginals {
            diagonal: join(|values| &values.diagonal),
            previous: join(|values| &values.previous),
            received,
            entropy: join(|values| &values.entropy),
            mass: join(|values| &values.mass),
        })
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
