//! What the reductions mean, row by row, and rows of every nasty kind.
#![allow(dead_code, reason = "each test crate uses a part")]

use half::{bf16, f16};
use hallutrace::attention::{AttentionView, Elements, Layout};
use hallutrace::float_environment::Flushed;
use hallutrace::simd::InstructionSet;
use hallutrace::sparsify::Combine;
use proptest::prelude::*;

/// What every instruction set of this machine gives, which must be the same, also where the caller's thread
/// flushes subnormals and rounds upwards.
pub fn on_every_set<R: PartialEq + std::fmt::Debug>(run: impl Fn() -> R) -> R {
    let on = |set, flushes| {
        InstructionSet::use_on_thread(Some(set));
        let flushed = if flushes { Some(Flushed::begin()) } else { None };
        let made = run();
        drop(flushed);
        InstructionSet::use_on_thread(None);
        made
    };
    let sets = InstructionSet::available();
    let made = on(sets[0], false);
    for &set in &sets {
        for flushes in [false, true].into_iter().skip(usize::from(set == sets[0])) {
            assert_eq!(on(set, flushes), made, "{set} against {}, flushed: {flushes}", sets[0]);
        }
    }
    made
}

/// How often a property is tried; rarely under Miri, which is a thousand times as slow.
pub fn config(cases: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 4 } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

/// Weights as they are stored.
#[derive(Debug, Clone)]
pub enum Stored {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// The types that weights are stored in.
#[derive(Debug, Clone, Copy)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

pub const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

impl Stored {
    pub fn elements(&self) -> Elements<'_> {
        match self {
            Self::F32(weights) => Elements::F32(weights),
            Self::F16(weights) => Elements::F16(weights),
            Self::Bf16(weights) => Elements::Bf16(weights),
        }
    }
}

/// A matrix of float32 `[heads, queries, keys]` with its place.
#[derive(Debug, Clone)]
pub struct Matrix {
    pub heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub first_query: usize,
    pub causal: bool,
    pub weights: Vec<f32>,
}

/// Rules as numbers.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub top_k: Option<usize>,
    pub min_weight: f32,
    pub top_mass: Option<f64>,
    pub combine: Combine,
}

impl Matrix {
    /// Rounds the weights to a type, and gives them as it stores them.
    pub fn store(&mut self, dtype: Dtype) -> Stored {
        let all = &mut self.weights;
        match dtype {
            Dtype::F32 => Stored::F32(all.clone()),
            Dtype::F16 => {
                let stored: Vec<f16> = all.iter().map(|&weight| f16::from_f32(weight)).collect();
                *all = stored.iter().map(|weight| weight.to_f32()).collect();
                Stored::F16(stored)
            }
            Dtype::Bf16 => {
                let stored: Vec<bf16> = all.iter().map(|&weight| bf16::from_f32(weight)).collect();
                *all = stored.iter().map(|weight| weight.to_f32()).collect();
                Stored::Bf16(stored)
            }
        }
    }

    /// A view of the stored weights.
    pub fn view<'a>(&self, stored: &'a Stored) -> AttentionView<'a> {
        let layout = Layout::contiguous(self.heads, self.queries, self.keys);
        let first_query = Some(self.first_query as i64);
        AttentionView::new(stored.elements(), layout, self.causal, first_query).unwrap()
    }

    /// The readable weights of a row.
    pub fn row(&self, head: usize, query: usize) -> &[f32] {
        let begin = (head * self.queries + query) * self.keys;
        let readable = if self.causal { self.first_query + query + 1 } else { self.keys };
        &self.weights[begin..begin + readable]
    }

    /// The row of one graph.
    fn combined(&self, combine: Combine, graph: usize, query: usize) -> Vec<f32> {
        if combine == Combine::Each {
            return self.row(graph, query).to_vec();
        }
        let mut row = self.row(0, query).to_vec();
        for head in 1..self.heads {
            for (sum, &weight) in row.iter_mut().zip(self.row(head, query)) {
                *sum = if combine == Combine::Max { sum.max(weight) } else { *sum + weight };
            }
        }
        if combine == Combine::Mean {
            for sum in &mut row {
                *sum /= self.heads as f32;
            }
        }
        row
    }

    /// (graph, query, key, bits of the weight) of every edge.
    pub fn edges(&self, wanted: Wanted) -> Vec<(usize, usize, i32, u32)> {
        let mut edges = Vec::new();
        for graph in 0..wanted.combine.graphs(self.heads) {
            for query in 0..self.queries {
                let row = self.combined(wanted.combine, graph, query);
                for key in keep(&row, wanted) {
                    edges.push((graph, query, key as i32, row[key].to_bits()));
                }
            }
        }
        edges
    }
}

