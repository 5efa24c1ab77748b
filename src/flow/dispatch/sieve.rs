//! What a filtered stream has told of its images: which of them its clients hold, and since when.
//!
//! An image is judged when it has changed, once for all clients of the stream. Each turn in or out has a revision, so
//! what a client lacks follows from the one revision that it holds, for those on the stream and beside it alike.
//!
//! Bound kept here: `FILTERED_TOPIC_BYTES` for each image of the stream.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use tickgate_feeds::market::{Channel, STATE, Symbol};
use tickgate_feeds::symbols::Steps;

use super::filter::Filter;
use super::topic::Topic;
use crate::flow::conflation::Rev;
use crate::flow::conflation::images::Images;

/// What a client lacks of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Nothing: it does not hold the image, or what it holds will do.
    Nothing,
    /// Word that the image is no longer let through.
    Out,
    /// The fields that changed after this; 0 for a full row.
    Since(Rev),
}

/// What a filtered stream has told of its images.
#[derive(Debug)]
pub struct Sieve {
    /// Rows are held back until something has changed.
    waits: bool,
    /// Every change up to this revision has been judged.
    judged: Rev,
    /// How many topics the stream had then.
    topics: usize,
    verdicts: BTreeMap<Symbol, Verdict>,
}

#[derive(Debug)]
struct Verdict {
    is_in: bool,
    /// When it last came in or went out.
    turned: Rev,
    /// Only where rows are held back.
    given: Option<Box<Given>>,
}

/// The row that those on the stream were given last.
#[derive(Debug)]
struct Given {
    rev: Rev,
    /// The row before it.
    before: Rev,
    values: Vec<Option<Decimal>>,
    steps: Option<Steps>,
}

/// A look at the images.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The images of now.
    pub images: &'a Images,
    /// Everything up to this revision is in them.
    pub rev: Rev,
    /// What those on the stream hold, if they are about to be sent what they lack. Rows that are held back are let go
    /// only then, since they are measured from what was sent.
    pub flush_from: Option<Rev>,
}

impl Sieve {
    /// Of a stream with this filter; nothing is judged yet.
    pub fn new(filter: &Filter) -> Self {
        Self { waits: filter.waits(), judged: 0, topics: 0, verdicts: BTreeMap::new() }
    }

    /// Whether rows are held back until something has changed.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Judges the images among `topics` that changed since they were last judged.
    pub fn judge(
        &mut self,
        filter: &Filter,
        topics: &[Topic],
        look: Look<'_>,
        steps: &impl Fn(Symbol) -> Option<Steps>,
    ) {
        // The beginning of a stream counts as a flush: the first picture shows what is in then.
        let flush_from = if self.judged == 0 { Some(look.rev) } else { look.flush_from };
        let since = flush_from.filter(|_| self.waits).unwrap_or(self.judged).min(self.judged);
        let has_grown = std::mem::replace(&mut self.topics, topics.len()) != topics.len();
        let look = Look { flush_from, ..look };
        for one in topics.chunk_by(|one, other| one.channel() == other.channel()) {
            if !filter.concerns(one[0].channel()) {
                continue;
            }
            for topic in one {
                let is_news = || has_grown && !self.verdicts.contains_key(&topic.symbol());
                if look.images.rev(topic.symbol()) > since || is_news() {
                    self.judge_one(filter, topic.symbol(), look, steps);
                }
            }
        }
        self.judged = look.rev;
    }

