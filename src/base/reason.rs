//! The one enum of reasons: the same name in the log line, the metric label, the error frame and the close frame.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $close:expr, $text:literal;)*) => {
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

            /// The WebSocket close code, for reasons that end a connection. 4000 to 4499: reconnect; 4500 and up: do not.
            pub const fn close_code(self) -> Option<u16> {
                match self { $(Self::$variant => $close),* }
            }

            /// A short sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

reasons! {
    // Ends of a connection.
    /// The client said goodbye.
    ClientClosed = "client_closed", Some(1000), "closed by the client";
    /// The client's socket ended without a close frame.
    Disconnected = "disconnected", None, "connection lost";
    /// The gateway is shutting down.
    Restart = "restart", Some(1012), "restarting, reconnect shortly";
    /// The WebSocket protocol was broken.
    ProtocolError = "protocol_error", Some(1002), "WebSocket protocol error";
    /// A text message was not UTF-8.
    InvalidUtf8 = "invalid_utf8", Some(1007), "text is not valid UTF-8";
    /// Binary frames on a session that speaks JSON.
    UnexpectedBinary = "unexpected_binary", Some(1003), "binary message on a JSON session";
    /// Too many refused commands in a short time.
    Flood = "flood", Some(1008), "too many refused messages";
    /// A message was longer than the limit.
    MessageTooBig = "message_too_big", Some(1009), "message over the limit";
    /// The gateway cannot take one more connection or request.
    Overloaded = "overloaded", Some(1013), "no room for one more";
    /// Bytes waited for the client longer than the stall limit.
    Slow = "slow", Some(4001), "bytes waited too long for this client";
    /// The client did not answer pings.
    NoPong = "no_pong", Some(4002), "no answer to pings";

    // Refusals: the session lives.
    /// Not JSON, a wrong type, a missing or unknown key.
    BadRequest = "bad_request", None, "the message could not be understood";
    /// `action` is none of ours.
    UnknownAction = "unknown_action", None, "unknown action";
    /// A topic that does not follow the grammar.
    BadTopic = "bad_topic", None, "expected [channel:](symbol | @group | prefix* | *)";
    /// A symbol or group that is not listed.
    UnknownTopic = "unknown_topic", None, "no such symbol or group";
    /// More topics than the limit.
    TopicLimit = "topic_limit", None, "more topics than the limit";
    /// More streams than the limit.
    StreamLimit = "stream_limit", None, "more subscriptions than the limit";
    /// `sub` is not one of the session's subscriptions.
    UnknownSub = "unknown_sub", None, "no such subscription";
    /// `sub` is taken.
    SubInUse = "sub_in_use", None, "a subscription of that name exists";
    /// A cursor is ahead of this node.
    NodeBehind = "node_behind", None, "this node has not reached that revision yet";
    /// Commands came faster than the limit.
    RateLimited = "rate_limited", None, "too many commands";

    // Losses: counted, and announced in-band where a client could notice.
    /// The ingest queue was full and detail was merged.
    IngestMerged = "ingest_merged", None, "merged in the ingest queue";
    /// The ingest queue was full and a trade had to go.
    IngestOverflow = "ingest_overflow", None, "lost in the ingest queue";
    /// The event log no longer reached back far enough.
    LogOverrun = "log_overrun", None, "fell out of the event log";
    /// The venue itself said or showed that something is missing.
    UpstreamGap = "upstream_gap", None, "missing from the source";
    /// A feed named a symbol that belongs to another feed, or the table is full.
    SymbolRefused = "symbol_refused", None, "symbol refused";
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
