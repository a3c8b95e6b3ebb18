//! Link settings that Cargo.toml cannot express.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");

    // Before glibc 2.34 `shm_open` lived in librt. Newer ones keep an empty
    // librt, so that naming it is right for both.
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let env = std::env::var("CARGO_CFG_TARGET_ENV").unwrap_or_default();
    if os == "linux" && env == "gnu" {
        println!("cargo:rustc-link-lib=rt");
    }

    // On macOS an extension module leaves the interpreter's symbols to be
    // found when it is loaded; elsewhere this adds nothing.
    #[cfg(feature = "python")]
    pyo3_build_config::add_extension_module_link_args();
}
