//! The view as lines for a terminal. Pure: it knows neither the terminal nor the clock.
//!
//! Bound: as many lines and characters as the terminal has; the rest is named in one line.

use super::table::Row;
use super::view::{Link, View};

/// Columns when the user has not chosen fields.
const COLUMNS: [&str; 8] = ["symbol", "last", "change", "bid x size", "ask x size", "volume", "state", "age"];

/// Fewest lines that make sense: header, note, column names, one row, what is hidden.
const LINES_MIN: usize = 5;

/// The lines to show in a terminal of `width` by `height`.
pub(super) fn render(view: &View, width: usize, height: usize, now_ms: u64) -> Vec<String> {
    let mut lines = vec![header(view, now_ms)];
    if !view.note.is_empty() {
        lines.push(format!("! {}", view.note));
    }
    // One line is kept for the cursor below the table, one for what does not fit.
    let room = height.max(LINES_MIN).saturating_sub(lines.len() + 3);
    let names = columns(view);
    let mut cells = vec![names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    for (symbol, channel, row) in view.table.iter().take(room) {
        cells.push(names.iter().map(|name| cell(view, name, symbol, channel, row, now_ms)).collect());
    }
    lines.extend(aligned(&cells));
    let hidden = view.table.len().saturating_sub(room);
    if hidden > 0 {
        lines.push(format!("... and {hidden} more; a taller window shows more"));
    }
    lines.into_iter().map(|line| line.chars().take(width).collect()).collect()
}

fn header(view: &View, now_ms: u64) -> String {
    let link = match &view.link {
        Link::Connecting => "connecting".to_owned(),
        Link::Live => "live".to_owned(),
        Link::Stale(why) => format!("STALE: {why}"),
        Link::Waiting { until_ms, why } => {
            let seconds = until_ms.saturating_sub(now_ms).div_ceil(1000);
            format!("STALE: {why}; connecting again in {seconds} s")
        }
    };
    let simulated = if view.simulated { "  SIMULATED DATA" } else { "" };
    let rev = view.rev.map_or_else(String::new, |rev| format!("  rev {rev}"));
    format!(
        "{}  {link}{simulated}  rows {}{rev}  merged {}  missed {}",
        view.wish.topics.join(" "),
        view.table.len(),
        view.merged,
        view.missed
    )
}

fn columns(view: &View) -> Vec<&str> {
    if view.wish.fields.is_empty() {
        return COLUMNS.to_vec();
    }
    let chosen = view.wish.fields.iter().map(String::as_str).filter(|field| *field != "state");
    ["symbol"].into_iter().chain(chosen).chain(["state", "age"]).collect()
}

fn cell(view: &View, column: &str, symbol: &str, channel: &str, row: &Row, now_ms: u64) -> String {
    match column {
        "state" => view.state_of_all().unwrap_or_else(|| row.get("state")).to_owned(),
        "symbol" if matches!(channel, "" | "quote" | "index") => symbol.to_owned(),
        "symbol" => format!("{channel}:{symbol}"),
        "age" => age(now_ms.saturating_sub(row.changed_ms)),
        "last" => row.first(&["last", "price", "close"]).to_owned(),
        "volume" => row.first(&["volume", "size"]).to_owned(),
        "bid x size" => level(row, "bid", "bid_size", "bids"),
        "ask x size" => level(row, "ask", "ask_size", "asks"),
        field => row.get(field).to_owned(),
    }
}

/// A price and its size; of a book the best level, which stands first.
fn level(row: &Row, price: &str, size: &str, book: &str) -> String {
    let (price, size) = match row.get(book).strip_prefix("[[").and_then(|levels| levels.split(']').next()) {
        Some(best) => best.split_once(',').unwrap_or((best, "")),
        None => (row.get(price), row.get(size)),
    };
    let (price, size) = (price.trim_matches([' ', '"']), size.trim_matches([' ', '"']));
    match (price, size) {
        ("", _) => String::new(),
        (price, "") => price.to_owned(),
        (price, size) => format!("{price} x {size}"),
    }
}

fn age(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// Cells side by side: the first column and words to the left, everything with figures to the right.
fn aligned(cells: &[Vec<String>]) -> Vec<String> {
    let columns = cells.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|at| cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let mut text = String::new();
        for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            let left = at == 0 || cells[0][at] == "state";
            if at > 0 {
                text.push_str("  ");
            }
            text.push_str(&if left { format!("{cell}{pad}") } else { format!("{pad}{cell}") });
        }
        text.truncate(text.trim_end().len());
        text
    };
    cells.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::watch::view::Wish;
    use crate::client::watch::wire::read;

    fn view(fields: &[&str]) -> View {
        let fields = fields.iter().map(|&field| field.to_owned()).collect();
        let mut view = View::new(Wish { topics: vec!["@VN30".into()], fields, ..Wish::default() });
        view.link = Link::Live;
        let stream = r#"{"type":"subscribed","sub":"w0","stream":1,"seq":0}"#;
        view.apply(&read(stream).unwrap(), 1000);
        let rows = r#"{"type":"batch","stream":1,"seq":1,"prev":null,"rev":7,"rows":[
            {"symbol":"VCB","last":61500,"change":-200,"bid":61400,"bid_size":1200,"ask":61500,"volume":91200,"state":"live"},
            {"symbol":"FPT","last":"98.10","state":"stale"},
            {"symbol":"VCB","channel":"book","bids":[["61.4",5],["61.3",9]],"asks":[]}]}"#;
        view.apply(&read(rows).unwrap(), 1000);
        view
    }

    #[test]
    fn the_table_is_drawn() {
        let expected = [
            "@VN30  live  rows 3  rev 7  merged 0  missed 0",
            "symbol     last  change    bid x size  ask x size  volume  state    age",
            "FPT       98.10                                            stale  1.5 s",
            "VCB       61500    -200  61400 x 1200       61500   91200  live   1.5 s",
            "book:VCB                     61.4 x 5                             1.5 s",
        ];
        assert_eq!(render(&view(&[]), 100, 24, 2500), expected);
    }

    #[test]
    fn chosen_fields_are_the_columns() {
        let lines = render(&view(&["bid", "state"]), 100, 24, 1000);
        assert_eq!(lines[1], "symbol      bid  state    age");
        assert_eq!(lines[3], "VCB       61400  live   0.0 s");
    }

    #[test]
    fn a_small_window_says_what_it_hides() {
        let lines = render(&view(&[]), 20, 6, 1000);
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[4], "... and 1 more; a ta");
        assert!(lines.iter().all(|line| line.chars().count() <= 20));
    }

    #[test]
    fn staleness_and_simulation_are_said_in_words() {
        let mut view = view(&[]);
        view.simulated = true;
        view.link = Link::Stale("silent for 7.5 s".into());
        let lines = render(&view, 200, 24, 0);
        assert!(lines[0].contains("STALE: silent for 7.5 s  SIMULATED DATA"));
        assert!(lines[2..].iter().all(|line| line.contains("  stale  ")), "{lines:?}");
        view.link = Link::Waiting { until_ms: 4200, why: "connection lost".into() };
        assert!(render(&view, 200, 24, 1000)[0].contains("STALE: connection lost; connecting again in 4 s"));
        view.apply(&read(r#"{"type":"link","state":"suspect"}"#).unwrap(), 1000);
        view.link = Link::Stale("the gateway is in doubt".into());
        assert!(render(&view, 200, 24, 0)[3].contains("  suspect  "), "as the gateway says");
        assert_eq!((age(9999), age(119_999), age(180_000)), ("9.9 s".into(), "119 s".into(), "3 min".into()));
    }
}
