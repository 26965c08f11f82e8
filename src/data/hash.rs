//! The 64-bit mixing from which permutations and the synthetic source derive everything. Changing it changes every
//! corpus and every training order.

/// 2^64 divided by the golden ratio; steps of a splitmix sequence.
pub(super) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The splitmix64 finaliser (Steele, Lea and Flood 2014): a bijection in which every input bit reaches every output bit.
#[inline]
pub(super) fn mix64(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Mixes `value` into the running hash `state`; order matters.
#[inline]
pub(super) fn absorb(state: u64, value: u64) -> u64 {
    mix64(state.wrapping_mul(GOLDEN) ^ mix64(value.wrapping_add(GOLDEN)))
}

/// The first 16 hex digits of a digest: enough to tell corpora apart, short enough to read.
pub(super) fn short_hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
