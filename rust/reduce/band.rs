//! The pass over a band of rows.

use std::ops::Range;

use super::Plan;
use super::row_ranges::{Outputs, RowRange, TILE_ROWS};
use super::tile::{self, Sums};
use crate::attention::{AttentionView, Elements};
use crate::edges::EdgeBand;
use crate::error::{InputError, Place};
use crate::marginals::{LARGE, MarginalBand, RowMarginals, exact_entropy, exact_roughs};
use crate::simd::{InstructionSet, Kernel, LANES, LARGEST, Row, Rows, Simd, Stored};
use crate::sparsify::Combine;
use crate::sparsify::select::{Selector, Unsound};

/// The most edges of a row that memory is reserved for.
const MOST_RESERVED: usize = 128;

/// Edges of a row that memory is reserved for where rules do not say how many there are.
const RESERVED: usize = 16;

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
    /// Chunks of the rows of a tile, as float32.
    widened: [tile::Chunk; TILE_ROWS],
    /// Columns of rows that are not summed.
    unused: Vec<f32>,
    selector: Selector,
    band: Band,
}

impl<T: Stored> Kernel for Pass<'_, T> {
    type Output = Result<Band, InputError>;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> Self::Output {
        let (heads, runs) = (self.block.view.heads(), self.runs());
        if self.block.plan.combine == Combine::Each {
            for head in 0..heads {
                for run in &runs {
                    self.pass_head(simd, head, run)?;
                }
            }
        } else {
            for tile in runs.iter().flat_map(RowRange::tiles) {
                self.combined.fill(0.0);
                for head in 0..heads {
                    self.pass_head(simd, head, &tile)?;
                }
                self.select_combined(simd, &tile)?;
            }
        }
        self.band.edges.finish(simd);
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
        let most = plan.rules.top_k().map_or(RESERVED, |k| k.min(MOST_RESERVED)).min(keys);
        let graphs = plan.combine.graphs(view.heads());
        let with_edges = whole_rows.clone().filter(|row| plan.edge_rows.contains(row)).count();
        // Heads that are combined give one row at a time.
        let rows_at_once = if plan.combine == Combine::Each { rows.len() } else { 1 };
        let edges = EdgeBand::new(graphs, rows.len(), graphs * with_edges * most);
        Self {
            block,
            memory,
            stride,
            combined: vec![0.0; TILE_ROWS * stride],
            widened: [[[0.0; LANES]; tile::CHUNK]; TILE_ROWS],
            unused: vec![0.0; stride],
            selector: Selector::new(plan.rules, keys, rows_at_once),
            band: Band { edges, marginals },
            rows,
        }
    }

    /// Rows of one head.
    #[inline(always)]
    fn rows(&self, head: usize, queries: &Range<usize>) -> Rows<'a, T> {
        let view = &self.block.view;
        let stride = view.offset(0, 1);
        // What comes next is the same rows of the next head, or without tiles the next row.
        let next = match self.block.plan.combine {
            Combine::Each => stride,
            Combine::Mean | Combine::Max => view.offset(1, 0),
        };
        let keys = view.readable(queries.start);
        let more = if queries.len() > 1 { view.readable(queries.start + 1) - keys } else { 0 };
        let memory = &self.memory[view.offset(head, queries.start)..];
        Rows::new(memory, queries.len(), stride, (keys, more), next)
    }

    /// The rows of the band.
    fn runs(&self) -> Vec<RowRange> {
        RowRange::of(self.rows.clone(), |query| {
            let row = self.block.first_row + query;
            Outputs {
                edges: self.block.plan.edge_rows.contains(&row),
                marginals: self.band.marginals.of_row(row),
            }
        })
    }

    /// Passes some rows of one head, four at once.
    #[inline(always)]
    fn pass_head<S: Simd>(
        &mut self,
        simd: S,
        head: usize,
        run: &RowRange,
    ) -> Result<(), InputError> {
        let RowRange { ref rows, outputs } = *run;
        if self.block.plan.combine == Combine::Each && self.band.marginals.is_empty() {
            let several = self.rows(head, rows);
            return self.select_rows(simd, head, (rows.start, several), outputs);
        }
        let mut query = rows.start;
        while query + TILE_ROWS <= rows.end {
            self.pass_rows::<S, TILE_ROWS>(simd, head, query, run)?;
            query += TILE_ROWS;
        }
        while query < rows.end {
            self.pass_rows::<S, 1>(simd, head, query, run)?;
            query += 1;
        }
        Ok(())
    }

    /// Passes `ROWS` rows of a run from `query` on: marginals, heads combined, edges of each.
    #[inline(always)]
    fn pass_rows<S: Simd, const ROWS: usize>(
        &mut self,
        simd: S,
        head: usize,
        query: usize,
        run: &RowRange,
    ) -> Result<(), InputError> {
        let Block { view, first_row, plan, .. } = *self.block;
        let several = self.rows(head, &(query..query + ROWS));
        let rows: [Row<'_, T>; ROWS] = std::array::from_fn(|at| several.get(at));
        let selects = plan.combine == Combine::Each;
        let RowMarginals { diagonal, received, .. } = run.outputs.marginals;
        if diagonal || received || !selects {
            self.sum_rows(simd, head, query, run, &rows)?;
        }
        let number = first_row + query;
        self.band.marginals.take(head, &(number..number + ROWS), view.position(query), &rows);
        if selects {
            self.select_rows(simd, head, (query, several), run.outputs)?;
        }
        Ok(())
    }

    /// Selects the edges of the rows of one head from `query` on, if they give any.
    #[inline(always)]
    fn select_rows<S: Simd>(
        &mut self,
        simd: S,
        head: usize,
        (query, rows): (usize, Rows<'_, T>),
        outputs: Outputs,
    ) -> Result<(), InputError> {
        if !outputs.edges {
            self.band.edges.skip_rows(rows.count());
            return Ok(());
        }
        match self.selector.select(simd, rows, &mut self.band.edges) {
            Ok(()) => Ok(()),
            Err(Unsound(row)) => self.refuse_unsound(head, query + row, &[rows.get(row)]),
        }
    }

    /// Adds the weights of rows to all that they add to.
    #[inline(always)]
    fn sum_rows<S: Simd, const ROWS: usize>(
        &mut self,
        simd: S,
        head: usize,
        query: usize,
        run: &RowRange,
        rows: &[Row<'_, T>; ROWS],
    ) -> Result<(), InputError> {
        let Block { view, first_row, plan, .. } = *self.block;
        let Outputs { edges, marginals: RowMarginals { diagonal, received, detail } } = run.outputs;
        let combine = if edges { plan.combine } else { Combine::Each };
        // Without a tile nothing is combined.
        let begin =
            if combine == Combine::Each { 0 } else { (query - run.rows.start) * self.stride };
        let number = first_row + query;
        let (numbers, segments) = (number..number + ROWS, &plan.marginals.segments);
        let (columns, values) = self.band.marginals.sums(head, &numbers, segments.count());
        let sums = Sums {
            received: if received { columns } else { &mut self.unused },
            combined: &mut self.combined[begin..begin + ROWS * self.stride],
            combine,
            segments,
            values,
            widened: &mut self.widened,
        };
        let position = view.position(query);
        let result = match (diagonal, detail) {
            (_, true) => simd.run_fused(tile::Pass::<T, ROWS, true, true> { rows, position, sums }),
            (true, false) => {
                simd.run_fused(tile::Pass::<T, ROWS, true, false> { rows, position, sums })
            }
            (false, false) => {
                simd.run(tile::Pass::<T, ROWS, false, false> { rows, position, sums })
            }
        };
        if result.bits > LARGEST {
            self.refuse_unsound(head, query, rows)?;
        }
        if let Some(at) = result.squares.iter().position(|square| !square.is_finite()) {
            let place = self.block.place(head, query + at, rows[at].keys() - 1);
            return Err(InputError::SumOverflow { place });
        }
        self.band.marginals.take_squares(head, &numbers, &result.squares);
        if detail {
            let mut entropies = result.entropies;
            if result.largest > LARGE {
                self.redo_large(head, &numbers, rows, &mut entropies);
            }
            self.band.marginals.take_entropies(head, &numbers, &entropies);
        }
        Ok(())
    }

    /// Entropies and roughness of rows with a large mass, each row for itself: which rows share a tile must not
    /// matter.
    #[cold]
    fn redo_large<const ROWS: usize>(
        &mut self,
        head: usize,
        numbers: &Range<usize>,
        rows: &[Row<'_, T>; ROWS],
        entropies: &mut [f32; ROWS],
    ) {
        let segments = &self.block.plan.marginals.segments;
        let (_, values) = self.band.marginals.sums(head, numbers, segments.count());
        let masses = values.masses.chunks_exact(segments.count());
        let values = masses.zip(values.roughs.chunks_exact_mut(segments.count()));
        for ((row, entropy), (masses, roughs)) in rows.iter().zip(entropies).zip(values) {
            if masses.iter().all(|&mass| mass <= LARGE) {
                continue;
            }
            let weights = || row.elements().iter().map(|weight| weight.widen());
            if weights().any(|weight| weight > 1.0) {
                *entropy = exact_entropy(weights());
            }
            exact_roughs(&weights().map(f64::from).collect::<Vec<_>>(), segments, roughs);
        }
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
    fn select_combined<S: Simd>(&mut self, simd: S, tile: &RowRange) -> Result<(), InputError> {
        let Block { view, plan, .. } = *self.block;
        if !tile.outputs.edges {
            self.band.edges.skip_rows(tile.rows.len());
            return Ok(());
        }
        for (at, query) in tile.rows.clone().enumerate() {
            let sums = &mut self.combined[at * self.stride..(at + 1) * self.stride];
            if plan.combine == Combine::Mean && view.heads() > 0 {
                tile::divide(simd, sums, view.heads() as f32);
            }
            let row = Row::new(&*sums, view.readable(query), 0);
            if self.selector.select(simd, row.into(), &mut self.band.edges).is_err()
                && let Some((key, _)) = row.find_unsound()
            {
                let place = self.block.place(view.heads() - 1, query, key);
                return Err(InputError::MeanOverflow { place });
            }
        }
        Ok(())
    }
}
