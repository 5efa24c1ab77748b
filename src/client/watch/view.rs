//! What the watcher knows: rows, cursor, connection, counters. Pure: frames and the time go in, a reaction comes out.
//!
//! Bound: one table (see `table`), one note of `NOTE_CHARS_MAX` characters, a few numbers.

use serde_json::{Value, json};

use super::gap::{Verdict, judge};
use super::table::Table;
use super::wire::{Frame, clean};

/// Heartbeat interval that the protocol has until `welcome` says otherwise.
const HEARTBEAT_MS: u64 = 3000;

/// The intervals that a server may announce; anything else is taken as the nearest of these ends.
const HEARTBEAT_RANGE_MS: (u64, u64) = (1000, 30_000);

/// Characters of a message from the server that are shown.
const NOTE_CHARS_MAX: usize = 200;

/// What the user wants, the same for every connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) topics: Vec<String>,
    pub(super) rate: Option<f64>,
    pub(super) fields: Vec<String>,
    pub(super) mode: Option<String>,
    /// Whole rows instead of changes: the table does not merge book levels.
    pub(super) whole: bool,
}

/// How the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Live,
    /// What is shown may be old, and why.
    Stale(String),
    /// There is no connection until then (the watcher's own clock).
    Waiting {
        until_ms: u64,
        why: String,
    },
}

/// What has to be done after a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing more; `show` when its rows were applied or its message is for the user.
    Done { show: bool },
    /// The gap rule says that something is missing.
    Resubscribe,
    /// The subscription was refused for now: ask again after so many milliseconds.
    Retry { wait_ms: u64 },
    /// The subscription was refused for good, and why.
    Refused { why: String },
    /// It has brought the one picture that was asked for.
    Over,
    /// Connect again after so many milliseconds, there if it says where.
    Drain { wait_ms: u64, to: Option<String> },
}

/// The state of `watch`.
#[derive(Debug)]
pub(super) struct View {
    pub(super) wish: Wish,
    pub(super) link: Link,
    pub(super) table: Table,
    pub(super) simulated: bool,
    pub(super) merged: u64,
    pub(super) missed: u64,
    /// The last thing that the server told the user.
    pub(super) note: String,
    pub(super) rev: Option<u64>,
    /// How much the last heartbeat lagged behind the quickest one.
    pub(super) late_ms: u64,
    /// What the gateway said of itself, while its link is not live: the state, and a sentence.
    gateway: Option<(String, String)>,
    /// Why nothing comes of the subscription, while that is so.
    idle: Option<&'static str>,
    least_lag_us: Option<i128>,
    heartbeat_ms: u64,
    epoch: Option<String>,
    wish_hash: Option<String>,
    /// The stream and the `seq` held; unknown until `subscribed`.
    stream: Option<u64>,
    seq: Option<u64>,
    /// Number of the current subscription: its name is `w` and this.
    sub: u64,
    /// Nothing of the current subscription has been applied yet.
    fresh: bool,
    /// The current subscription goes on from what is held.
    resumed: bool,
    /// All that the current subscription owed at its beginning has come: what is held is of now.
    current: bool,
}

impl View {
    /// Knows nothing yet.
    pub(super) fn new(wish: Wish) -> View {
        View {
            wish,
            link: Link::Connecting,
            table: Table::default(),
            simulated: false,
            merged: 0,
            missed: 0,
            note: String::new(),
            rev: None,
            late_ms: 0,
            gateway: None,
            idle: None,
            least_lag_us: None,
            heartbeat_ms: HEARTBEAT_MS,
            epoch: None,
            wish_hash: None,
            stream: None,
            seq: None,
            sub: 0,
            fresh: true,
            resumed: false,
            current: false,
        }
    }

    /// How long the server may be silent: two and a half heartbeats.
    pub(super) fn silence_ms(&self) -> u64 {
        self.heartbeat_ms * 5 / 2
    }

