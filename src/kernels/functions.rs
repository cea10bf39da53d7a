//! Functions of many values, with the processor's vectors and the same bits on every one.

use super::activation::{erf, exp};
use super::float::FloatKernel;

/// `e^x` of every value, in place: within 2 units in the last place from -87 to 88, beyond them that of -87.3 and of 88.3.
pub(crate) fn exponentials(kernel: FloatKernel, values: &mut [f32]) {
    each::<Exponential>(kernel, values);
}

/// The error function of every value, in place, within 5e-7.
pub(crate) fn error_functions(kernel: FloatKernel, values: &mut [f32]) {
    each::<ErrorFunction>(kernel, values);
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

struct ErrorFunction;

impl Function for ErrorFunction {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        erf(x)
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
            let (mut powers, mut errors) = (values.clone(), values.clone());
            exponentials(kernel, &mut powers);
            error_functions(kernel, &mut errors);
            for ((&x, power), error) in values.iter().zip(powers).zip(errors) {
                assert_eq!(power.to_bits(), exp(x).to_bits(), "{kernel:?} exp({x})");
                assert_eq!(error.to_bits(), erf(x).to_bits(), "{kernel:?} erf({x})");
                assert!((f64::from(error) - libm::erf(f64::from(x))).abs() < 5e-7, "{kernel:?} erf({x}): {error}");
            }
        }
    }
}
