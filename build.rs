//! Link settings that Cargo.toml cannot express.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");

    // Arenas map more than an address of 32 bits can reach, and wait by calls of Linux.
    println!("cargo:rustc-check-cfg=cfg(arenas)");
    let variable = |name| std::env::var(name).unwrap_or_default();
    let os = variable("CARGO_CFG_TARGET_OS");
    if os == "linux" && variable("CARGO_CFG_TARGET_POINTER_WIDTH") == "64" {
        println!("cargo:rustc-cfg=arenas");
    }

    // Before glibc 2.34 `shm_open` lived in librt. Newer ones keep an empty
    // librt, so that naming it is right for both.
    if os == "linux" && variable("CARGO_CFG_TARGET_ENV") == "gnu" {
        println!("cargo:rustc-link-lib=rt");
    }

    #[cfg(feature = "python")]
    refuse_free_threading();

    // On macOS an extension module leaves the interpreter's symbols to be
    // found when it is loaded; elsewhere this adds nothing.
    #[cfg(feature = "python")]
    pyo3_build_config::add_extension_module_link_args();
}

/// Stops where the build is for an interpreter without a GIL, which has another ABI than the one
/// that this extension is made for. (Those that load the module, too: see the package.)
#[cfg(feature = "python")]
fn refuse_free_threading() {
    for name in ["PYO3_PYTHON", "PYTHON_SYS_EXECUTABLE"] {
        println!("cargo:rerun-if-env-changed={name}");
        let Ok(python) = std::env::var(name) else {
            continue;
        };
        let asked = std::process::Command::new(&python)
            .args(["-c", "import sys; print(sys.abiflags)"])
            .output();
        if asked.is_ok_and(|output| output.stdout.contains(&b't')) {
            eprintln!(
                "shared_numpy serves CPython 3.6 and later with a GIL; {python} is a free-threaded \
                 build. Use the ordinary build of the same version."
            );
            std::process::exit(1);
        }
    }
}
