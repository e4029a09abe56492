//! The attention graph of one layer of a stored trace, widened.

use std::ops::Range;

use half::f16;

use super::damage::Damage;
use super::reader::Shard;
use super::rules::le;
use super::schema::{Dtype, Form, Tensor};
use crate::edges::{EdgeArrays, EdgeList};
use crate::error::ShardError;
use crate::sparsify::Combine;

/// One layer of a trace, as its run's manifest tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Its place among the captured ones.
    pub at: usize,
    /// Its heads, which may be fewer than other layers have.
    pub heads: usize,
    /// How heads were combined.
    pub combine: Combine,
}

/// A tensor of the trace.
type Read<'a> = (&'a Form, &'a [u8]);

impl Shard {
    /// The edges of one layer of the trace at `position`.
    ///
    /// The share of a row's mass that its edges hold is known where the row's mass is stored; it is NaN
    /// for other rows, and for all where heads were combined by their maximum.
    ///
    /// # Errors
    /// [`ShardError::Damaged`], naming what is wrong.
    pub fn layer(&self, position: usize, layer: Layer) -> Result<EdgeList, ShardError> {
        let read = |tensor: Tensor| {
            let found = self.tensor(position, tensor)?;
            found.ok_or_else(|| self.damaged(Damage::NoTensor { tensor, position }))
        };
        let mass = read(Tensor::Mass)?;
        let (indptr, offset) = (read(Tensor::EdgesIndptr)?, read(Tensor::EdgesOffset)?.1);
        let (key, weight) = (read(Tensor::EdgesKey)?, read(Tensor::EdgesWeight)?);
        let graphs = graphs_of(layer, mass.0, indptr.0);
        let edges = graphs.as_ref().and_then(|graphs| Some((graphs, span(offset, graphs)?)));
        let Some((graphs, edges)) = edges else {
            return Err(self.damaged(Damage::NoLayer { layer, position }));
        };
        let tokens = indptr.0.shape[1] - 1;
        let weights = widened(weight, &edges);
        let indptr = starts(indptr.1, offset, graphs, tokens);
        let retained = retained(layer, mass, &indptr, &weights, tokens);
        let arrays = EdgeArrays { indptr, keys: keys(key, &edges), weights, retained };
        Ok(EdgeList::of([graphs.len(), tokens, tokens], arrays))
    }
}

/// The graphs of a layer among those of the trace; `None` where there is no such layer.
fn graphs_of(layer: Layer, mass: &Form, indptr: &Form) -> Option<Range<usize>> {
    let (layers, heads) = (mass.shape[0], mass.shape[1]);
    let each = indptr.shape[0].checked_div(layers)?;
    let count = layer.combine.graphs(layer.heads);
    let is_there = layer.at < layers && layer.heads <= heads && count <= each;
    is_there.then(|| layer.at * each..layer.at * each + count)
}

/// Where the edges of some graphs are; `None` where offsets that nobody checked do not say.
fn span(offset: &[u8], graphs: &Range<usize>) -> Option<Range<usize>> {
    let begin = usize::try_from(offset_of(offset, graphs.start)).ok()?;
    let end = usize::try_from(offset_of(offset, graphs.end)).ok()?;
    Some(begin..end)
}

fn offset_of(offset: &[u8], graph: usize) -> i64 {
    le(&offset[8 * graph..8 * graph + 8], i64::from_le_bytes)
}

/// Where each row of the graphs begins among their edges.
fn starts(indptr: &[u8], offset: &[u8], graphs: &Range<usize>, tokens: usize) -> Vec<i64> {
    let first = offset_of(offset, graphs.start);
    let mut starts = Vec::with_capacity(graphs.len() * tokens + 1);
    for graph in graphs.clone() {
        let base = offset_of(offset, graph).wrapping_sub(first);
        let begin = 4 * graph * (tokens + 1);
        let rows = indptr[begin..begin + 4 * tokens].chunks_exact(4);
        starts.extend(rows.map(|row| base.wrapping_add(le(row, i32::from_le_bytes).into())));
    }
    starts.push(offset_of(offset, graphs.end).wrapping_sub(first));
    starts
}

/// The elements of a range, as bytes; those beyond the end are left out.
fn elements<'a>((form, bytes): Read<'a>, range: &Range<usize>) -> std::slice::ChunksExact<'a, u8> {
    let size = form.dtype.size();
    let end = bytes.len().min(range.end.saturating_mul(size));
    bytes[end.min(range.start.saturating_mul(size))..end].chunks_exact(size)
}

fn keys(key: Read<'_>, edges: &Range<usize>) -> Vec<i32> {
    let keys = elements(key, edges);
    match key.0.dtype {
        Dtype::U16 => keys.map(|key| le(key, u16::from_le_bytes).into()).collect(),
        _ => keys.map(|key| le(key, i32::from_le_bytes)).collect(),
    }
}

fn widened(stored: Read<'_>, range: &Range<usize>) -> Vec<f32> {
    let values = elements(stored, range);
    match stored.0.dtype {
        Dtype::F16 => values.map(|value| le(value, f16::from_le_bytes).to_f32()).collect(),
        _ => values.map(|value| le(value, f32::from_le_bytes)).collect(),
    }
}

/// Share of the mass of each (graph, row) that its edges hold.
fn retained(
    layer: Layer,
    mass: Read<'_>,
    indptr: &[i64],
    weights: &[f32],
    tokens: usize,
) -> Vec<f32> {
    let [_, most_heads, rows, segments] = mass.0.shape[..] else { return Vec::new() };
    let first = layer.at * most_heads * rows * segments;
    let mass = widened(mass, &(first..first + layer.heads * rows * segments));
    let graphs = layer.combine.graphs(layer.heads);
    let mut retained = vec![f32::NAN; graphs * tokens];
    let heads_of = |graph: usize| match layer.combine {
        Combine::Each => graph..graph + 1,
        Combine::Mean => 0..layer.heads,
        Combine::Max => 0..0,
    };
    for graph in 0..graphs {
        let heads = heads_of(graph);
        for row in 0..if heads.is_empty() { 0 } else { rows } {
            let of_head = |head: usize| {
                let begin = (head * rows + row) * segments;
                mass[begin..begin + segments].iter().sum::<f32>()
            };
            let mass = heads.clone().map(of_head).sum::<f32>() / heads.len() as f32;
            let number = graph * tokens + tokens - rows + row;
            let [begin, end] = [number, number + 1].map(|at| indptr[at].cast_unsigned() as usize);
            let kept =
                weights.get(begin..end).unwrap_or(&[]).iter().map(|&weight| f64::from(weight));
            retained[number] =
                if mass > 0.0 { (kept.sum::<f64>() / f64::from(mass)) as f32 } else { 1.0 };
        }
    }
    retained
}
