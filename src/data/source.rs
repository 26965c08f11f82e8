//! The synthetic source: its parameters, its alphabet, its state and how it is sampled. `docs/synthetic-corpus.md`
//! has the mathematics.
//!
//! Nothing is hidden: the state is a function of the document's tokens so far ([`State::advance`]), and the
//! probability of every next token given that state is known (`predictor.rs`). Tables of conditional distributions
//! are never stored: a seeded hash of the context gives the candidates that may follow it.

use super::DataError;
use super::hash::{GOLDEN, absorb, mix64};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Ends a document, and begins every validation row.
pub const EOS: u32 = 0;
/// Begins a definition: `DEF key value...`.
pub const DEFINE: u32 = 1;
/// Begins a recall: `REF key value...`, with the values of the key's latest definition.
pub const REFER: u32 = 2;
/// Ids below this are not keys, values or prose.
const FIRST_KEY: u32 = 3;

/// Everything that determines a synthetic corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "keys with values")]
pub struct SyntheticSpec {
    /// Of the source's tables and of the tokens drawn.
    pub seed: u64,
    /// Training tokens, exactly.
    pub tokens: u64,
    /// Validation tokens, rounded up to whole rows.
    pub validation_tokens: u64,
    /// All ids, from 32 to 65,535: an eighth are keys, a quarter values, 3 markers, the rest prose.
    pub vocab_size: u64,
    /// Training context in tokens; a validation row has `4 * seq_len + 1` and begins with a document.
    pub seq_len: u64,
    /// Mean length of a document in tokens; lengths are close to geometric.
    pub document_tokens: f64,
    /// Probability of beginning a definition, per prose position.
    pub definition_rate: f64,
    /// Probability of beginning a recall, per prose position, once a key is defined.
    pub reference_rate: f64,
    /// Values that a definition gives its key.
    pub value_tokens: u64,
    /// A key last mentioned d tokens ago is recalled with weight d^-`distance_exponent`.
    pub distance_exponent: f64,
    /// Share of prose that each order explains, from order 0 up: the last one looks at that many symbols.
    pub order_weights: Vec<f64>,
    /// Symbols that may follow a context, per order.
    pub candidates: u64,
    /// Candidate i (from 1) has weight i^-`candidate_exponent`.
    pub candidate_exponent: f64,
    /// Prose symbol r (from 1) has order-0 weight r^-`symbol_exponent`.
    pub symbol_exponent: f64,
}

impl Default for SyntheticSpec {
    fn default() -> Self {
        Self {
            seed: 0,
            tokens: 2_000_000,
            validation_tokens: 205_000,
            vocab_size: 256,
            seq_len: 256,
            document_tokens: 2048.0,
            definition_rate: 0.02,
            reference_rate: 0.045,
            value_tokens: 8,
            distance_exponent: 0.0,
            order_weights: vec![0.2, 0.4, 0.3, 0.1],
            candidates: 4,
            candidate_exponent: 1.0,
            symbol_exponent: 1.3,
        }
    }
}

impl SyntheticSpec {
    /// Tokens in a validation row.
    pub fn row_tokens(&self) -> u64 {
        4 * self.seq_len + 1
    }

