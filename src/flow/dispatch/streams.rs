//! Streams: numbered sequences of frames, each shared by the clients of a shard whose effective wishes are equal.
//!
//! Whoever gets the shared bytes is *on* the stream; whoever has just joined or fallen behind is *beside* it and has a
//! [`Debt`]: what it holds, as a revision. Debts do not grow with slowness.
//!
//! Bounds kept here: at most `PHASES_MAX` phase groups per rate, of `PHASE_WRITES` writes each while there is room;
//! `TOPIC_BYTES` per topic of a selection.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use slab::Slab;
use tickgate_feeds::market::{Channel, Symbol};
use tickgate_feeds::symbols::Symbols;

use super::sieve::Sieve;
use super::topic::{Asked, Topic};
use super::wish::{Mode, Rate, Wish};
use crate::base::limits::{PHASE_WRITES, PHASES_MAX, REJECTED_TOLD_MAX};
use crate::flow::conflation::Rev;
use crate::flow::conflation::wants::{Want, Wants};

/// Where a stream stands in the table; used again after it ended, unlike [`Stream::number`].
pub type StreamKey = u32;
/// A client, as the shard numbers them.
pub type SessionKey = u32;

/// What a client on a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Images: every change up to this revision was given.
    pub held: Rev,
    /// Events: the same.
    pub events: Rev,
    /// The last `seq` given.
    pub seq: u64,
}

/// What a client beside its stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debt {
    /// Images: every change up to this revision was given.
    pub held: Rev,
    /// Events: the same. They are given in order, so a payment may stop between two.
    pub events: Rev,
    /// Topics of which more was given than that, each with the revision up to which: images that came whole, and events whose
    /// loss was announced; sorted.
    pub further: Vec<(Topic, Rev)>,
    /// The last `seq` given; `None` before the first frame.
    pub seq: Option<u64>,
    /// The last frame given said `more`.
    pub under_way: bool,
    /// How much of the selection the payment under way has covered.
    pub cursor: u32,
    /// What the client will hold when the payment under way is complete.
    pub target: Rev,
    /// The first whole picture is still owed: it does not wait for the stream's slot.
    pub fresh: bool,
    /// It came with something in hand: the rest does not wait for the slot either, and does not count as its frame.
    pub joining: bool,
    /// Its frame of this slot was a catch-up: the stream's own comes from here on, in the next slot.
    pub served_until_ns: u64,
    /// It stands among the debtors that can be paid now.
    pub queued: bool,
    /// Topics of which it holds nothing yet, sorted: what it has asked for since, or what came while it was away. Their
    /// events begin where it stands with all others.
    pub news: Option<Arc<[Topic]>>,
}

impl Debt {
    /// Of a client that holds everything up to `rev`, and `seq`.
    pub const fn holding(rev: Rev, seq: u64) -> Self {
        Self::at(Position { held: rev, events: rev, seq })
    }

    /// Of a client that was on a stream.
    pub const fn at(Position { held, events, seq }: Position) -> Self {
        Self {
            held,
            events,
            further: Vec::new(),
            seq: Some(seq),
            under_way: false,
            cursor: 0,
            target: 0,
            fresh: false,
            joining: false,
            served_until_ns: 0,
            queued: false,
            news: None,
        }
    }

    /// Whether the client holds what those on the stream hold.
    pub fn is_level(&self, stream: &Stream) -> bool {
        (self.held, self.events) == (stream.rev, stream.events_rev) && self.further.is_empty()
    }

    /// What was owed is given.
    pub fn end_payment(&mut self, stream: &Stream) {
        (self.held, self.cursor, self.news) = (self.target, 0, None);
        (self.fresh, self.joining) = (false, false);
        let (held, events) = (self.held, self.events);
        self.further.retain(|(topic, rev)| match stream.wish.is_event(topic.channel()) {
            true => *rev > events,
            false => stream.joined_at(*topic).max(*rev) > held,
        });
    }

