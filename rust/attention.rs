//! Attention matrices, borrowed: the only place that checks shapes.
//!
//! ```text
//! element of (head, query, key) = head · head_stride + query · query_stride + key
//!
//!            keys ──►   0  1  2  3  4  5
//! queries    row 0      ■  ■  ■  ■  ·  ·      first_query = 3: row i stands at position i + 3
//!    │       row 1      ■  ■  ■  ■  ■  ·      causal: what lies after the position (·) is never read
//!    ▼       row 2      ■  ■  ■  ■  ■  ■
//! ```

use half::{bf16, f16};

use crate::error::InputError;

/// Stored weights of one of the three types that attention comes in.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// IEEE 754 binary32.
    F32(&'a [f32]),
    /// IEEE 754 binary16, widened exactly.
    F16(&'a [f16]),
    /// bfloat16, widened exactly.
    Bf16(&'a [bf16]),
}

impl Elements<'_> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(elements) => elements.len(),
            Self::F16(elements) => elements.len(),
            Self::Bf16(elements) => elements.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All elements from `offset` on; none where there are none.
    fn from(self, offset: usize) -> Self {
        let offset = offset.min(self.len());
        match self {
            Self::F32(elements) => Self::F32(&elements[offset..]),
            Self::F16(elements) => Self::F16(&elements[offset..]),
            Self::Bf16(elements) => Self::Bf16(&elements[offset..]),
        }
    }
}

/// Axes and strides of `[heads, queries, keys]`, strides in elements; the stride over keys is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Axis 0.
    pub heads: usize,
    /// Axis 1.
    pub queries: usize,
    /// Axis 2.
    pub keys: usize,
    /// From one head to the next; 0 repeats one.
    pub head_stride: usize,
    /// From one query to the next; 0 repeats one.
    pub query_stride: usize,
}

impl Layout {
    /// A matrix without gaps.
    pub fn contiguous(heads: usize, queries: usize, keys: usize) -> Self {
        let head_stride = queries.saturating_mul(keys);
        Self { heads, queries, keys, head_stride, query_stride: keys }
    }

    /// Elements from the first weight to the last, both included.
    pub fn span(&self) -> u128 {
        if self.heads == 0 || self.queries == 0 || self.keys == 0 {
            return 0;
        }
        let to_last = |count: usize, stride: usize| (count as u128 - 1) * stride as u128;
        to_last(self.heads, self.head_stride)
            .saturating_add(to_last(self.queries, self.query_stride))
            .saturating_add(self.keys as u128)
    }

    /// The same matrix, without strides where it has no weights: they would lead beyond the memory.
    fn within_memory(self) -> Self {
        if self.span() > 0 { self } else { Self { head_stride: 0, query_stride: 0, ..self } }
    }

    /// That `elements` hold the whole matrix and edges can number its keys.
    fn check(&self, elements: &Elements<'_>) -> Result<(), InputError> {
        let Self { heads, queries, keys, .. } = *self;
        if i32::try_from(keys).is_err() {
            return Err(InputError::Keys { keys });
        }
        if self.span() > elements.len() as u128 {
            let (needed, length) = (self.span(), elements.len());
            return Err(InputError::Span { needed, length, heads, queries, keys });
        }
        Ok(())
    }
}

/// The attention of one layer over one sequence, or a block of its query rows.
#[derive(Debug, Clone, Copy)]
pub struct AttentionView<'a> {
    elements: Elements<'a>,
    layout: Layout,
    causal: bool,
    first_query: usize,
}

impl<'a> AttentionView<'a> {
    /// Borrows a matrix whose first query stands at `first_query`, by default at
    /// `keys - queries` (at 0 where that is negative).
    ///
    /// # Errors
    /// [`InputError::Span`] and [`InputError::Keys`] for a layout that does not fit;
    /// [`InputError::MoreQueries`] and [`InputError::FirstQuery`] where `causal` leaves a query without
    /// a key of its own; [`InputError::NegativeFirstQuery`].
    pub fn new(
        elements: Elements<'a>,
        layout: Layout,
        causal: bool,
        first_query: Option<i64>,
    ) -> Result<Self, InputError> {
        layout.check(&elements)?;
        let Layout { queries, keys, .. } = layout;
        if causal && queries > keys {
            return Err(InputError::MoreQueries { queries, keys });
        }
        let room = keys.saturating_sub(queries);
        let first_query = match first_query {
            None => room,
            Some(first_query) => match usize::try_from(first_query) {
                Ok(position) if !causal || position <= room => position,
                Err(_) if !causal => return Err(InputError::NegativeFirstQuery { first_query }),
                _ => {
                    let largest = room;
                    return Err(InputError::FirstQuery { first_query, largest, queries, keys });
                }
            },
        };
        Ok(Self { elements, layout: layout.within_memory(), causal, first_query })
    }

    /// Heads of the layer.
    pub fn heads(&self) -> usize {
        self.layout.heads
    }

    /// Rows.
    pub fn queries(&self) -> usize {
        self.layout.queries
    }

    /// Columns.
    pub fn keys(&self) -> usize {
        self.layout.keys
    }

    /// Key position of row 0.
    pub fn first_query(&self) -> usize {
        self.first_query
    }

    /// Key position of a row; without `causal` it may lie beyond the keys.
    pub fn position(&self, query: usize) -> usize {
        self.first_query.saturating_add(query)
    }

    /// How many keys of a row are read.
    pub fn readable(&self, query: usize) -> usize {
        if self.causal { self.position(query) + 1 } else { self.keys() }
    }

    /// The memory of the matrix.
    pub(crate) fn elements(&self) -> Elements<'a> {
        self.elements
    }

    /// Where one row begins in it.
    pub(crate) fn offset(&self, head: usize, query: usize) -> usize {
        head * self.layout.head_stride + query * self.layout.query_stride
    }
}

/// A block of query rows of a batch, `[sequences, heads, rows, keys]`.
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a> {
    elements: Elements<'a>,
    layout: Layout,
    sequences: usize,
    stride: usize,
}

impl<'a> BatchView<'a> {
    /// Borrows a batch; `stride` leads from one sequence to the next.
    ///
    /// # Errors
    /// [`InputError::Span`] and [`InputError::Keys`] for a layout that does not fit.
    pub fn new(
        elements: Elements<'a>,
        layout: Layout,
        sequences: usize,
        stride: usize,
    ) -> Result<Self, InputError> {
        if sequences > 0 {
            let last = (sequences - 1).saturating_mul(stride);
            layout.check(&elements.from(last))?;
        }
        Ok(Self { elements, layout, sequences, stride })
    }

    /// `[sequences, heads, rows, keys]`.
    pub fn shape(&self) -> [usize; 4] {
        [self.sequences, self.layout.heads, self.layout.queries, self.layout.keys]
    }

    /// The first `rows` rows of one sequence, causal, the first of them at `first_query`.
    ///
    /// # Errors
    /// [`InputError::BlockKeys`] where the block has not the keys that these rows read.
    pub fn sequence(
        &self,
        sequence: usize,
        rows: usize,
        first_query: usize,
    ) -> Result<AttentionView<'a>, InputError> {
        let needed = first_query.saturating_add(rows);
        if needed > self.layout.keys && rows > 0 {
            let (last_row, keys) = (needed - 1, self.layout.keys);
            return Err(InputError::BlockKeys { sequence, last_row, needed, keys });
        }
        let elements = self.elements.from(sequence.saturating_mul(self.stride));
        let layout = Layout { queries: rows, keys: needed, ..self.layout };
        AttentionView::new(elements, layout, true, None)
    }
}