    /// The commands that begin a subscription: the first on a connection, or anew after a gap (`again`).
    pub(super) fn subscribe(&mut self, again: bool) -> Vec<String> {
        let mut commands = Vec::new();
        if again {
            commands.push(json!({"action": "unsubscribe", "sub": self.sub_name()}).to_string());
        }
        self.sub += 1;
        (self.stream, self.seq, self.fresh, self.current) = (None, None, true, false);
        if self.idle.take().is_some() {
            self.note.clear();
        }
        (self.least_lag_us, self.late_ms) = (None, 0);
        let mut command = json!({
            "action": "subscribe",
            "id": self.sub,
            "sub": self.sub_name(),
            "topics": self.wish.topics,
        });
        if let Some(rate) = self.wish.rate {
            command["rate"] = rate.into();
        }
        if !self.wish.fields.is_empty() {
            command["fields"] = json!(self.wish.fields);
        }
        if let Some(mode) = &self.wish.mode {
            command["mode"] = mode.as_str().into();
        }
        if self.wish.whole {
            command["delta"] = false.into();
        }
        command["since"] = self.since();
        if command["since"].is_null()
            && let Some(members) = command.as_object_mut()
        {
            members.remove("since");
        }
        commands.push(command.to_string());
        commands
    }

    fn sub_name(&self) -> String {
        format!("w{}", self.sub)
    }

    fn since(&self) -> Value {
        match (&self.epoch, self.rev, &self.wish_hash) {
            (Some(epoch), Some(rev), Some(wish)) => json!({"epoch": epoch, "rev": rev, "wish": wish}),
            _ => Value::Null,
        }
    }

    /// Takes a frame in.
    pub(super) fn apply(&mut self, frame: &Frame<'_>, now_ms: u64) -> Reaction {
        let mut show = true;
        match frame.kind.as_str() {
            "batch" => return self.batch(frame, now_ms),
            "welcome" => {
                self.gateway = None;
                self.enter_epoch(frame.epoch.as_deref());
                self.simulated |= frame.simulated;
                let (least, most) = HEARTBEAT_RANGE_MS;
                self.heartbeat_ms = frame.heartbeat_ms.unwrap_or(HEARTBEAT_MS).clamp(least, most);
            }
            "subscribed" | "updated" => {
                if frame.sub.as_ref().is_none_or(|sub| *sub == self.sub_name()) {
                    (self.stream, self.seq) = (frame.stream, frame.seq);
                    self.resumed = matches!(frame.recovered.as_deref(), Some("exact" | "conflated"));
                    self.wish_hash = frame.wish.clone().or(self.wish_hash.take());
                }
                show = !frame.rejected.is_empty();
                for rejected in &frame.rejected {
                    self.note(&format!("rejected: {}", rejected.get()));
                }
            }
            "unsubscribed" if frame.sub == Some(self.sub_name()) => {
                self.idle = Some("one picture was asked for");
                return Reaction::Over;
            }
            "heartbeat" => {
                show = false;
                self.measure_lag(frame.ts_us, now_ms);
                let told = self.stream.and_then(|stream| frame.streams.get(&stream.to_string()));
                if let (Some(told), Some(held)) = (told, self.seq) {
                    if told.seq != held {
                        self.missed += told.seq.abs_diff(held);
                        return Reaction::Resubscribe;
                    }
                    // Where nothing changed meanwhile there is no batch to say so.
                    self.current |= self.resumed && self.fresh;
                }
            }
            "link" => {
                let state = shown(frame.state.as_deref().unwrap_or("unknown"));
                let reason = frame.reason.as_deref().unwrap_or("no reason given");
                let doubt = shown(&format!("the gateway says {state}: {reason}"));
                self.gateway = (state != "live").then_some((state, doubt));
            }
            "error" => return self.error(frame),
            "drain" => {
                self.note("the server is going down; moving on");
                return Reaction::Drain { wait_ms: frame.reconnect_in_ms.unwrap_or(0), to: frame.to.clone() };
            }
            _ => show = false,
        }
        Reaction::Done { show }
    }

    /// What is not about the subscription changes nothing of it.
    fn error(&mut self, frame: &Frame<'_>) -> Reaction {
        let code = frame.code.as_deref().unwrap_or("error");
        self.note(&format!("{code}: {}", frame.message.as_deref().unwrap_or_default()));
        if frame.id != Some(self.sub.into()) {
            return Reaction::Done { show: true };
        }
        match frame.retry_after_ms {
            Some(wait_ms) => {
                self.idle = Some("the subscription was refused for now");
                Reaction::Retry { wait_ms }
            }
            None => {
                let refused = "the subscription was refused";
                self.idle = Some(refused);
                Reaction::Refused { why: format!("{refused}: {}", self.note) }
            }
        }
    }

