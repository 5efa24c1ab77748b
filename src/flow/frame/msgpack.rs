//! MessagePack (msgpack.org): the gateway's messages, packed from their JSON so that both say the same; and clients' commands.
//!
//! Numbers keep their digits: what is whole and has 19 of them at most is an integer, any other is a string. Bounds kept
//! here: a packed message is no longer than its JSON; a command nests as deep as the library lets it, 1024 levels.

use rmp::encode::{write_sint, write_str_len, write_uint};
use rmp_serde::decode::Error;
use serde::Deserialize;
use serde_json::Value;

/// All whole numbers of so many digits fit into 64 bits.
const DIGITS_MAX: usize = 19;

/// Appends a JSON text of ours as MessagePack: it has no mistakes, and no blanks between its parts.
pub fn pack(json: &[u8], out: &mut Vec<u8>) {
    Packer { json, out }.value();
}

struct Packer<'a> {
    /// What is left to pack.
    json: &'a [u8],
    out: &'a mut Vec<u8>,
}

impl Packer<'_> {
    fn value(&mut self) {
        match self.json.first() {
            Some(b'{') => self.list(b'}'),
            Some(b'[') => self.list(b']'),
            Some(b'"') => self.text(),
            Some(b'n') => self.word(4, 0xc0),
            Some(b'f') => self.word(5, 0xc2),
            Some(b't') => self.word(4, 0xc3),
            Some(_) => self.number(),
            None => {}
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.json = self.json.get(bytes..).unwrap_or_default();
    }

    /// An object or an array. How many members it has is known at its end.
    fn list(&mut self, end: u8) {
        let begin = self.out.len();
        self.out.push(0);
        self.skip(1);
        let mut count: u64 = 0;
        while let Some(next) = self.json.first().filter(|next| **next != end) {
            if *next == b',' {
                self.skip(1);
            }
            if end == b'}' {
                self.text();
                self.skip(1);
            }
            self.value();
            count += 1;
        }
        self.skip(1);
        let (first, size) = match (end, count) {
            (b'}', ..=0xf) => (0x80 | count as u8, 0),
            (b'}', ..=0xffff) => (0xde, 2),
            (b'}', _) => (0xdf, 4),
            (_, ..=0xf) => (0x90 | count as u8, 0),
            (_, ..=0xffff) => (0xdc, 2),
            _ => (0xdd, 4),
        };
        self.out[begin] = first;
        if size > 0 {
            let count = u64::to_be_bytes(count);
            self.out.splice(begin + 1..begin + 1, count[count.len() - size..].iter().copied());
        }
    }

    fn text(&mut self) {
        let text = self.json.get(1..).unwrap_or_default();
        let len = text.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(text.len());
        if text.get(len) == Some(&b'\\') {
            return self.escaped_text();
        }
        put_text(self.out, &text[..len]);
        self.skip(len + 2);
    }

    #[cold]
    fn escaped_text(&mut self) {
        let mut texts = serde_json::Deserializer::from_slice(self.json).into_iter::<String>();
        let text = texts.next().and_then(Result::ok).unwrap_or_default();
        let end = texts.byte_offset();
        put_text(self.out, text.as_bytes());
        self.skip(end.max(1));
    }

    fn word(&mut self, len: usize, packed: u8) {
        self.out.push(packed);
        self.skip(len);
    }

    fn number(&mut self) {
        let end = self.json.iter().position(|byte| matches!(byte, b',' | b'}' | b']'));
        let digits = &self.json[..end.unwrap_or(self.json.len())];
        self.skip(digits.len().max(1));
        let below_zero =
            digits.strip_prefix(b"-").and_then(whole).and_then(|number| 0i64.checked_sub_unsigned(number));
        // Nothing can fail that is written to memory.
        let _ = match (whole(digits), below_zero) {
            (Some(number), _) => write_uint(self.out, number),
            (_, Some(number)) => write_sint(self.out, number),
            _ => return put_text(self.out, digits),
        };
    }
}

/// The number that these digits are, if they are few enough, and nothing but digits.
fn whole(digits: &[u8]) -> Option<u64> {
    let digits = Some(digits).filter(|digits| (1..=DIGITS_MAX).contains(&digits.len()))?;
    let one_more = |number, digit: &u8| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'));
    digits.iter().try_fold(0, one_more)
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    // Nothing can fail that is written to memory.
    let _ = write_str_len(out, text.len() as u32);
    out.extend_from_slice(text);
}

/// A client's message as JSON, or what is wrong with it.
pub fn unpack(mut bytes: &[u8]) -> Result<String, String> {
    let mut reader = rmp_serde::Deserializer::new(&mut bytes);
    let value = Value::deserialize(&mut reader).map_err(|error| why(&error))?;
    if bytes.is_empty() { Ok(value.to_string()) } else { Err("it goes on after its end".to_owned()) }
}

