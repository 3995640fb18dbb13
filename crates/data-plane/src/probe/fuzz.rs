//! What must hold for any bytes, one function for each fuzz target: it panics where something does not hold.
//!
//! The files of `fuzz/corpus` go through the same functions in every run of the tests.

mod chunks;
mod frames;
mod heads;
mod hpack;
mod introduced;
mod paths;
mod routes;
mod script;

pub use chunks::chunked_body;
pub use frames::h2_frames;
pub use heads::{answer_head, request_head};
pub use hpack::hpack;
pub use introduced::proxy_header;
pub use paths::path;
pub use routes::routes;

/// Chance that is the same for the same bytes.
struct Chance(u64);

impl Chance {
    /// FNV-1a of `bytes`.
    fn of(bytes: &[u8]) -> Self {
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(hash | 1)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    /// The bytes in pieces, of which most are small.
    fn pieces<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let most = [1, 4, 32, bytes.len()][self.below(4)];
            let (piece, rest) = bytes.split_at((1 + self.below(most)).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every file of the target's corpus.
    fn run(target: &str, function: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).expect("the folder of the target's corpus") {
            let file = entry.expect("an entry").path();
            // The name of the file is what a failed test has to tell.
            println!("{}", file.display());
            let bytes = std::fs::read(&file).expect("a file of the corpus");
            assert!(bytes.len() <= 1024, "{} bytes: an input that is kept is a small one", bytes.len());
            function(&bytes);
            count += 1;
        }
        assert!((1..=60).contains(&count), "{} files in {}", count, folder.display());
    }

    #[test]
    fn heads_of_requests_in_the_corpus_hold_what_must_hold() {
        run("request_head", super::request_head);
    }

    #[test]
    fn heads_of_answers_in_the_corpus_hold_what_must_hold() {
        run("answer_head", super::answer_head);
    }

    #[test]
    fn chunked_bodies_in_the_corpus_hold_what_must_hold() {
        run("chunked_body", super::chunked_body);
    }

    #[test]
    fn paths_in_the_corpus_hold_what_must_hold() {
        run("path", super::path);
    }

    #[test]
    fn routes_in_the_corpus_hold_what_must_hold() {
        run("routes", super::routes);
    }

    #[test]
    fn proxy_headers_in_the_corpus_hold_what_must_hold() {
        run("proxy_header", super::proxy_header);
    }

    #[test]
    fn blocks_of_hpack_in_the_corpus_hold_what_must_hold() {
        run("hpack", super::hpack);
    }

    #[test]
    fn frames_in_the_corpus_hold_what_must_hold() {
        run("h2_frames", super::h2_frames);
    }
}