    /// Notes that an image was given whole as it was at `rev`, or that a loss up to there was announced.
    pub fn gave(&mut self, topic: Topic, rev: Rev) {
        match self.further.binary_search_by_key(&topic, |(topic, _)| *topic) {
            Ok(at) => self.further[at].1 = rev,
            Err(at) => self.further.insert(at, (topic, rev)),
        }
    }

    /// Up to where more of this topic was given than of the others.
    pub fn given_rev(&self, topic: Topic) -> Option<Rev> {
        let at = self.further.binary_search_by_key(&topic, |(topic, _)| *topic).ok()?;
        Some(self.further[at].1)
    }

    /// Up to where the changes of an image that is kept in the log were given.
    pub fn image_rev(&self, topic: Topic, mode: Mode) -> Rev {
        self.given_rev(topic).unwrap_or(0).max(if mode == Mode::Every { self.events } else { self.held })
    }

    /// Whether the client holds nothing of this topic, whatever it holds of others.
    pub fn lacks(&self, topic: Topic) -> bool {
        self.news.as_ref().is_some_and(|news| news.binary_search(&topic).is_ok())
    }
}

/// A client on or beside a stream.
#[derive(Debug)]
pub struct Member {
    /// Who.
    pub session: SessionKey,
    /// Frames of the stream that became part of a later one for this client.
    pub merged: u32,
    /// `None`: on the stream.
    pub debt: Option<Box<Debt>>,
}

/// Topics in the order of their channels: images, books, trades, statuses, bars.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    topics: Arc<[Topic]>,
    /// Where the books begin.
    images_end: u32,
    trades_at: u32,
    statuses_at: u32,
    bars_at: u32,
}

impl Selection {
    /// Of these topics, in any order.
    pub fn new(mut topics: Vec<Topic>) -> Self {
        topics.sort_unstable();
        topics.dedup();
        let before = |channel| topics.partition_point(|topic| topic.channel() < channel) as u32;
        let (images_end, trades_at) = (before(Channel::Book), before(Channel::Trade));
        let (statuses_at, bars_at) = (before(Channel::Status), before(Channel::Bar1s));
        Self { topics: topics.into(), images_end, trades_at, statuses_at, bars_at }
    }

    /// The same, kept once with what was asked for where that is all.
    pub fn shared_with(mut self, asked: &Asked) -> Self {
        if *self.topics == **asked.single() {
            self.topics = Arc::clone(asked.single());
        }
        self
    }

    /// All of them.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// How many of the first are images.
    pub fn images_end(&self) -> usize {
        self.images_end as usize
    }

    /// Whether all of them are images.
    pub fn is_images(&self) -> bool {
        self.images_end() == self.topics.len()
    }

    /// How many of the first are no bars.
    pub fn bars_at(&self) -> usize {
        self.bars_at as usize
    }
}

/// A numbered sequence of frames.
#[derive(Debug)]
pub struct Stream {
    /// Its name on the wire, never used again within the epoch.
    pub number: u32,
    /// What its clients asked for.
    pub wish: Arc<Wish>,
    /// The topics it means today.
    pub selection: Selection,
    /// What it has told of its images, if it has a filter.
    pub sieve: Option<Box<Sieve>>,
    /// Topics that came after the stream began, and when.
    pub joined: Vec<(Topic, Rev)>,
    /// Topics that came but had no room: to be told once.
    pub refused: Vec<Topic>,
    /// It was told of a lack of room.
    is_told: bool,
    /// Number of the last frame.
    pub seq: u64,
    /// Every change up to this revision was in the frames so far.
    pub rev: Rev,
    /// Of events the same: in mode `trade_safe` they go ahead of the images.
    pub events_rev: Rev,
    /// When the last frame went out.
    pub frame_ns: u64,
    /// When the last one with images went out, or might have.
    pub images_ns: u64,
    /// Rows in its frames so far.
    pub rows: u64,
    /// Losses announced in them.
    pub gaps: u64,
    /// Its clients, dense.
    pub members: Vec<Member>,
    group: Option<usize>,
    /// Of images it gives the fields that changed, as they are now: no whole rows, no filter, nothing from the log.
    is_plain: bool,
    shared: bool,
    /// It may send as soon as it has something: it has no rate, or its slot is unused.
    open: bool,
    dirty: bool,
}

