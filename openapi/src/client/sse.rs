//! Server-sent events: from bytes to frames, wherever the bytes are cut.

/// One frame of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: Option<String>,
    /// Lines joined by line feeds; empty where the frame only names an id.
    pub(super) data: String,
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The line that has not ended yet.
    line: Vec<u8>,
    frame: Frame,
}

impl Frames {
    /// The frames that end in `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut ended = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
                ended.extend(self.line(&line));
            } else {
                self.line.push(*byte);
            }
        }
        ended
    }

    fn line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            return (frame != Frame::default()).then_some(frame);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.frame.id = Some(value.to_owned()),
            "data" => {
                if !self.frame.data.is_empty() {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            // Comments keep the connection alive; the kind of an event stands in its data too.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nid: 1\nevent: volume.created\ndata: {\"a\":\ndata: 1}\n\nid:2\r\n\r\ndata: ä\n\ndata: cut";

    #[test]
    fn frames_are_the_same_wherever_the_bytes_are_cut() {
        let frame = |id: Option<&str>, data: &str| Frame {
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        let wanted = vec![
            frame(Some("1"), "{\"a\":\n1}"),
            frame(Some("2"), ""),
            frame(None, "ä"),
        ];
        for size in 1..=STREAM.len() {
            let mut frames = Frames::default();
            let found: Vec<Frame> = STREAM
                .as_bytes()
                .chunks(size)
                .flat_map(|bytes| frames.push(bytes))
                .collect();
            assert_eq!(found, wanted, "pieces of {size}");
        }
    }
}
