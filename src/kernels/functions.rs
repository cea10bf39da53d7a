//! Functions of many values, with the processor's vectors and the same bits on every one.

use super::activation::{exp, normal_gate};
use super::float::FloatKernel;

/// `e^x` of every value, in place: within 2 units in the last place from -87 to 88, beyond them that of -87.3 and of 88.3.
pub(crate) fn exponentials(kernel: FloatKernel, values: &mut [f32]) {
    each::<Exponential>(kernel, values);
}

/// What QuickGELU multiplies a value x by, `σ(1.702 x)`, in place.
pub(crate) fn quick_gates(kernel: FloatKernel, values: &mut [f32]) {
    each::<QuickGate>(kernel, values);
}

/// What the exact GELU multiplies a value x by, `Φ(x)`, in place: within 3e-7.
pub(crate) fn normal_gates(kernel: FloatKernel, values: &mut [f32]) {
    each::<NormalGate>(kernel, values);
}

/// A function of one value.
trait Function {
    fn of(x: f32) -> f32;
}

struct Exponential;

impl Function for Exponential {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        exp(x)
    }
}

struct QuickGate;

impl Function for QuickGate {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        1.0 / (1.0 + exp(-1.702 * x))
    }
}

struct NormalGate;

impl Function for NormalGate {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        normal_gate(x)
    }
}

fn each<F: Function>(kernel: FloatKernel, values: &mut [f32]) {
    // The kernel was found on this processor.
    match kernel {
        #[cfg(target_arch = "x86_64")]
        FloatKernel::Avx512 => unsafe { each_avx512::<F>(values) },
        #[cfg(target_arch = "x86_64")]
        FloatKernel::Avx2 => unsafe { each_avx2::<F>(values) },
        _ => each_plain::<F>(values),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2")]
unsafe fn each_avx512<F: Function>(values: &mut [f32]) {
    each_plain::<F>(values);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn each_avx2<F: Function>(values: &mut [f32]) {
    each_plain::<F>(values);
}

#[inline(always)]
fn each_plain<F: Function>(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = F::of(*value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_gives_the_same_bits() {
        let values: Vec<f32> = (-3000..3000).map(|step| step as f32 / 33.0).collect();
        for kernel in FloatKernel::available() {
            let check = |run: fn(FloatKernel, &mut [f32]), plain: fn(f32) -> f32| {
                let mut found = values.clone();
                run(kernel, &mut found);
                for (&x, found) in values.iter().zip(found) {
                    assert_eq!(found.to_bits(), plain(x).to_bits(), "{kernel:?} of {x}");
                }
            };
            check(exponentials, exp);
            check(quick_gates, QuickGate::of);
            check(normal_gates, NormalGate::of);
        }
    }

    #[test]
    fn the_gates_are_their_formulas() {
        for step in -2000..2000 {
            let x = f64::from(step) / 100.0;
            let quick = 1.0 / (1.0 + (-1.702 * x).exp());
            assert!((f64::from(QuickGate::of(x as f32)) - quick).abs() < 3e-7, "{x}");
            let normal = 0.5 * (1.0 + libm::erf(x / 2_f64.sqrt()));
            assert!((f64::from(NormalGate::of(x as f32)) - normal).abs() < 3e-7, "{x}");
        }
    }
}
