//! The generator of Rust code from `.proto` files: by protox, so that no `protoc` is needed.

use std::error::Error;
use std::fs;
use std::path::Path;

/// A set of `.proto` files and where their code goes, relative to the root.
struct Target {
    includes: &'static str,
    files: &'static [&'static str],
    to: &'static str,
}

const TARGETS: &[Target] = &[
    Target {
        includes: "proto",
        files: &["synego/v1/sidecar.proto", "synego/v1/mesh.proto", "synego/v1/admin.proto"],
        to: "crates/wire/src/gen",
    },
    Target { includes: "examples/shop/proto", files: &["shop/v1/shop.proto"], to: "examples/shop/inventory/src/gen" },
];

/// Generates all code from the files below `root` into the same places below `to`.
///
/// # Errors
/// When a file cannot be read, does not compile, or the code cannot be written.
pub fn all(root: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    for target in TARGETS {
        let folder = to.join(target.to);
        fs::create_dir_all(&folder)?;
        let descriptors = protox::compile(target.files, [root.join(target.includes)])?;
        tonic_prost_build::configure().out_dir(&folder).emit_rerun_if_changed(false).compile_fds(descriptors)?;
    }
    Ok(())
}
