//! The one enum of reasons: the same name in the log line, the metric label, the error frame and the close frame.

use Kind::{End, Loss, Refusal};

/// What a reason is given for, and so the one metric that counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection ended; with the WebSocket close code, if there is a frame to carry it.
    End(Option<u16>),
    /// Something was refused, and the session lives.
    Refusal,
    /// Something was lost; it is announced in-band where a client could notice.
    Loss,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $kind:expr, $text:literal;)*) => {
        /// Why something was refused, lost or ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant),* }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name: metric label, log field, and `code` on the wire.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }

            /// What it is given for.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => $kind),* }
            }

            /// The WebSocket close code, for reasons that end a connection. 4000 to 4499: reconnect; 4500 and up: do not.
            pub const fn close_code(self) -> Option<u16> {
                match self.kind() {
                    End(code) => code,
                    Refusal | Loss => None,
                }
            }

            /// A short sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

reasons! {
    /// The client said goodbye.
    ClientClosed = "client_closed", End(Some(1000)), "closed by the client";
    /// The subscription of a client that only listens has ended, or was refused.
    Done = "done", End(Some(1000)), "nothing more will come";
    /// The subscription of a client that only listens was refused for now.
    Later = "later", End(Some(4004)), "try again a little later";
    /// The client's socket ended without a close frame.
    Disconnected = "disconnected", End(None), "connection lost";
    /// The gateway is shutting down.
    Restart = "restart", End(Some(1012)), "restarting, reconnect shortly";
    /// The WebSocket protocol was broken, or who should only listen spoke.
    ProtocolError = "protocol_error", End(Some(1002)), "the protocol was broken";
    /// A text message was not UTF-8.
    InvalidUtf8 = "invalid_utf8", End(Some(1007)), "text is not valid UTF-8";
    /// Binary frames on a session that speaks JSON.
    UnexpectedBinary = "unexpected_binary", End(Some(1003)), "binary message on a JSON session";
    /// Too many refused commands in a short time.
    Flood = "flood", End(Some(1008)), "too many refused messages";
    /// A message was longer than the limit.
    MessageTooBig = "message_too_big", End(Some(1009)), "message over the limit";
    /// The gateway cannot take one more connection or request.
    Overloaded = "overloaded", End(Some(1013)), "no room for one more";
    /// Bytes waited for the client longer than the stall limit.
    Slow = "slow", End(Some(4001)), "bytes waited too long for this client";
    /// The client did not answer pings.
    NoPong = "no_pong", End(Some(4002)), "no answer to pings";

    /// Not JSON, a wrong type, a missing or unknown key.
    BadRequest = "bad_request", Refusal, "the message could not be understood";
    /// `action` is none of ours.
    UnknownAction = "unknown_action", Refusal, "unknown action";
    /// A topic that does not follow the grammar.
    BadTopic = "bad_topic", Refusal, "expected [channel:](symbol | @group | prefix* | *)";
    /// A symbol or group that is not listed.
    UnknownTopic = "unknown_topic", Refusal, "no such symbol or group";
    /// A filter counts ticks, and those of the symbol are not known.
    UnknownTick = "unknown_tick", Refusal, "the price steps of a symbol are not known";
    /// This gateway's upstream was not asked for that.
    NotCarried = "not_carried", Refusal, "this gateway does not take that from its upstream";
    /// More topics than the limit.
    TopicLimit = "topic_limit", Refusal, "more topics than the limit";
    /// More streams than the limit.
    StreamLimit = "stream_limit", Refusal, "more subscriptions than the limit";
    /// `sub` is not one of the session's subscriptions.
    UnknownSub = "unknown_sub", Refusal, "no such subscription";
    /// `sub` is taken.
    SubInUse = "sub_in_use", Refusal, "a subscription of that name exists";
    /// A cursor is ahead of this node.
    NodeBehind = "node_behind", Refusal, "this node has not reached that revision yet";
    /// Commands came faster than the limit.
    RateLimited = "rate_limited", Refusal, "too many commands";

    /// The ingest queue was full and detail was merged.
    IngestMerged = "ingest_merged", Loss, "merged in the ingest queue";
    /// The ingest queue was full and a trade had to go.
    IngestOverflow = "ingest_overflow", Loss, "lost in the ingest queue";
    /// The event log no longer reached back far enough.
    LogOverrun = "log_overrun", Loss, "fell out of the event log";
    /// The venue itself said or showed that something is missing.
    UpstreamGap = "upstream_gap", Loss, "missing from the source";
    /// A trade came after the bar of its time was final, and is in none.
    LateTrade = "late_trade", Loss, "came after its bar was final";
    /// The gateway that this one takes its updates from said nothing for too long.
    UpstreamSilent = "upstream_silent", Loss, "nothing came from the upstream gateway";
    /// A feed named a symbol that belongs to another feed, or the table is full.
    SymbolRefused = "symbol_refused", Loss, "symbol refused";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_texts_fit_a_close_frame() {
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.label().len() + 1 + reason.text().len() <= 123, "RFC 6455 5.5: {reason:?}");
        }
    }
}