    fn batch(&mut self, frame: &Frame<'_>, now_ms: u64) -> Reaction {
        let (Some(stream), Some(seq)) = (frame.stream, frame.seq) else {
            self.note("a batch without stream and seq was skipped");
            return Reaction::Done { show: false };
        };
        if self.stream != Some(stream) {
            // What is left of a subscription that was given up after a gap.
            return Reaction::Done { show: false };
        }
        match judge(self.seq, frame.prev, seq) {
            Verdict::Missed { frames } => {
                self.missed += frames;
                return Reaction::Resubscribe;
            }
            Verdict::Apply { merged } => self.merged += merged,
        }
        self.seq = Some(seq);
        let new_epoch = self.enter_epoch(frame.epoch.as_deref());
        if frame.snapshot && (self.fresh || new_epoch) {
            self.table.clear();
        }
        self.fresh = false;
        if !frame.more {
            self.rev = frame.rev.or(self.rev);
            self.current = true;
        }
        for topic in &frame.removed {
            self.table.remove(topic);
        }
        for row in &frame.rows {
            self.table.apply(row, now_ms);
        }
        Reaction::Done { show: true }
    }

    /// A revision means nothing in another epoch, so it is forgotten with the old one. True when the epoch is new.
    fn enter_epoch(&mut self, epoch: Option<&str>) -> bool {
        if epoch.is_none() || epoch == self.epoch.as_deref() {
            return false;
        }
        self.epoch = epoch.map(str::to_owned);
        self.rev = None;
        true
    }

    /// How much later than the quickest one a heartbeat came. Against the quickest and not against the clock on the
    /// wall, since two machines seldom agree on that one.
    fn measure_lag(&mut self, ts_us: Option<u64>, now_ms: u64) {
        let Some(ts_us) = ts_us else { return };
        let lag_us = i128::from(now_ms) * 1000 - i128::from(ts_us);
        let least = self.least_lag_us.map_or(lag_us, |least| least.min(lag_us));
        self.least_lag_us = Some(least);
        self.late_ms = ((lag_us - least) / 1000) as u64;
    }

    /// Whether what is held is what the subscription says, so far as it was told.
    pub(super) fn is_current(&self) -> bool {
        self.current
    }

    /// Why what is held is not to be shown as live: nothing more comes of it, what arrives was made too long ago, or the
    /// gateway itself is cut off.
    pub(super) fn doubt(&self) -> Option<String> {
        match (self.idle, &self.gateway) {
            (Some(idle), _) => Some(idle.to_owned()),
            (None, Some((_, doubt))) => Some(doubt.clone()),
            (None, None) if self.late_ms > self.silence_ms() => {
                Some(format!("what arrives is {} s old", self.late_ms / 1000))
            }
            (None, None) => None,
        }
    }

    /// The state to show every row in, whatever it says of itself; `None` when it is to be believed.
    pub(super) fn state_of_all(&self) -> Option<&str> {
        match (&self.link, &self.gateway) {
            (Link::Live, _) => None,
            (Link::Stale(_), Some((state, _))) if self.current => Some(state),
            _ => Some("stale"),
        }
    }

    /// Sets what the user is told.
    pub(super) fn note(&mut self, text: &str) {
        self.note = shown(text);
    }
}

