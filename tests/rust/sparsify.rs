//! `sparsify` against the naive oracle, on every number of threads.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "tests of small shapes")]

mod naive;

use hallutrace::attention::{AttentionView, Elements, Layout};
use hallutrace::edges::EdgeList;
use hallutrace::error::InputError;
use hallutrace::marginals::Segments;
use hallutrace::reduce::{marginals, sparsify};
use hallutrace::simd::InstructionSet;
use hallutrace::sparsify::{Combine, Rules};
use naive::{Matrix, Random, Stored, Wanted};
use proptest::prelude::*;

/// Edges of the weights stored as they are, on every instruction set.
fn run(matrix: &Matrix, wanted: Wanted) -> EdgeList {
    run_stored(matrix, &Stored::F32(matrix.weights.clone()), wanted)
}

fn run_stored(matrix: &Matrix, stored: &Stored, wanted: Wanted) -> EdgeList {
    let Wanted { top_k, min_weight, top_mass, combine } = wanted;
    let rules = Rules::new(top_k, f64::from(min_weight), top_mass).unwrap();
    naive::on_every_set(|| sparsify(&matrix.view(stored), rules, combine).unwrap())
}

/// A matrix of one row that sees all keys.
fn one_row(weights: Vec<f32>) -> Matrix {
    let keys = weights.len();
    Matrix { heads: 1, queries: 1, keys, first_query: 0, causal: false, weights }
}

fn tuples(list: &EdgeList) -> Vec<(usize, usize, i32, u32)> {
    let [heads, queries, _] = list.shape();
    let mut edges = Vec::with_capacity(list.len());
    for row in 0..heads * queries {
        for edge in list.indptr()[row] as usize..list.indptr()[row + 1] as usize {
            let weight = list.weights()[edge].to_bits();
            edges.push((row / queries, row % queries, list.keys()[edge], weight));
        }
    }
    edges
}

proptest! {
    #![proptest_config(naive::config(500))]

    #[test]
    fn edges_are_those_of_the_oracle(
        mut matrix in naive::matrices(150),
        dtype in naive::dtypes(),
        wanted in naive::rules(),
    ) {
        let stored = matrix.store(dtype);
        let list = run_stored(&matrix, &stored, wanted);
        prop_assert_eq!(tuples(&list), matrix.edges(wanted));
        prop_assert!(list.retained().iter().all(|share| (0.0..=1.0).contains(share)));
    }

    #[test]
    fn long_rows_are_those_of_the_oracle(
        seed: u64,
        keys in 130..2100_usize,
        queries in 1..10_usize,
        dtype in naive::dtypes(),
        wanted in naive::rules(),
    ) {
        let mut random = Random(seed);
        let first_query = keys - queries;
        let weights = (0..queries).flat_map(|query| {
            let mut row = random.row(first_query + query + 1);
            row.resize(keys, f32::NAN);
            row
        });
        let weights = weights.collect();
        let mut matrix = Matrix { heads: 1, queries, keys, first_query, causal: true, weights };
        let stored = matrix.store(dtype);
        let list = run_stored(&matrix, &stored, wanted);
        prop_assert_eq!(tuples(&list), matrix.edges(wanted));
        for query in 0..queries {
            let mut alone = one_row(matrix.row(0, query).to_vec());
            let stored = alone.store(dtype);
            let alone = run_stored(&alone, &stored, wanted);
            prop_assert_eq!(list.retained()[query].to_bits(), alone.retained()[0].to_bits());
        }
    }
}

#[test]
fn what_is_retained_is_the_share_of_the_mass() {
    let mut random = Random(23);
    for keys in [1, 5, 16, 40, 112, 500, 600, 1500] {
        for large in [1.0, 1e37, f32::MAX] {
            let mut weights: Vec<f32> =
                random.row(keys).iter().map(|w| w.min(1.0) * large).collect();
            weights[0] = large;
            let matrix = one_row(weights);
            let mass: f64 = matrix.weights.iter().map(|&weight| f64::from(weight)).sum();
            for (top_k, min_weight, top_mass) in [
                (Some(1), 0.0, None),
                (Some(8), 0.0, None),
                (Some(30), 0.0, None),
                (None, 0.01, None),
                (Some(8), 0.01, None),
                (None, 0.0, Some(0.7)),
                (None, 0.0, None),
            ] {
                let wanted = Wanted { top_k, min_weight, top_mass, combine: Combine::Each };
                let list = run(&matrix, wanted);
                let kept: f64 = list.weights().iter().map(|&weight| f64::from(weight)).sum();
                let retained = f64::from(list.retained()[0]);
                assert!((retained - kept / mass).abs() < 1e-5, "{retained} of {keys}, {large}");
            }
        }
    }
    let empty = one_row(vec![0.0; 40]);
    for top_k in [None, Some(3), Some(20)] {
        let wanted = Wanted { top_k, min_weight: 0.5, top_mass: None, combine: Combine::Each };
        assert_eq!(run(&empty, wanted).retained(), [1.0]);
    }
}

