//! How a release is linked, so that it is small.
//!
//! * Without unwind tables: it aborts on a panic, so that nothing in it unwinds,
//!   and they are a tenth of the program. A release that keeps debug information
//!   (`CARGO_PROFILE_RELEASE_DEBUG=1`) keeps them too, so that a debugger or
//!   profiler can walk its stack.
//! * With packed relocations (DT_RELR), a few bytes in place of 24 for each
//!   pointer in its data, where the C library of this machine understands them.
//!   The program then asks for glibc 2.36 when it starts.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

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
    if !known || !is("PROFILE", "release") {
        return;
    }
    if is("DEBUG", "false") {
        let out = env::var_os("OUT_DIR").expect("cargo says where to write");
        let script = Path::new(&out).join("no-unwind-tables.ld");
        fs::write(&script, SCRIPT).expect("that place can be written to");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
    if env::var("HOST") == env::var("TARGET") && glibc().is_some_and(|found| found >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library, if it is glibc.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = String::from_utf8(said.ok()?.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
