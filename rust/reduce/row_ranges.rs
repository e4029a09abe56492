//! Consecutive rows of which the same is made.

use std::ops::Range;

use crate::marginals::RowMarginals;

/// Rows that are passed together: of one head, or while all heads are combined.
pub(super) const TILE_ROWS: usize = 4;

/// Consecutive rows of which the same is made.
#[derive(Debug)]
pub(super) struct RowRange {
    pub rows: Range<usize>,
    pub outputs: Outputs,
}

/// What is made of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outputs {
    /// Edges, of each head or of the heads combined.
    pub edges: bool,
    /// Marginals.
    pub marginals: RowMarginals,
}

impl RowRange {
    /// The runs of some rows.
    pub fn of(rows: Range<usize>, outputs: impl Fn(usize) -> Outputs) -> Vec<Self> {
        let rows: Vec<usize> = rows.collect();
        let runs = rows.chunk_by(|&one, &other| outputs(one) == outputs(other));
        let run =
            |run: &[usize]| Self { rows: run[0]..run[0] + run.len(), outputs: outputs(run[0]) };
        runs.map(run).collect()
    }

    /// The same rows, a tile at a time.
    pub fn tiles(&self) -> impl Iterator<Item = Self> {
        let (rows, outputs) = (self.rows.clone(), self.outputs);
        let end = rows.end;
        let tile = move |begin| Self { rows: begin..end.min(begin + TILE_ROWS), outputs };
        rows.step_by(TILE_ROWS).map(tile)
    }
}
