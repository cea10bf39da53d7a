//! Kernels for pixels.

/// Kernel of what views are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PixelKernel {
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Any processor.
    #[cfg_attr(all(target_arch = "aarch64", not(test)), expect(dead_code))]
    Portable,
}

impl PixelKernel {
    /// The fastest kernel on this processor.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            return Self::Avx2;
        }
        #[cfg(target_arch = "aarch64")]
        return Self::Neon;
        #[cfg(not(target_arch = "aarch64"))]
        Self::Portable
    }

    /// The kernels that run on this processor.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Self> {
        vec![Self::best(), Self::Portable]
    }
}
