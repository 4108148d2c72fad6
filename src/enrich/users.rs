//! User names.
//!
//! /etc/passwd is read here by hand, and not through getpwuid_r(3). NSS can wait
//! for a directory server for as long as it likes, opens sockets of its own in
//! this process (which would then be events), and maps its modules into it, all
//! for a name beside a number that is told anyway. The price: users that live
//! elsewhere (LDAP, systemd-homed, DynamicUser=) are told by number alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::pool::{Outcome, Wake, Workers};
use crate::model::Now;

/// How much of the file is read: some 20,000 users.
const LARGEST: u64 = 1 << 20;

/// The longest name told (LOGIN_NAME_MAX with its NUL).
const LONGEST: usize = 255;

/// How often the file is looked at, at most.
const TTL: Duration = Duration::from_secs(10);

/// Names by uid.
type Names = HashMap<u32, Arc<str>>;

/// The names in a passwd file, as they were at most ten seconds ago.
#[derive(Debug)]
pub struct Passwd {
    path: PathBuf,
    names: Arc<Names>,
    /// Which file it was: device, inode, size, change.
    version: Option<[i64; 5]>,
    looked_at: Option<Instant>,
}

impl Default for Passwd {
    /// /etc/passwd.
    fn default() -> Passwd {
        Passwd::at(Path::new("/etc/passwd"))
    }
}

impl Passwd {
    /// The names in a file, which is not read before it is needed.
    pub fn at(path: &Path) -> Passwd {
        Passwd {
            path: path.to_owned(),
            names: Arc::default(),
            version: None,
            looked_at: None,
        }
    }

    /// A user's name. Reads the file, if it may have changed.
    pub fn name(&mut self, uid: u32) -> Option<Arc<str>> {
        self.names().get(&uid).cloned()
    }

    fn names(&mut self) -> &Arc<Names> {
        let now = Instant::now();
        let fresh = |at: Instant| now.saturating_duration_since(at) < TTL;
        if !self.looked_at.is_some_and(fresh) {
            self.looked_at = Some(now);
            self.look();
        }
        &self.names
    }

    /// The names as they are now.
    fn look(&mut self) -> &Arc<Names> {
        if let Err(error) = self.refresh() {
            log::debug!("user names: {}: {error}", self.path.display());
        }
        &self.names
    }

    /// Reads the file if it is another than before. One that cannot be read
    /// leaves what was known.
    fn refresh(&mut self) -> io::Result<()> {
        let file = File::open(&self.path)?;
        let meta = file.metadata()?;
        let version = [
            meta.dev() as i64,
            meta.ino() as i64,
            meta.size() as i64,
            meta.ctime(),
            meta.ctime_nsec(),
        ];
        if self.version == Some(version) {
            return Ok(());
        }
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text)?;
        self.names = Arc::new(parse(&text));
        self.version = Some(version);
        Ok(())
    }
}

/// The names by uid in the text of a passwd file (passwd(5)); of several for one
/// uid the first, as getpwuid(3) has it. Lines that are none are passed over,
/// and so is one without its end: it may have been cut.
fn parse(text: &[u8]) -> Names {
    let mut names = HashMap::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if let Some((uid, name)) = line.strip_suffix(b"\n").and_then(user) {
            names.entry(uid).or_insert_with(|| name.into());
        }
    }
    names.shrink_to_fit();
    names
}

/// `name:password:uid:…`. A name that could not be told apart from the text
/// around it is none.
fn user(line: &[u8]) -> Option<(u32, &str)> {
    let mut fields = line.split(|byte| *byte == b':');
    let (name, _, uid) = (fields.next()?, fields.next()?, fields.next()?);
    let name = std::str::from_utf8(name).ok()?;
    let usable = |c: char| c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric());
    let first = name.chars().next()?;
    // `#` comments, `+` and `-` refer to NIS.
    if matches!(first, '#' | '+' | '-') || name.len() > LONGEST || !name.chars().all(usable) {
        return None;
    }
    Some((std::str::from_utf8(uid).ok()?.parse().ok()?, name))
}

/// User names for the reactor: the file is read once at the start, before there
/// is anything to wait, and from then on by a thread when it may have changed.
#[derive(Debug)]
pub struct Users {
    workers: Workers<(), Arc<Names>>,
    names: Arc<Names>,
    read_at: Instant,
    reading: bool,
}

impl Users {
    /// The users of /etc/passwd, which is read now.
    pub fn new(wake: Wake) -> Users {
        Users::of(Passwd::default(), wake)
    }

