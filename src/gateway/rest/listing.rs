//! `/v1/symbols` and `/v1/groups`: what there is to subscribe to.
//!
//! Bound kept here: how many names a part of an answer has.

use std::iter::once;
use std::sync::Arc;

use serde::Serialize;
use tickgate_feeds::market::Symbol;
use tickgate_feeds::symbols::{Steps, Symbols};

use super::form::Form;
use crate::flow::frame::command::{self, Mistake};
use crate::gateway::http::Parts;

/// What the feeds of a gateway are called and whether their prices are made up; at the position of their id.
pub type FeedNames = Vec<(String, bool)>;

/// Names in a part of an answer: 64 KiB of long ones.
const NAMES_AT_ONCE: usize = 512;

/// Every symbol, with its feed.
pub fn symbols(
    query: &str,
    form: Form,
    symbols: &Arc<Symbols>,
    feeds: &Arc<FeedNames>,
) -> Result<Parts, Mistake> {
    takes_nothing(query)?;
    #[derive(Serialize)]
    struct Row<'a> {
        channel: &'static str,
        feed: &'a str,
        simulated: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        steps: Vec<(String, String)>,
        symbol: &'a str,
    }
    let (symbols, feeds, listed) = (Arc::clone(symbols), Arc::clone(feeds), symbols.len());
    let rows = (0..listed).step_by(NAMES_AT_ONCE).map(move |from| {
        let listings = (from..listed.min(from + NAMES_AT_ONCE)).map(|at| Symbol::at(at as u32));
        let mut out = Vec::new();
        for listing in listings.filter_map(|symbol| symbols.listing(symbol)) {
            let feed = feeds.get(usize::from(listing.feed.0));
            let (feed, simulated) = feed.map_or(("", false), |(name, simulated)| (name, *simulated));
            let steps = listing.steps.iter().flat_map(Steps::pairs);
            let steps = steps.map(|(from, width)| (from.to_string(), width.to_string())).collect();
            let row = Row { channel: listing.channel.name(), feed, simulated, steps, symbol: &listing.name };
            // Writing to memory cannot fail.
            let _ = serde_json::to_writer(&mut out, &row);
            out.push(b'\n');
        }
        out
    });
    let columns = vec!["symbol", "channel", "feed", "simulated"];
    Ok(form.answer("{\"symbols\":[".into(), columns, rows, "]}".into()))
}

/// What `@name` means today: its members in a row, in CSV a line for each.
pub fn groups(query: &str, form: Form, symbols: &Arc<Symbols>) -> Result<Parts, Mistake> {
    takes_nothing(query)?;
    let table = Arc::clone(symbols);
    let groups = symbols.groups().into_iter().flat_map(move |(group, members)| {
        // Names of symbols and groups need no escaping: `is_name` saw to that.
        let (begin, name, between, end) = match form {
            Form::Csv => (String::new(), (format!("{{\"group\":\"{group}\",\"symbol\":\""), "\"}\n"), "", ""),
            Form::Json | Form::Ndjson => {
                (format!("{{\"group\":\"{group}\",\"symbols\":["), ("\"".into(), "\""), ",", "]}\n")
            }
        };
        let table = Arc::clone(&table);
        let names = (0..members.len()).step_by(NAMES_AT_ONCE).map(move |from| {
            let mut out = String::new();
            for &symbol in &members[from..members.len().min(from + NAMES_AT_ONCE)] {
                let Some(listing) = table.listing(symbol) else { continue };
                out += if from == 0 && out.is_empty() { "" } else { between };
                out += &name.0;
                out += &listing.name;
                out += name.1;
            }
            out.into_bytes()
        });
        once(begin.into_bytes()).chain(names).chain(once(end.into()))
    });
    Ok(form.answer("{\"groups\":[".into(), vec!["group", "symbol"], groups, "]}".into()))
}

/// Refuses every key: there is nothing to choose but the form.
fn takes_nothing(query: &str) -> Result<(), Mistake> {
    match command::pairs(query).next() {
        Some(pair) => Err(command::unknown_key(&pair?.0, &["format"])),
        None => Ok(()),
    }
}
