//! What the operator says, from a TOML file and flags; the only parser of configuration.
//!
//! Bound kept here: every number has a range, and a key that nobody knows is refused with its line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tickgate_feeds::spec::nearest;
use tickgate_feeds::symbols::is_name;

use crate::base::limits::{Limits, SYMBOLS_MAX};

/// Everything a gateway is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients come.
    pub listen: SocketAddr,
    /// Where operators come.
    pub admin: SocketAddr,
    /// Feed specs.
    pub feeds: Vec<String>,
    /// Threads that serve clients; `None` for one per core.
    pub shards: Option<usize>,
    /// Groups besides those that feeds bring.
    pub groups: BTreeMap<String, Vec<String>>,
    /// The bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            feeds: vec!["synthetic:vn30".to_owned()],
            shards: None,
            groups: BTreeMap::new(),
            limits: Limits::default(),
        }
    }
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    feeds: Option<Vec<String>>,
    shards: Option<usize>,
    #[serde(default)]
    groups: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    limits: LimitsTable,
}

macro_rules! limits_table {
    (counts { $($count:ident: $count_type:ty = $min:literal ..= $max:expr),* $(,)? }
     times { $($time:ident as $key:ident = $time_min:literal ..= $time_max:literal),* $(,)? }) => {
        /// `[limits]`: counts and bytes under their own names, times in milliseconds.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct LimitsTable {
            $($count: Option<$count_type>,)*
            $($key: Option<u64>,)*
            rate_max: Option<f64>,
        }

        impl LimitsTable {
            fn apply(&self, limits: &mut Limits) -> Result<(), String> {
                $(if let Some(value) = self.$count {
                    if !($min..=$max).contains(&value) {
                        let key = stringify!($count);
                        return Err(format!("limits.{key}: expected {} to {}, got {value}", $min, $max));
                    }
                    limits.$count = value;
                })*
                $(if let Some(value) = self.$key {
                    if !($time_min..=$time_max).contains(&value) {
                        let key = stringify!($key);
                        return Err(format!("limits.{key}: expected {} to {}, got {value}", $time_min, $time_max));
                    }
                    limits.$time = Duration::from_millis(value);
                })*
                match self.rate_max {
                    Some(rate) if !(0.1..=100.0).contains(&rate) => {
                        return Err(format!("limits.rate_max: expected 0.1 to 100, got {rate}"));
                    }
                    Some(rate) => limits.rate_max = Some(rate),
                    None => {}
                }
                Ok(())
            }
        }

        const KEYS: &[&str] = &[
            "listen", "admin", "feeds", "shards", "groups", "limits", "rate_max",
            $(stringify!($count),)* $(stringify!($key),)*
        ];
    };
}

limits_table! {
    counts {
        symbols_max: usize = 1 ..= SYMBOLS_MAX,
        ingest_updates_max: usize = 16 ..= 16_777_216,
        log_events_max: usize = 1 ..= 16_777_216,
        book_levels_max: usize = 1 ..= 100_000_000,
        connections_max: usize = 1 ..= 10_000_000,
        message_bytes_max: usize = 1_024 ..= 16_777_216,
        url_bytes_max: usize = 8_192 ..= 1_048_576,
        topics_per_command_max: usize = 1 ..= 1_000_000,
        topics_per_session_max: usize = 1 ..= 10_000_000,
        streams_per_session_max: usize = 1 ..= 1_024,
        commands_per_second: u32 = 1 ..= 1_000_000,
        commands_burst: u32 = 1 ..= 1_000_000,
        symbol_silence_intervals: u32 = 1 ..= 1_000_000,
        refusals_max: u32 = 1 ..= 1_000_000,
        frame_bytes_max: usize = 4_096 ..= 16_777_216,
        compress_bytes_min: usize = 64 ..= 16_777_216,
        outbox_bytes_max: usize = 4_096 ..= 16_777_216,
    }
    times {
        symbol_silence as symbol_silence_ms = 100 ..= 86_400_000,
        handshake_timeout as handshake_timeout_ms = 100 ..= 60_000,
        http_life as http_life_ms = 100 ..= 600_000,
        heartbeat as heartbeat_ms = 100 ..= 30_000,
        ping as ping_ms = 100 ..= 600_000,
        write_stall as write_stall_ms = 100 ..= 600_000,
        close_timeout as close_timeout_ms = 10 ..= 60_000,
        drain as drain_ms = 0 ..= 600_000,
    }
}

impl Config {
    /// Reads the text of a file. The error names the line and, for a slip of the hand, the key that was meant.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| explain(&error, text))?;
        let mut config = Self::default();
        file.limits.apply(&mut config.limits)?;
        config.listen = file.listen.unwrap_or(config.listen);
        config.admin = file.admin.unwrap_or(config.admin);
        config.feeds = file.feeds.unwrap_or(config.feeds);
        config.shards = file.shards.or(config.shards);
        config.groups = file.groups;
        Ok(config)
    }

    /// Refuses what no gateway can be built from.
    pub fn check(&self) -> Result<(), String> {
        if self.feeds.is_empty() {
            return Err("feeds: expected at least one feed spec, such as \"synthetic:vn30\"".into());
        }
        if self.shards.is_some_and(|shards| !(1..=256).contains(&shards)) {
            return Err(format!("shards: expected 1 to 256, got {}", self.shards.unwrap_or_default()));
        }
        if let Some(group) = self.groups.keys().find(|group| !is_name(group)) {
            return Err(format!("groups.{group:?}: expected 1 to 64 characters of [A-Za-z0-9._/-]"));
        }
        if self.listen == self.admin && self.listen.port() != 0 {
            return Err(format!(
                "admin: {} is the clients' address; operators need one of their own",
                self.admin
            ));
        }
        Ok(())
    }
}

fn explain(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().to_owned();
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let meant = unknown.and_then(|key| nearest(key, KEYS)).map(|key| format!("; did you mean `{key}`?"));
    format!("line {line}: {message}{}", meant.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_slips_are_explained() {
        let config = Config::from_toml(
            "listen = \"0.0.0.0:80\"\nfeeds = [\"synthetic:load\"]\n[limits]\nheartbeat_ms = 500\nrate_max = 10\n",
        );
        let config = config.expect("a good file");
        assert_eq!(config.limits.heartbeat, Duration::from_millis(500));
        assert_eq!((config.limits.rate_max, config.listen.port()), (Some(10.0), 80));
        for (text, expected) in [
            ("\nlisen = \"a\"", "line 2: unknown field `lisen`"),
            ("\nlisen = \"a\"", "; did you mean `listen`?"),
            ("listen = 7", "line 1: invalid type"),
            ("[limits]\nheartbeat_ms = 1", "limits.heartbeat_ms: expected 100 to 30000, got 1"),
            ("shards = 0", "shards: expected 1 to 256, got 0"),
            ("[groups]\n\"my stocks\" = []", "groups.\"my stocks\": expected 1 to 64 characters"),
            ("feeds = []", "feeds: expected at least one feed spec"),
        ] {
            let error = Config::from_toml(text).and_then(|config| config.check()).expect_err(text);
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
    }
}
