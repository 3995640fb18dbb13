//! Every file of the fuzz corpus of snapshots, through the function of its fuzz target.

use std::path::Path;

#[path = "../../../fuzz/src/snapshot.rs"]
pub mod target;

#[test]
fn snapshots_in_the_corpus_come_back_as_they_went() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/snapshot");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of the corpus") {
        let file = entry.expect("an entry").path();
        // The name of the file is what a failed test has to tell.
        println!("{}", file.display());
        target::snapshot(&std::fs::read(&file).expect("a file of the corpus"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}