    fn judge_one(
        &mut self,
        filter: &Filter,
        symbol: Symbol,
        look: Look<'_>,
        steps: &impl Fn(Symbol) -> Option<Steps>,
    ) {
        // Nobody was ever shown what is out from the beginning, so nobody has to be told.
        let new = || Verdict { is_in: false, turned: 0, given: None };
        let verdict = self.verdicts.entry(symbol).or_insert_with(new);
        let is_in = filter.takes(look.images, symbol);
        if std::mem::replace(&mut verdict.is_in, is_in) != is_in {
            verdict.turned = look.rev;
        }
        let Some(flush_from) = look.flush_from.filter(|_| is_in && self.waits) else { return };
        let given = verdict.given.get_or_insert_with(|| {
            let steps = steps(symbol).filter(|_| filter.counts_ticks());
            Box::new(Given { rev: 0, before: 0, values: Vec::new(), steps })
        });
        let step = |price: Decimal| given.steps.as_ref().map(|steps| steps.at(price));
        // A change of state is never held back: a stale price must not look live. One that was taken back counts too,
        // since a first picture in between showed it.
        let is_restated = look.images.mask_since(symbol, given.rev) & 1 << STATE != 0;
        if given.rev == 0
            || verdict.turned > flush_from
            || is_restated
            || filter.is_due(look.images, symbol, &given.values, &step)
        {
            (given.before, given.rev) = (given.rev, look.rev);
            given.values.clear();
            given.values.extend(filter.values(look.images, symbol));
        }
    }

    /// Whether clients hold a topic's row once they are level with what was judged.
    pub fn shows(&self, topic: Topic) -> bool {
        let is_image = topic.channel() < Channel::Book;
        !is_image || self.verdicts.get(&topic.symbol()).is_none_or(|verdict| verdict.is_in)
    }