impl Stream {
    /// The topics of which every event is given, but for images: status and final bars always, trades where the mode says
    /// so.
    pub fn events(&self) -> &[Topic] {
        let trades = self.wish.is_event(Channel::Trade);
        let at = if trades { self.selection.trades_at } else { self.selection.statuses_at };
        &self.selection.topics[at as usize..]
    }

    /// The images whose changes are in the log, for this stream and maybe others.
    pub fn kept_images(&self) -> &[Topic] {
        &self.selection.topics[..if self.wish.keeps_images() { self.selection.images_end() } else { 0 }]
    }

    /// The images of which each change is given.
    pub fn event_images(&self) -> &[Topic] {
        if self.wish.mode == Mode::Every { self.kept_images() } else { &[] }
    }

    /// What a client holds that has taken every frame.
    pub fn position(&self) -> Position {
        Position { held: self.rev, events: self.events_rev, seq: self.seq }
    }

    /// Reads of all its parts, for nothing but to have them at hand.
    #[inline]
    pub fn touch(&self) -> u64 {
        let flags = u64::from(self.open) ^ self.group.map_or(0, |group| group as u64);
        self.rev
            ^ self.events_rev
            ^ self.frame_ns
            ^ self.rows
            ^ self.seq
            ^ u64::from(self.number)
            ^ flags
            ^ self.joined.len() as u64
            ^ u64::from(self.selection.bars_at)
            ^ u64::from(self.sieve.is_none())
    }

    /// The same of what it points to.
    #[inline]
    pub fn touch_further(&self) -> u64 {
        let (topics, last) = (&self.selection.topics, self.selection.topics.last());
        let topics = topics.iter().step_by(16).chain(last).fold(0, |sum, topic| sum ^ topic.symbol().index());
        let member = self.members.first().map_or(0, |member| member.session);
        u64::from(self.wish.fields.quote) ^ u64::from(self.wish.digest) ^ topics as u64 ^ u64::from(member)
    }

    /// When a topic came to the stream, if that was after its beginning.
    pub fn joined_at(&self, topic: Topic) -> Rev {
        self.joined.iter().rfind(|(joined, _)| *joined == topic).map_or(0, |(_, rev)| *rev)
    }

    /// Whether all its clients lack the same of its images, the fields that changed since: no topic came later.
    pub fn is_plain(&self) -> bool {
        self.is_plain && self.joined.is_empty()
    }

    /// Whether it may send as soon as it has something.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether it sends events as soon as there are any, open or not.
    pub fn is_ahead(&self) -> bool {
        self.wish.mode == Mode::TradeSafe
    }

    /// Where events go ahead: whether a client beside it is owed images now, or waits for their slot like the others.
    pub fn owes_images(&self, debt: &Debt, now_ns: u64) -> bool {
        let first = debt.fresh || debt.joining || debt.news.is_some();
        let slot = debt.served_until_ns <= now_ns && (self.open || self.images_ns == now_ns);
        first || debt.held != self.rev && slot
    }

    /// The topics that its groups and wildcards mean today and did not mean before.
    fn news(&self, symbols: &Symbols, listed: usize) -> Vec<Topic> {
        if !self.wish.topics.is_open() {
            return Vec::new();
        }
        let means = self.wish.topics.open().filter_map(|name| name.resolve(symbols, listed).ok()).flatten();
        let means = means.flat_map(|topic| self.wish.mode.with_its_own(topic));
        let is_news = |topic: &Topic| {
            topic.symbol().index() < listed && self.selection.topics.binary_search(topic).is_err()
        };
        let mut news: Vec<Topic> = means.filter(is_news).collect();
        news.sort_unstable();
        news.dedup();
        news
    }
}

