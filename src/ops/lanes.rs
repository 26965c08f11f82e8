//! Arithmetic on [`LANES`] fp32 values at once, in a form that compilers turn into vector instructions.

/// Values handled together: one AVX-512 register, two of AVX2.
pub(super) const LANES: usize = 16;
/// A vector of fp32 values.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub(super) [f32; LANES]);

impl std::ops::Deref for Lanes {
    type Target = [f32; LANES];
    #[inline(always)]
    fn deref(&self) -> &[f32; LANES] {
        &self.0
    }
}

impl std::ops::DerefMut for Lanes {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32; LANES] {
        &mut self.0
    }
}

/// All lanes equal.
#[inline(always)]
pub(super) fn splat(value: f32) -> Lanes {
    Lanes([value; LANES])
}

/// The first `lanes` values of a slice, zeros after them.
#[inline(always)]
pub(super) fn load(from: &[f32], lanes: usize) -> Lanes {
    if lanes == LANES {
        Lanes(from[..LANES].try_into().expect("a whole vector"))
    } else {
        let mut out = splat(0.0);
        out[..lanes].copy_from_slice(&from[..lanes]);
        out
    }
}

/// Writes the first `lanes` values.
#[inline(always)]
pub(super) fn store(to: &mut [f32], value: &Lanes, lanes: usize) {
    if lanes == LANES {
        to[..LANES].copy_from_slice(&value[..]);
    } else {
        to[..lanes].copy_from_slice(&value[..lanes]);
    }
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

/// 2^(a b) to about 2e-7 relative: 2ⁿ times a polynomial of degree 6 on |r| ≤ 1/2 (Cephes' coefficients for exp2f).
/// Right where |a b| ≤ [`EXP2_LIMIT`]; callers that can't promise it clamp.
#[inline(always)]
pub(super) fn exp2_of_product(a: f32, b: f32) -> f32 {
    // As in `exp`.
    const ROUND: f32 = 12_582_912.0;
    let rounded = mul_add(a, b, ROUND);
    let r = mul_add(a, b, -(rounded - ROUND));
    let square = r * r;
    let low = mul_add(6.931_472e-1, r, 1.0);
    let middle = mul_add(5.550_332_5e-2, r, 2.402_264_8e-1);
    let high = mul_add(1.339_887_5e-3, r, 9.618_437e-3);
    let high = mul_add(1.535_336_2e-4, square, high);
    let p = mul_add(mul_add(high, square, middle), square, low);
    // n added to the exponent's bits: of ROUND's own bits none is left after the shift.
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// Bound of exponents in [`exp2_of_product`].
pub(super) const EXP2_LIMIT: f32 = 126.0;

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(super) fn sigmoid(x: &Lanes) -> Lanes {
    let mut negated = splat(0.0);
    for lane in 0..LANES {
        negated[lane] = -x[lane];
    }
    let mut out = exp(&negated);
    for value in out.iter_mut() {
        *value = 1.0 / (1.0 + *value);
    }
    out
}

/// ln(1 + eˣ), accurate where eˣ is small, and its derivative 1 / (1 + e⁻ˣ): max(x, 0) + ln1p(e^−|x|), the
/// logarithm as 2 artanh(u / (2 + u)), u = e^−|x| in (0, 1].
#[inline(always)]
pub(super) fn softplus(x: &Lanes) -> (Lanes, Lanes) {
    let mut negative = splat(0.0);
    for lane in 0..LANES {
        negative[lane] = -x[lane].abs();
    }
    let u = exp(&negative);
    let (mut out, mut slope) = (splat(0.0), splat(0.0));
    for lane in 0..LANES {
        // s = u / (2 + u) ≤ 1/3; ln(1 + u) = 2 artanh s = 2 s p(s²), p within 4e-9 (minimax over s² ≤ 1/9).
        let s = u[lane] / (2.0 + u[lane]);
        let q = s * s;
        let mut p = 0.140_891_67;
        p = mul_add(p, q, 0.139_803);
        p = mul_add(p, q, 0.200_124_55);
        p = mul_add(p, q, 0.333_331_6);
        p = mul_add(p, q, 1.0);
        out[lane] = mul_add(2.0 * s, p, x[lane].max(0.0));
        slope[lane] = (if x[lane] < 0.0 { u[lane] } else { 1.0 }) / (1.0 + u[lane]);
    }
    (out, slope)
}

/// The values of up to [`LANES`] neighbouring channels in each step of one batch row.
pub(super) struct Columns<'a>(Vec<&'a mut [f32]>);

impl Columns<'_> {
    /// Writes one step.
    #[inline(always)]
    pub(super) fn store(&mut self, t: usize, value: &Lanes) {
        let to = &mut *self.0[t];
        store(to, value, to.len());
    }
}

