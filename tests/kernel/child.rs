//! A child process that runs to its end, within a time.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs a command to its end; `Err` with what it wrote when it had to be killed.
pub fn run(command: &mut Command, deadline: Duration) -> std::io::Result<Result<Output, Output>> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(finish(child, deadline))
}

/// Waits for a child whose outputs are piped; `Err` as above.
pub fn finish(mut child: Child, deadline: Duration) -> Result<Output, Output> {
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let mut late = false;
    let mut taken = |pipe: &mpsc::Receiver<Vec<u8>>, child: &mut Child| {
        pipe.recv_timeout(deadline).unwrap_or_else(|_| {
            late = true;
            child.kill().expect("one's own child can be killed");
            pipe.recv_timeout(deadline).unwrap_or_default()
        })
    };
    let (stdout, stderr) = (taken(&stdout, &mut child), taken(&stderr, &mut child));
    let status: ExitStatus = child.wait().expect("one's own child can be waited for");
    let output = Output {
        status,
        stdout,
        stderr,
    };
    if late { Err(output) } else { Ok(output) }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (done, bytes) = mpsc::channel();
    thread::spawn(move || {
        let mut read = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut read).expect("a pipe can be read");
        }
        // Nobody listens any more when the child was given up.
        drop(done.send(read));
    });
    bytes
}

/// What a child wrote, both streams.
pub fn text(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    format!("{stdout}{}", String::from_utf8_lossy(&output.stderr))
}