/// The clients of one rate that are served at the same point of its slot.
#[derive(Debug)]
struct Group {
    rate: Rate,
    phase: usize,
    next_ns: u64,
    streams: Vec<StreamKey>,
    writes: usize,
}

/// All streams of a shard.
#[derive(Debug, Default)]
pub struct Streams {
    streams: Slab<Stream>,
    by_wish: HashMap<Arc<Wish>, Vec<StreamKey>>,
    groups: Vec<Group>,
    /// For each symbol the streams that select it.
    interest: Vec<Vec<StreamKey>>,
    dirty: Vec<StreamKey>,
    open: usize,
    /// Streams that send events whether or not they are open.
    ahead: usize,
    last_number: u32,
    directory_version: u64,
    wants: Wants,
    /// Wants that began or ended since they were last taken.
    wants_changed: Vec<(Want, bool)>,
}

/// Where a client stands on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stream.
    pub stream: StreamKey,
    /// Its position among the members.
    pub member: u32,
}

impl Streams {
    /// Puts a client on (beside, until its debt is paid) the stream of this wish. `selection` is what the wish's topics
    /// mean. A client that is on such a stream already gets a private one (`shared` false).
    pub fn join(
        &mut self,
        wish: Wish,
        selection: Selection,
        session: SessionKey,
        shared: bool,
        rev: Rev,
        now_ns: u64,
    ) -> Place {
        let wish = match self.by_wish.get_key_value(&wish) {
            Some((wish, _)) => Arc::clone(wish),
            None => Arc::new(wish),
        };
        let found = if shared { self.find_shared(&wish) } else { None };
        let stream = found.unwrap_or_else(|| self.create(Arc::clone(&wish), selection, shared, rev, now_ns));
        if let Some(group) = self.streams[stream as usize].group {
            self.groups[group].writes += 1;
        }
        let Stream { members, events_rev: events, .. } = &mut self.streams[stream as usize];
        let debt = Debt { held: 0, seq: None, fresh: true, ..Debt::holding(*events, 0) };
        members.push(Member { session, merged: 0, debt: Some(Box::new(debt)) });
        Place { stream, member: members.len() as u32 - 1 }
    }

    /// Takes a client off. The last member moves into its place: returns that client, whose place is now this one.
    pub fn leave(&mut self, place: Place) -> Option<SessionKey> {
        let stream = &mut self.streams[place.stream as usize];
        stream.members.swap_remove(place.member as usize);
        let moved = stream.members.get(place.member as usize).map(|member| member.session);
        if let Some(group) = stream.group {
            self.groups[group].writes -= 1;
        }
        if stream.members.is_empty() {
            self.remove(place.stream);
        }
        moved
    }

    /// The stream.
    pub fn get(&self, key: StreamKey) -> &Stream {
        &self.streams[key as usize]
    }

    /// The stream, to number frames and settle debts.
    #[inline]
    pub fn get_mut(&mut self, key: StreamKey) -> &mut Stream {
        &mut self.streams[key as usize]
    }

