//! One layer of a batch of sequences, block of rows by block of rows as the model computes them.

use super::band::Block;
use super::sweep::sweep;
use super::{Plan, Reduction};
use crate::attention::BatchView;
use crate::error::InputError;
use crate::float_environment::with_ours;
use crate::marginals::{MarginalRows, MeanLog, Segments};
use crate::simd::InstructionSet;
use crate::sparsify::{Combine, Rules};

/// One sequence of a right-padded batch: a prompt and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceShape {
    /// Tokens of prompt and answer, N.
    pub tokens: usize,
    /// Tokens of the prompt, P; at least 1 and fewer than N.
    pub prompt: usize,
    /// Key positions where each segment after the first begins.
    pub segments: Vec<usize>,
}

/// What a layer of one sequence comes to. G graphs, H heads, N tokens, R rows of detail, S segments.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReduction {
    /// `[G, H, N, R, S]`.
    pub shape: [usize; 5],
    /// Where each row begins in its graph, `[G, N + 1]`.
    pub indptr: Vec<i32>,
    /// Key of each edge, `[E]`.
    pub keys: Vec<i32>,
    /// Weight of each edge, `[E]`.
    pub weights: Vec<f32>,
    /// Weight of each token on itself, `[H, N]`.
    pub diagonal: Vec<f32>,
    /// Mean of each column over the later rows but the last, `[H, N]`.
    pub received_mean: Vec<f32>,
    /// Weight on the token before, `[H, R]`.
    pub previous: Vec<f32>,
    /// Entropy of the row in nats, `[H, R]`.
    pub entropy: Vec<f32>,
    /// Sum of the row's squared weights, `[H, R]`.
    pub square: Vec<f32>,
    /// Mass of each segment, `[H, R, S]`.
    pub mass: Vec<f32>,
    /// Norm of the second differences along the keys of each segment, `[H, R, S]`.
    pub rough: Vec<f32>,
    /// Mean ln(max(diagonal, 2^-126)) over the prompt and over the answer, `[H, 2]`.
    pub log_diagonal: Vec<f32>,
    /// Mean ln(max(square, 2^-126)) over the prompt and over the answer, `[H, 2]`.
    pub log_square: Vec<f32>,
}

/// Reduces one layer of a batch; made anew for each batch and layer.
#[derive(Debug)]
pub struct LayerReducer {
    set: InstructionSet,
    heads: usize,
    shapes: Vec<SequenceShape>,
    reductions: Vec<Reduction>,
    rows: usize,
}

impl LayerReducer {
    /// A reducer that waits for row 0.
    ///
    /// With `answer_edges` only the rows P - 1 .. N give edges, the others are empty; with
    /// `all_marginal_rows` detail is kept for all N rows, not for those alone.
    ///
    /// # Errors
    /// [`InputError::Sequence`] without prompt or answer, [`InputError::Segments`],
    /// [`InputError::Keys`], [`InputError::InstructionSet`].
    pub fn new(
        heads: usize,
        shapes: Vec<SequenceShape>,
        (rules, combine): (Rules, Combine),
        answer_edges: bool,
        all_marginal_rows: bool,
    ) -> Result<Self, InputError> {
        let plan = |(sequence, shape): (usize, &SequenceShape)| {
            let SequenceShape { tokens, prompt, ref segments } = *shape;
            if prompt < 1 || tokens <= prompt {
                return Err(InputError::Sequence { sequence, tokens, prompt });
            }
            if i32::try_from(tokens).is_err() {
                return Err(InputError::Keys { keys: tokens });
            }
            let rows = |all| if all { 0..tokens } else { prompt - 1..tokens };
            let marginals = MarginalRows {
                diagonal: 0..tokens,
                detail: rows(all_marginal_rows),
                received: 0..tokens - 1,
                segments: Segments::new(segments.clone(), tokens)?,
            };
            let plan = Plan { combine, rules, edge_rows: rows(!answer_edges), marginals };
            Ok(Reduction::new(plan, heads, tokens))
        };
        let reductions = shapes.iter().enumerate().map(plan).collect::<Result<_, _>>()?;
        Ok(Self { set: InstructionSet::current()?, heads, shapes, reductions, rows: 0 })
    }

    /// Takes the block of rows that follows; its row r is token `first_query + r` of every sequence.
    /// What lies at or beyond the end of a sequence is padding and not read.
    ///
    /// # Errors
    /// [`InputError::BlockShape`], [`InputError::BlockOrder`], [`InputError::BlockKeys`], and
    /// [`InputError::Weight`], [`InputError::MeanOverflow`] or [`InputError::SumOverflow`] for what is
    /// read. After an error the reducer stands as before.
    pub fn push(&mut self, batch: &BatchView<'_>, first_query: usize) -> Result<(), InputError> {
        with_ours(|| self.push_block(batch, first_query))
    }

