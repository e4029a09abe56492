//! Edges and marginals in one pass over memory.
//!
//! ```text
//! matrix, or block of rows of a batch                    LayerReducer::push, sparsify, marginals
//!   └─ bands of 8 to 64 rows, set by the shape           sweep: one task each, any thread
//!        └─ runs of rows of which the same is made,      runs
//!           in tiles that stay in the cache              band
//!             └─ head, four rows in one pass: check,     tile
//!                  ├─ combine heads, or select edges     sparsify
//!                  └─ diagonal, received, entropy, mass  marginals
//!   ┌─ bands in order
//!   ▼
//! Reduction: one sequence                                edges joined, `received` summed in float64
//! ```

mod band;
mod layer;
mod row_ranges;
mod sweep;
mod tile;
mod whole;

use std::ops::Range;

pub use layer::{LayerReducer, LayerReduction, SequenceShape};
pub use whole::{marginals, sparsify};

use crate::edges::EdgeBands;
use crate::marginals::{MarginalRows, MarginalSums};
use crate::simd::InstructionSet;
use crate::sparsify::{Combine, Rules};
use band::Band;

/// What a matrix is reduced to, in rows of the whole matrix.
#[derive(Debug, Clone)]
struct Plan {
    combine: Combine,
    rules: Rules,
    edge_rows: Range<usize>,
    marginals: MarginalRows,
}

/// One matrix on its way: the bands that came so far.
#[derive(Debug)]
struct Reduction {
    plan: Plan,
    edges: EdgeBands,
    marginals: MarginalSums,
}

impl Reduction {
    /// Nothing yet of a matrix of so many heads and keys.
    fn new(plan: Plan, heads: usize, keys: usize) -> Self {
        let edges = EdgeBands::new(plan.combine.graphs(heads));
        let marginals = MarginalSums::new(plan.marginals.clone(), heads, keys);
        Self { plan, edges, marginals }
    }

    /// Takes the band that follows.
    fn push(&mut self, set: InstructionSet, band: Band) {
        self.edges.push(band.edges);
        self.marginals.add(set, band.marginals);
    }
}
