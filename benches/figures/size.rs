//! The size of the program, in each way of building it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Outcome;
use super::daemon::SOCKWATCH;
use super::table::{Line, mib};
use super::world;

/// One way, and where its program is.
struct Variant {
    name: &'static str,
    target: &'static str,
    program: PathBuf,
}

/// Builds what is asked for and answers the sizes. The program itself is built
/// last, since another way of building it has the same place.
pub fn build(measured: bool, every: bool) -> Outcome<Vec<Line>> {
    let mut variants = Vec::new();
    if measured && world::cargo().is_none() {
        println!("SKIPPED the size of other builds: not run by cargo");
    } else if measured {
        let program = Path::new(SOCKWATCH).with_file_name("sockwatch-without-bpf");
        world::build(&["--no-default-features"], None)?;
        fs::copy(SOCKWATCH, &program)?;
        variants.push(Variant {
            name: "without BPF",
            target: "1.5 MiB",
            program,
        });
        if every {
            variants.extend(static_ones()?);
        } else {
            println!("SKIPPED the size of static builds: --variants builds them");
        }
    }
    world::build(&[], None)?;
    variants.insert(
        0,
        Variant {
            name: "as shipped",
            target: "2 MiB",
            program: SOCKWATCH.into(),
        },
    );
    let sizes = variants.iter().filter(|_| measured).map(|variant| {
        let bytes = fs::metadata(&variant.program)?.len();
        let shown = format!("{} ({bytes} B)", mib(bytes));
        let figure = format!("binary, stripped, {}", variant.name);
        Ok(Line::alone("size", figure, shown, variant.target))
    });
    sizes.collect()
}

/// Both static builds, for the gnu target of this machine.
fn static_ones() -> Outcome<Vec<Variant>> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target = Path::new(SOCKWATCH).ancestors().nth(2);
    let built = target.ok_or("a program in no target directory")?;
    let built = built.join(&triple).join("release/sockwatch");
    let mut variants = Vec::new();
    for (name, features) in [
        ("static, without BPF", &["--no-default-features"][..]),
        ("static", &[]),
    ] {
        let arguments = [&["--target", &triple], features].concat();
        world::build(&arguments, Some("-C target-feature=+crt-static"))?;
        let program = built.with_file_name(name.replace([',', ' '], "-"));
        fs::copy(&built, &program)?;
        variants.insert(
            0,
            Variant {
                name,
                target: "",
                program,
            },
        );
    }
    Ok(variants)
}
