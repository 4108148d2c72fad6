//! Any bytes as a configuration file: settings or mistakes, and every mistake
//! lies within the text.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match sockwatch::config::load_bytes("fuzz.yaml", bytes.to_vec(), &[]) {
        Ok(settings) => assert!(!settings.sensors.is_empty()),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).count() as u32;
            for problem in problems {
                assert!(!problem.to_string().is_empty());
                if let Some(position) = problem.position() {
                    assert!((1..=lines + 1).contains(&position.line), "{problem}");
                }
            }
        }
    }
});
