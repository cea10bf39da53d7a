//! The C library's heap, kept small: a daemon runs for months.

/// Keeps the heap from growing with the number of threads that there ever were.
///
/// glibc gives each new thread a heap of its own, up to eight a core, and each keeps the most that was ever in it: a daemon that had reloads and
/// clients for an hour held 250 MiB in thirteen heaps. Two are enough. What is 6 MiB or more, as an image or a layer's
/// weights while they are packed, is given back at once. What a layer makes of a view is smaller, and getting its pages from the system anew each
/// time was half of the time of a small convolutional network; a heap's free end of up to 16 MiB stays for the next view, which was an eighth of RN50's
/// time in int8.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn bound() {
    use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
    if is_tuned() {
        return;
    }
    for (parameter, value) in [(M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 6 << 20), (M_TRIM_THRESHOLD, 16 << 20)] {
        // SAFETY: the call sets a number of the allocator, under the allocator's own lock (mallopt(3)); it has no pointer, and
        // one that fails changes nothing.
        unsafe { mallopt(parameter, value) };
    }
}

/// Gives free pages back to the system, also those below others that are in use: by itself glibc gives back the heap's end alone, and one
/// small piece that lives long keeps all below it.
#[cfg(all(feature = "daemon", target_os = "linux", target_env = "gnu"))]
pub(crate) fn give_back() {
    if !is_tuned() {
        // SAFETY: the call is safe from any thread, and changes nothing that is in use (malloc_trim(3)).
        unsafe { nix::libc::malloc_trim(0) };
    }
}

/// True where somebody has set glibc's own variables, and measured something else.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_tuned() -> bool {
    ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"].iter().any(|name| std::env::var_os(name).is_some())
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound() {}

#[cfg(all(feature = "daemon", not(all(target_os = "linux", target_env = "gnu"))))]
pub(crate) fn give_back() {}

#[cfg(all(test, feature = "daemon", target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_mib() -> f64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    #[test]
    fn what_is_free_below_small_pieces_in_use_is_given_back() {
        bound();
        // As after an hour of images and clients: what was large is gone, what is small lives on between.
        let mut small = Vec::new();
        let mut large = Vec::new();
        for number in 0..1600_usize {
            large.push(vec![number as u8; 64 << 10]);
            small.push(vec![number as u8; 100]);
        }
        let full = resident_mib();
        drop(large);
        let freed = resident_mib();
        give_back();
        let given_back = resident_mib();
        assert!(full - given_back > 80.0, "{full} MiB, {freed} when freed, {given_back} when given back");
        assert!(freed - given_back > 50.0, "glibc gave it back by itself: {freed}, {given_back}");
        assert!(small.iter().enumerate().all(|(number, piece)| *piece == vec![number as u8; 100]));
    }
}
