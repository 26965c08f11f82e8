//! Arithmetic on [`LANES`] fp32 values at once, in a form that compilers turn into vector instructions.

use rayon::prelude::*;

/// Values handled together: one AVX-512 register, two of AVX2.
pub(super) const LANES: usize = 16;
/// A vector of fp32 values.
pub(super) type Lanes = [f32; LANES];

/// All lanes equal.
#[inline(always)]
pub(super) fn splat(value: f32) -> Lanes {
    [value; LANES]
}

/// The first `lanes` values of a slice, zeros after them.
#[inline(always)]
pub(super) fn load(from: &[f32], lanes: usize) -> Lanes {
    if lanes == LANES {
        from[..LANES].try_into().expect("a whole vector")
    } else {
        let mut out = splat(0.0);
        out[..lanes].copy_from_slice(&from[..lanes]);
        out
    }
}

/// Writes the first `lanes` values.
#[inline(always)]
fn store(to: &mut [f32], value: &Lanes, lanes: usize) {
    to[..lanes].copy_from_slice(&value[..lanes]);
}

/// a b + c, rounded once.
#[inline(always)]
pub(super) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// Sum of the lanes, as a balanced tree.
#[inline(always)]
pub(super) fn sum(value: &Lanes) -> f32 {
    let mut eight = [0.0; 8];
    for i in 0..8 {
        eight[i] = value[i] + value[i + 8];
    }
    let mut four = [0.0; 4];
    for i in 0..4 {
        four[i] = eight[i] + eight[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

/// eˣ to about 1e-7 relative: 2ⁿ times a polynomial of degree 6 on |r| ≤ ln 2 / 2 (Cephes' coefficients for expf).
/// Below −87.3, where the result is no normal number, it is 0; above 88.3, still a little below the largest number, it is
/// infinite. NaN stays NaN.
#[inline(always)]
pub(super) fn exp(x: &Lanes) -> Lanes {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.3;
    // Adding 1.5 x 2²³ rounds to a whole number and leaves it in the low bits: no conversion, which would not vectorise.
    const ROUND: f32 = 12_582_912.0;
    let mut out = splat(0.0);
    for lane in 0..LANES {
        let clamped = x[lane].clamp(LOWEST, HIGHEST);
        let rounded = mul_add(clamped, LOG2_E, ROUND);
        let n = rounded - ROUND;
        let r = mul_add(n, -LN2_HI, clamped);
        let r = mul_add(n, -LN2_LO, r);
        let mut p = 1.987_569_1e-4;
        p = mul_add(p, r, 1.398_199_9e-3);
        p = mul_add(p, r, 8.333_452e-3);
        p = mul_add(p, r, 4.166_579_6e-2);
        p = mul_add(p, r, 1.666_666_5e-1);
        p = mul_add(p, r, 0.5);
        p = mul_add(p, r * r, r + 1.0);
        let power = f32::from_bits(rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
        let value = if x[lane] > HIGHEST { f32::INFINITY } else { p * power };
        out[lane] = if x[lane] < LOWEST { 0.0 } else { value };
    }
    out
}

/// 2ˣ to about 2e-7 relative: 2ⁿ times a polynomial of degree 6 on |r| ≤ 1/2 (Cephes' coefficients for exp2f). Cheaper
/// than [`exp`]: outside −126 to 127 it stays at the value of the end, so that nothing overflows; NaN becomes the lower
/// end's value.
#[inline(always)]
pub(super) fn exp2(x: &Lanes) -> Lanes {
    const LOWEST: f32 = -126.0;
    const HIGHEST: f32 = 127.0;
    // As in `exp`.
    const ROUND: f32 = 12_582_912.0;
    let mut out = splat(0.0);
    for lane in 0..LANES {
        let x = if x[lane] > LOWEST { x[lane] } else { LOWEST };
        let x = if x < HIGHEST { x } else { HIGHEST };
        let rounded = x + ROUND;
        let r = x - (rounded - ROUND);
        let mut p = 1.535_336_2e-4;
        p = mul_add(p, r, 1.339_887_5e-3);
        p = mul_add(p, r, 9.618_437e-3);
        p = mul_add(p, r, 5.550_332_5e-2);
        p = mul_add(p, r, 2.402_264_8e-1);
        p = mul_add(p, r, 6.931_472e-1);
        p = mul_add(p, r, 1.0);
        let power = f32::from_bits(rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
        out[lane] = p * power;
    }
    out
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(super) fn sigmoid(x: &Lanes) -> Lanes {
    let mut negated = splat(0.0);
    for lane in 0..LANES {
        negated[lane] = -x[lane];
    }
    let mut out = exp(&negated);
    for value in &mut out {
        *value = 1.0 / (1.0 + *value);
    }
    out
}

/// ln(1 + eˣ), accurate where eˣ is small: max(x, 0) + ln1p(e^−|x|), the logarithm through the series of
/// 2 artanh(u / (2 + u)), u = e^−|x| in (0, 1].
#[inline(always)]
pub(super) fn log1p_exp(x: &Lanes) -> Lanes {
    let mut negative = splat(0.0);
    for lane in 0..LANES {
        negative[lane] = -x[lane].abs();
    }
    let u = exp(&negative);
    let mut out = splat(0.0);
    for lane in 0..LANES {
        // s = u / (2 + u) ≤ 1/3; ln(1 + u) = 2 (s + s³/3 + s⁵/5 + …), cut where the term is below 1e-8.
        let s = u[lane] / (2.0 + u[lane]);
        let q = s * s;
        let mut p = 1.0 / 15.0;
        p = mul_add(p, q, 1.0 / 13.0);
        p = mul_add(p, q, 1.0 / 11.0);
        p = mul_add(p, q, 1.0 / 9.0);
        p = mul_add(p, q, 1.0 / 7.0);
        p = mul_add(p, q, 0.2);
        p = mul_add(p, q, 1.0 / 3.0);
        p = mul_add(p, q, 1.0);
        out[lane] = mul_add(2.0 * s, p, x[lane].max(0.0));
    }
    out
}

/// Gathers what tasks computed for (row, block of [`LANES`] channels), each `time` vectors, into [row, t, channel].
pub(super) fn scatter(out: &mut [f32], time: usize, channels: usize, parts: &[Vec<Lanes>]) {
    let blocks = channels.div_ceil(LANES);
    out.par_chunks_mut(time * channels).enumerate().for_each(|(row, out)| {
        for (block, part) in parts[row * blocks..(row + 1) * blocks].iter().enumerate() {
            let first = block * LANES;
            let lanes = LANES.min(channels - first);
            for (t, value) in part.iter().enumerate() {
                store(&mut out[t * channels + first..], value, lanes);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(function: fn(&Lanes) -> Lanes, exact: fn(f64) -> f64, from: f64, to: f64) -> f64 {
        let steps = 200_000;
        let mut worst = 0f64;
        for i in 0..steps {
            let x = (from + (to - from) * f64::from(i) / f64::from(steps)) as f32;
            let got = f64::from(function(&splat(x))[3]);
            let want = exact(f64::from(x));
            worst = worst.max(((got - want) / want).abs());
        }
        worst
    }

    #[test]
    fn transcendentals_are_within_a_few_units_of_the_last_place() {
        assert!(worst(exp, f64::exp, -87.0, 88.0) < 3e-7, "{}", worst(exp, f64::exp, -87.0, 88.0));
        assert!(worst(exp2, f64::exp2, -126.0, 127.0) < 3e-7, "{}", worst(exp2, f64::exp2, -126.0, 127.0));
        assert!(worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0) < 4e-7);
        assert!(worst(log1p_exp, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), -80.0, 80.0) < 4e-7);
    }

    #[test]
    fn limits_are_kept() {
        assert_eq!(exp(&splat(f32::NEG_INFINITY))[0], 0.0);
        assert_eq!(exp(&splat(f32::INFINITY))[0], f32::INFINITY);
        assert!(exp(&splat(f32::NAN))[0].is_nan());
        assert_eq!(exp2(&splat(f32::NEG_INFINITY))[0], 2f32.powi(-126));
        assert_eq!(exp2(&splat(1e30))[0], 2f32.powi(127));
        assert_eq!(log1p_exp(&splat(100.0))[0], 100.0);
        assert_eq!(sum(&std::array::from_fn(|i| i as f32)), 120.0);
    }
}
