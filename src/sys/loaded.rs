//! What is loaded into this process.

use std::ffi::{c_int, c_void, CStr};

/// Returns the path of a loaded object in which `symbol` is at another address
/// than `mine`: `dl_iterate_phdr(3)`, `dlopen(3)` with RTLD_NOLOAD, `dlsym(3)`.
pub fn other_with(symbol: &CStr, mine: usize) -> Option<String> {
    let paths = paths();
    let mut others = paths.iter().filter(|path| {
        // SAFETY: a path as the loader told it; nothing is loaded.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() {
            return false;
        }
        // SAFETY: a handle of the line before.
        let found = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
        // SAFETY: the same handle, once.
        unsafe { libc::dlclose(handle) };
        !found.is_null() && found as usize != mine
    });
    others
        .next()
        .map(|path| path.to_string_lossy().into_owned())
}

/// The paths of all objects that the loader knows, but the program's own.
fn paths() -> Vec<std::ffi::CString> {
    unsafe extern "C" fn note(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        paths: *mut c_void,
    ) -> c_int {
        // SAFETY: what `paths` below passes, lent for the call.
        let paths = unsafe { &mut *paths.cast::<Vec<std::ffi::CString>>() };
        // SAFETY: the loader gives a struct that is valid during this call.
        let name = unsafe { (*info).dlpi_name };
        if !name.is_null() {
            // SAFETY: a C string of the loader's.
            let name = unsafe { CStr::from_ptr(name) };
            if !name.is_empty() {
                paths.push(name.to_owned());
            }
        }
        0
    }
    let mut paths: Vec<std::ffi::CString> = Vec::new();
    // SAFETY: the callback gets the list that is lent to it.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut paths).cast()) };
    paths
}
