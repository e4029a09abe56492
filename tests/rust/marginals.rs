//! `marginals` against float64.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "tests of small shapes")]

mod naive;

use hallutrace::marginals::{Marginals, Segments};
use hallutrace::reduce::marginals;
use naive::{Matrix, Random, Stored};
use proptest::prelude::*;

/// Marginals of the weights stored as they are, on every instruction set.
fn run(matrix: &Matrix, segments: &[usize]) -> Marginals {
    run_stored(matrix, &Stored::F32(matrix.weights.clone()), segments)
}

fn run_stored(matrix: &Matrix, stored: &Stored, segments: &[usize]) -> Marginals {
    let segments = Segments::new(segments.to_vec(), matrix.keys).unwrap();
    naive::on_every_set(|| marginals(&matrix.view(stored), segments.clone()).unwrap())
}

fn is_close(actual: f32, wanted: f64) -> bool {
    (f64::from(actual) - wanted).abs() <= 1e-6 + 1e-5 * wanted.abs()
}

/// Norm of the second differences, zeros before and after.
fn rough(weights: &[f64]) -> f64 {
    let at = |key: usize| key.checked_sub(1).and_then(|key| weights.get(key)).unwrap_or(&0.0);
    let before = |key: usize| key.checked_sub(1).map_or(0.0, |key| *at(key));
    let terms = (0..weights.len() + 2).map(|key| before(key) - 2.0 * at(key) + at(key + 1));
    terms.map(|term| term * term).sum::<f64>().sqrt()
}

fn check(matrix: &Matrix, segments: &[usize], made: &Marginals) {
    let keys = matrix.keys;
    let bounds = [&[0], segments, &[keys]].concat();
    for head in 0..matrix.heads {
        let mut received = vec![0.0; keys];
        for query in 0..matrix.queries {
            let row: Vec<f64> = matrix.row(head, query).iter().map(|&w| f64::from(w)).collect();
            let at = |key: usize| row.get(key).copied().unwrap_or(0.0);
            let (slot, position) = (head * matrix.queries + query, matrix.first_query + query);
            let entropy: f64 = row.iter().filter(|&&w| w > 0.0).map(|&w| -w * w.ln()).sum();
            assert!(is_close(made.diagonal[slot], at(position)));
            assert!(is_close(made.previous[slot], position.checked_sub(1).map_or(0.0, at)));
            assert!(is_close(made.entropy[slot], entropy));
            assert!(is_close(made.square[slot], row.iter().map(|w| w * w).sum()));
            for (segment, bounds) in bounds.windows(2).enumerate() {
                let weights: Vec<f64> =
                    row.iter().take(bounds[1]).skip(bounds[0]).copied().collect();
                let at = slot * (segments.len() + 1) + segment;
                assert!(is_close(made.mass[at], weights.iter().sum()));
                let (found, wanted) = (made.rough[at], rough(&weights));
                assert!(is_close(found, wanted), "{found} {wanted}, keys {bounds:?}");
            }
            for (sum, weight) in received.iter_mut().zip(&row).take(position) {
                *sum += weight;
            }
        }
        for (key, &sum) in received.iter().enumerate() {
            assert!(is_close(made.received[head * keys + key], sum));
        }
    }
}

proptest! {
    #![proptest_config(naive::config(300))]

    #[test]
    fn marginals_are_those_of_float64(
        mut matrix in naive::matrices(150),
        dtype in naive::dtypes(),
        bounds: [prop::sample::Index; 3],
        near: bool,
    ) {
        let stored = matrix.store(dtype);
        // Several segments may end in one block of 16 keys, or at the same key.
        let keys = if near { matrix.keys.min(20) } else { matrix.keys };
        let mut segments = bounds.map(|bound| bound.index(keys + 1));
        segments.sort_unstable();
        check(&matrix, &segments, &run_stored(&matrix, &stored, &segments));
    }
}

/// Rows of one head, all of whose keys are read.
fn rows(weights: &[Vec<f32>]) -> Matrix {
    let (queries, keys) = (weights.len(), weights[0].len());
    Matrix { heads: 1, queries, keys, first_query: 0, causal: false, weights: weights.concat() }
}

