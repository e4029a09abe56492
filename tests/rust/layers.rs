//! The graphs of a stored trace, each of them different, and traces that move to another shard.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_wrap, reason = "tests of small shapes")]

mod made_up;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hallutrace::error::ShardError;
use hallutrace::shard::{Array, Disk, Layer, Shard, ShardWriter, Tensor, Values, Verify};
use hallutrace::sparsify::Combine;
use made_up::{MadeUp, finish};

const LAYERS: usize = 2;
const HEADS: usize = 2;
const TOKENS: usize = 3;

/// Keys of each row of a graph, no two graphs alike.
const GRAPHS: [[&[i32]; TOKENS]; LAYERS * HEADS] =
    [[&[0], &[0, 1], &[2]], [&[], &[1], &[0, 1, 2]], [&[0], &[], &[1]], [&[0], &[0], &[0, 2]]];

/// The arrays of a trace with so many graphs, a weight for each edge.
struct Graphs {
    offset: Vec<i64>,
    indptr: Vec<i32>,
    keys: Vec<i32>,
    weights: Vec<f32>,
    mass: Vec<f32>,
}

impl Graphs {
    fn new(count: usize) -> Self {
        let (mut offset, mut indptr, mut keys) = (vec![0], Vec::new(), Vec::new());
        for graph in &GRAPHS[..count] {
            let begin = keys.len();
            indptr.push(0);
            for row in graph {
                keys.extend_from_slice(row);
                indptr.push((keys.len() - begin) as i32);
            }
            offset.push(keys.len() as i64);
        }
        let weights = (1..=keys.len()).map(|number| number as f32 / 64.0).collect();
        // [layers, heads, rows, segments], no two alike.
        let mass = (0..LAYERS * HEADS * 2 * 3).map(|at| (at + 8) as f32 / 32.0).collect();
        Self { offset, indptr, keys, weights, mass }
    }

    /// The edges of some graphs: row starts, keys, weights.
    fn edges(&self, graphs: std::ops::Range<usize>) -> (Vec<i64>, &[i32], &[f32]) {
        let (mut starts, mut end) = (vec![0], 0);
        for graph in &GRAPHS[graphs.clone()] {
            for row in graph {
                end += row.len() as i64;
                starts.push(end);
            }
        }
        let [begin, end] =
            [graphs.start, graphs.end].map(|at| usize::try_from(self.offset[at]).unwrap());
        (starts, &self.keys[begin..end], &self.weights[begin..end])
    }

    /// The mass of a row of detail: rows 1 and 2 of each head.
    fn mass_of(&self, layer: usize, head: usize, row: usize) -> f32 {
        let begin = ((layer * HEADS + head) * 2 + row) * 3;
        self.mass[begin..begin + 3].iter().sum()
    }
}

/// Writes traces with so many graphs each; the path of the shard.
fn write(folder: &Path, graphs: &Graphs, traces: usize) -> PathBuf {
    made_up::make_folders(folder);
    let mut writer = made_up::begin(Arc::new(Disk), folder, "00000", traces);
    for number in 0..traces {
        let id = format!("{}{number}", "x".repeat(100 * number));
        let made_up = MadeUp::new(&id);
        let mut record = made_up.record(number, &id);
        let mut set = |tensor: Tensor, values, shape: &[usize]| {
            record.arrays[tensor as usize] = Some(Array { values, shape: shape.to_vec() });
        };
        let (count, edges) = (graphs.offset.len() - 1, graphs.keys.len());
        set(Tensor::EdgesOffset, Values::I64(&graphs.offset), &[count + 1]);
        set(Tensor::EdgesIndptr, Values::I32(&graphs.indptr), &[count, TOKENS + 1]);
        set(Tensor::EdgesKey, Values::I32(&graphs.keys), &[edges]);
        set(Tensor::EdgesWeight, Values::F32(&graphs.weights), &[edges]);
        set(Tensor::Mass, Values::F32(&graphs.mass), &[LAYERS, HEADS, 2, 3]);
        writer.append(&record).unwrap();
    }
    writer.end_batch("").unwrap();
    finish(&mut writer).unwrap();
    folder.join("shards/00000.safetensors")
}

#[test]
fn every_layer_has_its_own_graphs() {
    for (combine, each) in [(Combine::Each, HEADS), (Combine::Mean, 1), (Combine::Max, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let graphs = Graphs::new(LAYERS * each);
        let shard = Shard::open(&write(folder.path(), &graphs, 1)).unwrap();
        for at in 0..LAYERS {
            for heads in 1..=HEADS {
                let edges = shard.layer(0, Layer { at, heads, combine }).unwrap();
                let count = combine.graphs(heads);
                assert_eq!(edges.shape(), [count, TOKENS, TOKENS]);
                let (starts, keys, weights) = graphs.edges(at * each..at * each + count);
                assert_eq!((edges.indptr(), edges.keys()), (&starts[..], keys), "layer {at}");
                assert_eq!(edges.weights(), weights, "layer {at}");
                for graph in 0..count {
                    let number = |row: usize| graph * TOKENS + row;
                    assert!(edges.retained()[number(0)].is_nan());
                    for row in 1..TOKENS {
                        let of = |at: usize| usize::try_from(starts[at]).unwrap();
                        let kept = &weights[of(number(row))..of(number(row) + 1)];
                        let mass = |head| graphs.mass_of(at, head, row - 1);
                        let mass = match combine {
                            Combine::Each => mass(graph),
                            Combine::Mean => (0..heads).map(mass).sum::<f32>() / heads as f32,
                            Combine::Max => f32::NAN,
                        };
                        let (found, due) =
                            (edges.retained()[number(row)], kept.iter().sum::<f32>() / mass);
                        let is_right = (found - due).abs() < 1e-6 || found.is_nan() && due.is_nan();
                        assert!(is_right, "{found} {due}, layer {at}, {combine:?}");
                    }
                }
            }
        }
        let none = shard.layer(0, Layer { at: LAYERS, heads: 1, combine }).unwrap_err();
        assert!(matches!(none, ShardError::Damaged { .. }), "{none}");
        assert!(none.to_string().contains("no Layer { at: 2, heads: 1"), "{none}");
    }
}

#[test]
fn a_trace_that_moves_is_the_same_wherever_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let graphs = Graphs::new(LAYERS * HEADS);
    let source = Shard::open(&write(folder.path(), &graphs, 3)).unwrap();
    let other = tempfile::tempdir().unwrap();
    made_up::make_folders(other.path());
    let mut writer: ShardWriter = made_up::begin(Arc::new(Disk), other.path(), "00000", 3);
    let order = [2, 0, 1];
    for (number, &position) in order.iter().enumerate() {
        writer.append_from(&source, position, 10 + number).unwrap();
    }
    writer.end_batch("").unwrap();
    finish(&mut writer).unwrap();
    let path = other.path().join("shards/00000.safetensors");
    let moved = Shard::open_with(&path, Verify::Always).unwrap();
    moved.verify().unwrap();
    for (number, &position) in order.iter().enumerate() {
        assert_eq!(moved.traces()[number].number, 10 + number);
        assert_eq!(moved.traces()[number].key, source.traces()[position].key);
        for tensor in Tensor::ALL {
            let (one, other) = (moved.tensor(number, tensor), source.tensor(position, tensor));
            assert_eq!(one.unwrap(), other.unwrap(), "{tensor} of trace {position}");
        }
    }
}
