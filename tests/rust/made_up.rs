//! Made-up traces: all that the writer needs to be tried without a model.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests, which may panic")]

use std::path::Path;
use std::sync::Arc;

use hallutrace::shard::ShardWriter;
use hallutrace::shard::encode::{Array, Values};
use hallutrace::shard::record::{Record, StoredTypes};
use hallutrace::shard::schema::{Dtype, Tensor};
use hallutrace::shard::storage::Storage;
use hallutrace::shard::writer::places;

pub const TYPES: StoredTypes = StoredTypes { edge_weight: Dtype::F16, hidden: Dtype::F32 };

/// A made-up trace of 2 layers, 2 heads, 3 tokens, 1 of them answer, every token looking at itself.
pub struct MadeUp {
    pub meta: String,
    pub floats: Vec<f32>,
}

impl MadeUp {
    pub fn new(id: &str) -> Self {
        let floats = (0_u8..64).map(|x| f32::from(x) / 64.0).collect();
        Self { meta: format!(r#"{{"id":{id:?},"sample":0}}"#), floats }
    }

    pub fn record(&self, number: usize, id: &str) -> Record<'_> {
        let mut arrays = <[Option<Array<'_>>; Tensor::ALL.len()]>::default();
        let mut set = |tensor: Tensor, values, shape: &[usize]| {
            arrays[tensor as usize] = Some(Array { values, shape: shape.to_vec() });
        };
        let floats = |count: usize| Values::F32(&self.floats[..count]);
        set(Tensor::EdgesOffset, Values::I64(&[0, 3, 6]), &[3]);
        set(Tensor::EdgesIndptr, Values::I32(&[0, 1, 2, 3, 0, 1, 2, 3]), &[2, 4]);
        set(Tensor::EdgesKey, Values::I32(&[0, 1, 2, 0, 1, 2]), &[6]);
        set(Tensor::EdgesWeight, floats(6), &[6]);
        set(Tensor::Logprob, floats(1), &[1]);
        set(Tensor::TokenEntropy, floats(1), &[1]);
        set(Tensor::Tokens, Values::I32(&[7, 8, 9]), &[3]);
        set(Tensor::LogDiagonal, floats(8), &[2, 2, 2]);
        set(Tensor::Diagonal, floats(12), &[2, 2, 3]);
        set(Tensor::ReceivedMean, floats(12), &[2, 2, 3]);
        set(Tensor::Previous, floats(8), &[2, 2, 2]);
        set(Tensor::Entropy, floats(8), &[2, 2, 2]);
        set(Tensor::Mass, floats(24), &[2, 2, 2, 3]);
        set(Tensor::ValueNorm, floats(6), &[2, 1, 3]);
        set(Tensor::Hidden, floats(16), &[2, 2, 4]);
        set(Tensor::Meta, Values::U8(self.meta.as_bytes()), &[self.meta.len()]);
        Record { number, key: (id.to_owned(), 0), arrays }
    }
}

/// The writer of the shard `name` of a run.
pub fn begin(
    storage: Arc<dyn Storage + Send + Sync>,
    run: &Path,
    name: &str,
    traces: usize,
) -> ShardWriter {
    ShardWriter::begin(storage, places(run, name), "made up", traces, TYPES).unwrap()
}