/// Splits a tensor [batch, time, channels] into one part for every batch row and [`LANES`] channels.
pub(super) fn split_columns(tensor: &mut [f32], time: usize, channels: usize) -> Vec<Columns<'_>> {
    let mut parts = Vec::new();
    for row in tensor.chunks_exact_mut(time * channels) {
        let first = parts.len();
        parts.extend((0..channels).step_by(LANES).map(|_| Columns(Vec::with_capacity(time))));
        for step in row.chunks_exact_mut(channels) {
            for (part, values) in parts[first..].iter_mut().zip(step.chunks_mut(LANES)) {
                part.0.push(values);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(function: impl Fn(f32) -> f32, exact: fn(f64) -> f64, from: f64, to: f64) -> f64 {
        let steps = 200_000;
        let mut worst = 0f64;
        for i in 0..steps {
            let x = (from + (to - from) * f64::from(i) / f64::from(steps)) as f32;
            let got = f64::from(function(x));
            let want = exact(f64::from(x));
            worst = worst.max(((got - want) / want).abs());
        }
        worst
    }

    #[test]
    fn transcendentals_are_within_a_few_units_of_the_last_place() {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!(worst(|x| exp(&splat(x))[3], f64::exp, -87.0, 88.0) < 3e-7);
        assert!(worst(|x| exp2_of_product(x, 1.0), f64::exp2, -126.0, 126.0) < 3e-7);
        assert!(worst(|x| sigmoid(&splat(x))[3], logistic, -80.0, 80.0) < 4e-7);
        assert!(worst(|x| softplus(&splat(x)).0[3], |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), -80.0, 80.0) < 4e-7);
        assert!(worst(|x| softplus(&splat(x)).1[3], logistic, -80.0, 80.0) < 4e-7);
    }

    #[test]
    fn limits_are_kept() {
        assert_eq!(exp(&splat(f32::NEG_INFINITY))[0], 0.0);
        assert_eq!(exp(&splat(f32::INFINITY))[0], f32::INFINITY);
        assert!(exp(&splat(f32::NAN))[0].is_nan());
        assert_eq!(exp2_of_product(-EXP2_LIMIT, 1.0), 2f32.powi(-126));
        assert_eq!(exp2_of_product(1.0, EXP2_LIMIT), 2f32.powi(126));
        assert_eq!(exp2_of_product(0.0, -3.0), 1.0);
        assert_eq!(softplus(&splat(100.0)).0[0], 100.0);
        assert_eq!(sum(&Lanes(std::array::from_fn(|i| i as f32))), 120.0);
    }

    #[test]
    fn columns_cover_a_tensor_once() {
        let (batch, time, channels) = (2, 3, LANES + 5);
        let mut tensor = vec![f32::NAN; batch * time * channels];
        let blocks = split_columns(&mut tensor, time, channels);
        assert_eq!(blocks.len(), 4);
        for (index, mut block) in blocks.into_iter().enumerate() {
            for t in 0..time {
                block.store(t, &splat((10 * index + t) as f32));
            }
        }
        for (i, value) in tensor.iter().enumerate() {
            let (row, t, channel) = (i / channels / time, i / channels % time, i % channels);
            assert_eq!(*value, (10 * (2 * row + channel / LANES) + t) as f32);
        }
    }
}
