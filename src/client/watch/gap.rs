//! The gap rule: may this batch be applied to what is held? Pure.
//!
//! Bound: one number per stream, and `watch` is on one stream at a time.

/// What a batch's numbers mean to one who holds a `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Apply it; the server merged this many frames into it.
    Apply { merged: u64 },
    /// Something is missing before it: subscribe again.
    Missed { frames: u64 },
}

/// `held` is the last `seq` applied or told by `subscribed`; `prev: null` begins a subscription.
pub(super) fn judge(held: Option<u64>, prev: Option<u64>, seq: u64) -> Verdict {
    match (held, prev) {
        (Some(held), Some(prev)) if held != prev => Verdict::Missed { frames: prev.abs_diff(held) },
        (_, Some(prev)) => Verdict::Apply { merged: seq.saturating_sub(prev).saturating_sub(1) },
        (_, None) => Verdict::Apply { merged: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_in_one_paragraph() {
        assert_eq!(judge(Some(41), Some(41), 42), Verdict::Apply { merged: 0 });
        assert_eq!(judge(Some(41), Some(41), 45), Verdict::Apply { merged: 3 });
        assert_eq!(judge(Some(41), Some(43), 44), Verdict::Missed { frames: 2 });
        assert_eq!(judge(Some(41), Some(40), 41), Verdict::Missed { frames: 1 });
        assert_eq!(judge(Some(41), None, 42), Verdict::Apply { merged: 0 });
        assert_eq!(judge(None, Some(7), 8), Verdict::Apply { merged: 0 });
    }
}
