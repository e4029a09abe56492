//! A trace on its way to the disk: arrays, laid out as the schema has it.

use xxhash_rust::xxh3::xxh3_64;

use super::encode::{self, Array};
use super::header_layout::{TensorEntry, TraceEntry};
use super::rules;
use super::schema::{self, ALIGNMENT, Dtype, Form, Forms, Tensor};
use super::schema_violation::Violation;
use crate::error::ShardError;

/// A trace on its way to the disk.
pub struct Record<'a> {
    /// Number within the shard.
    pub number: usize,
    /// Question id and sample.
    pub key: (String, u32),
    /// Arrays indexed as in [`Tensor::ALL`]; `meta` is padded by the writer.
    pub arrays: [Option<Array<'a>>; Tensor::ALL.len()],
}

/// Element types that a run may choose.
#[derive(Debug, Clone, Copy)]
pub struct StoredTypes {
    /// Of the edges' weights.
    pub edge_weight: Dtype,
    /// Of hidden states, where they are kept.
    pub hidden: Dtype,
}

impl Record<'_> {
    /// The entry and the bytes of the trace, should it begin so many bytes into the data.
    ///
    /// # Errors
    /// [`ShardError::Trace`] where it does not fit the schema.
    pub fn lay_out(
        &self,
        types: StoredTypes,
        at: usize,
    ) -> Result<(TraceEntry, Vec<u8>), ShardError> {
        let number = self.number;
        let forms = self.forms(types);
        let violation =
            |(tensor, found): schema::Disagreement| ShardError::Trace { number, tensor, found };
        schema::dimensions(&forms).map_err(violation)?;
        let mut data = Vec::new();
        let mut tensors = Vec::new();
        for tensor in schema::disk_order(&forms) {
            let (Some(array), Some(form)) =
                (&self.arrays[tensor as usize], &forms[tensor as usize])
            else {
                continue;
            };
            let mut form = form.clone();
            let begin = data.len();
            data.extend(
                encode::encode(array.values, form.dtype)
                    .map_err(|found| violation((tensor, found)))?,
            );
            if tensor == Tensor::Meta {
                data.resize(data.len().next_multiple_of(ALIGNMENT), b' ');
                form.shape = vec![data.len() - begin];
            }
            if form.bytes() != Some(data.len() - begin) {
                let found = Violation::Bytes { bytes: data.len() - begin, shape: form.shape };
                return Err(violation((tensor, found)));
            }
            let checksum = xxh3_64(&data[begin..]);
            let (begin, end) = (at + begin, at + data.len());
            tensors.push(TensorEntry { tensor, form, begin, end, checksum });
        }
        let entry = TraceEntry { number, key: self.key.clone(), tensors };
        rules::check(&entry, at, &data).map_err(violation)?;
        Ok((entry, data))
    }

    /// Element types and shapes as they are stored.
    fn forms(&self, types: StoredTypes) -> Forms {
        let tokens = self.arrays[Tensor::Tokens as usize]
            .as_ref()
            .map_or(0, |array| array.shape.first().copied().unwrap_or(0));
        Tensor::ALL.map(|tensor| {
            let array = self.arrays[tensor as usize].as_ref()?;
            let dtype = match tensor {
                Tensor::EdgesWeight => types.edge_weight,
                Tensor::Hidden => types.hidden,
                Tensor::EdgesKey if tokens > usize::from(u16::MAX) + 1 => Dtype::U32,
                _ => tensor.dtypes()[0],
            };
            Some(Form { dtype, shape: array.shape.clone() })
        })
    }
}
