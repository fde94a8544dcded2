//! The allocator of the commands.

/// Training and search free and take large buffers from many threads, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory is kept, in milliseconds.
const KEPT: std::ffi::c_long = 2_000;

/// Keeps freed memory for a while before the system gets it back.
///
/// A step of training frees and takes the same buffers as the one before. By default mimalloc gives pages back after 10 ms,
/// and the system clears them anew when they are taken again, which costs a sixth of a training's time. What is kept is the
/// memory of a step at most. `MIMALLOC_PURGE_DELAY` of the environment is followed where it is set.
pub(crate) fn keep_freed_memory() {
    /// `mi_option_purge_delay` of `mimalloc.h`, of versions 2 and 3.
    const PURGE_DELAY: std::ffi::c_int = 15;
    #[expect(unsafe_code, reason = "the crate of the allocator names the function for its feature `extended` alone")]
    unsafe extern "C" {
        fn mi_option_set(option: std::ffi::c_int, value: std::ffi::c_long);
    }
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: the option is a number that any thread may set at any time.
        #[expect(unsafe_code, reason = "a function of C")]
        unsafe {
            mi_option_set(PURGE_DELAY, KEPT);
        }
    }
}
