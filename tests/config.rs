//! The configuration as its author meets it: what loads, what is refused, and in
//! which words.
//!
//! `fixtures/config/bad/NAME.yaml` is refused with the messages of
//! `NAME.expected`, one a line, the path shown as the file's name. A line there
//! that ends in ` ...` need only begin alike: what follows is a library's
//! wording. `BLESS=1` writes the messages as they are now; read the difference.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sockwatch::config::{self, Problem};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The messages, with paths below `dir` shown as file names.
fn messages(problems: &[Problem], dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    problems
        .iter()
        .map(|problem| problem.to_string().replace(&prefix, ""))
        .collect()
}

fn stems(dir: &Path, extension: &str) -> BTreeSet<String> {
    fs::read_dir(dir)
        .expect("a directory of fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

/// Files of a test, in a directory that goes when the test is over.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Files {
        let name = format!("sockwatch-config-{test}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("a directory");
        Files(dir)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a written file");
        path
    }

    fn refused(&self, files: &[PathBuf]) -> Vec<String> {
        let problems = config::load(files, &[]).expect_err("a bad configuration");
        messages(&problems, &self.0)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

#[test]
fn every_bad_configuration_gives_its_messages() {
    let dir = root().join("fixtures/config/bad");
    let bless = std::env::var_os("BLESS").is_some();
    let names = stems(&dir, "yaml");
    assert!(!names.is_empty());
    let mut wrong = Vec::new();
    for name in &names {
        let yaml = dir.join(format!("{name}.yaml"));
        let found = match config::load(&[yaml], &[]) {
            Ok(_) => vec!["(accepted)".to_owned()],
            Err(problems) => messages(&problems, &dir),
        };
        let expected = dir.join(format!("{name}.expected"));
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        let wanted: Vec<&str> = wanted.lines().collect();
        let alike = wanted.len() == found.len()
            && wanted
                .iter()
                .zip(&found)
                .all(|(wanted, found)| match wanted.strip_suffix(" ...") {
                    Some(beginning) => found.starts_with(beginning),
                    None => found == wanted,
                });
        if bless && !alike {
            fs::write(&expected, found.join("\n") + "\n").expect("a written fixture");
            continue;
        }
        if !alike {
            wrong.push(format!(
                "{name}: expected\n  {}\nfound\n  {}",
                wanted.join("\n  "),
                found.join("\n  ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(names, stems(&dir, "expected"), "fixtures without a pair");
}

#[test]
fn files_merge() {
    let files = Files::new("merge");
    let web = files.write("web.yaml", "web: {listener: net.socket}\n");
    let rest = files.write(
        "rest.yaml",
        "daemon: {interval: 5s}\nsensors:\n  mail: {listener: net.socket}\n",
    );
    let daemon = files.write("daemon.yaml", "daemon: {queue: 9}\n");
    // Two ids that a message would show alike.
    let long = "x".repeat(60);
    let [long_a, long_b] = ["a", "b"].map(|end| {
        let text = format!("{long}{end}: {{listener: net.socket, profile: [no]}}\n");
        files.write(&format!("{end}.yaml"), &text)
    });
    let settings =
        config::load(&[web, rest, daemon, long_a, long_b], &[]).expect("five good files");
    let ids: Vec<&str> = settings.sensors.iter().map(|sensor| &*sensor.id).collect();
    assert_eq!(ids, ["web", "mail"]);
    assert_eq!(settings.sensors[0].interval, Duration::from_secs(5));
    assert_eq!(settings.daemon.queue, 9);
}

#[test]
fn what_two_files_define_names_both_places() {
    let files = Files::new("twice");
    let one = files.write(
        "one.yaml",
        "daemon: {queue: 9}\nsensors:\n  web: {listener: net.socket}\n  mail: {listner: x}\n",
    );
    let two = files.write(
        "two.yaml",
        "daemon:\n  stdout: true\n  queue: 9\nsensors:\n  web: {listener: net.socket}\n",
    );
    assert_eq!(
        files.refused(&[one, two]),
        [
            "one.yaml:4:3: `mail` without `listener`, expected `listener` with one of `net.socket`, \
             `net.tcp_connect`",
            "one.yaml:4:10: unknown key `listner` in a sensor, expected one of `profile`, \
             `description`, `listener`, `opts`, `interval`, `tag`, `args`; did you mean `listener`?",
            "two.yaml:3:3: `daemon` setting `queue` again (first at one.yaml:1:10), \
             expected each setting once",
            "two.yaml:5:3: sensor `web` again (first at one.yaml:3:3), expected each id once",
        ]
    );
}

#[test]
fn at_most_a_hundred_mistakes_of_each_file_are_told_and_the_rest_counted() {
    let files = Files::new("flood");
    let keys = |count: usize| {
        (0..count)
            .map(|n| format!("  k{n}: 1\n"))
            .collect::<String>()
    };
    let good: String = (0..250)
        .map(|n| format!("w{n}: {{listener: net.socket}}\n"))
        .collect();
    let more = |name: &str, count: &str| {
        format!("{name}.yaml: {count}, expected the ones above to be mended first")
    };
    let one = files.write(
        "one.yaml",
        &format!("web:\n  listener: net.socket\n{}", keys(101)),
    );
    let two = files.write("two.yaml", &good);
    let again = files.write("again.yaml", &good);
    let found = files.refused(&[one, two, again]);
    assert_eq!(found.len(), 202);
    assert_eq!(found[100], more("one", "1 more mistake"));
    assert_eq!(found[201], more("again", "150 more mistakes"));

    let hosts = "\"tcp * * a* *\", ".repeat(150);
    let text = format!("web: {{listener: net.socket, args: {{patterns: [{hosts}]}}}}");
    let warned = config::load(&[files.write("warned.yaml", &text)], &[]).expect("only warnings");
    let warnings = messages(&warned.warnings, &files.0);
    assert_eq!(warnings.len(), 101);
    assert_eq!(warnings[100], more("warned", "50 more warnings"));
}

#[test]
fn what_cannot_be_read_is_told_with_everything_else() {
    let files = Files::new("unread");
    let typo = files.write("typo.yaml", "web: {listner: net.socket}\n");
    // Root reads every file, whatever its mode; nobody reads through a file as
    // if it were a directory.
    let through = typo.join("below.yaml");
    let missing = files.0.join("missing.yaml");
    let huge = files.write("huge.yaml", &"# 64 KiB of this\n".repeat(65536));
    let found = files.refused(&[files.0.clone(), missing, through, huge, typo]);
    let expected = [
        "/: a directory, expected a YAML file".replace('/', &files.0.display().to_string()),
        "missing.yaml: a file that cannot be read (No such file or directory (os error 2)), \
         expected a YAML file"
            .to_owned(),
        "typo.yaml/below.yaml: a file that cannot be read (Not a directory (os error 20)), \
         expected a YAML file"
            .to_owned(),
        "huge.yaml: a file of more than 1 MiB, expected a configuration of at most 1 MiB"
            .to_owned(),
    ];
    assert_eq!(found[..4], expected);
    assert_eq!(found.len(), 6);
    let endless = config::load(&["/dev/zero".into()], &[]).expect_err("not endless reading");
    assert_eq!(endless.len(), 1);
    let none = config::load(&[], &[]).expect_err("no file");
    assert_eq!(
        messages(&none, Path::new("")),
        ["no sensor in any file, expected at least one"]
    );
}

#[test]
fn the_built_in_configuration_is_one_sensor() {
    let settings = config::builtin(&[], &[]).expect("the built-in configuration");
    let [sensor] = settings.sensors.as_slice() else {
        panic!("one sensor");
    };
    assert_eq!(&*sensor.id, "sockets");
    assert!(sensor.opened && sensor.closed && sensor.patterns.is_empty());
    assert!(settings.warnings.is_empty());

    let narrowed =
        config::builtin(&["tcp * * *.org *".to_owned()], &["udp*".to_owned()]).expect("good globs");
    assert_eq!(narrowed.sensors[0].patterns, ["tcp * * *.org *"]);
    assert_eq!(narrowed.sensors[0].ignore, ["udp*"]);
    assert_eq!(
        messages(&narrowed.warnings, Path::new("")),
        [
            "--pattern: glob `tcp * * *.org *` on the remote host without dns, \
          expected names to be looked up, or `*` for the host"
        ]
    );

    // Only the daemon: a dump prints minisockets.
    let leftovers = config::builtin(&["*TIME_WAIT".to_owned()], &[]).expect("a good glob");
    assert_eq!(
        messages(&leftovers.warnings, Path::new("")),
        [
            "--pattern: pattern `*TIME_WAIT` that matches TIME_WAIT and opens nothing, \
             expected `TIME_WAIT` itself as the last word of a pattern"
        ]
    );

    let problems = config::builtin(
        &["tcp*".to_owned(), "{tcp".to_owned()],
        &["{\x1b[2J".to_owned(), String::new()],
    )
    .expect_err("bad globs");
    let told = messages(&problems, Path::new(""));
    assert_eq!(told.len(), 3);
    assert!(
        told[0].starts_with("--pattern: bad glob `{tcp` ("),
        "{}",
        told[0]
    );
    assert!(
        told[1].starts_with("--ignore: bad glob `{\\u{1b}[2J` ("),
        "{}",
        told[1]
    );
    assert!(
        told[2].starts_with("--ignore: an empty text, expected"),
        "{}",
        told[2]
    );
}