    /// Refuses parameters that make no source.
    pub fn check(&self) -> Result<(), DataError> {
        let refuse = |name, value: &dyn std::fmt::Debug, expected: &str| {
            Err(DataError::Parameter { name, value: format!("{value:?}"), expected: expected.to_owned() })
        };
        if !(32..=65_535).contains(&self.vocab_size) {
            return refuse("vocab_size", &self.vocab_size, "32 to 65535");
        }
        if !(1..=1 << 24).contains(&self.seq_len) {
            return refuse("seq_len", &self.seq_len, "1 to 2^24");
        }
        if self.tokens == 0 || self.tokens > 1 << 48 {
            return refuse("tokens", &self.tokens, "1 to 2^48");
        }
        if self.validation_tokens == 0 || self.validation_tokens > 1 << 36 {
            return refuse("validation_tokens", &self.validation_tokens, "1 to 2^36");
        }
        if !(1..=64).contains(&self.value_tokens) {
            return refuse("value_tokens", &self.value_tokens, "1 to 64");
        }
        if !(1..=64).contains(&self.candidates) {
            return refuse("candidates", &self.candidates, "1 to 64");
        }
        let rates = [("definition_rate", self.definition_rate), ("reference_rate", self.reference_rate)];
        for (name, rate) in rates {
            if !(0.0..=0.4).contains(&rate) {
                return refuse(name, &rate, "0 to 0.4");
            }
        }
        if !(16.0..=1e7).contains(&self.document_tokens) {
            return refuse("document_tokens", &self.document_tokens, "16 to 1e7");
        }
        if self.end_probability() > 0.1 {
            return refuse("document_tokens", &self.document_tokens, "more, given the rates and value_tokens");
        }
        let exponents = [
            ("distance_exponent", self.distance_exponent),
            ("candidate_exponent", self.candidate_exponent),
            ("symbol_exponent", self.symbol_exponent),
        ];
        for (name, exponent) in exponents {
            if !(0.0..=4.0).contains(&exponent) {
                return refuse(name, &exponent, "0 to 4");
            }
        }
        // Order 0 alone reaches every symbol; without it some token would have probability zero.
        let total: f64 = self.order_weights.iter().sum();
        let positive = self.order_weights.iter().all(|w| (0.0..=1.0).contains(w));
        let base = self.order_weights.first().is_some_and(|&w| w > 0.0);
        if self.order_weights.len() > ORDERS || !positive || !base || (total - 1.0).abs() > 1e-9 {
            return refuse("order_weights", &self.order_weights, "1 to 5 weights that add up to 1, the first above 0");
        }
        Ok(())
    }

    /// Probability that a document ends at a prose position: makes `document_tokens` the mean length.
    fn end_probability(&self) -> f64 {
        let per_step = 1.0 + (self.value_tokens as f64 + 1.0) * (self.definition_rate + self.reference_rate);
        per_step / self.document_tokens
    }
}

/// Orders 0 to 4.
const ORDERS: usize = 5;
/// Symbols of context that the state keeps.
const HISTORY: usize = ORDERS - 1;
/// Distances whose weight is looked up rather than computed.
const DISTANCE_TABLE: usize = 1 << 13;

/// What the source does at a position, as the tokens before it determine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Prose, a marker or the end.
    Text,
    /// The key after `DEF`.
    DefinitionKey,
    /// A value of a definition of `key`: the number of those that went before.
    DefinitionValue { key: u32, index: u32 },
    /// The key after `REF`.
    ReferenceKey,
    /// A value recalled of `key`.
    ReferenceValue { key: u32, index: u32 },
}

/// The source, with what can be computed once.
#[derive(Debug)]
pub(super) struct Law {
    pub(super) keys: Range<u32>,
    pub(super) values: Range<u32>,
    pub(super) prose: Range<u32>,
    pub(super) value_tokens: u32,
    pub(super) end: f64,
    pub(super) define: f64,
    pub(super) refer: f64,
    pub(super) order_weights: Vec<f64>,
    /// Normalised weights of a context's candidates.
    pub(super) candidate_weights: Vec<f64>,
    /// Order-0 probabilities of prose symbols.
    pub(super) base: Vec<f64>,
    seed: u64,
    /// Prose symbol of each of 2^bits equal slices of probability: order 0 is exactly what this table says.
    symbols: Vec<u32>,
    shift: u32,
    distance_exponent: f64,
    distance_weights: Vec<f64>,
}

