//! Every bound of the gateway, its unit last, and why that number; and the sum of what they can cost.

use std::time::Duration;

/// Symbols that a configuration may allow: a place in the table and a channel go into four bytes.
pub const SYMBOLS_MAX: usize = 10_000_000;

/// Bounds that the configuration may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Symbols in all; one more is refused and counted. 200,000 holds every listed instrument of a large venue.
    pub symbols_max: usize,
    /// Updates waiting between the feeds and the hub: 6 MiB, and 50 ms of a feed of a million a second.
    pub ingest_updates_max: usize,
    /// Events (trades, status, changes of images in mode `every`) the hub and each shard remember: a minute of a busy
    /// venue.
    pub log_events_max: usize,
    /// Levels of all books together: two hundred books of 5,000 levels, or fifty thousand of twenty.
    pub book_levels_max: usize,
    /// Client connections in all, within what the process may open.
    pub connections_max: usize,
    /// One message of a client, in bytes: a list of a thousand topics fits.
    pub message_bytes_max: usize,
    /// The request line and head of a handshake, in bytes; also the URL's bound.
    pub url_bytes_max: usize,
    /// Topics named in one command: all that a session may have.
    pub topics_per_command_max: usize,
    /// Topics a session may have after groups and wildcards are resolved.
    pub topics_per_session_max: usize,
    /// Subscriptions of one session.
    pub streams_per_session_max: usize,
    /// Sustained commands per second of one session.
    pub commands_per_second: u32,
    /// Commands that may come at once before the rate counts.
    pub commands_burst: u32,
    /// Refused messages within ten seconds that end a session.
    pub refusals_max: u32,
    /// One outgoing frame's payload, in bytes; what is longer is split with `more`.
    pub frame_bytes_max: usize,
    /// Frames shorter than this are not compressed, in bytes: what they would lose is less than a packet's own head.
    pub compress_bytes_min: usize,
    /// Bytes of answers and private frames that may wait for one client.
    pub outbox_bytes_max: usize,
    /// The fastest rate a client may ask for, in frames per second; `None` leaves it open.
    pub rate_max: Option<f64>,
    /// How long a symbol may say nothing before it is stale at the earliest.
    pub symbol_silence: Duration,
    /// How many of its own typical intervals besides: at exponential distances, one silence in e^20 is so long.
    pub symbol_silence_intervals: u32,
    /// From the accepted socket to the first byte, and from that to the end of the request head.
    pub handshake_timeout: Duration,
    /// The whole life of a connection that does not become a WebSocket: who reads no answer must not hold it.
    pub http_life: Duration,
    /// A frame at least this often on every session.
    pub heartbeat: Duration,
    /// A WebSocket ping this often; two unanswered end the session.
    pub ping: Duration,
    /// How long bytes may wait for a client that takes none.
    pub write_stall: Duration,
    /// From the close frame to the end of the socket.
    pub close_timeout: Duration,
    /// From the signal to the end of the process.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            symbols_max: 200_000,
            ingest_updates_max: 65_536,
            log_events_max: 65_536,
            book_levels_max: 1_000_000,
            connections_max: 100_000,
            message_bytes_max: 64 << 10,
            url_bytes_max: 8 << 10,
            topics_per_command_max: 4096,
            topics_per_session_max: 4096,
            streams_per_session_max: 32,
            commands_per_second: 10,
            commands_burst: 50,
            refusals_max: 100,
            frame_bytes_max: 64 << 10,
            compress_bytes_min: 256,
            outbox_bytes_max: 128 << 10,
            rate_max: None,
            symbol_silence: Duration::from_secs(10),
            symbol_silence_intervals: 20,
            handshake_timeout: Duration::from_secs(5),
            http_life: Duration::from_secs(30),
            heartbeat: Duration::from_secs(3),
            ping: Duration::from_secs(20),
            write_stall: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
            drain: Duration::from_secs(5),
        }
    }
}