#[test]
fn weights_beyond_one_have_the_entropy_of_float64() {
    // Terms of both signs, of which next to nothing is left.
    let mut random = Random(5);
    let made = |_| {
        let mut row: Vec<f32> = (0..70).map(|_| 0.9 * random.unit()).collect();
        (row[3], row[7]) = (0.0, 0.0);
        let log = |&w: &f32| if w > 0.0 { f64::from(w) * f64::from(w).ln() } else { 0.0 };
        let others: f64 = row.iter().map(log).sum();
        // The weight whose term is the opposite of the others', by bisection.
        let (mut low, mut high) = (1.0_f32, 1e3);
        for _ in 0..60 {
            let middle = low.midpoint(high);
            (low, high) = if log(&middle) < -others { (middle, high) } else { (low, middle) };
        }
        row[7] = low;
        assert!(low > 2.0 && (others + log(&low)).abs() < 1e-5);
        row
    };
    let matrix = rows(&(0..40).map(made).collect::<Vec<_>>());
    check(&matrix, &[20], &run(&matrix, &[20]));
}

#[test]
fn sums_that_float32_does_not_hold_are_refused() {
    let refused = |weights: &[Vec<f32>]| {
        let matrix = rows(weights);
        let stored = Stored::F32(matrix.weights.clone());
        let fail =
            || marginals(&matrix.view(&stored), Segments::default()).unwrap_err().to_string();
        naive::on_every_set(fail)
    };
    let end = "- pass attention after softmax";
    let begin =
        "Expected sums of rows and columns that float32 holds, got more than 3.4028235e38 at";
    // Every weight of a row, and one whose square alone is too large.
    let row = refused(&[vec![0.1; 20], vec![3e38; 20]]);
    assert_eq!(row, format!("{begin} head 0, query 1, key 19 {end}"));
    let one = refused(&[vec![0.0, 1.0], vec![1.9e19, 0.0]]);
    assert_eq!(one, format!("{begin} head 0, query 1, key 1 {end}"));
    // What is not refused has finite sums, those of columns too.
    let matrix = rows(&vec![vec![0.0, 1.8e19, 0.0]; 200]);
    check(&matrix, &[2], &run(&matrix, &[2]));
}

#[test]
fn smooth_rows_have_the_roughness_of_float64() {
    // Differences of which next to nothing is left, of weights of any size.
    for keys in [60, 1500] {
        let bump = |scale: f32| -> Vec<f32> {
            let at = |key: usize| 12.0 * key as f32 / keys as f32 - 6.0;
            (0..keys).map(|key| scale * (-at(key) * at(key)).exp() / keys as f32).collect()
        };
        let matrix = rows(&[1e-3, 1.0, 4.0, 1e3, 1e12].map(bump));
        for segments in [vec![], vec![keys / 2], vec![1, 15, keys - 2]] {
            check(&matrix, &segments, &run(&matrix, &segments));
        }
    }
}

#[test]
fn segments_may_end_at_every_key_of_a_block() {
    let mut random = Random(8);
    for keys in [31, 32, 33, 70] {
        let matrix = rows(&(0..5).map(|_| random.row(keys)).collect::<Vec<_>>());
        for end in 0..=keys {
            for next in end..=(end + 2).min(keys) {
                check(&matrix, &[end, next], &run(&matrix, &[end, next]));
            }
        }
    }
}

#[test]
fn long_flat_rows_are_those_of_float64() {
    let (queries, keys) = (64, 8192);
    let weights = vec![1.0 / 8191.0; queries * keys];
    let matrix =
        Matrix { heads: 1, queries, keys, first_query: keys - queries, causal: true, weights };
    check(&matrix, &[3000], &run(&matrix, &[3000]));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (heads, keys) = (6, 400);
    let mut random = Random(3);
    let weights = (0..heads * keys).flat_map(|_| random.row(keys)).collect();
    let matrix = Matrix { heads, queries: keys, keys, first_query: 0, causal: true, weights };
    let alone = run(&matrix, &[1, 50]);
    for threads in [1, 2, 3, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| run(&matrix, &[1, 50])), alone);
    }
}