    /// What a client lacks of an image that holds all of it up to `held`, 0 for nothing, and was told everything up to
    /// `told`: it may have seen an image that has just joined the stream.
    pub fn owed(&self, symbol: Symbol, held: Rev, told: Rev) -> Owed {
        // The filter says nothing of images without a verdict.
        let Some(verdict) = self.verdicts.get(&symbol) else { return Owed::Since(held) };
        match (&verdict.given, verdict.turned > held) {
            _ if !verdict.is_in && verdict.turned > told && told > 0 => Owed::Out,
            _ if !verdict.is_in => Owed::Nothing,
            (_, true) => Owed::Since(0),
            (None, false) => Owed::Since(held),
            // Who has missed more than one row has fields that were held back before the last one.
            (Some(given), false) if given.rev > held => {
                Owed::Since(if held >= given.before { given.before } else { 0 })
            }
            (Some(_), false) => Owed::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rust_decimal::Decimal;
    use tickgate_feeds::market::{State, Time, quote};

    struct Market {
        images: Images,
        sieve: Sieve,
        filter: Filter,
        rev: Rev,
        /// What those on the stream hold.
        told: Rev,
    }

    const TOPIC: Topic = Topic::new(Channel::Quote, Symbol::at(0));

    impl Market {
        /// A stream of one quote that begins while `last` is 100.
        fn new(filter: &str) -> Self {
            let mut images = Images::default();
            images.list(Channel::Quote);
            let filter = Filter::parse(filter).expect("a filter");
            let sieve = Sieve::new(&filter);
            let mut market = Self { images, sieve, filter, rev: 9, told: 0 };
            market.set(quote::LAST, Decimal::ONE_HUNDRED);
            market.judge(None);
            market.told = market.rev;
            market
        }

        fn set(&mut self, field: u8, value: Decimal) {
            self.rev += 1;
            self.images.set(TOPIC.symbol(), field, Some(value), self.rev);
            self.images.touch(TOPIC.symbol(), self.rev, 0, Time(0), 0);
        }

        fn judge(&mut self, flush_from: Option<Rev>) {
            let steps = |_| Some(Steps::new(&[(Decimal::ZERO, Decimal::TEN)]));
            let look = Look { images: &self.images, rev: self.rev, flush_from };
            self.sieve.judge(&self.filter, &[TOPIC], look, &steps);
        }

        /// `last` changes, and those on the stream are sent what they lack.
        fn flush(&mut self, last: i64) -> Owed {
            self.set(quote::LAST, Decimal::from(last));
            self.judge(Some(self.told));
            let owed = self.owed(self.told);
            self.told = self.rev;
            owed
        }

        /// `last` changes, and somebody beside the stream who holds `held` is sent what it lacks.
        fn catch_up(&mut self, last: i64, held: Rev) -> Owed {
            self.set(quote::LAST, Decimal::from(last));
            self.judge(None);
            self.owed(held)
        }

        fn owed(&self, held: Rev) -> Owed {
            self.sieve.owed(TOPIC.symbol(), held, held)
        }
    }

    #[test]
    fn a_row_comes_whole_and_goes_once() {
        let mut market = Market::new("last > 60");
        assert_eq!((market.rev, market.owed(0)), (10, Owed::Since(0)), "the first picture");
        assert_eq!(market.flush(70), Owed::Since(10));
        assert_eq!(market.flush(50), Owed::Out);
        assert_eq!(market.flush(40), Owed::Nothing);
        assert_eq!(market.owed(0), Owed::Nothing, "who holds nothing has nothing to give up");
        assert_eq!(market.owed(11), Owed::Out, "who fell behind before it went");
        assert_eq!(market.flush(80), Owed::Since(0));
        assert_eq!(market.owed(11), Owed::Since(0), "it went and came while this one was away");
        assert_eq!(market.owed(14), Owed::Since(14));
    }

    #[test]
    fn who_is_served_between_two_flushes_changes_nothing_for_the_others() {
        let mut market = Market::new("last > 60");
        assert_eq!(market.catch_up(50, 10), Owed::Out);
        assert_eq!(market.flush(50), Owed::Out, "those on the stream are told when their turn comes");
        assert_eq!(market.catch_up(70, 12), Owed::Since(0));
        assert_eq!(market.catch_up(50, 13), Owed::Out);
        assert_eq!(market.flush(80), Owed::Since(0));
    }

    #[test]
    fn a_row_is_held_back_until_it_has_moved_from_what_was_sent() {
        let mut market = Market::new("last > 60 and move(last) >= 2 ticks");
        assert_eq!(market.flush(110), Owed::Nothing);
        assert_eq!(market.flush(119), Owed::Nothing);
        assert_eq!(market.flush(120), Owed::Since(10), "with all that changed since the row before it");
        assert_eq!(market.owed(12), Owed::Since(10));
        assert_eq!(market.flush(101), Owed::Nothing);
        assert_eq!(market.flush(100), Owed::Since(13));
        assert_eq!(
            market.owed(12),
            Owed::Since(0),
            "who missed two rows lacks what was held back between them"
        );
        assert_eq!(market.flush(60), Owed::Out);
        assert_eq!(market.flush(61), Owed::Since(0), "whoever comes in has moved");
        assert_eq!(market.flush(71), Owed::Nothing);
    }

    #[test]
    fn a_move_counts_from_what_those_on_the_stream_were_sent() {
        let mut market = Market::new("move(last) >= 2 ticks");
        assert_eq!(market.catch_up(120, 0), Owed::Since(0));
        assert_eq!(market.flush(110), Owed::Nothing, "the 120 was for somebody else");
        assert_eq!(market.flush(80), Owed::Since(10));
    }

    #[test]
    fn a_state_is_never_held_back() {
        let mut market = Market::new("move(last) >= 2 ticks");
        market.set(STATE, State::Stale.decimal());
        assert_eq!(market.flush(100), Owed::Since(10));
    }

    #[test]
    fn a_state_that_was_taken_back_is_sent_to_those_who_saw_it() {
        let mut market = Market::new("move(last) >= 2 ticks");
        market.set(STATE, State::Live.decimal());
        assert_eq!(market.flush(100), Owed::Since(10));
        market.set(STATE, State::Stale.decimal());
        assert_eq!(market.catch_up(100, 0), Owed::Since(0), "a newcomer sees it stale");
        market.set(STATE, State::Live.decimal());
        assert_eq!(market.flush(100), Owed::Since(12));
    }
}
