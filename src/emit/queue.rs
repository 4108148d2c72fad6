//! The bytes that wait for a reader: whole lines in, any number of bytes out.
//!
//! Lines are rendered in place, into chunks that are freed as they are written,
//! so a burst's memory goes back when the burst is over. The lines that are left
//! are known by their line breaks: a renderer writes exactly one a line.

use std::collections::VecDeque;
use std::io;

/// What one write hands to the kernel: a pipe's whole capacity.
const CHUNK: usize = 64 * 1024;
/// What is kept while nothing waits.
const IDLE: usize = 8 * 1024;

/// A queue of lines.
#[derive(Debug, Default)]
pub(super) struct Queue {
    chunks: VecDeque<Vec<u8>>,
    /// How much of the first chunk is written.
    written: usize,
    lines: usize,
}

impl Queue {
    /// Appends the line that `render` appends, or nothing if it fails.
    pub(super) fn push(
        &mut self,
        render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        // A line may exceed the chunk's capacity; it then grows by that line.
        if self
            .chunks
            .back()
            .is_none_or(|last| last.len() >= CHUNK - 1024)
        {
            let capacity = if self.chunks.is_empty() { IDLE } else { CHUNK };
            self.chunks.push_back(Vec::with_capacity(capacity));
        }
        if let Some(last) = self.chunks.back_mut() {
            let start = last.len();
            if let Err(error) = render(last) {
                last.truncate(start);
                return Err(error);
            }
            debug_assert_eq!(line_breaks(&last[start..]), 1);
            self.lines += 1;
        }
        Ok(())
    }

    /// How many lines are not yet written to their end.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Whether there is a whole chunk to write, and more.
    pub(super) fn is_ample(&self) -> bool {
        self.chunks.len() > 1
    }

    /// The bytes to write next; empty when there are none.
    pub(super) fn front(&self) -> &[u8] {
        self.chunks
            .front()
            .map_or(&[], |first| &first[self.written..])
    }

    /// Takes note that `count` bytes of the front are written.
    pub(super) fn consume(&mut self, count: usize) {
        let done = &self.front()[..count];
        self.lines -= line_breaks(done);
        self.written += count;
        if !self.front().is_empty() {
            return;
        }
        self.written = 0;
        if let Some(mut first) = self.chunks.pop_front()
            && self.chunks.is_empty()
            && first.capacity() <= IDLE
        {
            first.clear();
            self.chunks.push_back(first);
        }
        if self.chunks.len() <= 1 {
            self.chunks.shrink_to(4);
        }
    }

    /// How many bytes of the line in front are written. A line is in one chunk,
    /// so its beginning is still there.
    pub(super) fn begun(&self) -> usize {
        let written = self
            .chunks
            .front()
            .map_or(&[][..], |first| &first[..self.written]);
        written
            .iter()
            .rev()
            .take_while(|byte| **byte != b'\n')
            .count()
    }

    /// Has the line in front written again from its beginning.
    pub(super) fn begin_again(&mut self) {
        self.written -= self.begun();
    }

    /// The memory held, in bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.chunks.iter().map(Vec::capacity).sum::<usize>()
            + self.chunks.capacity() * size_of::<Vec<u8>>()
    }
}

fn line_breaks(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn push(queue: &mut Queue, text: &str) {
        queue.push(|out| writeln!(out, "{text}")).unwrap();
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        let mut queue = Queue::default();
        for number in 0..100_000 {
            push(&mut queue, &format!("{number:0100}"));
        }
        assert!(queue.held() > 10_000_000);
        while !queue.front().is_empty() {
            let all = queue.front().len();
            queue.consume(all);
        }
        assert_eq!(queue.lines(), 0);
        assert!(queue.held() <= IDLE + 1024, "{}", queue.held());
    }

    #[test]
    fn memory_goes_back_while_a_burst_is_written() {
        let mut queue = Queue::default();
        for number in 0..10_000 {
            push(&mut queue, &format!("{number:0100}"));
        }
        let full = queue.held();
        while queue.lines() > 2_000 {
            queue.consume(queue.front().len().min(1000));
        }
        assert!(queue.held() < full / 3);
    }

    #[test]
    fn a_line_that_fails_leaves_nothing() {
        let mut queue = Queue::default();
        push(&mut queue, "a");
        let failed = queue.push(|out| {
            out.extend_from_slice(b"half");
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!((queue.lines(), queue.front()), (1, &b"a\n"[..]));
    }

    #[test]
    fn a_line_can_be_written_again() {
        let mut queue = Queue::default();
        push(&mut queue, "first");
        push(&mut queue, "second");
        assert_eq!(queue.begun(), 0);
        queue.consume(9);
        assert_eq!((queue.begun(), queue.lines()), (3, 1));
        queue.begin_again();
        assert_eq!((queue.begun(), queue.front()), (0, &b"second\n"[..]));
        queue.consume(7);
        queue.begin_again();
        assert_eq!((queue.begun(), queue.lines()), (0, 0));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            lines in prop::collection::vec("[a-z]{0,40}", 0..40),
            steps in prop::collection::vec(1usize..100, 1..40),
        ) {
            let mut queue = Queue::default();
            let (mut read, mut pushed) = (Vec::new(), 0);
            let mut steps = steps.into_iter().cycle();
            for (index, line) in lines.iter().enumerate() {
                push(&mut queue, line);
                pushed += 1;
                if index % 3 == 2 && let Some(step) = steps.next() {
                    let count = queue.front().len().min(step);
                    read.extend_from_slice(&queue.front()[..count]);
                    queue.consume(count);
                    prop_assert_eq!(queue.lines(), pushed - line_breaks(&read));
                }
            }
            while !queue.front().is_empty() {
                let count = queue.front().len().min(steps.next().unwrap_or(1));
                read.extend_from_slice(&queue.front()[..count]);
                queue.consume(count);
            }
            prop_assert_eq!(queue.lines(), 0);
            let all: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            prop_assert_eq!(read, all.into_bytes());
        }
    }
}
