//! The pass over a block of rows.
//!
//! Bands are a function of the shape alone and are joined in order, so the result does not depend on the
//! number of threads. A small block stays on the thread that called: waking another costs more.

use std::ops::Range;

use rayon::prelude::*;

use super::Plan;
use crate::attention::AttentionView;
use crate::edges::EdgeBand;
use crate::error::{InputError, Place};
use crate::marginals::MarginalBand;
use crate::sparsify::Combine;
use crate::sparsify::kernels::{add_into, divide, find_unsound, is_sound, max_into};
use crate::sparsify::select::Selector;

/// Weights from which on a second thread is worth waking.
const PARALLEL: usize = 150_000;

/// Rows whose combined heads stay in the cache while all heads pass.
const TILE_ROWS: usize = 4;

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

/// Reduces blocks, and gives (number of the block, band) in order.
pub(super) fn sweep(blocks: &[Block<'_>]) -> Result<Vec<(usize, Band)>, InputError> {
    let tasks: Vec<(usize, Range<usize>)> = blocks
        .iter()
        .enumerate()
        .flat_map(|(number, block)| bands(block.view.queries()).map(move |rows| (number, rows)))
        .collect();
    let reduce = |(number, rows): (usize, Range<usize>)| {
        Pass::new(&blocks[number], rows).run().map(|band| (number, band))
    };
    let weights: usize = blocks.iter().map(Block::weights).sum();
    if weights < PARALLEL || tasks.len() < 2 {
        return tasks.into_iter().map(reduce).collect();
    }
    // Collected before it is searched for errors, so that the first one is always the same.
    let reduced: Vec<_> = tasks.into_par_iter().with_max_len(1).map(reduce).collect();
    reduced.into_iter().collect()
}

impl Block<'_> {
    /// How many weights are read.
    fn weights(&self) -> usize {
        let rows = 0..self.view.queries();
        self.view.heads() * rows.map(|query| self.view.readable(query)).sum::<usize>()
    }
}

/// The bands of a block: eight of them, within 8 and 64 rows each.
fn bands(queries: usize) -> impl Iterator<Item = Range<usize>> {
    let size = queries.div_ceil(8).next_multiple_of(TILE_ROWS).clamp(8, 64);
    (0..queries).step_by(size).map(move |begin| begin..queries.min(begin + size))
}

/// The pass over one band.
struct Pass<'a> {
    block: &'a Block<'a>,
    rows: Range<usize>,
    keys: usize,
    scratch: Vec<f32>,
    combined: Vec<f32>,
    selector: Selector,
    band: Band,
}

impl<'a> Pass<'a> {
    fn new(block: &'a Block<'a>, rows: Range<usize>) -> Self {
        let (view, plan) = (&block.view, block.plan);
        let keys = rows.clone().last().map_or(0, |last| view.readable(last));
        let whole_rows = block.first_row + rows.start..block.first_row + rows.end;
        let marginals = MarginalBand::new(&plan.marginals, view.heads(), &whole_rows, keys);
        let edges = EdgeBand { rows: rows.len(), ..EdgeBand::default() };
        Self {
            block,
            keys,
            scratch: vec![0.0; keys],
            combined: Vec::new(),
            selector: Selector::new(plan.rules, keys),
            band: Band { edges, marginals },
            rows,
        }
    }

    fn run(mut self) -> Result<Band, InputError> {
        let combine = self.block.plan.combine;
        let rows = self.rows.clone();
        // Heads apart from each other need no tiles, and come out head by head.
        let size = if combine == Combine::Each { rows.len().max(1) } else { TILE_ROWS };
        for begin in rows.clone().step_by(size) {
            let tile = begin..rows.end.min(begin + size);
            self.reduce_heads(&tile)?;
            if combine != Combine::Each {
                self.select_combined(&tile)?;
            }
        }
        Ok(self.band)
    }

    /// Passes all heads of a tile: marginals, and heads combined or edges of each.
    fn reduce_heads(&mut self, tile: &Range<usize>) -> Result<(), InputError> {
        let Block { view, first_row, plan, .. } = *self.block;
        self.combined.clear();
        if plan.combine != Combine::Each {
            self.combined.resize(tile.len() * self.keys, 0.0);
        }
        for head in 0..view.heads() {
            for query in tile.clone() {
                let weights = view.row(head, query, &mut self.scratch);
                if !is_sound(weights) {
                    self.block.refuse_unsound(head, query, weights)?;
                }
                let row = first_row + query;
                let is_edge_row = plan.edge_rows.contains(&row);
                let begin = (query - tile.start) * self.keys;
                match plan.combine {
                    Combine::Each if !is_edge_row => self.band.edges.skip_row(),
                    Combine::Each => self.selector.select(weights, &mut self.band.edges),
                    Combine::Mean | Combine::Max if !is_edge_row => {}
                    Combine::Mean => add_into(&mut self.combined[begin..], weights),
                    Combine::Max => max_into(&mut self.combined[begin..], weights),
                }
                let position = view.position(query);
                let segments = &plan.marginals.segments;
                self.band.marginals.take(segments, (head, row), position, weights);
            }
        }
        Ok(())
    }

    /// Selects the edges of a tile whose heads have been combined.
    fn select_combined(&mut self, tile: &Range<usize>) -> Result<(), InputError> {
        let Block { view, first_row, plan, .. } = *self.block;
        for query in tile.clone() {
            if !plan.edge_rows.contains(&(first_row + query)) {
                self.band.edges.skip_row();
                continue;
            }
            let begin = (query - tile.start) * self.keys;
            let weights = &mut self.combined[begin..begin + view.readable(query)];
            if plan.combine == Combine::Mean && view.heads() > 0 {
                divide(weights, view.heads() as f32);
                if !is_sound(weights)
                    && let Some(key) = find_unsound(weights)
                {
                    let place = self.block.place(view.heads() - 1, query, key);
                    return Err(InputError::MeanOverflow { place });
                }
            }
            self.selector.select(weights, &mut self.band.edges);
        }
        Ok(())
    }
}

impl Block<'_> {
    fn place(&self, head: usize, query: usize, key: usize) -> Place {
        Place { sequence: self.sequence, head, query: self.first_row + query, key }
    }

    /// The error of a row that is not sound; none where it only held -0.0.
    fn refuse_unsound(&self, head: usize, query: usize, weights: &[f32]) -> Result<(), InputError> {
        match find_unsound(weights) {
            Some(key) => {
                let (value, place) = (weights[key], self.place(head, query, key));
                Err(InputError::Weight { value, place })
            }
            None => Ok(()),
        }
    }
}
