//! What a child says: cut into lines for the log, its end kept for the journal.

/// Longest line; a longer one is cut into pieces of this many bytes.
pub const LINE_MAX: usize = 4096;

/// How much of the end is kept.
pub const TAIL_MAX: usize = 4096;

/// The output of one child so far.
#[derive(Debug, Default)]
pub(super) struct Capture {
    line: Vec<u8>,
    tail: Vec<u8>,
}

impl Capture {
    /// Takes what was read; calls `line` for each line that is now complete, without its newline. Returns how many were.
    pub(super) fn take(&mut self, mut bytes: &[u8], line: &mut dyn FnMut(&[u8])) -> usize {
        self.keep(bytes);
        let mut lines = 0;
        while !bytes.is_empty() {
            let room = LINE_MAX - self.line.len();
            let near = bytes.get(..=room).unwrap_or(bytes);
            let (part, used, whole) = match near.iter().position(|&byte| byte == b'\n') {
                Some(end) => (&near[..end], end + 1, true),
                None if near.len() > room => (&near[..room], room, true),
                None => (near, near.len(), false),
            };
            if whole && self.line.is_empty() {
                line(part);
            } else {
                self.line.extend_from_slice(part);
                if whole {
                    line(&self.line);
                    self.line.clear();
                }
            }
            lines += usize::from(whole);
            bytes = &bytes[used..];
        }
        lines
    }

    /// The end of the output: a last line without newline, and the tail.
    pub(super) fn finish(mut self, line: &mut dyn FnMut(&[u8])) -> Vec<u8> {
        if !self.line.is_empty() {
            line(&self.line);
        }
        let surplus = self.tail.len().saturating_sub(TAIL_MAX);
        self.tail.drain(..surplus);
        self.tail
    }

    fn keep(&mut self, bytes: &[u8]) {
        // Twice the size before anything is moved, so that a byte is moved once at most.
        if self.tail.len() + bytes.len() > 2 * TAIL_MAX {
            let old = TAIL_MAX.saturating_sub(bytes.len()).min(self.tail.len());
            self.tail.drain(..self.tail.len() - old);
        }
        let new = bytes.len().min(TAIL_MAX);
        self.tail.extend_from_slice(&bytes[bytes.len() - new..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of `size` and returns lines and tail.
    fn cut(text: &[u8], size: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut capture = Capture::default();
        let mut lines = Vec::new();
        let mut counted = 0;
        for piece in text.chunks(size) {
            counted += capture.take(piece, &mut |line| lines.push(line.to_vec()));
        }
        assert_eq!(counted, lines.len());
        let tail = capture.finish(&mut |line| lines.push(line.to_vec()));
        (lines, tail)
    }

    #[test]
    fn lines_do_not_depend_on_how_they_are_read() {
        let long = [b"x".repeat(LINE_MAX), b"y\n".to_vec()].concat();
        let exact = [b"z".repeat(LINE_MAX), b"\n".to_vec()].concat();
        let text = [b"one\n\ntwo \xff\n".as_slice(), &long, &exact, b"last"].concat();
        let (whole, tail) = cut(&text, text.len());
        assert_eq!(
            whole[..3],
            [b"one".to_vec(), b"".to_vec(), b"two \xff".to_vec()]
        );
        assert_eq!(whole.last().map(Vec::as_slice), Some(b"last".as_slice()));
        let lengths: Vec<usize> = whole.iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, 0, 5, LINE_MAX, 1, LINE_MAX, 4]);
        assert_eq!(tail, text[text.len() - TAIL_MAX..]);
        for size in [1, 2, 7, 4095, 4096, 4097] {
            assert_eq!(
                cut(&text, size),
                (whole.clone(), tail.clone()),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn a_short_output_is_its_own_tail() {
        assert_eq!(
            cut(b"a\nb", 1),
            (vec![b"a".to_vec(), b"b".to_vec()], b"a\nb".to_vec())
        );
        assert_eq!(cut(b"", 1), (vec![], vec![]));
    }
}
