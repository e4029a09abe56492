//! Sparse attention graphs.
//!
//! ```text
//! indptr    0     2  3        6            one entry per (head, query), and one more
//!           │     │  │        │
//! keys      0  3  1  0  2  5               increasing within a row
//! weights  .2 .8  1 .1 .4 .5               positive
//!           └row0┘└1┘└─ row 2 ─┘
//! ```

use crate::simd::{Row, Simd};

/// The edges of one attention matrix: CSR over the rows (head, query) in that order.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeList {
    heads: usize,
    queries: usize,
    key_count: usize,
    first_query: usize,
    indptr: Vec<i64>,
    keys: Vec<i32>,
    weights: Vec<f32>,
    retained: Vec<f32>,
}

/// The arrays of an [`EdgeList`], to be moved elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeArrays {
    /// Where each row begins, `[heads · queries + 1]`.
    pub indptr: Vec<i64>,
    /// Key of each edge.
    pub keys: Vec<i32>,
    /// Weight of each edge.
    pub weights: Vec<f32>,
    /// Share of each row's mass that its edges hold, `[heads · queries]`.
    pub retained: Vec<f32>,
}

impl EdgeList {
    /// A list of arrays that agree with its shape, the first query at key 0.
    pub(crate) fn of([heads, queries, key_count]: [usize; 3], arrays: EdgeArrays) -> Self {
        let EdgeArrays { indptr, keys, weights, retained } = arrays;
        Self { heads, queries, key_count, first_query: 0, indptr, keys, weights, retained }
    }

    /// `[heads, queries, keys]`; one head where heads were combined.
    pub fn shape(&self) -> [usize; 3] {
        [self.heads, self.queries, self.key_count]
    }

    /// How many edges there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Key position of query row 0.
    pub fn first_query(&self) -> usize {
        self.first_query
    }

    /// Where each row begins, `[heads · queries + 1]`.
    pub fn indptr(&self) -> &[i64] {
        &self.indptr
    }

    /// Key of each edge.
    pub fn keys(&self) -> &[i32] {
        &self.keys
    }

    /// Weight of each edge.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Share of each row's mass that its edges hold, 1 for an empty row, `[heads · queries]`.
    pub fn retained(&self) -> &[f32] {
        &self.retained
    }

    /// Gives the arrays away.
    pub fn into_arrays(self) -> EdgeArrays {
        let Self { indptr, keys, weights, retained, .. } = self;
        EdgeArrays { indptr, keys, weights, retained }
    }
}

/// Edges for which there is room beyond what is asked for: a row may write more than it keeps.
const SPARE: usize = 64;

/// The edges of a band of rows, ordered by graph, row, key.
#[derive(Debug)]
pub(crate) struct EdgeBand {
    /// Rows of the band.
    rows: usize,
    /// Edges of each (graph, row).
    counts: Vec<u32>,
    /// Mass of each (graph, row); 0.0 of those that keep all of it.
    masses: Vec<f64>,
    /// Share of the mass kept of each (graph, row), in the end.
    retained: Vec<f32>,
    /// How many edges there are; what follows them is room.
    len: usize,
    /// Key of each edge.
    keys: Vec<i32>,
    /// Weight of each edge.
    weights: Vec<f32>,
}

impl EdgeBand {
    /// Nothing yet of so many rows of so many graphs, with room for some edges.
    pub fn new(graphs: usize, rows: usize, room: usize) -> Self {
        Self {
            rows,
            counts: Vec::with_capacity(graphs * rows),
            masses: Vec::with_capacity(graphs * rows),
            retained: Vec::with_capacity(graphs * rows),
            len: 0,
            keys: vec![0; room + SPARE],
            weights: vec![0.0; room + SPARE],
        }
    }

    /// Room for the keys and weights of the next row, which keeps the first of them when it is closed.
    #[inline(always)]
    pub fn room(&mut self, edges: usize) -> (&mut [i32], &mut [f32]) {
        let room = self.len..self.len + edges;
        if room.end > self.keys.len().min(self.weights.len()) {
            self.grow(room.end);
        }
        (&mut self.keys[room.clone()], &mut self.weights[room])
    }

    #[cold]
    fn grow(&mut self, edges: usize) {
        let length = edges.max(2 * self.len);
        self.keys.resize(length, 0);
        self.weights.resize(length, 0.0);
    }

    /// Closes a row that keeps so many edges of a mass, of which 0.0 says that they hold all of it.
    #[inline(always)]
    pub fn close_row(&mut self, edges: usize, mass: f64) {
        self.len += edges;
        self.counts.push(edges as u32);
        self.masses.push(mass);
    }

    /// Closes rows that were not asked for.
    pub fn skip_rows(&mut self, rows: usize) {
        for _ in 0..rows {
            self.close_row(0, 0.0);
        }
    }

    /// Ends a band whose rows are all closed: the shares of the mass that they keep.
    ///
    /// Not row by row, where each would wait for its edges to be written.
    #[inline(always)]
    pub fn finish<S: Simd>(&mut self, simd: S) {
        let mut begin = 0;
        for (&count, &mass) in self.counts.iter().zip(&self.masses) {
            let mut share = 1.0;
            if mass > 0.0 {
                let kept = Row::new(&self.weights[begin..], count as usize, 0);
                share = (kept.sum(simd) / mass).min(1.0) as f32;
            }
            self.retained.push(share);
            begin += count as usize;
        }
    }
}

/// Bands of rows in order, on their way to one list.
#[derive(Debug)]
pub(crate) struct EdgeBands {
    graphs: usize,
    bands: Vec<EdgeBand>,
}

impl EdgeBands {
    /// Bands of so many graphs each.
    pub fn new(graphs: usize) -> Self {
        Self { graphs, bands: Vec::new() }
    }

    /// Takes the band that follows.
    pub fn push(&mut self, band: EdgeBand) {
        self.bands.push(band);
    }

    /// Joins the bands into one list; each edge is copied once.
    pub fn into_list(self, key_count: usize, first_query: usize) -> EdgeList {
        let Self { graphs, bands } = self;
        let queries = bands.iter().map(|band| band.rows).sum();
        let edges = bands.iter().map(|band| band.len).sum();
        let mut list = EdgeList {
            heads: graphs,
            queries,
            key_count,
            first_query,
            indptr: Vec::with_capacity(graphs * queries + 1),
            keys: Vec::with_capacity(edges),
            weights: Vec::with_capacity(edges),
            retained: Vec::with_capacity(graphs * queries),
        };
        let mut taken = vec![0; bands.len()];
        list.indptr.push(0);
        for graph in 0..graphs {
            for (band, taken) in bands.iter().zip(&mut taken) {
                list.append_rows(band, graph, taken);
            }
        }
        list
    }
}

impl EdgeList {
    /// Appends the rows of one graph of a band, whose edges begin at `taken`.
    fn append_rows(&mut self, band: &EdgeBand, graph: usize, taken: &mut usize) {
        let rows = graph * band.rows..(graph + 1) * band.rows;
        let begin = *taken;
        let mut end = self.indptr.last().copied().unwrap_or(0);
        self.indptr.extend(band.counts[rows.clone()].iter().map(|&count| {
            *taken += count as usize;
            end += i64::from(count);
            end
        }));
        self.retained.extend_from_slice(&band.retained[rows]);
        self.keys.extend_from_slice(&band.keys[begin..*taken]);
        self.weights.extend_from_slice(&band.weights[begin..*taken]);
    }
}
