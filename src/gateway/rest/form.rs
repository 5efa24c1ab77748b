//! The forms of an answer: one JSON object, a JSON object a line, or CSV. All are made of the same rows, so that they say
//! the same.
//!
//! Bound kept here: none of its own; a part is as long as its rows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter::once;

use bytes::Bytes;
use hyper::header::{self, HeaderMap};
use serde_json::value::RawValue;

use crate::base::reason::Reason;
use crate::flow::frame::command::Mistake;
use crate::gateway::http::Parts;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{..,"rows":[..]}`.
    Json,
    /// Rows alone, one a line.
    Ndjson,
    /// Cells of rows with a line of names before them (RFC 4180).
    Csv,
}

impl Form {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Json, "json", "application/json"),
        (Self::Ndjson, "ndjson", "application/x-ndjson"),
        (Self::Csv, "csv", "text/csv"),
    ];

    /// The form that `format=` in the query asks for, or else `Accept`; and the query without it.
    pub fn asked(query: &str, headers: &HeaderMap) -> Result<(Self, String), Mistake> {
        let wrong = |message| Mistake::new(Reason::BadRequest, message);
        let (mut form, mut rest) = (None, Vec::new());
        for pair in query.split('&') {
            let Some(name) = pair.strip_prefix("format=") else {
                rest.push(pair);
                continue;
            };
            let known = Self::ALL.iter().find(|(_, known, _)| *known == name);
            let (known, ..) = known.ok_or_else(|| wrong("format: expected json, ndjson or csv"))?;
            if form.replace(*known).is_some() {
                return Err(wrong("format: given twice, expected once"));
            }
        }
        let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let mut kinds = accepted.flat_map(|value| value.split(',')).filter_map(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            Self::ALL.iter().find(|(.., known)| known.eq_ignore_ascii_case(kind)).map(|(form, ..)| *form)
        });
        Ok((form.or_else(|| kinds.next()).unwrap_or(Self::Json), rest.join("&")))
    }

    /// Its content type.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// An answer made of `rows`: parts of JSON objects, each with a line feed behind it. JSON has `begin` and `end` around
    /// them, CSV has these columns of them.
    pub fn answer(
        self,
        begin: String,
        columns: Vec<&'static str>,
        rows: impl Iterator<Item = Vec<u8>> + Send + 'static,
        end: String,
    ) -> Parts {
        let (head, tail) = match self {
            Self::Json => (begin, end),
            Self::Ndjson => (String::new(), String::new()),
            Self::Csv => (columns.join(",") + "\r\n", String::new()),
        };
        let mut owes_comma = false;
        let rows = rows.map(move |part| match self {
            Self::Json => list(part, &mut owes_comma),
            Self::Ndjson => part,
            Self::Csv => table(&part, &columns),
        });
        let whole = once(head.into_bytes()).chain(rows).chain(once(tail.into_bytes()));
        Box::new(whole.map(Bytes::from))
    }
}

/// Puts commas in the place of line feeds; the last one is owed to the next part.
fn list(mut part: Vec<u8>, owes_comma: &mut bool) -> Vec<u8> {
    if part.is_empty() {
        return part;
    }
    let owed = std::mem::replace(owes_comma, part.last() == Some(&b'\n'));
    if *owes_comma {
        part.pop();
    }
    part.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b',');
    if owed {
        part.insert(0, b',');
    }
    part
}

/// The lines' cells in these columns. A book is a line for each level.
fn table(lines: &[u8], columns: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(lines.len() / 2);
    for line in lines.split(|byte| *byte == b'\n') {
        // What is between the last line feed and the end is no row.
        let Ok(row) = serde_json::from_slice::<BTreeMap<&str, &RawValue>>(line) else { continue };
        let cell = |column: &str| row.get(column).map_or("", |value| value.get());
        let sides = [("bids", "bid"), ("asks", "ask")].map(|(key, side)| (row.get(key), side));
        let [(None, _), (None, _)] = sides else {
            for (levels, side) in sides {
                let levels =
                    levels.and_then(|levels| serde_json::from_str::<Vec<[&RawValue; 2]>>(levels.get()).ok());
                for (at, [price, size]) in levels.unwrap_or_default().into_iter().enumerate() {
                    let number = (at + 1).to_string();
                    put_line(&mut out, columns, |column| match column {
                        "side" => side,
                        "level" => &number,
                        "price" => price.get(),
                        "size" => size.get(),
                        other => cell(other),
                    });
                }
            }
            continue;
        };
        put_line(&mut out, columns, cell);
    }
    out
}

/// Appends a line of CSV: values of JSON as cells, `null` and what there is not as empty ones.
fn put_line<'a>(out: &mut Vec<u8>, columns: &[&str], cell: impl Fn(&str) -> &'a str) {
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let value = cell(column);
        let text = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
            Some(text) if !text.contains('\\') => Cow::Borrowed(text),
            Some(_) => Cow::Owned(serde_json::from_str(value).unwrap_or_default()),
            None if value == "null" => continue,
            None => Cow::Borrowed(value),
        };
        if text.contains([',', '"', '\r', '\n']) {
            out.extend_from_slice(format!("\"{}\"", text.replace('"', "\"\"")).as_bytes());
        } else {
            out.extend_from_slice(text.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    const ROWS: [&str; 3] = ["{\"a\":1.50,\"b\":null}\n{\"a\":\"x, \\\"y\\\"\",", "\"c\":2}\n", ""];

    fn answer(form: Form, rows: &'static [&'static str], columns: &[&'static str]) -> String {
        let rows = rows.iter().map(|part| part.as_bytes().to_vec());
        let parts = form.answer("[".into(), columns.to_vec(), rows, "]".into());
        let bytes: Vec<u8> = parts.flatten().collect();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn all_forms_are_made_of_the_same_rows() {
        assert_eq!(answer(Form::Json, &ROWS, &[]), r#"[{"a":1.50,"b":null},{"a":"x, \"y\"","c":2}]"#);
        assert_eq!(answer(Form::Ndjson, &ROWS, &[]), ROWS.concat());
        assert_eq!(answer(Form::Json, &[], &[]), "[]");
        let rows = &["{\"a\":1.50,\"b\":null}\n{\"a\":\"x, \\\"y\\\"\",\"c\":2}\n"];
        assert_eq!(answer(Form::Csv, rows, &["c", "a", "b"]), "c,a,b\r\n,1.50,\r\n2,\"x, \"\"y\"\"\",\r\n");
        let rows = &[
            "{\"s\":\"A\",\"bids\":[[\"9\",1],[8,2]],\"asks\":[]}\n{\"s\":\"B\",\"bids\":[],\"asks\":[[9,3]]}\n",
        ];
        let columns = ["s", "side", "level", "price", "size"];
        let expected = "s,side,level,price,size\r\nA,bid,1,9,1\r\nA,bid,2,8,2\r\nB,ask,1,9,3\r\n";
        assert_eq!(answer(Form::Csv, rows, &columns), expected);
    }

    #[test]
    fn the_query_comes_before_the_header() {
        for (query, accept, expected) in [
            ("", "", Ok((Form::Json, ""))),
            ("symbols=A", "text/html,*/*;q=0.8", Ok((Form::Json, "symbols=A"))),
            ("symbols=A", "text/html, Text/CSV;q=0.9, application/json", Ok((Form::Csv, "symbols=A"))),
            ("format=ndjson&symbols=A&rate=1", "text/csv", Ok((Form::Ndjson, "symbols=A&rate=1"))),
            ("symbols=A&format=json", "application/x-ndjson", Ok((Form::Json, "symbols=A"))),
            ("format=xml", "", Err("format: expected json, ndjson or csv")),
            ("format=csv&format=csv", "", Err("format: given twice, expected once")),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            let asked = Form::asked(query, &headers).map_err(|mistake| mistake.message);
            assert_eq!(asked, expected.map(|(form, rest)| (form, rest.to_owned())).map_err(str::to_owned));
        }
    }
}
