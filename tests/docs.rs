//! What the README and `configs/` show must be true: every YAML block and every
//! shipped file passes `--check` of the real binary.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `sockwatch --check` on a file, with no profile and with each that it
/// names; a warning is a fault too.
fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let named = profiles(&serde_yaml::from_str(&text).map_err(|error| error.to_string())?);
    for profile in std::iter::once(None).chain(named.iter().map(Some)) {
        let output = Command::new(env!("CARGO_BIN_EXE_sockwatch"))
            .env_remove("SOCKWATCH_LOG")
            .args(["--check", "--config"])
            .arg(path)
            .args(profile.into_iter().flat_map(|name| ["--profile", name]))
            .output()
            .map_err(|error| error.to_string())?;
        let good = output.status.code() == Some(0) && output.stdout.starts_with(b"good: ");
        if !good || !output.stderr.is_empty() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(format!("with profile {profile:?}: {told}"));
        }
    }
    Ok(())
}

/// Every profile that a configuration names.
fn profiles(config: &serde_yaml::Value) -> BTreeSet<String> {
    let Some(map) = config.as_mapping() else {
        return BTreeSet::new();
    };
    map.iter()
        .flat_map(|(key, value)| match value.as_sequence() {
            Some(names) if key == "profile" => names
                .iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            _ => profiles(value),
        })
        .collect()
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
    let blocks = blocks(&readme, "json");
    assert!(!blocks.is_empty(), "the README shows no event");
    for block in blocks {
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
    let known: BTreeSet<&str> = options(&help).collect();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let shown = readme
        .lines()
        .filter_map(|line| line.strip_prefix("$ sockwatch "));
    let shown: Vec<&str> = shown.flat_map(options).collect();
    assert!(!shown.is_empty(), "the README shows no option");
    for option in shown {
        assert!(known.contains(option), "{option} is not in --help");
    }
}

/// The long options in a text, whole words and without their values.
fn options(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "[],=|'".contains(c))
        .filter(|word| word.starts_with("--"))
}

/// The checks above would otherwise pass on what they never looked at.
#[test]
fn profiles_and_options_are_found() {
    let shipped = std::fs::read_to_string(root().join("configs/sockwatch.yaml")).unwrap();
    let found = profiles(&serde_yaml::from_str(&shipped).unwrap());
    assert_eq!(found, BTreeSet::from(["audit".to_owned()]));
    let words: Vec<&str> = options("[--pattern GLOB]... --format=json --du").collect();
    assert_eq!(words, ["--pattern", "--format", "--du"]);
}
