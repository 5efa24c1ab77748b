//! Where `watch` writes: a live table in a terminal, or NDJSON to whatever stdout is.
//!
//! Bound: one drawing at a time; a reader that is slow holds `watch` back, and by that the server sees a slow client.

use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

use super::lines;
use super::render::render;
use super::view::{Link, View};
use super::wire::{Frame, clean};

/// A terminal that does not tell its size has this one.
const SIZE_DEFAULT: (usize, usize) = (24, 80);

/// No wrapping and no cursor while the table is drawn over itself.
const ENTER: &str = "\x1b[?7l\x1b[?25l";

/// The terminal as it was.
const LEAVE: &str = "\x1b[?7h\x1b[?25h";

/// Stdout in one of its two shapes.
pub(super) enum Screen {
    Table { drawn: usize, height: usize, width: usize },
    Lines,
}

impl Screen {
    /// A table when stdout is a terminal, unless the user wants lines.
    pub(super) fn new(want_lines: bool) -> io::Result<Screen> {
        if want_lines || !io::stdout().is_terminal() {
            return Ok(Screen::Lines);
        }
        write(ENTER)?;
        let (height, width) = size();
        Ok(Screen::Table { drawn: 0, height, width })
    }

    /// Whether it has to be redrawn by the clock.
    pub(super) fn is_table(&self) -> bool {
        matches!(self, Screen::Table { .. })
    }

    /// The terminal has another size now.
    pub(super) fn resized(&mut self) {
        if let Screen::Table { height, width, .. } = self {
            (*height, *width) = size();
        }
    }

    /// A frame that the user is to see; the table shows it when it is next drawn.
    pub(super) fn frame(&mut self, text: &str, frame: &Frame<'_>) -> io::Result<()> {
        if self.is_table() {
            return Ok(());
        }
        let mut out = String::new();
        lines::frame(&mut out, text, frame);
        if out.is_empty() { Ok(()) } else { write(&out) }
    }

    /// The connection stands differently now.
    pub(super) fn link(&mut self, view: &View) -> io::Result<()> {
        if self.is_table() {
            return Ok(());
        }
        let (state, detail) = match &view.link {
            Link::Connecting => ("connecting", ""),
            Link::Live => ("live", ""),
            Link::Stale(why) => ("stale", why.as_str()),
            Link::Waiting { why, .. } => ("waiting", why.as_str()),
        };
        let mut out = String::new();
        lines::connection(&mut out, state, &clean(detail), view.simulated);
        write(&out)
    }

    /// Draws the table over the last one.
    pub(super) fn draw(&mut self, view: &View, now_ms: u64) -> io::Result<()> {
        let Screen::Table { drawn, height, width } = self else { return Ok(()) };
        let lines = render(view, *width, *height, now_ms);
        let mut out = if *drawn > 0 { format!("\x1b[{drawn}A\r") } else { String::new() };
        for line in &lines {
            out.push_str(line);
            out.push_str("\x1b[K\r\n");
        }
        out.push_str("\x1b[J");
        *drawn = lines.len();
        write(&out)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_table() {
            // There is nobody left to tell when the terminal is gone.
            let _ = write(LEAVE);
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Rows and columns. The standard library cannot ask and `unsafe` is forbidden, so `stty` does.
fn size() -> (usize, usize) {
    let asked = Command::new("stty").arg("size").stdin(Stdio::inherit()).stderr(Stdio::null()).output();
    let text = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let mut numbers =
        text.split_whitespace().filter_map(|word| word.parse().ok()).filter(|&number| number > 0);
    match (numbers.next(), numbers.next()) {
        (Some(height), Some(width)) => (height, width),
        _ => SIZE_DEFAULT,
    }
}
