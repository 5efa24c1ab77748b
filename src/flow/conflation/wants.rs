//! Who wants what is made only for those who ask: books cut to a depth, bars, and each change of an image.
//!
//! The hub counts shards here, a shard its streams. Bound kept here: one number per wanted topic and depth.

use std::collections::BTreeMap;

use tickgate_feeds::market::{Channel, Symbol};

/// Something that is made on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want {
    /// Book, bars or image.
    pub channel: Channel,
    /// Whose.
    pub symbol: Symbol,
    /// Levels of a side of a book; 0 for the others.
    pub depth: u16,
}

/// Wants, counted.
#[derive(Debug, Default)]
pub struct Wants {
    counts: BTreeMap<Want, u32>,
}

impl Wants {
    /// Counts one more; returns whether it is the first.
    pub fn add(&mut self, want: Want) -> bool {
        let count = self.counts.entry(want).or_default();
        *count += 1;
        *count == 1
    }

    /// Counts one less; returns whether it was the last.
    pub fn remove(&mut self, want: Want) -> bool {
        let Some(count) = self.counts.get_mut(&want) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.counts.remove(&want);
        }
        last
    }

    /// Everything that is wanted, topic by topic.
    pub fn all(&self) -> impl Iterator<Item = Want> + '_ {
        self.counts.keys().copied()
    }

    /// The greatest depth that anybody wants of a topic; `None` when nobody wants it.
    pub fn deepest(&self, channel: Channel, symbol: Symbol) -> Option<u16> {
        let any = |depth| Want { channel, symbol, depth };
        self.counts.range(any(0)..=any(u16::MAX)).next_back().map(|(want, _)| want.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_want_counts_until_the_last_of_it_goes() {
        let want = |depth| Want { channel: Channel::Book, symbol: Symbol::at(3), depth };
        let mut wants = Wants::default();
        let deepest = |wants: &Wants| wants.deepest(Channel::Book, Symbol::at(3));
        assert!(wants.add(want(10)) && !wants.add(want(10)) && wants.add(want(50)));
        assert_eq!(deepest(&wants), Some(50));
        assert!(wants.remove(want(50)) && !wants.remove(want(50)));
        assert_eq!(deepest(&wants), Some(10));
        assert!(!wants.remove(want(10)) && wants.remove(want(10)));
        assert_eq!(deepest(&wants), None);
    }
}
