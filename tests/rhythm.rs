//! The simulated VN30 market over a whole compressed day: nothing in it is a fault but what is made one.

use std::sync::Arc;

use tickgate::base::limits::Limits;
use tickgate::flow::conflation::cut::Node;
use tickgate::flow::conflation::hub::Hub;
use tickgate_feeds::feed::Source;
use tickgate_feeds::market::{FeedId, Phase, STATE, State, Symbol, Time};
use tickgate_feeds::spec::Spec;
use tickgate_feeds::symbols::Symbols;
use tickgate_feeds::synthetic::Synthetic;

const SECOND: i64 = 1_000_000_000;
/// 02:00 on a Friday in Vietnam; the simulation begins in continuous trading whatever the time.
const START: i64 = 1_795_114_800 * SECOND;

struct Day {
    source: Synthetic,
    hub: Hub,
    symbols: Arc<Symbols>,
    now: i64,
}

impl Day {
    /// A day of an hour, whose break is 54 s: more than five times the shortest silence.
    fn new() -> Self {
        let symbols = Arc::new(Symbols::new(100));
        let spec = Spec::parse("synthetic:vn30?rate=100&day=3600").expect("a spec");
        let source = Synthetic::from_spec(&spec, &symbols, FeedId(0)).expect("a market");
        let hub = Hub::new(Arc::clone(&symbols), Node::default(), &Limits::default());
        Self { source, hub, symbols, now: START }
    }

    /// A quarter of a second, with or without the upstream.
    fn step(&mut self, upstream: bool) {
        self.now += SECOND / 4;
        let mut updates = Vec::new();
        if upstream {
            self.source.next(Time(self.now), &mut updates);
        }
        updates.iter_mut().for_each(|update| update.arrival_ns = (self.now - START) as u64);
        self.hub.apply(&updates);
        self.hub.settle(FeedId(0), (self.now - START) as u64);
    }

    fn all(&self) -> impl Iterator<Item = Symbol> + use<> {
        (0..self.symbols.len() as u32).map(Symbol::at)
    }

    fn count(&self, state: State) -> usize {
        self.all().filter(|symbol| self.hub.images().value(*symbol, STATE) == Some(state.decimal())).count()
    }

    fn phase(&self) -> Option<Phase> {
        let phase = self.hub.images().value(Symbol::at(1), tickgate_feeds::market::PHASE)?;
        Phase::ALL.iter().copied().find(|known| known.decimal() == phase)
    }
}

#[test]
fn a_day_with_its_break_and_auctions_makes_nothing_stale() {
    let mut day = Day::new();
    let mut phases = Vec::new();
    for _ in 0..4 * 3_700 {
        day.step(true);
        assert_eq!(day.count(State::Stale), 0, "{:?} after {} s", day.phase(), (day.now - START) / SECOND);
        if phases.last() != Some(&day.phase()) {
            phases.push(day.phase());
        }
    }
    assert!(phases.len() >= 9, "a whole day: {phases:?}");
    assert_eq!(day.hub.stats().silenced, 0);
}

#[test]
fn a_market_that_is_cut_off_is_stale_in_time_and_live_again_with_its_updates() {
    let mut day = Day::new();
    for _ in 0..4 * 120 {
        day.step(true);
    }
    let (symbols, cut) = (day.symbols.len(), day.now);
    assert_eq!(day.count(State::Live), symbols);
    let mut first_s = None;
    while day.count(State::Stale) < symbols {
        day.step(false);
        if day.count(State::Stale) > 0 {
            first_s = first_s.or(Some((day.now - cut) / SECOND));
        }
        // The quietest member speaks every four seconds: 20 times that.
        assert!(day.now - cut < 81 * SECOND, "{} of {symbols}", day.count(State::Stale));
    }
    assert!(first_s.is_some_and(|first_s| (10..30).contains(&first_s)), "{first_s:?}");
    for _ in 0..4 * 10 {
        day.step(true);
    }
    assert_eq!(day.count(State::Live), symbols, "each with its next update");
}
