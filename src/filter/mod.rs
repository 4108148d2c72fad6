//! Globs over tuples (stand-in: only the part that the configuration needs).

use std::fmt;

/// The compiled patterns of one sensor.
#[derive(Debug)]
pub struct Filter {
    host: bool,
}

impl Filter {
    /// Compiles patterns.
    pub fn new(patterns: &[String], ignore: &[String]) -> Result<Filter, GlobError> {
        let mut host = false;
        for pattern in patterns.iter().chain(ignore) {
            check(pattern)?;
            let words: Vec<&str> = pattern.split(' ').collect();
            host |= words.len() == 5 && !matches!(words[3], "*" | "-");
        }
        Ok(Filter { host })
    }

    /// Whether a pattern can tell one remote host's name from another.
    pub fn mentions_host(&self) -> bool {
        self.host
    }
}

/// Checks one glob.
pub fn check(pattern: &str) -> Result<(), GlobError> {
    match globset::Glob::new(pattern) {
        Ok(_) => Ok(()),
        Err(error) => Err(GlobError {
            offset: 0,
            message: error.kind().to_string(),
            hint: None,
        }),
    }
}

/// A glob that cannot be compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GlobError {
    /// Byte offset in the pattern.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl fmt::Display for GlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.message, self.offset)
    }
}

impl std::error::Error for GlobError {}
