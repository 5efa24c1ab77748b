//! What a client holds that comes back with a cursor, or that changes a subscription: it is owed the rest and no more.

use tickgate_feeds::market::Channel;

use super::Shard;
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::conflation::log::Event;
use crate::flow::dispatch::streams::{Debt, Place, Selection};
use crate::flow::dispatch::topic::{Target, Topic};
use crate::flow::dispatch::wish::Wish;
use crate::flow::frame::command::{Mistake, Since};
use crate::flow::socket::wire::Io;

/// When a cursor that is ahead of this node is worth another try, in milliseconds.
const NODE_BEHIND_MS: u64 = 500;

impl<I: Io> Shard<I> {
    /// What a client with this cursor is owed, and the verdict: `exact` when it gets every change one by one,
    /// `conflated` when values are right but changes between were merged. `None` when it must begin anew.
    pub(super) fn resume(
        &self,
        since: &Since,
        wish: &Wish,
        selection: &Selection,
    ) -> Result<Option<(&'static str, Debt)>, Mistake> {
        let replica = &self.encoder.replica;
        // Who left before its first picture was whole was told of no revision, and holds no row that it could rely on.
        if *since.epoch != *replica.node.epoch || since.rev == 0 {
            return Ok(None);
        }
        if since.seen.unwrap_or_default().max(since.rev) > replica.rev {
            let mistake = Mistake::of(Reason::NodeBehind);
            return Err(Mistake { retry_after_ms: Some(NODE_BEHIND_MS), ..mistake });
        }
        let same = since.wish.as_ref().is_none_or(|name| *name == self.wish_name(wish));
        // What a filter had let through by then is not remembered.
        if !same || wish.filter.is_some() {
            return Ok(None);
        }
        // Which members a group had when the client left is not remembered: after a change of groups all come whole.
        let regrouped = replica.grouped_rev > since.rev
            && wish.topics.open().any(|name| matches!(name.target, Target::Group(_)));
        let is_new = |topic: &Topic| regrouped || replica.listed_rev(topic.symbol()) > since.rev;
        let news: Vec<Topic> = selection.topics().iter().copied().filter(is_new).collect();
        let exact = selection.topics().iter().all(|topic| self.is_exact(*topic, wish, since.rev));
        let debt = Debt { news: (!news.is_empty()).then(|| news.into()), ..Debt::holding(since.rev, 0) };
        Ok(Some((if exact { "exact" } else { "conflated" }, debt)))
    }

    /// Whether a client that held this topic at `rev` misses none of its changes when it gets the rest.
    fn is_exact(&self, topic: Topic, wish: &Wish, rev: Rev) -> bool {
        let replica = &self.encoder.replica;
        let kept = !topic.is_image() || replica.log.keeps(topic.channel(), topic.symbol());
        if wish.is_event(topic.channel()) && topic.channel().bar_ns().is_none() && kept {
            let log = &replica.log;
            // What this copy never had is an event of its log.
            return log.topic(topic.channel(), topic.symbol()).gone_rev <= rev
                && !log.topic_since(topic.channel(), topic.symbol(), rev).any(Event::is_overrun);
        }
        // What nobody here wanted meanwhile is not known: a book may have changed, and of bars none were made.
        let known = match topic.channel() {
            Channel::Book => replica.book(topic.symbol()).is_some_and(|book| book.depth >= wish.depth),
            channel => channel.bar_ns().is_none(),
        };
        known && replica.topic_rev(topic.channel(), topic.symbol(), wish.depth) <= rev
    }

    /// What a member of a stream is owed on another one.
    pub(super) fn debt_after(&self, place: Place, wish: &Wish, selection: &Selection) -> Debt {
        let old = self.streams.get(place.stream);
        let debt = old.members[place.member as usize].debt.as_deref();
        let mut had = debt.cloned().unwrap_or_else(|| Debt::at(old.position()));
        let is_new = |topic: &Topic| {
            old.selection.topics().binary_search(topic).is_err()
                || had.lacks(*topic)
                || old.joined_at(*topic) > had.held
                || wish.needs_more_than(&old.wish, topic.channel())
        };
        let news: Vec<Topic> = selection.topics().iter().copied().filter(is_new).collect();
        had.further.retain(|(topic, _)| news.binary_search(topic).is_err());
        let news = (!news.is_empty()).then(|| news.into());
        let debt = Debt { cursor: 0, under_way: false, queued: false, served_until_ns: 0, news, ..had };
        if wish.filter.is_none() && old.wish.filter.is_none() {
            return debt;
        }
        // The two streams may not agree on what they have let through: images begin anew, events go on.
        Debt { held: 0, seq: None, fresh: true, ..debt }
    }
}