    /// The stream of this key, if it has not ended.
    pub fn find(&self, key: StreamKey) -> Option<&Stream> {
        self.streams.get(key as usize)
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether any stream would send at once if something came.
    pub fn any_open(&self) -> bool {
        self.open + self.ahead > 0
    }

    /// Notes that a stream should look at what there is, if it may send.
    pub fn mark_stream(&mut self, key: StreamKey) {
        let stream = &mut self.streams[key as usize];
        if stream.open && !stream.dirty {
            stream.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Notes that a symbol changed, or that it had an event: streams that select it and may send that become due.
    pub fn mark(&mut self, symbol: Symbol, is_event: bool) {
        for &key in self.interest.get(symbol.index()).map_or(&[][..], Vec::as_slice) {
            let stream = &mut self.streams[key as usize];
            if (stream.open || is_event && stream.is_ahead()) && !stream.dirty {
                stream.dirty = true;
                self.dirty.push(key);
            }
        }
    }

    /// Appends the streams that are due: marked ones, then those whose slot begins.
    pub fn take_due(&mut self, now_ns: u64, due: &mut Vec<StreamKey>) {
        let before = due.len();
        for group in &mut self.groups {
            if group.next_ns > now_ns || group.streams.is_empty() {
                continue;
            }
            let slot = group.rate.slot_ns();
            group.next_ns += (now_ns - group.next_ns) / slot * slot + slot;
            for &key in &group.streams {
                let stream = &mut self.streams[key as usize];
                self.open += usize::from(!stream.open);
                stream.open = true;
                if !stream.dirty {
                    due.push(key);
                }
            }
        }
        let in_slot = due.len() - before;
        for &key in &self.dirty {
            if let Some(stream) = self.streams.get_mut(key as usize) {
                stream.dirty = false;
                due.push(key);
            }
        }
        self.dirty.clear();
        // Who has no rate does not wait for a slot's many.
        due[before..].rotate_left(in_slot);
    }

    /// Notes whether a due stream sent something: a rated one is closed until its next slot.
    #[inline]
    pub fn settle(&mut self, key: StreamKey, sent: bool) {
        let stream = &mut self.streams[key as usize];
        let open = stream.open && (stream.group.is_none() || !sent);
        self.open = self.open + usize::from(open) - usize::from(stream.open);
        stream.open = open;
    }

    /// When the next slot of a rated stream begins.
    pub fn slot_end_ns(&self, key: StreamKey) -> Option<u64> {
        self.streams[key as usize].group.map(|group| self.groups[group].next_ns)
    }

    /// Whether nobody will want news before a slot begins, once this many due streams were sent theirs.
    pub fn can_wait_after(&self, due: usize) -> bool {
        let rated: usize = self.groups.iter().map(|group| group.streams.len()).sum();
        self.ahead == 0 && self.open <= due && rated == self.streams.len()
    }

    /// When the next slot of any begins.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.groups.iter().filter(|group| !group.streams.is_empty()).map(|group| group.next_ns).min()
    }

    /// When the next two slots of any begin; never, if there are none.
    pub fn next_dues_ns(&self) -> [u64; 2] {
        let groups = self.groups.iter().filter(|group| !group.streams.is_empty());
        let dues_ns = groups.flat_map(|group| [group.next_ns, group.next_ns + group.rate.slot_ns()]);
        dues_ns.fold([u64::MAX; 2], |[first_ns, again_ns], due_ns| match () {
            () if due_ns < first_ns => [due_ns, first_ns],
            () if due_ns > first_ns => [first_ns, again_ns.min(due_ns)],
            () => [first_ns, again_ns],
        })
    }

    /// Follows groups and wildcards after the directory changed; the new topics belong to the streams from `rev` on, but the
    /// events of symbols that are `listed` just now from the first one on.
    /// `room` says how many more topics a session may have when streams have grown to these sizes.
    pub fn follow(
        &mut self,
        symbols: &Symbols,
        listed: Range<usize>,
        rev: Rev,
        room: impl Fn(SessionKey, &[usize]) -> usize,
    ) {
        let mut sizes = vec![0; self.streams.capacity()];
        for (key, stream) in &self.streams {
            sizes[key] = stream.selection.topics.len();
        }
        for (key, stream) in &mut self.streams {
            let mut news = stream.news(symbols, listed.end);
            if news.is_empty() {
                continue;
            }
            let room = stream.members.iter().map(|member| room(member.session, &sizes)).min();
            let refused = news.split_off(room.unwrap_or(0).min(news.len()));
            if !refused.is_empty() && !std::mem::replace(&mut stream.is_told, true) {
                stream.refused.extend(refused.into_iter().take(REJECTED_TOLD_MAX));
            }
            if news.is_empty() && stream.refused.is_empty() {
                continue;
            }
            for &topic in &news {
                if !(listed.contains(&topic.symbol().index()) && stream.wish.is_logged(topic.channel())) {
                    stream.joined.push((topic, rev));
                }
                register(&mut self.interest, topic.symbol(), key as StreamKey);
                want(&mut self.wants, &mut self.wants_changed, topic, &stream.wish, true);
            }
            news.extend_from_slice(&stream.selection.topics);
            stream.selection = Selection::new(news);
            sizes[key] = stream.selection.topics.len();
            if stream.open && !stream.dirty {
                stream.dirty = true;
                self.dirty.push(key as StreamKey);
            }
        }
    }

    /// Revisions are those of another run from now on, in which `rev` is reached: everybody is owed a whole picture, after
    /// the frame that was given last. Returns who.
    pub fn begin_run(&mut self, rev: Rev) -> Vec<(SessionKey, Place)> {
        let mut owed = Vec::new();
        for (key, stream) in &mut self.streams {
            (stream.rev, stream.events_rev) = (rev, rev);
            stream.joined.clear();
            stream.sieve = sieve_of(&stream.wish);
            for (at, member) in stream.members.iter_mut().enumerate() {
                let seq = member.debt.as_ref().map_or(Some(stream.seq), |debt| debt.seq);
                let picture = Debt { held: 0, seq, fresh: true, ..Debt::holding(rev, 0) };
                member.debt = Some(Box::new(picture));
                owed.push((member.session, Place { stream: key as StreamKey, member: at as u32 }));
            }
        }
        owed
    }

    /// Whether any stream wants this made for it.
    pub fn wants(&self, channel: Channel, symbol: Symbol) -> bool {
        self.wants.deepest(channel, symbol).is_some()
    }

    /// Everything that is made for some stream.
    pub fn all_wants(&self) -> impl Iterator<Item = Want> + '_ {
        self.wants.all()
    }

    /// Whether wants have begun or ended since they were last taken.
    pub fn has_changed_wants(&self) -> bool {
        !self.wants_changed.is_empty()
    }

    /// The wants that began (`true`) or ended since they were last taken, in order.
    pub fn take_changed_wants(&mut self) -> Vec<(Want, bool)> {
        std::mem::take(&mut self.wants_changed)
    }

    /// Whether this version of the directory has not been followed yet.
    pub fn is_news(&mut self, directory_version: u64) -> bool {
        std::mem::replace(&mut self.directory_version, directory_version) != directory_version
    }

    fn find_shared(&self, wish: &Arc<Wish>) -> Option<StreamKey> {
        let fits = |key: &&StreamKey| {
            let group = self.streams[**key as usize].group;
            group.is_none_or(|group| self.groups[group].writes < PHASE_WRITES)
        };
        self.by_wish.get(wish)?.iter().find(fits).copied()
    }

    fn create(
        &mut self,
        wish: Arc<Wish>,
        selection: Selection,
        shared: bool,
        rev: Rev,
        now_ns: u64,
    ) -> StreamKey {
        let group = wish.rate.map(|rate| self.choose_group(rate, now_ns));
        self.last_number += 1;
        let key = self.streams.vacant_key() as StreamKey;
        for &topic in selection.topics.iter() {
            register(&mut self.interest, topic.symbol(), key);
            want(&mut self.wants, &mut self.wants_changed, topic, &wish, true);
        }
        self.streams.insert(Stream {
            number: self.last_number,
            wish: Arc::clone(&wish),
            selection,
            sieve: sieve_of(&wish),
            joined: Vec::new(),
            refused: Vec::new(),
            is_told: false,
            seq: 1,
            rev,
            events_rev: rev,
            frame_ns: now_ns,
            images_ns: now_ns,
            rows: 0,
            gaps: 0,
            members: Vec::with_capacity(1),
            group,
            is_plain: wish.delta && wish.filter.is_none() && !wish.keeps_images(),
            shared,
            open: true,
            dirty: false,
        });
        self.open += 1;
        self.ahead += usize::from(wish.mode == Mode::TradeSafe);
        if shared {
            self.by_wish.entry(wish).or_default().push(key);
        }
        if let Some(group) = group {
            self.groups[group].streams.push(key);
        }
        key
    }

    fn remove(&mut self, key: StreamKey) {
        let stream = self.streams.remove(key as usize);
        self.open -= usize::from(stream.open);
        self.ahead -= usize::from(stream.is_ahead());
        for &topic in stream.selection.topics.iter() {
            self.interest[topic.symbol().index()].retain(|&other| other != key);
            want(&mut self.wants, &mut self.wants_changed, topic, &stream.wish, false);
        }
        if let Some(group) = stream.group {
            self.groups[group].streams.retain(|&other| other != key);
        }
        if stream.dirty {
            self.dirty.retain(|&other| other != key);
        }
        if stream.shared
            && let Some(keys) = self.by_wish.get_mut(&stream.wish)
        {
            keys.retain(|&other| other != key);
            if keys.is_empty() {
                self.by_wish.remove(&stream.wish);
            }
        }
    }

    /// The least busy of the rate's phases in use; one more comes into use for each `PHASE_WRITES` writes. Phases come
    /// in bit-reversed order, so that however many are in use, they lie evenly in the slot.
    fn choose_group(&mut self, rate: Rate, now_ns: u64) -> usize {
        // A little less than PHASE_WRITES take: what fills all phases of a rate is more than a core can write.
        const PHASE_NS: u64 = 3_000_000;
        let phases = (rate.slot_ns() / PHASE_NS).clamp(1, PHASES_MAX as u64).ilog2();
        let total: usize =
            self.groups.iter().filter(|group| group.rate == rate).map(|group| group.writes).sum();
        let in_use = (total / PHASE_WRITES + 1).min(1 << phases);
        let writes = |phase: usize, groups: &[Group]| {
            groups
                .iter()
                .position(|group| group.rate == rate && group.phase == phase)
                .map_or((0, None), |at| (groups[at].writes, Some(at)))
        };
        let (phase, (_, found)) = (0..in_use)
            .map(|phase| (phase, writes(phase, &self.groups)))
            .min_by_key(|(_, (writes, _))| *writes)
            .unwrap_or((0, (0, None)));
        found.unwrap_or_else(|| {
            let slot = rate.slot_ns();
            let reversed = if phases == 0 { 0 } else { (phase as u64).reverse_bits() >> (64 - phases) };
            let offset = (slot * reversed) >> phases;
            // The first boundary after now on the grid of this rate and phase.
            let next_ns = (now_ns.saturating_sub(offset) / slot + 1) * slot + offset;
            self.groups.push(Group { rate, phase, next_ns, streams: Vec::new(), writes: 0 });
            self.groups.len() - 1
        })
    }
}

fn sieve_of(wish: &Wish) -> Option<Box<Sieve>> {
    wish.filter.as_ref().map(|filter| Box::new(Sieve::new(filter)))
}

fn register(interest: &mut Vec<Vec<StreamKey>>, symbol: Symbol, key: StreamKey) {
    if interest.len() <= symbol.index() {
        interest.resize(symbol.index() + 1, Vec::new());
    }
    let streams = &mut interest[symbol.index()];
    // A symbol may stand in several channels of one stream; those come one after the other.
    if streams.last() != Some(&key) {
        streams.push(key);
    }
}

/// Counts a stream that wants a topic, or one less, where that matters to the hub.
fn want(wants: &mut Wants, changed: &mut Vec<(Want, bool)>, topic: Topic, wish: &Wish, on: bool) {
    let Some(want) = wish.want(topic) else { return };
    if if on { wants.add(want) } else { wants.remove(want) } {
        changed.push((want, on));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(topic: Topic, rate: Option<f64>) -> Wish {
        let topics = Asked::new(vec![topic], Vec::new());
        Wish { topics, rate: rate.map(Rate::at_most), ..Wish::default() }
    }

    fn quote(symbol: u32) -> Topic {
        Topic::new(Channel::Quote, Symbol::at(symbol))
    }

    #[test]
    fn equal_wishes_share_a_stream_and_the_last_one_out_ends_it() {
        let mut streams = Streams::default();
        let a = streams.join(wish(quote(0), None), Selection::new(vec![quote(0)]), 1, true, 7, 0);
        let b = streams.join(wish(quote(0), None), Selection::new(vec![quote(0)]), 2, true, 7, 0);
        let private = streams.join(wish(quote(0), None), Selection::new(vec![quote(0)]), 2, false, 7, 0);
        assert_eq!((a.stream, a.member), (b.stream, 0));
        assert_ne!(private.stream, a.stream);
        streams.mark(Symbol::at(0), false);
        let mut due = Vec::new();
        streams.take_due(0, &mut due);
        assert_eq!(due, [a.stream, private.stream]);
        assert_eq!(streams.leave(a), Some(2), "the second client moves into the first one's place");
        assert_eq!(streams.leave(Place { stream: b.stream, member: 0 }), None);
        assert_eq!(streams.len(), 1);
        let again = streams.join(wish(quote(0), None), Selection::new(vec![quote(0)]), 3, true, 7, 0);
        assert_eq!(streams.get(again.stream).number, 3, "numbers are never used again");
    }

    #[test]
    fn a_book_is_wanted_from_its_first_stream_to_its_last() {
        let book = Topic::new(Channel::Book, Symbol::at(0));
        let mut streams = Streams::default();
        let mut join = |session, depth| {
            let wish = Wish { depth, ..wish(book, None) };
            streams.join(wish, Selection::new(vec![book]), session, true, 1, 0)
        };
        let (a, _, deeper) = (join(1, 10), join(2, 10), join(3, 50));
        let want = |depth| Want { channel: Channel::Book, symbol: Symbol::at(0), depth };
        assert_eq!(streams.take_changed_wants(), [(want(10), true), (want(50), true)]);
        streams.leave(deeper);
        streams.leave(a);
        assert_eq!(streams.take_changed_wants(), [(want(50), false)]);
        assert!(streams.wants(Channel::Book, Symbol::at(0)));
        streams.leave(a);
        assert_eq!(streams.take_changed_wants(), [(want(10), false)]);
        assert!(!streams.wants(Channel::Book, Symbol::at(0)));
    }

    #[test]
    fn rated_clients_are_spread_over_phases_and_send_once_a_slot() {
        let mut streams = Streams::default();
        for session in 0..2_000 {
            streams.join(wish(quote(0), Some(10.0)), Selection::new(vec![quote(0)]), session, true, 0, 0);
        }
        assert_eq!(streams.len(), 4, "2,000 writes are four groups of at most 512");
        let mut starts: Vec<_> = streams.groups.iter().map(|group| group.next_ns / 1_000).collect();
        starts.sort_unstable();
        assert_eq!(starts, [100_000, 125_000, 150_000, 175_000]);
        let mut due = Vec::new();
        streams.take_due(100_000_000, &mut due);
        assert_eq!(due.len(), 1);
        streams.settle(due[0], true);
        streams.mark(Symbol::at(0), false);
        let closed = due[0];
        due.clear();
        streams.take_due(101_000_000, &mut due);
        assert!(
            !due.contains(&closed) && due.len() == 3,
            "its slot is used, the others have not begun theirs"
        );
        assert_eq!(streams.next_due_ns(), Some(125_000_000));
        assert_eq!(streams.next_dues_ns(), [125_000_000, 150_000_000]);
    }
}
