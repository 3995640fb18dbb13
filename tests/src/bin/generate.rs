//! Writes the Rust code of every `.proto` file: `cargo gen [--to FOLDER]`; without `--to`, over the committed files.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let to = match arguments.as_slice() {
        [] => root.clone(),
        [flag, folder] if flag == "--to" => PathBuf::from(folder),
        _ => return Err("usage: generate [--to FOLDER]".into()),
    };
    synego_tests::generate::all(&root, Path::new(&to))
}
