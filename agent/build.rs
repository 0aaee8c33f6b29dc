//! The device's program (profile `device`, the one that is built for size) has its relative relocations packed: 0.6 MB less of 10.
//!
//! It then wants glibc 2.36 or newer, which Debian 12 and today's releases of OpenEmbedded have. A linker that does not know the
//! option says so and leaves it; where another linker is named nothing is asked of it: old releases of mold make programs of it that
//! do not start.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // By which scripts/ordered-link places the program's functions: another list is another program.
    println!("cargo::rerun-if-changed=dist/functions");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let for_size = var("OPT_LEVEL").is_ok_and(|level| level == "z");
    let another_linker = var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("fuse-ld="));
    if for_size && !another_linker {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
