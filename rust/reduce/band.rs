//! The pass over a band of rows.

use std::ops::Range;

use super::Plan;
use super::tile::{self, Sums};
use crate::attention::{AttentionView, Elements};
use crate::edges::EdgeBand;
use crate::error::{InputError, Place};
use crate::marginals::MarginalBand;
use crate::simd::{InstructionSet, Kernel, LANES, LARGEST, Row, Simd, Stored};
use crate::sparsify::Combine;
use crate::sparsify::select::Selector;

/// Rows of one head that are passed together, and whose combined heads stay in the cache while all
/// heads pass.
pub(super) const TILE_ROWS: usize = 4;

/// The most edges of a row that memory is reserved for.
const MOST_RESERVED: usize = 64;

/// A block of consecutive rows of one matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// Which sequence of a batch, for messages.
    pub sequence: Option<usize>,
    /// The weights.
    pub view: AttentionView<'a>,
    /// Row 0 of the view in the whole matrix.
    pub first_row: usize,
    /// What to make of it.
    pub plan: &'a Plan,
}

/// What one band gave.
#[derive(Debug)]
pub(super) struct Band {
    pub edges: EdgeBand,
    pub marginals: MarginalBand,
}

/// Passes some rows of a block.
pub(super) fn reduce_band(
    set: InstructionSet,
    block: &Block<'_>,
    rows: Range<usize>,
) -> Result<Band, InputError> {
    match block.view.elements() {
        Elements::F32(memory) => set.run(Pass::new(block, memory, rows)),
        Elements::F16(memory) => set.run(Pass::new(block, memory, rows)),
        Elements::Bf16(memory) => set.run(Pass::new(block, memory, rows)),
    }
}

impl Block<'_> {
    fn place(&self, head: usize, query: usize, key: usize) -> Place {
        Place { sequence: self.sequence, head, query: self.first_row + query, key }
    }
}

/// The pass over one band.
struct Pass<'a, T> {
    block: &'a Block<'a>,
    memory: &'a [T],
    rows: Range<usize>,
    /// The most keys that a row reads, in whole blocks of 16.
    stride: usize,
    /// Heads combined, for each row of a tile.
    combined: Vec<f32>,
    /// Columns of rows that are not summed.
    unused: Vec<f32>,
    selector: Selector,
    band: Band,
}

/// What is made of a row, apart from edges of each head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts {
    combine: Combine,
    received: bool,
    detail: bool,
}

impl<T: Stored> Kernel for Pass<'_, T> {
    type Output = Result<Band, InputError>;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> Self::Output {
        let combine = self.block.plan.combine;
        let rows = self.rows.clone();
        // Heads apart from each other need no tiles, and come out head by head.
        let size = if combine == Combine::Each { rows.len().max(1) } else { TILE_ROWS };
        for begin in rows.clone().step_by(size) {
            let tile = begin..rows.end.min(begin + size);
            self.combined.fill(0.0);
            for head in 0..self.block.view.heads() {
                self.pass_head(simd, head, &tile)?;
            }
            if combine != Combine::Each {
                self.select_combined(simd, &tile)?;
            }
        }
        Ok(self.band)
    }
}

impl<'a, T: Stored> Pass<'a, T> {
    fn new(block: &'a Block<'a>, memory: &'a [T], rows: Range<usize>) -> Self {
        let (view, plan) = (&block.view, block.plan);
        let keys = rows.clone().last().map_or(0, |last| view.readable(last));
        let stride = keys.next_multiple_of(LANES);
        let whole_rows = block.first_row + rows.start..block.first_row + rows.end;
        let marginals = MarginalBand::new(&plan.marginals, view.heads(), &whole_rows, keys);
        // What `top_k` can keep; other rules grow as they go.
        let most = plan.rules.top_k().map_or(0, |k| k.min(keys).min(MOST_RESERVED));
        let graphs = plan.combine.graphs(view.heads());
        let edges = EdgeBand::new(graphs, rows.len(), graphs * rows.len() * most + LANES);
        Self {
            block,
            memory,
            stride,
            combined: vec![0.0; TILE_ROWS * stride],
            unused: vec![0.0; stride],
            selector: Selector::new(plan.rules, keys),
            band: Band { edges, marginals },
            rows,
        }
    }