/// Writes of one turn between two looks at the sockets: 1.7 ms at the kernel's 6.6 µs a send.
pub const SLICE_WRITES: usize = 256;
/// Writes of one phase group: two slices, 3.4 ms at the kernel's pace, so that no flush is a wall.
pub const PHASE_WRITES: usize = 512;
/// The most phase groups of one rate.
pub const PHASES_MAX: usize = 32;
/// Clients admitted between two looks at the others: 1 ms of greetings, when ten thousand come back at once.
pub const ADMISSIONS_AT_ONCE: usize = 64;
/// Private frames paid in one turn at least, however busy it is.
pub const PAYMENTS_PER_TURN: usize = 64;
/// Commands that wait in a shard before it stops to read: 64 MiB of the longest.
pub const REQUESTS_WAITING_MAX: usize = 1024;
/// Topics looked up in one turn before the other clients are served: about 2 ms. One command is never cut.
pub const TOPICS_PER_TURN: usize = 4096;
/// What a command costs besides its topics, in topics: 15 µs, of which half is the send of its answer.
pub const COMMAND_TOPICS: usize = 32;
/// Topics that an answer names as rejected; it counts the others.
pub const REJECTED_TOLD_MAX: usize = 100;
/// What a shard reads at once from one socket: one buffer per shard, not per client.
pub const READ_BYTES: usize = 64 << 10;
/// Unsent bytes the kernel may hold for one client (`TCP_NOTSENT_LOWAT`): the backlog is ours to conflate.
pub const KERNEL_UNSENT_BYTES: u32 = 16 << 10;
/// Rows that a shard keeps encoded from one turn to the next, in bytes: what a core's second cache holds beside other things.
pub const ROWS_KEPT_BYTES: usize = 512 << 10;
/// Rows that a shard keeps encoded within a turn for the next who wants the same, in bytes: those of 20,000 symbols and more.
pub const ROWS_BYTES_MAX: usize = 4 << 20;
/// The most levels of one side of a book that a client may ask for.
pub const DEPTH_MAX: u16 = 1000;
/// Levels of one side of a book when the client does not say.
pub const DEPTH_DEFAULT: u16 = 10;
/// What a session on one stream takes while idle, in bytes, its share of growing tables included.
/// `tests/clients/memory_test.py` holds us to it.
pub const SESSION_BYTES: usize = 2048;
/// A topic of a session: four bytes in the wish, up to eight in the selection, and four to eight in the index of interest.
/// `tests/clients/memory_test.py` finds 20 to 35, what passes with the clients' coming included.
pub const TOPIC_BYTES: usize = 48;
/// Room for one more image row, in bytes: 27 fields with their names and values.
pub const ROW_BYTES_MAX: usize = 1536;
/// What compressing and inflating takes in a shard, in bytes, besides a frame and a message: two tables, and a window.
pub const DEFLATE_BYTES: usize = 96 << 10;
/// Room for one level of a book in a row, in bytes: `["61685.99","1.25869"],` and longer prices.
pub const LEVEL_TEXT_BYTES: usize = 40;
/// Answers over HTTP that are being taken at once, each with a part in memory: many dashboards that start together.
pub const ANSWERS_AT_ONCE_MAX: usize = 256;
/// What an answer over HTTP holds, in bytes, besides its topics: a part, and the names that it refuses.
pub const ANSWER_BYTES: usize = 256 << 10;
/// Events in an answer of history: a page of them, all copied when it is asked for.
pub const HISTORY_EVENTS_MAX: usize = 1_000;
/// Values of one change of an image in the log, on average: most messages set two to four fields.
pub const VALUES_PER_EVENT: usize = 4;
/// The longest filter, in characters: a screen of one, and a URL still has room for topics.
pub const FILTER_CHARS_MAX: usize = 512;
/// Conditions, nots and parentheses of one filter: what one look at an image may cost.
pub const FILTER_NODES_MAX: usize = 64;
/// Parentheses and nots of a filter in each other: its reader descends by as many calls.
pub const FILTER_DEPTH_MAX: usize = 16;
/// `move` and `changed` of one filter: values remembered of each of its topics.
pub const FILTER_CHANGES_MAX: usize = 4;
/// What a filtered stream remembers of one of its topics, in bytes: its turns in and out, and the values that changes are
/// measured from.
pub const FILTERED_TOPIC_BYTES: usize = 256;
/// The longest text of a client that an error repeats, in characters.
pub const ECHO_CHARS_MAX: usize = 64;