/// A server's text as it is shown: cleaned and cut.
fn shown(text: &str) -> String {
    clean(text).chars().take(NOTE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::watch::wire::read;

    fn view() -> View {
        View::new(Wish { topics: vec!["VCB".into()], ..Wish::default() })
    }

    fn feed(view: &mut View, text: &str) -> Reaction {
        view.apply(&read(text).unwrap(), 1000)
    }

    const SHOWN: Reaction = Reaction::Done { show: true };
    const HIDDEN: Reaction = Reaction::Done { show: false };

    /// A view that holds seq 6 of stream 3.
    fn following() -> View {
        let mut view = view();
        assert_eq!(view.subscribe(false).len(), 1);
        feed(&mut view, r#"{"type":"welcome","epoch":"e1","heartbeat_ms":2000,"simulated":true}"#);
        feed(&mut view, r#"{"type":"subscribed","sub":"w1","stream":3,"seq":5,"wish":"h"}"#);
        let first = r#"{"type":"batch","stream":3,"seq":6,"prev":null,"rev":10,"snapshot":true,"rows":[{"symbol":"VCB","full":true,"last":1}]}"#;
        assert_eq!(feed(&mut view, first), SHOWN);
        view
    }

    #[test]
    fn frames_in_order_are_applied() {
        let mut view = following();
        assert!(view.simulated && view.silence_ms() == 5000);
        assert_eq!(
            feed(&mut view, r#"{"type":"batch","stream":3,"seq":9,"prev":6,"rev":12,"rows":[]}"#),
            SHOWN
        );
        assert_eq!((view.merged, view.missed, view.rev), (2, 0, Some(12)));
        assert_eq!(feed(&mut view, r#"{"type":"heartbeat","streams":{"3":{"seq":9}}}"#), HIDDEN);
    }

    #[test]
    fn a_gap_asks_again_from_where_we_are() {
        let mut view = following();
        let late = r#"{"type":"batch","stream":3,"seq":9,"prev":8,"rev":12,"rows":[]}"#;
        assert_eq!(feed(&mut view, late), Reaction::Resubscribe);
        assert_eq!((view.missed, view.rev), (2, Some(10)));
        let commands = view.subscribe(true);
        assert_eq!(commands[0], r#"{"action":"unsubscribe","sub":"w1"}"#);
        let command: Value = serde_json::from_str(&commands[1]).unwrap();
        assert_eq!(command["since"], json!({"epoch": "e1", "rev": 10, "wish": "h"}));
        feed(&mut view, r#"{"type":"subscribed","sub":"w2","stream":4,"seq":1}"#);
        assert_eq!(feed(&mut view, late), HIDDEN, "the old stream is over");
        let resumed =
            r#"{"type":"batch","stream":4,"seq":2,"prev":1,"rev":13,"rows":[{"symbol":"VCB","last":2}]}"#;
        assert_eq!(feed(&mut view, resumed), SHOWN);
        assert_eq!((view.table.len(), view.rev), (1, Some(13)));
    }

    #[test]
    fn a_heartbeat_betrays_a_lost_last_frame() {
        let mut view = following();
        assert_eq!(
            feed(&mut view, r#"{"type":"heartbeat","streams":{"3":{"seq":7}}}"#),
            Reaction::Resubscribe
        );
    }

    #[test]
    fn heartbeats_that_fall_behind_are_noticed_whatever_the_clocks_say() {
        let mut view = following();
        let mut beat = |ts_us: u64, now_ms| {
            view.apply(&read(&format!(r#"{{"type":"heartbeat","ts_us":{ts_us}}}"#)).unwrap(), now_ms);
            view.doubt().is_some()
        };
        assert!(!beat(1_000_000_000, 1000));
        assert!(!beat(1_002_000_000, 4000));
        assert!(beat(1_003_000_000, 10_000));
        assert!(!beat(1_010_000_000, 11_000));
    }

    #[test]
    fn a_gateway_that_is_cut_off_makes_everything_stale_until_it_is_not() {
        let mut view = following();
        feed(&mut view, r#"{"type":"link","state":"stale","reason":"upstream_silent"}"#);
        assert_eq!(view.doubt().as_deref(), Some("the gateway says stale: upstream_silent"));
        feed(&mut view, r#"{"type":"link","state":"live","reason":null}"#);
        assert_eq!(view.doubt(), None);
        feed(&mut view, r#"{"type":"link","state":"suspect","reason":"x"}"#);
        feed(&mut view, r#"{"type":"welcome","epoch":"e1"}"#);
        assert_eq!(view.doubt(), None, "another connection says it anew");
    }

    #[test]
    fn a_refused_subscription_is_in_doubt_until_another_has_brought_what_it_owes() {
        let mut view = following();
        assert_eq!((view.is_current(), view.doubt()), (true, None));
        assert_eq!(view.subscribe(false).len(), 1);
        let late = r#"{"type":"batch","stream":3,"seq":7,"prev":6,"rev":11,"rows":[]}"#;
        assert_eq!(feed(&mut view, late), HIDDEN, "no stream of this subscription");
        assert!(!view.is_current());
        let others = r#"{"type":"error","id":1,"code":"rate_limited","message":"x","retry_after_ms":9}"#;
        assert_eq!((feed(&mut view, others), view.doubt()), (SHOWN, None));
        let behind = r#"{"type":"error","id":2,"code":"node_behind","message":"no","retry_after_ms":500}"#;
        assert_eq!(feed(&mut view, behind), Reaction::Retry { wait_ms: 500 });
        assert_eq!(view.doubt().as_deref(), Some("the subscription was refused for now"));
        view.subscribe(false);
        assert_eq!(view.note, "", "it is asked again");
        let unknown = r#"{"type":"error","id":3,"code":"unknown_topic","message":"no such symbol"}"#;
        let why = "the subscription was refused: unknown_topic: no such symbol".to_owned();
        assert_eq!(feed(&mut view, unknown), Reaction::Refused { why });
        assert_eq!(view.doubt().as_deref(), Some("the subscription was refused"));
        view.subscribe(false);
        feed(&mut view, r#"{"type":"subscribed","sub":"w4","stream":4,"seq":8,"recovered":"conflated"}"#);
        let part = r#"{"type":"batch","stream":4,"seq":8,"prev":8,"rev":10,"more":true,"rows":[]}"#;
        feed(&mut view, part);
        feed(&mut view, r#"{"type":"heartbeat","streams":{"4":{"seq":8}}}"#);
        assert_eq!((view.is_current(), view.doubt()), (false, None), "the rest is still to come");
        feed(&mut view, r#"{"type":"batch","stream":4,"seq":8,"prev":8,"rev":12,"rows":[]}"#);
        assert!(view.is_current());
    }

    #[test]
    fn a_heartbeat_says_that_nothing_was_missed_by_who_goes_on() {
        let mut view = following();
        for (recovered, is_current) in [("reset", false), ("exact", true)] {
            view.subscribe(false);
            let sub = view.sub;
            feed(
                &mut view,
                &format!(
                    r#"{{"type":"subscribed","sub":"w{sub}","stream":4,"seq":8,"recovered":"{recovered}"}}"#
                ),
            );
            feed(&mut view, r#"{"type":"heartbeat","streams":{"4":{"seq":8}}}"#);
            assert_eq!(view.is_current(), is_current, "{recovered}");
        }
    }

    #[test]
    fn a_snapshot_of_a_new_epoch_forgets_the_old_rows() {
        let mut view = following();
        let part = r#"{"type":"batch","stream":3,"seq":7,"prev":6,"rev":1,"epoch":"e2","snapshot":true,"more":true,"rows":[{"symbol":"A","full":true}]}"#;
        feed(&mut view, part);
        assert_eq!((view.table.len(), view.rev), (1, None));
        let rest = r#"{"type":"batch","stream":3,"seq":8,"prev":7,"rev":2,"epoch":"e2","snapshot":true,"rows":[{"symbol":"B","full":true}]}"#;
        feed(&mut view, rest);
        assert_eq!((view.table.len(), view.rev), (2, Some(2)));
    }

    #[test]
    fn added_and_removed_topics_change_the_rows() {
        let mut view = following();
        let text = r#"{"type":"batch","stream":3,"seq":7,"prev":6,"rev":11,"added":["FPT"],"removed":["VCB"],"rows":[{"symbol":"FPT","full":true}]}"#;
        feed(&mut view, text);
        assert_eq!(view.table.iter().map(|(symbol, ..)| symbol).collect::<Vec<_>>(), ["FPT"]);
    }

    #[test]
    fn the_user_hears_what_the_server_says() {
        let mut view = following();
        feed(&mut view, r#"{"type":"error","code":"bad_request","message":"no\u001b[2J"}"#);
        assert_eq!(view.note, "bad_request: no[2J");
        let drain = feed(&mut view, r#"{"type":"drain","reconnect_in_ms":8300,"to":null}"#);
        assert_eq!(drain, Reaction::Drain { wait_ms: 8300, to: None });
    }
}
