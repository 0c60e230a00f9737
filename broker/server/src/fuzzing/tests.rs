use std::fs;
use std::path::PathBuf;

use super::TARGETS;

/// Mutations of each file of a corpus; a fuzzer does the same for longer, and knows what it reaches.
const MUTATIONS: usize = 300;

#[test]
fn no_bytes_make_a_target_panic() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in TARGETS {
        let mut seeds: Vec<PathBuf> =
            fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!seeds.is_empty(), "{name} has no corpus");
        seeds.sort();
        let mut rng = fastrand::Rng::with_seed(1);
        for seed in seeds {
            let bytes = fs::read(&seed).unwrap();
            run(name, target, &bytes);
            for _ in 0..MUTATIONS {
                run(name, target, &mutated(bytes.clone(), &mut rng));
            }
        }
    }
}

fn run(name: &str, target: super::Target, bytes: &[u8]) {
    if let Err(panic) = std::panic::catch_unwind(|| target(bytes)) {
        eprintln!("{name} does not stand {bytes:?}");
        std::panic::resume_unwind(panic);
    }
}

fn mutated(mut bytes: Vec<u8>, rng: &mut fastrand::Rng) -> Vec<u8> {
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(0..=bytes.len());
        match rng.u8(0..5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.u8(..)),
            2 if at < bytes.len() => bytes[at] = rng.u8(..),
            3 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(0..8),
            _ => {
                let end = rng.usize(at..=bytes.len());
                bytes.extend_from_within(at..end);
            }
        }
    }
    bytes
}
