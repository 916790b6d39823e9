//! What the allocator of the C library keeps, and gives back.

#[cfg(target_env = "gnu")]
use std::ffi::c_int;

/// From this many bytes on, memory is taken from the system by itself and goes back the moment it is freed. Without
/// being told, glibc raises this to whatever was freed, to 32 MiB at most, and keeps such blocks from then on.
#[cfg(target_env = "gnu")]
const OF_ITS_OWN: c_int = 256 * 1024;

/// Lets large blocks of memory go back to the system when they are freed. Call it before there is a second thread.
pub fn give_large_blocks_back() {
    // SAFETY: the call changes a number of the allocator's, and allocates nothing.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OF_ITS_OWN);
    }
}

/// Gives all free memory back to the system that can be; it may take some milliseconds.
pub fn give_free_memory_back() {
    // SAFETY: the call locks the allocator while it works, and touches only what is free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
