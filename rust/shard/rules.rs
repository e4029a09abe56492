//! What the data of a trace has to be, beyond its shapes; the writer asks before it writes, the reader
//! before it hands out.

use super::header_layout::TraceEntry;
use super::meta;
use super::schema::{Disagreement, Dtype, Tensor};
use super::schema_violation::Violation;

/// The rules of a trace's data: edges that form CSR graphs of the past, and a meta that says the same.
///
/// `data` begins `base` bytes into the data section.
pub(super) fn check(trace: &TraceEntry, base: usize, data: &[u8]) -> Result<(), Disagreement> {
    check_edges(trace, base, data)?;
    check_meta(trace, base, data)
}

/// The rules of its meta alone.
pub(super) fn check_meta(trace: &TraceEntry, base: usize, data: &[u8]) -> Result<(), Disagreement> {
    meta::check(trace, stored(trace, base, data, Tensor::Meta).1)
        .map_err(|found| (Tensor::Meta, found.into()))
}

/// Element type and bytes of a tensor.
fn stored<'a>(
    trace: &TraceEntry,
    base: usize,
    data: &'a [u8],
    tensor: Tensor,
) -> (Dtype, &'a [u8]) {
    let at = trace.tensors.iter().find(|entry| entry.tensor == tensor);
    at.map_or((Dtype::U8, &[]), |at| (at.form.dtype, &data[at.begin - base..at.end - base]))
}

/// The rules of its edges alone.
pub(super) fn check_edges(
    trace: &TraceEntry,
    base: usize,
    data: &[u8],
) -> Result<(), Disagreement> {
    let bytes = |tensor| stored(trace, base, data, tensor);
    let offsets: Vec<i64> =
        bytes(Tensor::EdgesOffset).1.chunks_exact(8).map(|b| le(b, i64::from_le_bytes)).collect();
    let indptr: Vec<i32> =
        bytes(Tensor::EdgesIndptr).1.chunks_exact(4).map(|b| le(b, i32::from_le_bytes)).collect();
    let keys: Vec<u32> = match bytes(Tensor::EdgesKey) {
        (Dtype::U16, keys) => {
            keys.chunks_exact(2).map(|b| le(b, u16::from_le_bytes).into()).collect()
        }
        (_, keys) => keys.chunks_exact(4).map(|b| le(b, u32::from_le_bytes)).collect(),
    };
    let graphs = offsets.len().saturating_sub(1);
    let rows = indptr.len().checked_div(graphs).unwrap_or(0);
    if offsets.first() != Some(&0) || offsets.last() != i64::try_from(keys.len()).ok().as_ref() {
        return Err((Tensor::EdgesOffset, Violation::OffsetsSpan { edges: keys.len() }));
    }
    for (graph, span) in offsets.windows(2).enumerate() {
        let keys = usize::try_from(span[0])
            .ok()
            .zip(usize::try_from(span[1]).ok())
            .and_then(|(begin, end)| keys.get(begin..end))
            .ok_or((Tensor::EdgesOffset, Violation::Offsets { span: [span[0], span[1]] }))?;
        check_graph(&indptr[graph * rows..(graph + 1) * rows], keys)?;
    }
    Ok(())
}

/// One graph: row starts from 0 up, and in each row keys that ascend and do not follow their query.
fn check_graph(indptr: &[i32], keys: &[u32]) -> Result<(), Disagreement> {
    let ends = (indptr.first(), indptr.last().map(|&end| usize::try_from(end)));
    if ends != (Some(&0), Some(Ok(keys.len()))) {
        return Err((Tensor::EdgesIndptr, Violation::RowsSpan { edges: keys.len() }));
    }
    for (row, span) in indptr.windows(2).enumerate() {
        let keys = usize::try_from(span[0])
            .ok()
            .zip(usize::try_from(span[1]).ok())
            .and_then(|(begin, end)| keys.get(begin..end))
            .ok_or((Tensor::EdgesIndptr, Violation::Row { row, span: [span[0], span[1]] }))?;
        let ascending = keys.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || keys.last().is_some_and(|&key| key as usize > row) {
            // A row may be as long as the file.
            let some = keys[..keys.len().min(8)].to_vec();
            let found = Violation::Keys { keys: some, is_cut: keys.len() > 8, query: row };
            return Err((Tensor::EdgesKey, found));
        }
    }
    Ok(())
}

/// A number from exactly as many bytes as it has; `chunks_exact` gives no others.
pub(super) fn le<const N: usize, T: Default>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> T {
    bytes.try_into().map(from).unwrap_or_default()
}