/// The keys kept of one row, increasing.
fn keep(row: &[f32], wanted: Wanted) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).filter(|&key| row[key] > 0.0).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    if let Some(share) = wanted.top_mass.filter(|&share| share < 1.0) {
        let add = |sum: &mut f64, &key: &usize| {
            *sum += f64::from(row[key]);
            Some(*sum)
        };
        let sums: Vec<f64> = order.iter().scan(0.0, add).collect();
        let last = sums.last().copied().unwrap_or(0.0);
        order.truncate(sums.iter().position(|&sum| sum >= share * last).map_or(0, |at| at + 1));
    }
    order.truncate(wanted.top_k.unwrap_or(usize::MAX));
    order.retain(|&key| row[key] >= wanted.min_weight);
    order.sort_unstable();
    order
}

/// Matrices whose rows are of any kind; what is never read is NaN.
pub fn matrices(most_keys: usize) -> impl Strategy<Value = Matrix> {
    (1..=4_usize, 1..=most_keys, any::<bool>())
        .prop_flat_map(|(heads, keys, causal)| {
            let queries = 1..=keys.min(40);
            (Just((heads, keys, causal)), queries, any::<prop::sample::Index>(), any::<u64>())
        })
        .prop_map(|((heads, keys, causal), queries, place, seed)| {
            let first_query = place.index(keys - queries + 1);
            let mut random = Random(seed);
            let mut weights = Vec::with_capacity(heads * queries * keys);
            for row in 0..heads * queries {
                let readable = if causal { first_query + row % queries + 1 } else { keys };
                weights.extend(random.row(readable));
                weights.resize((row + 1) * keys, f32::NAN);
            }
            Matrix { heads, queries, keys, first_query, causal, weights }
        })
}

/// Any type.
pub fn dtypes() -> impl Strategy<Value = Dtype> {
    prop::sample::select(DTYPES.to_vec())
}

/// Shares of the mass that sums of few weights meet exactly, or miss by little.
const SHARES: [f64; 7] = [0.5, 0.75, 1.0, 0.99, 1.0 - 1e-6, 1.0 - 1e-11, 1.0 - 1e-15];

/// Any combination of rules.
pub fn rules() -> impl Strategy<Value = Wanted> {
    let combine = prop::sample::select(vec![Combine::Mean, Combine::Max, Combine::Each]);
    let top_k = prop::option::of(prop_oneof![1..20_usize, 1..200_usize]);
    let min_weight = prop::sample::select(vec![0.0, 0.25, 0.01, 1e-40]);
    let share = prop_oneof![1e-6..=1.0, prop::sample::select(SHARES.to_vec())];
    (top_k, min_weight, prop::option::of(share), combine).prop_map(
        |(top_k, min_weight, top_mass, combine)| Wanted { top_k, min_weight, top_mass, combine },
    )
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * 2.0_f32.powi(-24)
    }

    /// A row of some kind: random, equal, sorted, subnormal, one-hot, ties, zeros, stairs, wide.
    pub fn row(&mut self, keys: usize) -> Vec<f32> {
        let kind = self.bits() % 10;
        let hot = self.bits() as usize % keys.max(1);
        let mut row: Vec<f32> = (0..keys)
            .map(|key| match kind {
                0..=2 => self.unit() / keys as f32,
                3 => 1.0 / keys as f32,
                4 => f32::from_bits(self.bits() as u32 >> 12),
                5 => f32::from(u8::from(key == hot)),
                6 => (self.bits() % 4) as f32 / 16.0,
                7 => -0.0,
                8 => (self.bits() as usize % (keys / 5 + 2)) as f32 / 1024.0,
                _ => 10.0_f32.powf(-30.0 * self.unit()),
            })
            .collect();
        if kind == 1 || kind == 8 {
            row.sort_unstable_by(f32::total_cmp);
        } else if kind == 2 {
            row.sort_unstable_by(|a, b| b.total_cmp(a));
        }
        row
    }
}
