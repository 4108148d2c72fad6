//! The table that the benchmark prints.

use super::sample::Spread;

/// One figure.
pub struct Line {
    /// What was measured.
    pub figure: String,
    /// What it came to.
    pub value: String,
    /// What it is to come to; empty where nothing is promised.
    pub target: &'static str,
    /// What did the same with less, and what that came to.
    pub peer: String,
    /// How many times the peer's the value is.
    pub ratio: String,
    /// The part that measures it alone, for `--only`.
    pub part: &'static str,
}

/// A unit of time, and how many ns it has.
pub type Unit = (&'static str, f64);

impl Line {
    /// A figure that has no peer.
    pub fn alone(
        part: &'static str,
        figure: impl Into<String>,
        value: impl Into<String>,
        target: &'static str,
    ) -> Line {
        Line {
            figure: figure.into(),
            value: value.into(),
            target,
            peer: String::new(),
            ratio: String::new(),
            part,
        }
    }

    /// This figure beside its peer, in `unit`.
    pub fn against(
        self,
        (ours, peer, ratio): (Spread, Spread, f64),
        unit: Unit,
        name: &str,
    ) -> Line {
        Line {
            value: shown(ours, unit),
            peer: format!("{} {name}", shown(peer, unit)),
            ratio: format!("{ratio:.2}"),
            ..self
        }
    }

    /// Prints the table.
    pub fn print(lines: &[Line]) {
        println!(
            "\n{:30} {:31} {:16} {:50} {:>5}  COMMAND: cargo bench --bench figures --",
            "FIGURE", "VALUE", "TARGET", "PEER", "RATIO"
        );
        for line in lines {
            println!(
                "{:30} {:31} {:16} {:50} {:>5}  --only {}",
                line.figure, line.value, line.target, line.peer, line.ratio, line.part
            );
        }
    }
}

/// Median (least to most).
fn shown(spread: Spread, (unit, scale): Unit) -> String {
    let [median, least, most] =
        [spread.median, spread.least, spread.most].map(|nanos| nanos / scale);
    let digits = if median < 100.0 { 1 } else { 0 };
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$}) {unit}")
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}