    /// The users of another file.
    pub fn of(mut passwd: Passwd, wake: Wake) -> Users {
        let names = Arc::clone(passwd.look());
        let passwd = Mutex::new(passwd);
        let read = move |(): &()| {
            let mut passwd = passwd.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(passwd.look())
        };
        Users {
            workers: Workers::new("users", 1, 1, wake, read),
            names,
            read_at: Instant::now(),
            reading: false,
        }
    }

    /// A user's name as it was lately; an old answer has the file looked at again.
    pub fn name(&mut self, uid: u32, now: Now) -> Option<Arc<str>> {
        self.collect(now);
        let age = now.mono.saturating_duration_since(self.read_at);
        if age >= TTL && !self.reading {
            // Without a thread it is tried again the next time.
            match self.workers.submit((), now.mono + TTL) {
                Ok(()) => self.reading = true,
                Err(refused) => log::debug!("user names: {refused}"),
            }
        }
        self.known(uid)
    }

    /// A user's name as far as it is known.
    pub fn known(&self, uid: u32) -> Option<Arc<str>> {
        self.names.get(&uid).cloned()
    }

    fn collect(&mut self, now: Now) {
        if !self.reading {
            return;
        }
        for ((), outcome) in self.workers.collect() {
            self.reading = false;
            if let Outcome::Done(names) = outcome {
                (self.names, self.read_at) = (names, now.mono);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);

    fn names(text: &str) -> Vec<(u32, String)> {
        let mut names: Vec<_> = parse(text.as_bytes())
            .into_iter()
            .map(|(uid, name)| (uid, name.to_string()))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn lines_of_all_kinds() {
        let text = "root:x:0:0:root:/root:/bin/bash\n\
            toor:x:0:0::/root:/bin/sh\n\
            # a comment:x:1\n\n\
            +nis:x:2:2\n\
            no-number:x:many:1::/:\n\
            :x:3:3::/:\n\
            a b:x:4:4::/:\n\
            esc\x1b[2J:x:5:5::/:\n\
            zo\u{eb}:x:6:6::/:\n\
            nobody:*:4294967294:1\n\
            short:x\n\
            cut:x:7:7";
        let expected = [(0, "root"), (6, "zo\u{eb}"), (4_294_967_294, "nobody")];
        assert_eq!(
            names(text),
            expected.map(|(uid, name)| (uid, name.to_string()))
        );
    }

    proptest! {
        #[test]
        fn no_file_panics(text in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&text);
        }
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let path = std::env::temp_dir().join(format!("sockwatch-passwd-{}", std::process::id()));
        std::fs::write(&path, "a:x:1:1::/:\n").unwrap();
        let mut passwd = Passwd::at(&path);
        assert_eq!(passwd.name(1).as_deref(), Some("a"));
        std::fs::write(&path, "bb:x:1:1::/:\n").unwrap();
        assert_eq!(passwd.name(1).as_deref(), Some("a"), "not looked at yet");
        passwd.looked_at = None;
        assert_eq!(passwd.name(1).as_deref(), Some("bb"));
        std::fs::remove_file(&path).unwrap();
        passwd.looked_at = None;
        assert_eq!(passwd.name(1).as_deref(), Some("bb"), "still known");
    }

    #[test]
    fn names_are_known_at_once_and_brought_up_to_date_by_a_thread() {
        let (tx, woken) = mpsc::channel();
        // A test that is done looks no longer.
        let wake: Wake = Arc::new(move || tx.send(()).unwrap_or(()));
        let path = std::env::temp_dir().join(format!("sockwatch-users-{}", std::process::id()));
        std::fs::write(&path, "a:x:1:1::/:\n").unwrap();
        let mut users = Users::of(Passwd::at(&path), wake);
        let now = Now::read();
        assert_eq!(users.name(1, now).as_deref(), Some("a"));
        assert_eq!(users.name(2, now), None);
        assert!(!users.reading, "it is fresh");
        std::fs::write(&path, "bb:x:1:1::/:\n").unwrap();
        let later = Now {
            mono: now.mono + 2 * TTL,
            ..now
        };
        assert_eq!(users.name(1, later).as_deref(), Some("a"), "nobody waits");
        woken.recv_timeout(LONG).unwrap();
        assert_eq!(users.name(1, later).as_deref(), Some("bb"));
        std::fs::remove_file(&path).unwrap();
    }
}
