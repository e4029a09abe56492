//! The one error type of the crate. Every variant carries its numbers; every message says what was
//! expected, what came, where, and how to mend it.

mod shard_error;

pub use shard_error::ShardError;

/// What can go wrong in the core.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument the caller can mend: a shape, a rule, a weight that no attention has.
    #[error("{0}")]
    Input(#[from] InputError),
    /// A shard that cannot be written or read.
    #[error("{0}")]
    Shard(#[from] ShardError),
}

/// The result of everything in the crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bad input to `sparsify`, `marginals` and the reducer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The array has not the axes that were asked for.
    #[error("Expected `attention` {expected}, got {} axes {shape:?} - index or reshape it", shape.len())]
    Axes {
        /// The axes that were asked for.
        expected: &'static str,
        /// The shape that came.
        shape: Vec<usize>,
    },
    /// The array is not of a type that attention comes in.
    #[error(
        "Expected `attention` float32, float16 or bfloat16, got {dtype} {shape:?} - convert it first"
    )]
    Dtype {
        /// The type that came.
        dtype: String,
        /// The shape that came.
        shape: Vec<usize>,
    },
    /// The array cannot be read in place.
    #[error(
        "Expected `attention` aligned, with unit stride over keys and no negative stride, got strides of {strides:?} bytes - pass numpy.ascontiguousarray(attention)"
    )]
    Strides {
        /// The strides that came, in bytes.
        strides: Vec<isize>,
    },
    /// The slice is shorter than the matrix it is said to hold, or the matrix is beyond counting.
    #[error(
        "Expected at least {needed} elements for [heads {heads}, queries {queries}, keys {keys}], got {length} - check shape and strides"
    )]
    Span {
        /// Elements from the first weight to the last.
        needed: u128,
        /// Elements that came.
        length: usize,
        /// Axis 0.
        heads: usize,
        /// Axis 1.
        queries: usize,
        /// Axis 2.
        keys: usize,
    },
    /// More keys than an edge can number.
    #[error("Expected at most {} keys, got {keys} - split the matrix", i32::MAX)]
    Keys {
        /// What came.
        keys: usize,
    },
    /// A causal matrix has queries without a key of their own.
    #[error(
        "Expected at most as many queries as keys with causal=True, got {queries} queries and {keys} keys - pass all keys, or causal=False"
    )]
    MoreQueries {
        /// Rows of the matrix.
        queries: usize,
        /// Columns of the matrix.
        keys: usize,
    },
    /// `first_query` does not leave every query a key position.
    #[error(
        "Expected `first_query` in 0..={largest} (keys {keys} - queries {queries}), got {first_query} - pass the key position of the first query row"
    )]
    FirstQuery {
        /// What came.
        first_query: i64,
        /// The largest that fits.
        largest: usize,
        /// Rows of the matrix.
        queries: usize,
        /// Columns of the matrix.
        keys: usize,
    },
    /// `first_query` is negative.
    #[error(
        "Expected `first_query` >= 0, got {first_query} - pass the key position of the first query row"
    )]
    NegativeFirstQuery {
        /// What came.
        first_query: i64,
    },
    /// A weight that attention cannot have.
    #[error(
        "Expected finite weights >= 0, got {value:?} at {place} - pass attention after softmax; mask or drop broken rows first"
    )]
    Weight {
        /// What came.
        value: f32,
        /// Where.
        place: Place,
    },
    /// The heads of one weight sum to more than float32 holds.
    #[error(
        "Expected a mean over heads that float32 holds, got more than {:e} at {place} - pass attention after softmax",
        f32::MAX
    )]
    MeanOverflow {
        /// Where; the head is the last one.
        place: Place,
    },
    /// The weights of a row or a column sum to more than float32 holds, or its entropy is beyond it.
    #[error(
        "Expected sums of rows and columns that float32 holds, got more than {:e} at {place} - pass attention after softmax",
        f32::MAX
    )]
    SumOverflow {
        /// Where; of a row the last key, of a column the last row.
        place: Place,
    },
    /// `top_k` keeps nothing.
    #[error(
        "Expected `top_k` an integer >= 1 or None, got {top_k} - pass None to leave the rule out"
    )]
    TopK {
        /// What came.
        top_k: usize,
    },
    /// `min_weight` is no threshold.
    #[error(
        "Expected `min_weight` finite in float32 and >= 0, got {min_weight:?} - pass 0.0 to leave the rule out"
    )]
    MinWeight {
        /// What came.
        min_weight: f64,
    },
    /// Not as many threads as there can be.
    #[error(
        "Expected `count` >= 1 threads or None, got {threads} - pass None for the number chosen at the start"
    )]
    Threads {
        /// What came.
        threads: i64,
    },
    /// `top_mass` is no share.
    #[error(
        "Expected `top_mass` in (0, 1] or None, got {top_mass:?} - pass None to leave the rule out"
    )]
    TopMass {
        /// What came.
        top_mass: f64,
    },
    /// `HALLUTRACE_SIMD` names no instruction set of this machine.
    #[error(
        "Expected an instruction set that this machine has ({available}), got {name:?} in HALLUTRACE_SIMD - name one of these, or unset it to take the fastest"
    )]
    InstructionSet {
        /// What came.
        name: String,
        /// What there is.
        available: String,
    },
    /// `heads` is no way to combine heads.
    #[error(
        "Expected `heads` \"mean\", \"max\" or \"each\", got {heads:?} - pass one of the three"
    )]
    Heads {
        /// What came.
        heads: String,
    },
    /// Segment boundaries do not increase.
    #[error(
        "Expected `segments` increasing key positions in 0..={keys}, got {segments:?} - pass where each segment after the first begins"
    )]
    Segments {
        /// What came.
        segments: Vec<usize>,
        /// Columns of the matrix.
        keys: usize,
    },
    /// A sequence without a prompt or an answer.
    #[error(
        "Expected a prompt of at least 1 token and an answer of at least 1, got prompt {prompt} of {tokens} tokens at sequence {sequence} - drop sequences that are only a prompt or only an answer"
    )]
    Sequence {
        /// Which sequence of the batch.
        sequence: usize,
        /// Tokens of prompt and answer.
        tokens: usize,
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// A block is not of the batch that the reducer was made for.
    #[error(
        "Expected blocks [sequences {sequences}, heads {heads}, rows, keys], got {shape:?} - make one reducer per batch and layer"
    )]
    BlockShape {
        /// Sequences of the batch.
        sequences: usize,
        /// Heads of the layer.
        heads: usize,
        /// The shape that came.
        shape: Vec<usize>,
    },
    /// A block came out of order.
    #[error(
        "Expected the block that begins at row {expected}, got one that begins at row {first_query} - push blocks in order, without gaps"
    )]
    BlockOrder {
        /// The row that comes next.
        expected: usize,
        /// The row that came.
        first_query: usize,
    },
    /// A block has not the keys that its rows read.
    #[error(
        "Expected at least {needed} keys for the rows of sequence {sequence} up to {last_row}, got {keys} - trim keys no further than the last row"
    )]
    BlockKeys {
        /// Which sequence of the batch.
        sequence: usize,
        /// Its last row in the block.
        last_row: usize,
        /// Keys that row reads.
        needed: usize,
        /// Keys that came.
        keys: usize,
    },
    /// A layer was finished before all its rows came.
    #[error(
        "Expected all {tokens} rows of sequence {sequence} before the layer is finished, got {rows} - push the remaining blocks"
    )]
    MissingRows {
        /// Which sequence of the batch.
        sequence: usize,
        /// Rows that it has.
        tokens: usize,
        /// Rows that came.
        rows: usize,
    },
    /// A graph has more edges than a trace can count.
    #[error(
        "Expected at most {} edges in one graph, got {edges} at sequence {sequence} - keep fewer with top_k, min_weight or top_mass",
        i32::MAX
    )]
    TooManyEdges {
        /// Which sequence of the batch.
        sequence: usize,
        /// Edges of the graph.
        edges: i64,
    },
    /// A reducer was used after it gave its result.
    #[error(
        "Expected a reducer that has not finished, got one that has - make a new one for each batch and layer"
    )]
    Finished,
}

/// Where a weight stands, as a message says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which sequence, where a batch came.
    pub sequence: Option<usize>,
    /// Head of the weight.
    pub head: usize,
    /// Row of the weight; in a batch, the token.
    pub query: usize,
    /// Column of the weight.
    pub key: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(sequence) = self.sequence {
            write!(formatter, "sequence {sequence}, ")?;
        }
        write!(formatter, "head {}, query {}, key {}", self.head, self.query, self.key)
    }
}