#[test]
fn shares_that_a_sum_meets_to_the_last_bit_are_those_of_the_oracle() {
    let mut random = Random(29);
    for round in 0..600 {
        let keys = 20 + 7 * (round % 60);
        let weights: Vec<f32> =
            (0..keys).map(|_| random.unit().powi(1 + round as i32 % 9)).collect();
        let matrix = one_row(weights);
        let mut sorted = matrix.weights.clone();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let sums: Vec<f64> = sorted
            .iter()
            .scan(0.0, |sum, &weight| {
                *sum += f64::from(weight);
                Some(*sum)
            })
            .collect();
        let share = sums[(random.unit() * 0.8 * keys as f32) as usize] / sums[keys - 1];
        for share in [share.next_down(), share, share.next_up()] {
            let top_mass = Some(share.min(1.0));
            let wanted = Wanted { top_k: None, min_weight: 0.0, top_mass, combine: Combine::Each };
            assert_eq!(tuples(&run(&matrix, wanted)), matrix.edges(wanted), "round {round}");
        }
    }
}

#[test]
fn every_length_and_every_k_is_that_of_the_oracle() {
    let mut random = Random(11);
    for keys in (1..=200).chain((201..=540).step_by(13)).chain(511..=512) {
        let mut matrix = one_row(random.row(keys));
        let stored = matrix.store(naive::DTYPES[keys % 3]);
        for top_k in [1, 2, 7, 8, 9, 15, 16, 17, 32, 33, 63, 64, 65, 100, keys] {
            let wanted = Wanted {
                top_k: Some(top_k),
                min_weight: 0.0,
                top_mass: None,
                combine: Combine::Each,
            };
            assert_eq!(tuples(&run_stored(&matrix, &stored, wanted)), matrix.edges(wanted));
        }
    }
}

#[test]
fn rows_made_to_mislead_are_those_of_the_oracle() {
    // Large weights in one lane of 16, of 32, of 64; in one chunk; equal but for one; in pairs.
    let stripe = |step: usize| move |key: usize| if key % step == 3 { 0.5 } else { 1e-3 };
    let kinds: Vec<Box<dyn Fn(usize) -> f32>> = vec![
        Box::new(stripe(16)),
        Box::new(stripe(32)),
        Box::new(stripe(64)),
        Box::new(|key| if (128..192).contains(&key) { 0.25 + key as f32 * 1e-4 } else { 1e-4 }),
        Box::new(|key| if key == 999 { 0.5 } else { 0.001 }),
        // Fewer weights than k, in fewer lanes than that.
        Box::new(|key| if key == 999 { 0.5 } else { 0.0 }),
        Box::new(|key| if key % 64 == 5 || key < 9 { 1e-3 * (1 + key) as f32 } else { 0.0 }),
        Box::new(|key| 1.0 / (2 + key / 2) as f32),
        Box::new(|key| f32::from_bits(1 + key as u32 % 3)),
        Box::new(|key| if key % 2 == 0 { -0.0 } else { 1.0 / (1 + key) as f32 }),
    ];
    for (kind, keys) in kinds.iter().flat_map(|kind| [60, 128, 500, 1000].map(|keys| (kind, keys)))
    {
        let matrix = one_row((0..keys).map(kind).collect());
        for top_k in [1, 3, 8, 16, 40, 64, 65, 200, 500, 999] {
            for top_mass in [None, Some(0.5), Some(0.999)] {
                let wanted = Wanted {
                    top_k: Some(top_k),
                    min_weight: 0.0,
                    top_mass,
                    combine: Combine::Each,
                };
                assert_eq!(tuples(&run(&matrix, wanted)), matrix.edges(wanted));
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (heads, keys) = (8, 300);
    let mut random = Random(7);
    let weights = (0..heads * keys).flat_map(|_| random.row(keys)).collect();
    let matrix = Matrix { heads, queries: keys, keys, first_query: 0, causal: true, weights };
    for combine in [Combine::Mean, Combine::Max, Combine::Each] {
        let wanted = Wanted { top_k: Some(16), min_weight: 0.0, top_mass: Some(0.9), combine };
        let alone = run(&matrix, wanted);
        for threads in [1, 2, 3, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| run(&matrix, wanted)), alone);
        }
    }
}

#[test]
fn the_first_bad_weight_is_told_whatever_the_threads() {
    let (heads, keys) = (4, 400);
    let mut weights = vec![1.0 / keys as f32; heads * keys * keys];
    for (head, query, key) in [(3, 390, 5), (2, 100, 7), (1, 399, 0)] {
        weights[(head * keys + query) * keys + key] = f32::NAN;
    }
    let matrix = Matrix { heads, queries: keys, keys, first_query: 0, causal: true, weights };
    let rules = Rules::new(Some(3), 0.0, None).unwrap();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let stored = Stored::F32(matrix.weights.clone());
        let fail = || sparsify(&matrix.view(&stored), rules, Combine::Mean).unwrap_err();
        let error = pool.install(|| naive::on_every_set(|| fail().to_string()));
        assert!(error.contains("got NaN at head 2, query 100, key 7 "), "{error}");
    }
}

