//! The board, embedded: the files of `dashboards/board/` as they are, so that one binary is the whole gateway.

macro_rules! files {
    ($($path:literal, $kind:literal, $file:literal;)*) => {
        /// The file at this path: its content type and bytes.
        pub fn file(path: &str) -> Option<(&'static str, &'static [u8])> {
            match path {
                $($path => Some(($kind, include_bytes!(concat!("../../dashboards/board/", $file)).as_slice())),)*
                _ => None,
            }
        }
    };
}

files! {
    "/", "text/html; charset=utf-8", "index.html";
    "/board.css", "text/css; charset=utf-8", "board.css";
    "/board.js", "text/javascript; charset=utf-8", "board.js";
    "/client.js", "text/javascript; charset=utf-8", "client.js";
    "/decimal.js", "text/javascript; charset=utf-8", "decimal.js";
    "/own.js", "text/javascript; charset=utf-8", "own.js";
    "/table.js", "text/javascript; charset=utf-8", "table.js";
    "/theme.js", "text/javascript; charset=utf-8", "theme.js";
    "/tiles.js", "text/javascript; charset=utf-8", "tiles.js";
    "/view.js", "text/javascript; charset=utf-8", "view.js";
    "/favicon.svg", "image/svg+xml", "favicon.svg";
}
