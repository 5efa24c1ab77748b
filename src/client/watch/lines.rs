//! NDJSON: one line for each row as it was received, and objects with a `type` for everything else. Pure.
//!
//! Bound: the lines of one frame.

use serde_json::json;

use super::wire::Frame;

/// Appends the lines of a frame whose rows are to be shown: what left, gaps and refusals first, then the rows.
pub(super) fn frame(out: &mut String, text: &str, frame: &Frame<'_>) {
    if !frame.removed.is_empty() {
        line(out, &json!({"type": "removed", "topics": frame.removed}).to_string());
    }
    if !frame.added.is_empty() {
        line(out, &json!({"type": "added", "topics": frame.added}).to_string());
    }
    for gap in &frame.gaps {
        typed(out, "gap", gap.get());
    }
    for rejected in &frame.rejected {
        typed(out, "rejected", rejected.get());
    }
    for row in &frame.rows {
        line(out, row.get());
    }
    if matches!(frame.kind.as_str(), "welcome" | "error" | "link" | "drain") {
        line(out, text);
    }
}

/// Appends what has become of the connection.
pub(super) fn connection(out: &mut String, state: &str, detail: &str, simulated: bool) {
    let mut object = json!({"type": "connection", "state": state});
    if !detail.is_empty() {
        object["detail"] = detail.into();
    }
    if simulated {
        object["simulated"] = true.into();
    }
    line(out, &object.to_string());
}

/// An object with `type` put in front of its own members, whose text stays as it is.
fn typed(out: &mut String, kind: &str, object: &str) {
    let members = object.trim_start_matches('{').trim_start();
    let comma = if members.starts_with('}') { "" } else { "," };
    line(out, &format!("{{\"type\":\"{kind}\"{comma}{members}"));
}

/// JSON has line breaks between members only, where a blank means the same; C1 controls, which JSON lets stand as
/// they are, are written as escapes, so that no terminal obeys them.
fn line(out: &mut String, object: &str) {
    for character in object.chars() {
        match character {
            '\n' | '\r' => out.push(' '),
            '\u{7f}'..='\u{9f}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => out.push(other),
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::watch::wire::read;

    #[test]
    fn rows_pass_unchanged_and_the_rest_is_typed() {
        let text = r#"{"type":"batch","stream":1,"seq":2,"prev":1,"gaps":[{"topic":"trade:A","from":1,"to":2}],"removed":["B"],
            "rows":[{"symbol":"A","last":27.350},{"symbol":"C",
            "last":1e400}]}"#;
        let mut out = String::new();
        frame(&mut out, text, &read(text).unwrap());
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], r#"{"topics":["B"],"type":"removed"}"#);
        assert_eq!(lines[1], r#"{"type":"gap","topic":"trade:A","from":1,"to":2}"#);
        assert_eq!(lines[2], r#"{"symbol":"A","last":27.350}"#);
        assert!(lines[3].starts_with(r#"{"symbol":"C","#) && lines[3].ends_with(r#""last":1e400}"#));
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn the_connection_has_lines_too() {
        let mut out = String::new();
        connection(&mut out, "stale", "a\u{9b}b", true);
        assert_eq!(
            out,
            "{\"detail\":\"a\\u009bb\",\"simulated\":true,\"state\":\"stale\",\"type\":\"connection\"}\n"
        );
    }
}