impl Law {
    /// The source of a checked specification.
    pub(super) fn new(spec: &SyntheticSpec) -> Self {
        let (keys, values) = (spec.vocab_size as u32 / 8, spec.vocab_size as u32 / 4);
        let keys = FIRST_KEY..FIRST_KEY + keys;
        let values = keys.end..keys.end + values;
        let prose = values.end..spec.vocab_size as u32;
        let bits = 12.max(u64::BITS - (prose.len() as u64).leading_zeros() + 4);
        let symbols = symbol_table(prose.len(), bits, spec.symbol_exponent);
        let mut base = vec![0.0; prose.len()];
        symbols.iter().for_each(|&s| base[s as usize] += 1.0 / symbols.len() as f64);
        let weights: Vec<f64> = (1..=spec.candidates).map(|i| (i as f64).powf(-spec.candidate_exponent)).collect();
        let total: f64 = weights.iter().sum();
        Self {
            keys,
            values,
            prose,
            value_tokens: spec.value_tokens as u32,
            end: spec.end_probability(),
            define: spec.definition_rate,
            refer: spec.reference_rate,
            order_weights: spec.order_weights.clone(),
            candidate_weights: weights.iter().map(|w| w / total).collect(),
            base,
            seed: absorb(GOLDEN, spec.seed),
            symbols,
            shift: u64::BITS - bits,
            distance_exponent: spec.distance_exponent,
            distance_weights: (0..DISTANCE_TABLE).map(|d| (d as f64).powf(-spec.distance_exponent)).collect(),
        }
    }

    /// Hash of the last `order` prose symbols, from which the candidates that follow them derive.
    pub(super) fn context(&self, state: &State, order: usize) -> u64 {
        let recent = &state.history[..order];
        recent.iter().fold(self.seed ^ order as u64, |hash, &symbol| absorb(hash, u64::from(symbol)))
    }

    /// Prose symbol (from 0) that is candidate `index` of a context.
    #[inline]
    pub(super) fn candidate(&self, context: u64, index: usize) -> usize {
        let slice = mix64(context.wrapping_add(GOLDEN.wrapping_mul(index as u64 + 1))) >> self.shift;
        self.symbols[slice as usize] as usize
    }

    /// Weight with which a key last mentioned `distance` tokens ago is recalled.
    pub(super) fn distance_weight(&self, distance: u32) -> f64 {
        match self.distance_weights.get(distance as usize) {
            Some(&weight) => weight,
            None => f64::from(distance).powf(-self.distance_exponent),
        }
    }

    /// Draws the next token.
    pub(super) fn sample(&self, state: &State, rng: &mut ChaCha8Rng) -> u32 {
        match state.slot {
            Slot::Text => self.sample_text(state, rng),
            Slot::DefinitionKey => self.keys.start + below(rng, self.keys.len()) as u32,
            Slot::DefinitionValue { .. } => self.values.start + below(rng, self.values.len()) as u32,
            Slot::ReferenceKey => {
                let weight = |&key: &u32| self.distance_weight(state.distance(key));
                let total: f64 = state.defined.iter().map(weight).sum();
                let mut left = uniform(rng) * total;
                let chosen = state.defined.iter().find(|&key| {
                    left -= weight(key);
                    left < 0.0
                });
                let last = state.defined.last().expect("REF is drawn only once a key is defined");
                self.keys.start + *chosen.unwrap_or(last)
            }
            Slot::ReferenceValue { key, index } => state.value(key, index),
        }
    }

    fn sample_text(&self, state: &State, rng: &mut ChaCha8Rng) -> u32 {
        let mut draw = uniform(rng);
        for (token, probability) in [(EOS, self.end), (DEFINE, self.define), (REFER, self.refer_now(state))] {
            if draw < probability {
                return token;
            }
            draw -= probability;
        }
        let order = pick(&self.order_weights, rng).min(state.available);
        let symbol = if order == 0 {
            self.symbols[(rng.next_u64() >> self.shift) as usize] as usize
        } else {
            self.candidate(self.context(state, order), pick(&self.candidate_weights, rng))
        };
        self.prose.start + symbol as u32
    }

    /// Probability of `REF` at a prose position: none before a key is defined.
    pub(super) fn refer_now(&self, state: &State) -> f64 {
        if state.defined.is_empty() { 0.0 } else { self.refer }
    }
}

/// What the tokens of the document so far determine.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) slot: Slot,
    /// Tokens of the document so far.
    position: u32,
    /// Latest prose symbols, newest first; `available` of them count, since a marker interrupts the prose.
    history: [u32; HISTORY],
    pub(super) available: usize,
    /// Keys (from 0) in order of first definition.
    pub(super) defined: Vec<u32>,
    /// Position of the latest mention of each key.
    mentioned: Vec<u32>,
    /// The current values of each key, `value_tokens` each.
    values: Vec<u32>,
    value_tokens: u32,
}

