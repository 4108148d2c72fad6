//! What the README and `configs/` show must be true: every YAML block and every
//! shipped file passes `--check` of the real binary.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `sockwatch --check` on a file, for every profile that it might name.
fn check(path: &Path) -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sockwatch"))
        .args(["--check", "--config"])
        .arg(path)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.code() == Some(0) && output.stdout.starts_with(b"good: ") {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The fenced blocks of a language in a Markdown text.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(fence.as_str())
        .skip(1)
        .map(|rest| {
            rest.split("\n```")
                .next()
                .expect("split gives at least one part")
        })
        .collect()
}

#[test]
fn every_yaml_block_of_the_readme_is_a_good_configuration() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = blocks(&readme, "yaml");
    assert!(!blocks.is_empty(), "the README shows no configuration");
    let dir = std::env::temp_dir().join(format!("sockwatch-docs-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (at, block) in blocks.iter().enumerate() {
        let path = dir.join(format!("block-{at}.yaml"));
        std::fs::write(&path, block).unwrap();
        if let Err(problems) = check(&path) {
            panic!("block {at} of the README:\n{block}\n{problems}");
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn every_shipped_configuration_is_good() {
    let mut shipped: Vec<PathBuf> = std::fs::read_dir(root().join("configs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    shipped.sort();
    assert!(
        shipped.len() >= 2,
        "configs/ holds the reference and an example"
    );
    for path in shipped {
        if let Err(problems) = check(&path) {
            panic!("{}: {problems}", path.display());
        }
    }
}

#[test]
fn every_json_block_of_the_readme_is_an_event() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for block in blocks(&readme, "json") {
        for line in block.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            for key in ["ts", "seq", "host", "eid", "sensor", "listener", "data"] {
                assert!(event.get(key).is_some(), "no {key} in {line}");
            }
        }
    }
}

/// Every option that the README shows is one that the program knows.
#[test]
fn every_option_of_the_readme_is_in_the_help() {
    let help = Command::new(env!("CARGO_BIN_EXE_sockwatch"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let shown = readme
        .lines()
        .filter_map(|line| line.strip_prefix("$ sockwatch "));
    let mut options = 0;
    for line in shown {
        for option in line
            .split_whitespace()
            .filter(|word| word.starts_with("--"))
        {
            options += 1;
            assert!(help.contains(option), "{option} is not in --help");
        }
    }
    assert!(options > 0, "the README shows no option");
}
