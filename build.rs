//! Leaves the unwind tables out of a release: it aborts on a panic, so that
//! nothing in it unwinds, and they are a tenth of the program.
//!
//! A release that keeps debug information (`CARGO_PROFILE_RELEASE_DEBUG=1`) keeps
//! them too, so that a debugger or profiler can walk its stack.

use std::env;
use std::fs;
use std::path::Path;

/// Read beside the linker's own script, by GNU ld and lld alike.
const SCRIPT: &str = "SECTIONS {
    /DISCARD/ : { *(.eh_frame) *(.eh_frame_hdr) *(.gcc_except_table .gcc_except_table.*) }
} INSERT BEFORE .text;
";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // Where it was tried.
    let known = is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu");
    if known && is("PROFILE", "release") && is("DEBUG", "false") {
        let out = env::var_os("OUT_DIR").expect("cargo says where to write");
        let script = Path::new(&out).join("no-unwind-tables.ld");
        fs::write(&script, SCRIPT).expect("that place can be written to");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
}
