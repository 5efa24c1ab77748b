//! The rows that are held: whole rows replace, deltas overlay, `gone` and `out` remove. Pure.
//!
//! Bound: `ROWS_MAX` rows of `FIELDS_MAX` fields of `FIELD_CHARS_MAX` characters; what is beyond is counted.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::wire::clean;

/// Rows that are held: four times what a session may match by default.
const ROWS_MAX: usize = 16_384;

/// Fields of a row: twice what the widest channel has.
const FIELDS_MAX: usize = 64;

/// Characters of a field that are kept: a ten-level book side is about 200.
const FIELD_CHARS_MAX: usize = 256;

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    fields: BTreeMap<String, String>,
    /// When it last changed, by the watcher's own clock.
    pub(super) changed_ms: u64,
}

impl Row {
    /// A field as text; empty when it is null or was never sent.
    pub(super) fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }

    /// The first of several names that has a value.
    pub(super) fn first(&self, names: &[&str]) -> &str {
        names.iter().map(|name| self.get(name)).find(|text| !text.is_empty()).unwrap_or("")
    }
}

/// All rows, by symbol and channel.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<(String, String), Row>,
    /// Rows that were not taken because the table is full or the row has no symbol.
    pub(super) refused: u64,
}

impl Table {
    /// Applies one row of a batch.
    pub(super) fn apply(&mut self, row: &RawValue, now_ms: u64) {
        let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(row.get()) else {
            self.refused += 1;
            return;
        };
        let word = |name: &str| members.get(name).map(|value| text(value)).unwrap_or_default();
        let is = |name: &str| members.get(name).is_some_and(|value| value.get() == "true");
        let key = (word("symbol"), word("channel"));
        if is("gone") || is("out") {
            self.rows.remove(&key);
            return;
        }
        if key.0.is_empty() || (self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&key)) {
            self.refused += 1;
            return;
        }
        let held = self.rows.entry(key).or_default();
        held.changed_ms = now_ms;
        if is("full") {
            held.fields.clear();
        }
        for (name, value) in &members {
            if held.fields.len() < FIELDS_MAX || held.fields.contains_key(name) {
                held.fields.insert(clean(name), text(value));
            }
        }
    }

    /// Removes a topic as a batch's `removed` names it; a bare symbol is a quote or an index.
    pub(super) fn remove(&mut self, topic: &str) {
        let (channel, symbol) = topic.split_once(':').unwrap_or(("", topic));
        if matches!(channel, "" | "quote" | "index") {
            self.rows
                .retain(|(held, of), _| held != symbol || !matches!(of.as_str(), "" | "quote" | "index"));
        } else {
            self.rows.remove(&(symbol.to_owned(), channel.to_owned()));
        }
    }

    /// Forgets all rows, for a snapshot that begins.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Symbol, channel and row, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Row)> {
        self.rows.iter().map(|((symbol, channel), row)| (symbol.as_str(), channel.as_str(), row))
    }
}

/// A value as it is shown: numbers as they were written, strings without quotes, null as nothing.
fn text(value: &RawValue) -> String {
    let raw = value.get();
    let plain = match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(raw).unwrap_or_default(),
        _ if raw == "null" => String::new(),
        _ => raw.to_owned(),
    };
    clean(&plain).chars().take(FIELD_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(table: &mut Table, row: &str) {
        table.apply(&RawValue::from_string(row.to_owned()).unwrap(), 5);
    }

    fn row<'a>(table: &'a Table, symbol: &str) -> &'a Row {
        table.iter().find(|(of, ..)| *of == symbol).unwrap().2
    }

    #[test]
    fn whole_rows_replace_and_deltas_overlay() {
        let mut table = Table::default();
        apply(
            &mut table,
            r#"{"symbol":"VCB","full":true,"last":27.350,"bid":"27.30","state":"live","ask":null}"#,
        );
        apply(&mut table, r#"{"symbol":"VCB","last":27.40}"#);
        let held = row(&table, "VCB");
        assert_eq!((held.get("last"), held.get("bid"), held.get("ask")), ("27.40", "27.30", ""));
        apply(&mut table, r#"{"symbol":"VCB","full":true,"last":1e3}"#);
        assert_eq!((row(&table, "VCB").get("last"), row(&table, "VCB").get("bid")), ("1e3", ""));
    }

    #[test]
    fn gone_out_and_removed_take_rows_away() {
        let mut table = Table::default();
        for symbol in ["A", "B", "C"] {
            apply(&mut table, &format!(r#"{{"symbol":"{symbol}","last":1}}"#));
        }
        apply(&mut table, r#"{"symbol":"C","channel":"trade","price":1}"#);
        apply(&mut table, r#"{"symbol":"A","gone":true}"#);
        apply(&mut table, r#"{"symbol":"B","out":true}"#);
        table.remove("quote:C");
        assert_eq!(
            table.iter().map(|(symbol, channel, _)| (symbol, channel)).collect::<Vec<_>>(),
            [("C", "trade")]
        );
        table.remove("trade:C");
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn nonsense_is_counted_and_hostile_text_is_cleaned() {
        let mut table = Table::default();
        apply(&mut table, "[1]");
        apply(&mut table, r#"{"last":1}"#);
        assert_eq!((table.refused, table.len()), (2, 0));
        apply(&mut table, r#"{"symbol":"A\u001b[2J","last":"\u001b]0;x\u0007 5"}"#);
        let (symbol, _, row) = table.iter().next().unwrap();
        assert_eq!((symbol, row.get("last")), ("A[2J", "]0;x 5"));
    }
}
