//! The ready-made frame: a WebSocket text frame whose payload looks like a batch of the gateway.
//!
//! Bound: the length never changes; a round rewrites three runs of digits in place and nothing else.

use std::ops::Range;

/// First `seq`: every later one has as many digits, so that the frame keeps its length.
const FIRST_SEQ: u64 = 1_000_000_001;

/// A frame that is sent as it stands.
pub(crate) struct Frame {
    bytes: Vec<u8>,
    seq: u64,
    seq_at: Range<usize>,
    prev_at: Range<usize>,
    ts_at: Range<usize>,
}

impl Frame {
    /// A frame of exactly `payload` bytes, header not counted, or what the smallest payload is.
    pub(crate) fn new(stream: usize, payload: usize) -> Result<Frame, String> {
        let text = payload_text(stream, payload)?;
        let mut bytes = header(text.len());
        let base = bytes.len();
        bytes.extend_from_slice(text.as_bytes());
        let digits = |name: &str, width: usize| {
            let at = text.find(name).map_or(0, |at| at + name.len()) + base;
            at..at + width
        };
        let (seq_at, prev_at) = (digits("\"seq\":", 10), digits("\"prev\":", 10));
        let ts_at = digits("\"ts_us\":", 16);
        Ok(Frame { bytes, seq: FIRST_SEQ, seq_at, prev_at, ts_at })
    }

    /// Stamps the frame for the next round.
    pub(crate) fn stamp(&mut self, now_us: u64) {
        write_digits(&mut self.bytes[self.prev_at.clone()], self.seq);
        self.seq += 1;
        write_digits(&mut self.bytes[self.seq_at.clone()], self.seq);
        write_digits(&mut self.bytes[self.ts_at.clone()], now_us);
    }

    /// The frame, header included.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn payload_text(stream: usize, payload: usize) -> Result<String, String> {
    let mut text = format!(
        "{{\"type\":\"batch\",\"stream\":{stream},\"seq\":{FIRST_SEQ},\"prev\":{FIRST_SEQ},\"rev\":90211,\
         \"ts_us\":1000000000000000,\"rows\":["
    );
    const ROW: &str = r#"{"symbol":"VCB","rev":90209,"q":5120,"last":61500,"bid":61400,"ask":61500}"#;
    const PAD_OPEN: &str = r#"{"symbol":"VCB","rev":90209,"pad":""#;
    const END: &str = "\"}]}";
    let least = text.len() + PAD_OPEN.len() + END.len();
    if payload < least {
        return Err(format!("--bytes: at least {least}"));
    }
    while text.len() + ROW.len() + 1 + PAD_OPEN.len() + END.len() <= payload {
        text.push_str(ROW);
        text.push(',');
    }
    text.push_str(PAD_OPEN);
    while text.len() + END.len() < payload {
        text.push('x');
    }
    text.push_str(END);
    Ok(text)
}

/// FIN and text, unmasked, with the shortest length that holds (RFC 6455, 5.2).
fn header(length: usize) -> Vec<u8> {
    let mut header = vec![0x81];
    match length {
        0..=125 => header.push(length as u8),
        126..=0xffff => {
            header.push(126);
            header.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header
}

fn write_digits(into: &mut [u8], mut value: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_has_the_length_asked_for() {
        for payload in [200, 201, 350, 1059, 70_000] {
            let mut frame = Frame::new(1, payload).unwrap();
            frame.stamp(1_763_787_600_123_456);
            assert_eq!(frame.bytes().len(), payload + header(payload).len());
            let text = String::from_utf8_lossy(&frame.bytes()[header(payload).len()..]).into_owned();
            assert!(text.contains("\"seq\":1000000002,\"prev\":1000000001,"), "{text}");
            assert!(text.contains("\"ts_us\":1763787600123456,"), "{text}");
        }
        assert!(Frame::new(1, 20).is_err());
    }
}