#[test]
fn bad_weights_are_told_wherever_they_stand() {
    let keys = 70;
    for (bad, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (-0.5, "-0.5")] {
        for key in [0, 15, 16, 63, 64, 69] {
            for dtype in naive::DTYPES {
                let mut matrix = one_row(vec![0.0; keys]);
                matrix.weights[key] = bad;
                let stored = matrix.store(dtype);
                for combine in [Combine::Each, Combine::Mean, Combine::Max] {
                    let rules = Rules::new(Some(3), 0.0, None).unwrap();
                    let fail = || sparsify(&matrix.view(&stored), rules, combine).unwrap_err();
                    let error = naive::on_every_set(|| fail().to_string());
                    let wanted = format!("got {text} at head 0, query 0, key {key} ");
                    assert!(error.contains(&wanted), "{error}");
                }
            }
        }
    }
}

#[test]
fn the_first_bad_row_of_several_is_told() {
    for (keys, top_k) in [(70, 3), (70, 20), (600, 3), (600, 20)] {
        for first in 0..11 {
            let mut matrix = one_row(vec![1.0 / keys as f32; 11 * keys]);
            (matrix.queries, matrix.keys) = (11, keys);
            // Rows of -0.0 look as bad until they are looked at.
            for query in first..11 {
                matrix.weights[query * keys + 7] =
                    if query % 3 == first % 3 { f32::NAN } else { -0.0 };
            }
            let stored = Stored::F32(matrix.weights.clone());
            let rules = Rules::new(Some(top_k), 0.0, None).unwrap();
            let fail = || sparsify(&matrix.view(&stored), rules, Combine::Each).unwrap_err();
            let error = naive::on_every_set(|| fail().to_string());
            assert!(
                error.contains(&format!("got NaN at head 0, query {first}, key 7 ")),
                "{error}"
            );
        }
    }
}

#[test]
fn instruction_sets_are_named_and_others_refused() {
    let available = InstructionSet::available();
    let names: Vec<&str> = available.iter().map(|set| set.name()).collect();
    assert_eq!(names.last(), Some(&"plain"));
    for &set in &available {
        assert_eq!(set.name().parse::<InstructionSet>().unwrap(), set);
        InstructionSet::use_on_thread(Some(set));
        assert_eq!(InstructionSet::current().unwrap(), set);
        InstructionSet::use_on_thread(None);
    }
    assert_eq!(
        "sse9".parse::<InstructionSet>().unwrap_err().to_string(),
        format!(
            "Expected an instruction set that this machine has ({}), got \"sse9\" in HALLUTRACE_SIMD - name one of these, or unset it to take the fastest",
            names.join(", ")
        )
    );
}

#[test]
fn a_matrix_without_weights_has_no_edges_whatever_its_strides() {
    let strided = Layout { heads: 2, queries: 3, keys: 4, head_stride: 100, query_stride: 10 };
    for (heads, queries, keys) in [(0, 3, 4), (2, 0, 4), (2, 3, 0)] {
        let layout = Layout { heads, queries, keys, ..strided };
        let view = AttentionView::new(Elements::F32(&[]), layout, false, None).unwrap();
        for combine in [Combine::Mean, Combine::Max, Combine::Each] {
            let rules = Rules::new(Some(3), 0.0, None).unwrap();
            let edges = naive::on_every_set(|| sparsify(&view, rules, combine).unwrap());
            assert_eq!(edges.len(), 0);
            assert_eq!(edges.retained(), vec![1.0; combine.graphs(heads) * queries]);
        }
        let segments = Segments::default();
        let made = naive::on_every_set(|| marginals(&view, segments.clone()).unwrap());
        assert_eq!(made.entropy, vec![0.0; heads * queries]);
        assert_eq!(made.received, vec![0.0; heads * keys]);
    }
}

#[test]
fn views_check_that_the_slice_holds_the_matrix() {
    let weights = [0.0; 11];
    let new = |layout| AttentionView::new(Elements::F32(&weights), layout, false, None);
    let layout = Layout { heads: 2, queries: 2, keys: 2, head_stride: 6, query_stride: 3 };
    assert!(new(layout).is_ok());
    let error = new(Layout { head_stride: 7, ..layout }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Expected at least 12 elements for [heads 2, queries 2, keys 2], got 11 - check shape and strides"
    );
    assert!(new(Layout { head_stride: usize::MAX, query_stride: usize::MAX, ..layout }).is_err());
    assert!(new(Layout { queries: 0, head_stride: usize::MAX, ..layout }).is_ok());
    let keys = 1 << 31;
    assert_eq!(new(Layout { keys, ..layout }).unwrap_err(), InputError::Keys { keys });
    let most = usize::MAX;
    let largest =
        Layout { heads: most, queries: most, keys: 1, head_stride: most, query_stride: most };
    assert!(new(largest).is_err());
    assert!(new(Layout::contiguous(2, most, 3)).is_err());
}