    #[inline(always)]
    fn row(&self, head: usize, query: usize) -> Row<'a, T> {
        let view = &self.block.view;
        // What comes next is the same rows of the next head, or without tiles the next row.
        let next = match self.block.plan.combine {
            Combine::Each => view.offset(0, 1),
            Combine::Mean | Combine::Max => view.offset(1, 0),
        };
        Row::new(&self.memory[view.offset(head, query)..], view.readable(query), next)
    }

    /// Passes one head of a tile, four rows at once where as much is made of all of them.
    #[inline(always)]
    fn pass_head<S: Simd>(
        &mut self,
        simd: S,
        head: usize,
        tile: &Range<usize>,
    ) -> Result<(), InputError> {
        let mut query = tile.start;
        while query < tile.end {
            let parts = self.parts(query);
            let next = query + TILE_ROWS;
            if next <= tile.end && (query + 1..next).all(|next| self.parts(next) == parts) {
                self.pass_rows::<S, TILE_ROWS>(simd, head, query, tile.start, parts)?;
                query = next;
            } else {
                self.pass_rows::<S, 1>(simd, head, query, tile.start, parts)?;
                query += 1;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn parts(&self, query: usize) -> Parts {
        let Block { first_row, plan, .. } = *self.block;
        let row = first_row + query;
        let is_edge_row = plan.edge_rows.contains(&row);
        Parts {
            combine: if is_edge_row { plan.combine } else { Combine::Each },
            received: self.band.marginals.has_received(row),
            detail: self.band.marginals.has_detail(row),
        }
    }

    /// Passes `ROWS` rows from `query` on: marginals, heads combined, edges of each.
    #[inline(always)]
    fn pass_rows<S: Simd, const ROWS: usize>(
        &mut self,
        simd: S,
        head: usize,
        query: usize,
        first: usize,
        parts: Parts,
    ) -> Result<(), InputError> {
        let Block { view, first_row, plan, .. } = *self.block;
        let rows: [Row<'_, T>; ROWS] = std::array::from_fn(|at| self.row(head, query + at));
        let selects = plan.combine == Combine::Each;
        if parts.received || parts.detail || !selects {
            // Without a tile nothing is combined.
            let begin = if selects { 0 } else { (query - first) * self.stride };
            let end = begin + ROWS * self.stride;
            let number = first_row + query;
            let (numbers, segments) = (number..number + ROWS, &plan.marginals.segments);
            let (received, masses) = self.band.marginals.sums(head, &numbers, segments.count());
            let sums = Sums {
                received: if parts.received { received } else { &mut self.unused },
                combined: &mut self.combined[begin..end],
                combine: parts.combine,
                masses,
                segments,
            };
            let position = view.position(query);
            let passed = if parts.detail {
                simd.run_fused(tile::Pass::<T, ROWS, true> { rows, position, sums })
            } else {
                tile::Pass::<T, ROWS, false> { rows, position, sums }.run(simd)
            };
            if passed.top > LARGEST {
                self.refuse_unsound(head, query, &rows)?;
            }
            if parts.detail {
                for (at, &entropy) in passed.entropies.iter().enumerate() {
                    self.band.marginals.take_entropy((head, first_row + query + at), entropy);
                }
            }
        }
        for (at, &row) in rows.iter().enumerate() {
            let (query, number) = (query + at, first_row + query + at);
            self.band.marginals.take((head, number), view.position(query), row);
            if selects && !plan.edge_rows.contains(&number) {
                self.band.edges.skip_row();
            } else if selects && self.selector.select(simd, row, &mut self.band.edges).is_err() {
                self.refuse_unsound(head, query, &[row])?;
            }
        }
        Ok(())
    }

    /// The error of the first bad weight; none where rows only held -0.0.
    #[cold]
    fn refuse_unsound(
        &self,
        head: usize,
        query: usize,
        rows: &[Row<'_, T>],
    ) -> Result<(), InputError> {
        for (at, row) in rows.iter().enumerate() {
            if let Some((key, value)) = row.find_unsound() {
                let place = self.block.place(head, query + at, key);
                return Err(InputError::Weight { value, place });
            }
        }
        Ok(())
    }

    /// Selects the edges of a tile whose heads have been combined.
    #[inline(always)]
    fn select_combined<S: Simd>(&mut self, simd: S, tile: &Range<usize>) -> Result<(), InputError> {
        let Block { view, first_row, plan, .. } = *self.block;
        for query in tile.clone() {
            if !plan.edge_rows.contains(&(first_row + query)) {
                self.band.edges.skip_row();
                continue;
            }
            let begin = (query - tile.start) * self.stride;
            let sums = &mut self.combined[begin..begin + self.stride];
            if plan.combine == Combine::Mean && view.heads() > 0 {
                tile::divide(simd, sums, view.heads() as f32);
            }
            let row = Row::new(&*sums, view.readable(query), 0);
            if self.selector.select(simd, row, &mut self.band.edges).is_err()
                && let Some((key, _)) = row.find_unsound()
            {
                let place = self.block.place(view.heads() - 1, query, key);
                return Err(InputError::MeanOverflow { place });
            }
        }
        Ok(())
    }
}