    fn push_block(&mut self, batch: &BatchView<'_>, first_query: usize) -> Result<(), InputError> {
        let [sequences, heads, rows, _] = batch.shape();
        if sequences != self.shapes.len() || heads != self.heads {
            let (sequences, shape) = (self.shapes.len(), batch.shape().to_vec());
            return Err(InputError::BlockShape { sequences, heads: self.heads, shape });
        }
        if first_query != self.rows {
            return Err(InputError::BlockOrder { expected: self.rows, first_query });
        }
        let mut blocks = Vec::with_capacity(sequences);
        for (sequence, shape) in self.shapes.iter().enumerate() {
            let real = rows.min(shape.tokens.saturating_sub(first_query));
            let view = batch.sequence(sequence, real, first_query)?;
            let plan = &self.reductions[sequence].plan;
            blocks.push(Block { sequence: Some(sequence), view, first_row: first_query, plan });
        }
        for (sequence, band) in sweep(self.set, &blocks)? {
            self.reductions[sequence].push(self.set, band);
        }
        self.rows += rows;
        Ok(())
    }

    /// One reduction per sequence.
    ///
    /// # Errors
    /// [`InputError::MissingRows`] where rows are still to come, [`InputError::TooManyEdges`].
    pub fn finish(self) -> Result<Vec<LayerReduction>, InputError> {
        let sequences = self.shapes.iter().zip(self.reductions).enumerate();
        let reductions = sequences.map(|(sequence, (shape, reduction))| {
            let (tokens, rows) = (shape.tokens, self.rows);
            if rows < tokens {
                return Err(InputError::MissingRows { sequence, tokens, rows });
            }
            finish(self.set, reduction, (sequence, shape), self.heads)
        });
        with_ours(|| reductions.collect())
    }
}

fn finish(
    set: InstructionSet,
    reduction: Reduction,
    (sequence, shape): (usize, &SequenceShape),
    heads: usize,
) -> Result<LayerReduction, InputError> {
    let SequenceShape { tokens, prompt, .. } = *shape;
    let wanted = reduction.marginals.rows();
    let (detail, segments) = (wanted.detail.clone(), wanted.segments.count());
    // Row i stands at position i, and the last row produced nothing.
    let later_rows = |key: usize| tokens.saturating_sub(2 + key).max(1) as f64;
    let marginals = reduction.marginals.finish(later_rows);
    let mean_log = |values: &[f32]| set.run(MeanLog(values));
    let mean_logs = |values: &[f32]| {
        let outputs = values.chunks_exact(tokens).map(|head| head.split_at(prompt));
        outputs.flat_map(|(prompt, answer)| [mean_log(prompt), mean_log(answer)]).collect()
    };
    let log_diagonal = mean_logs(&marginals.diagonal);
    let log_square = mean_logs(&marginals.square);
    let of_detail = |head: &[f32]| head[detail.clone()].to_vec();
    let square = marginals.square.chunks_exact(tokens).flat_map(of_detail).collect();
    let list = reduction.edges.into_list(tokens, 0);
    let [graphs, ..] = list.shape();
    let arrays = list.into_arrays();
    Ok(LayerReduction {
        shape: [graphs, heads, tokens, detail.len(), segments],
        indptr: indptr_of_each_graph(&arrays.indptr, tokens, sequence)?,
        keys: arrays.keys,
        weights: arrays.weights,
        diagonal: marginals.diagonal,
        received_mean: marginals.received,
        previous: marginals.previous,
        entropy: marginals.entropy,
        square,
        mass: marginals.mass,
        rough: marginals.rough,
        log_diagonal,
        log_square,
    })
}

/// `[G, N + 1]`, each from 0, of the one index over all graphs.
fn indptr_of_each_graph(
    indptr: &[i64],
    tokens: usize,
    sequence: usize,
) -> Result<Vec<i32>, InputError> {
    let mut each = Vec::with_capacity(indptr.len() + indptr.len() / tokens);
    for begin in (0..indptr.len() - 1).step_by(tokens) {
        let graph = &indptr[begin..=begin + tokens];
        for end in graph {
            let edges = end - graph[0];
            let edges = i32::try_from(edges);
            each.push(edges.map_err(|_| InputError::TooManyEdges {
                sequence,
                edges: graph[tokens] - graph[0],
            })?);
        }
    }
    Ok(each)
}
