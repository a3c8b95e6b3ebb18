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

    // On macOS an extension module leaves the interpreter's symbols to be
    // found when it is loaded; elsewhere this adds nothing.
    #[cfg(feature = "python")]
    pyo3_build_config::add_extension_module_link_args();
}
