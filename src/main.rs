//! The `rtpt` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    bound_the_heap();
    rtpt_edge::internal::run()
}

/// Keeps the C library's heap from growing with the number of threads that there ever were.
///
/// glibc gives each new thread a heap of its own, up to eight a core, and each keeps the most that was ever in it: a daemon that had reloads and
/// clients for an hour held 250 MiB in thirteen heaps. Two are enough, since what takes time allocates little; and what is a megabyte
/// or more is given back at once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn bound_the_heap() {
    use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
    // Whoever sets glibc's own variables has measured something else.
    if ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    for (parameter, value) in [(M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 1 << 20), (M_TRIM_THRESHOLD, 2 << 20)] {
        // SAFETY: the call sets a number of the allocator, under the allocator's own lock (mallopt(3)); it has no pointer, and
        // one that fails changes nothing.
        unsafe { mallopt(parameter, value) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn bound_the_heap() {}