/// The library's errors speak of its own parts.
fn why(error: &Error) -> String {
    match error {
        Error::InvalidMarkerRead(_) | Error::InvalidDataRead(_) => "it breaks off".to_owned(),
        Error::TypeMismatch(_) => "the byte 0xc1 begins nothing".to_owned(),
        Error::Syntax(_) => "it has bytes, an extension or a key that is no string".to_owned(),
        Error::Utf8Error(_) => "a text is not UTF-8".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(json: &str) -> Vec<u8> {
        let mut out = Vec::new();
        pack(json.as_bytes(), &mut out);
        out
    }

    #[test]
    fn what_is_packed_says_the_same() {
        for (json, expected) in [
            ("null", &b"\xc0"[..]),
            ("[true,false]", b"\x92\xc3\xc2"),
            ("{}", b"\x80"),
            ("[]", b"\x90"),
            (r#"{"rev":9,"last":61500}"#, b"\x82\xa3rev\x09\xa4last\xcd\xf0\x3c"),
            ("61400.50", b"\xa861400.50"),
            ("-0.05", b"\xa5-0.05"),
            (
                "[127,128,255,256,65535,65536]",
                b"\x96\x7f\xcc\x80\xcc\xff\xcd\x01\x00\xcd\xff\xff\xce\0\x01\0\0",
            ),
            ("4294967295", b"\xce\xff\xff\xff\xff"),
            ("1795330197967199", b"\xcf\x00\x06\x60\xd7\xe2\xb4\x51\x5f"),
            ("9999999999999999999", b"\xcf\x8a\xc7\x23\x04\x89\xe7\xff\xff"),
            ("10000000000000000000", b"\xb410000000000000000000"),
            ("[0,-1,-32,-33,-128]", b"\x95\x00\xff\xe0\xd0\xdf\xd0\x80"),
            ("[-129,-32768]", b"\x92\xd1\xff\x7f\xd1\x80\x00"),
            ("-32769", b"\xd2\xff\xff\x7f\xff"),
            ("-9223372036854775808", b"\xd3\x80\0\0\0\0\0\0\0"),
            ("-9223372036854775809", b"\xb4-9223372036854775809"),
            (r#""a\"\u00e9""#, b"\xa4a\"\xc3\xa9"),
        ] {
            assert_eq!(packed(json), expected, "{json}");
        }
    }

    #[test]
    fn long_ones_have_longer_heads() {
        for (count, array, map) in [(15, &b"\x9f"[..], &b"\x8f"[..]), (16, b"\xdc\0\x10", b"\xde\0\x10")] {
            let ones = vec!["1"; count].join(",");
            assert_eq!(packed(&format!("[{ones}]")), [array, &vec![1; count]].concat());
            let members: Vec<String> = (0..count).map(|at| format!("\"{at:02}\":[{at}]")).collect();
            let map_packed = packed(&format!("{{{}}}", members.join(",")));
            assert_eq!((&map_packed[..map.len()], map_packed.len()), (map, map.len() + count * 5));
        }
        for (len, head) in
            [(31, &b"\xbf"[..]), (32, b"\xd9\x20"), (256, b"\xda\x01\0"), (65_536, b"\xdb\0\x01\0\0")]
        {
            let text = "x".repeat(len);
            assert!(packed(&format!("\"{text}\"")) == [head, text.as_bytes()].concat(), "{len}");
        }
    }

    #[test]
    fn what_was_packed_comes_out_as_it_was() {
        for json in [
            r#"{"action":"subscribe","delta":true,"depth":10,"fields":null,"id":-7,"topics":["VCB","@VN30"]}"#,
            r#"[[],{},[[1,-200,-40000,-3000000000,70000,5000000000]],"","\u0000\u001b"]"#,
        ] {
            assert_eq!(unpack(&packed(json)).as_deref(), Ok(json));
        }
        let long = serde_json::Value::from_iter(0..70_000).to_string();
        assert!(unpack(&packed(&long)) == Ok(long));
        assert_eq!(unpack(b"\xcb\x3f\xe0\0\0\0\0\0\0").as_deref(), Ok("0.5"));
        assert_eq!(unpack(b"\xca\x3f\0\0\0").as_deref(), Ok("0.5"));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let deep = vec![0x91; 100_000];
        for (bytes, words) in [
            (&b""[..], "breaks off"),
            (b"\x82\xa1a\x01", "breaks off"),
            (b"\xa5abc", "breaks off"),
            (b"\xdd\xff\xff\xff\xff\xc0", "breaks off"),
            (b"\xdb\xff\xff\xff\xff", "breaks off"),
            (b"\x81\xa1a\xc1", "0xc1"),
            (b"\xc0\xc0", "goes on after its end"),
            (b"\xa1\xff", "UTF-8"),
            (b"\xc4\x01a", "bytes"),
            (b"\xd6\xff\0\0\0\0", "extension"),
            (b"\x81\x07\xc0", "key"),
            (&deep, "depth"),
        ] {
            let why = unpack(bytes).expect_err("no message");
            assert!(why.contains(words), "{why}");
        }
    }
}