impl State {
    /// At the beginning of a document.
    pub(super) fn new(law: &Law) -> Self {
        Self {
            slot: Slot::Text,
            position: 0,
            history: [0; HISTORY],
            available: 0,
            defined: Vec::new(),
            mentioned: vec![u32::MAX; law.keys.len()],
            values: vec![0; law.keys.len() * law.value_tokens as usize],
            value_tokens: law.value_tokens,
        }
    }

    /// Takes in the token at this position. Tokens that the source cannot emit here are a programmer's error.
    pub(super) fn advance(&mut self, law: &Law, token: u32) {
        self.slot = match self.slot {
            Slot::Text => match token {
                EOS => return self.restart(),
                DEFINE => Slot::DefinitionKey,
                REFER => Slot::ReferenceKey,
                prose => {
                    self.history.rotate_right(1);
                    self.history[0] = prose - law.prose.start;
                    self.available = (self.available + 1).min(HISTORY);
                    self.position += 1;
                    return;
                }
            },
            Slot::DefinitionKey => {
                let key = token - law.keys.start;
                if self.mentioned[key as usize] == u32::MAX {
                    self.defined.push(key);
                }
                self.mentioned[key as usize] = self.position;
                Slot::DefinitionValue { key, index: 0 }
            }
            Slot::DefinitionValue { key, index } => {
                self.values[(key * self.value_tokens + index) as usize] = token;
                match index + 1 < self.value_tokens {
                    true => Slot::DefinitionValue { key, index: index + 1 },
                    false => Slot::Text,
                }
            }
            Slot::ReferenceKey => {
                let key = token - law.keys.start;
                self.mentioned[key as usize] = self.position;
                Slot::ReferenceValue { key, index: 0 }
            }
            Slot::ReferenceValue { key, index } => match index + 1 < self.value_tokens {
                true => Slot::ReferenceValue { key, index: index + 1 },
                false => Slot::Text,
            },
        };
        self.available = 0;
        self.position += 1;
    }

    /// Tokens between here and the latest mention of a defined `key`.
    pub(super) fn distance(&self, key: u32) -> u32 {
        self.position - self.mentioned[key as usize]
    }

    /// Value `index` of a defined `key`.
    pub(super) fn value(&self, key: u32, index: u32) -> u32 {
        self.values[(key * self.value_tokens + index) as usize]
    }

    /// Forgets the document.
    fn restart(&mut self) {
        for &key in &self.defined {
            self.mentioned[key as usize] = u32::MAX;
        }
        self.defined.clear();
        (self.slot, self.position, self.available) = (Slot::Text, 0, 0);
    }
}

/// Divides 2^bits slices among symbols by r^-exponent, at least one each, the rounding falling to the first.
fn symbol_table(symbols: usize, bits: u32, exponent: f64) -> Vec<u32> {
    let slices = 1usize << bits;
    let weights: Vec<f64> = (1..=symbols).map(|r| (r as f64).powf(-exponent)).collect();
    let total: f64 = weights.iter().sum();
    // One slice each is set aside first, so that the counts never exceed the table.
    let spare = (slices - symbols) as f64;
    let counts: Vec<usize> = weights.iter().map(|w| 1 + (w / total * spare) as usize).collect();
    let mut table: Vec<u32> = Vec::with_capacity(slices);
    table.resize(slices - counts.iter().sum::<usize>(), 0);
    for (symbol, &count) in counts.iter().enumerate() {
        table.extend(std::iter::repeat_n(symbol as u32, count));
    }
    table
}

/// Uniform in [0, 1), 53 bits.
#[inline]
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Uniform below `n`, with a bias under n / 2^64.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// An index drawn by normalised weights.
#[inline]
fn pick(weights: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let mut draw = uniform(rng);
    for (index, &weight) in weights.iter().enumerate() {
        if draw < weight {
            return index;
        }
        draw -= weight;
    }
    // Rounding may leave a draw that no weight took.
    weights.len() - 1
}