/// The worst case of memory, in bytes, by holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// (what holds it, bytes)
    pub process: Vec<(&'static str, usize)>,
    /// What the kernel may hold for sockets, in bytes.
    pub kernel: usize,
}

impl Memory {
    /// The sum of the process's part.
    pub fn process_bytes(&self) -> usize {
        self.process.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Limits {
    /// Adds up what the bounds allow for `clients` connections and `symbols` symbols on `shards` shards.
    pub fn memory(&self, clients: usize, symbols: usize, shards: usize) -> Memory {
        const UPDATE: usize = 96;
        const IMAGE: usize = 27 * 24 + 160; // a quote: 27 cells of value and revision, its head, and notes of its changes
        const CHANGED: usize = 27 * 16 + 56; // in a cut: the values, and what stands before them
        const RHYTHM: usize = 80; // what is known of a symbol's rhythm, and its place in a queue
        const EVENT: usize = 144 + VALUES_PER_EVENT * 16;
        const LEVEL: usize = 64; // a price as rank and decimal, a size, and a tree's share
        const TOP_LEVEL: usize = 40; // price, size, revision
        const BAR: usize = 256;
        const SYMBOL: usize = 320; // its names, the tree of them, and the state of its book
        const LISTED: usize = 160; // its standing and its chains in the log
        const ROW: usize = 16 + 64 + 52 + 24; // where its last row is, whose it can be, the beginning of its rows, two lists
        const ARRIVAL: usize = 8 + 8 + 4; // when it was, how often it went out, and in which row; of cuts and of rows
        const OWED_TOPIC: usize = 2 * 16 + 8; // in a growing list: how much of it was given, or that nothing was
        const EVENT_TEXT: usize = 256;
        let bars = 4 * symbols * BAR;
        let frame = self.frame_bytes_max.max(2 * usize::from(DEPTH_MAX) * LEVEL_TEXT_BYTES);
        let process = vec![
            ("ingest queue", 2 * self.ingest_updates_max * UPDATE),
            ("hub images", symbols * IMAGE),
            ("shard images", shards * symbols * IMAGE),
            ("rhythms", symbols * RHYTHM),
            ("event logs", (1 + shards) * self.log_events_max * EVENT),
            ("books", self.book_levels_max * LEVEL),
            ("books and bars as wanted", (1 + shards) * (self.book_levels_max * TOP_LEVEL + bars)),
            // Each shard may hold another one for a moment, and the hub keeps the last.
            (
                "cuts",
                (1 + shards)
                    * (symbols * CHANGED + self.log_events_max * EVENT + self.book_levels_max * TOP_LEVEL),
            ),
            ("symbols", symbols * SYMBOL + (1 + shards) * symbols * LISTED),
            (
                "rows of a turn",
                shards
                    * ((ROWS_BYTES_MAX + frame).next_power_of_two()
                        + symbols * (ROW + 2 * ARRIVAL)
                        + self.log_events_max * ARRIVAL),
            ),
            ("compression", shards * (DEFLATE_BYTES + 2 * (frame + frame / 8) + self.message_bytes_max)),
            (
                "frames of a flush",
                shards * (self.topics_per_session_max * ROW_BYTES_MAX + self.log_events_max * EVENT_TEXT),
            ),
            ("commands that wait", shards * REQUESTS_WAITING_MAX * self.message_bytes_max),
            (
                "answers over HTTP",
                ANSWERS_AT_ONCE_MAX * (ANSWER_BYTES + self.topics_per_session_max * TOPIC_BYTES),
            ),
            ("idle sessions", clients * SESSION_BYTES),
            ("selections", clients * self.topics_per_session_max * TOPIC_BYTES),
            ("what is owed of each topic", clients * self.topics_per_session_max * OWED_TOPIC),
            ("what filters remember", clients * self.topics_per_session_max * FILTERED_TOPIC_BYTES),
            ("outboxes of slow clients", clients * (self.outbox_bytes_max + frame)),
            ("messages in parts", clients * self.message_bytes_max),
        ];
        Memory { process, kernel: clients * 2 * KERNEL_UNSENT_BYTES as usize }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        write!(
            f,
            "{} MiB in the process and {} MiB in the kernel",
            mib(self.process_bytes()),
            mib(self.kernel)
        )
    }
}
