//! Memory that this process has and does not need: what the allocator of the C library keeps, and what is mapped of the
//! program itself.

use std::ffi::{c_int, c_void};
use std::ptr;

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

/// Gives back what only the start of the program needed: memory that is free by now, and what is mapped of the program's
/// own file. What of that is touched again comes from the cache of files.
pub fn give_start_back() {
    give_free_memory_back();
    // SAFETY: the function is called with one description of a loaded object after the other and with no data.
    unsafe { libc::dl_iterate_phdr(Some(give_object_back), ptr::null_mut()) };
}

/// Source: `dl_iterate_phdr(3)`.
unsafe extern "C" fn give_object_back(object: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    /// The first object is the program; a number that is not zero ends the search.
    const ENOUGH: c_int = 1;
    // SAFETY: the description is valid during the call, its segments are mapped, and there are as many as it says. Only
    // pages that were mapped from a file and can never have been written to are given back, so that nothing is lost.
    unsafe {
        let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(1 << 12);
        let (base, count) = ((*object).dlpi_addr, usize::from((*object).dlpi_phnum));
        for segment in std::slice::from_raw_parts((*object).dlpi_phdr, count) {
            if segment.p_type != libc::PT_LOAD || segment.p_flags & libc::PF_W != 0 {
                continue;
            }
            let start = usize::try_from(base + segment.p_vaddr).unwrap_or(0);
            let end = start + usize::try_from(segment.p_memsz).unwrap_or(0);
            let start = start - start % page;
            libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED);
        }
    }
    ENOUGH
}
