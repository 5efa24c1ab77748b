//! What clients ask for, once nobody walks over streams and sessions.
//!
//! Bounds kept here: streams per session, topics per session.

use std::sync::Arc;

use super::Shard;
use super::session::Sub;
use crate::base::limits::{COMMAND_TOPICS, REJECTED_TOLD_MAX, TOPICS_PER_TURN};
use crate::base::reason::Reason;
use crate::flow::dispatch::filter::Filter;
use crate::flow::dispatch::streams::{Debt, Place, Selection, SessionKey};
use crate::flow::dispatch::topic::{Asked, Refusal, Topic, TopicName, too_deep};
use crate::flow::dispatch::wish::{Mode, Rate, Wish};
use crate::flow::frame::answer::{Answer, Listed, Numbers, Rejected, Subscription};
use crate::flow::frame::command::{Command, Mistake, Subscribe, Update};
use crate::flow::frame::row;
use crate::flow::socket::wire::Io;
use serde_json::value::RawValue;
use tickgate_feeds::market::Channel;

impl<I: Io> Shard<I> {
    /// Does what clients asked for since the last turn.
    pub(super) fn obey(&mut self) {
        // Who asks is answered from the market of now, also by a shard that slept while nobody watched.
        if !self.requests.is_empty() {
            self.pull();
        }
        self.looked_up = 0;
        let mut requests = std::mem::take(&mut self.requests).into_iter();
        // What is dear is spread over turns, so that the other clients are served in between.
        while self.looked_up < TOPICS_PER_TURN
            && let Some((key, request)) = requests.next()
        {
            self.looked_up += COMMAND_TOPICS;
            if self.sessions.get(key as usize).is_none_or(|session| session.ending.is_some()) {
                continue;
            }
            let id = request.id.as_deref();
            match request.command {
                Ok(Command::Subscribe(subscribe)) => self.subscribe(key, id, &subscribe),
                Ok(Command::Update(update)) => self.update(key, id, &update),
                Ok(Command::Unsubscribe { sub }) => self.unsubscribe(key, id, &sub),
                Ok(Command::List) => self.list(key, id),
                Ok(Command::Ping) => {
                    let pong = Answer::Pong { id, ts_us: self.now.wall.us() };
                    self.answer(key, &pong.text());
                }
                Err(mistake) => self.refuse(key, id, &mistake, Vec::new()),
            }
        }
        self.requests = requests.collect();
    }

    fn subscribe(&mut self, key: SessionKey, id: Option<&RawValue>, asked: &Subscribe) {
        let name = match self.name_for(key, asked.sub.as_deref()) {
            Ok(name) => name,
            Err(code) => return self.refuse(key, id, &Mistake::of(code), Vec::new()),
        };
        let wish = Wish { packing: self.sessions[key as usize].packing, ..Wish::default() };
        let (wish, capped) = wish.with(&asked.options, self.identity.limits.rate_max);
        let found = self.resolve(&asked.topics, &wish, self.room(key));
        if found.asked.is_empty() {
            return self.refuse_all(key, id, found.rejected);
        }
        let wish = Wish { topics: found.asked, ..wish };
        if let Err(mistake) = check(&wish) {
            return self.refuse(key, id, &mistake, Vec::new());
        }
        let resumed = asked.since.as_ref().map(|since| self.resume(since, &wish, &found.selection));
        let (recovered, debt) = match resumed {
            None => (None, None),
            Some(Ok(None)) => (Some("reset"), None),
            Some(Ok(Some((verdict, debt)))) => (Some(verdict), Some(debt)),
            Some(Err(mistake)) => return self.refuse(key, id, &mistake, Vec::new()),
        };
        let place = self.join(key, wish, found.selection, None);
        match debt {
            Some(debt) => self.owe_instead(key, place, debt),
            None if asked.snapshot => self.queue_debt(key, place),
            None => self.streams.get_mut(place.stream).members[place.member as usize].debt = None,
        }
        let subscription = self.subscription(id, &name, place, capped, found.rejected, recovered);
        let frame = Answer::Subscribed(subscription).text();
        let subs = &mut self.sessions[key as usize].subs;
        subs.reserve_exact(1); // nearly everybody has one
        subs.push(Sub { name: name.into(), place, capped });
        self.answer(key, &frame);
    }

    /// Moves a subscription to another stream. What the client holds it keeps: only what is new comes whole.
    fn update(&mut self, key: SessionKey, id: Option<&RawValue>, asked: &Update) {
        let Some(at) = self.find_sub(key, &asked.sub) else {
            return self.refuse(key, id, &Mistake::of(Reason::UnknownSub), Vec::new());
        };
        let Sub { place: old, capped: was_capped, .. } = self.sessions[key as usize].subs[at];
        let stream = self.streams.get(old.stream);
        let had = Arc::clone(&stream.wish);
        let had_names = had.topics.names(|symbol| self.encoder.replica.name(symbol));
        let (topics, unknown) = topics_after(asked, &had_names);
        let room = self.room(key) + stream.selection.topics().len();
        let (wish, capped) = (*had).clone().with(&asked.options, self.identity.limits.rate_max);
        let mut found = self.resolve(&topics, &wish, room);
        self.stats.refusals[Reason::UnknownTopic as usize] += unknown.len() as u64;
        found.rejected.extend(unknown);
        if found.asked.is_empty() {
            return self.refuse_all(key, id, found.rejected);
        }
        let wish = Wish { topics: found.asked, ..wish };
        if let Err(mistake) = check(&wish) {
            return self.refuse(key, id, &mistake, Vec::new());
        }
        // A rate that was lowered before and is not asked for anew is a lowered one still.
        let capped = capped || was_capped && asked.options.rate.is_none();
        let (mut place, mut removed) = (old, Vec::new());
        if wish != *had {
            let debt = self.debt_after(old, &wish, &found.selection);
            let gone = self.streams.get(old.stream).selection.topics().iter();
            let gone = gone.filter(|topic| found.selection.topics().binary_search(topic).is_err());
            removed = gone.map(|topic| self.encoder.topic_name(*topic)).collect();
            place = self.join(key, wish, found.selection, Some(at));
            self.leave_place(old);
            self.owe_instead(key, place, debt);
        }
        let sub = &mut self.sessions[key as usize].subs[at];
        (sub.place, sub.capped) = (place, capped);
        let subscription = self.subscription(id, &asked.sub, place, capped, found.rejected, None);
        self.answer(key, &Answer::Updated(Subscription { removed, ..subscription }).text());
    }

    /// How many more topics the session may have.
    fn room(&self, key: SessionKey) -> usize {
        let subs = self.sessions[key as usize].subs.iter();
        let held: usize = subs.map(|sub| self.streams.get(sub.place.stream).selection.topics().len()).sum();
        self.identity.limits.topics_per_session_max.saturating_sub(held)
    }

    fn find_sub(&self, key: SessionKey, name: &str) -> Option<usize> {
        self.sessions[key as usize].subs.iter().position(|sub| *sub.name == *name)
    }

    /// Puts the session on a stream of this wish: on one of its own if another subscription than `besides` is on one.
    fn join(&mut self, key: SessionKey, wish: Wish, selection: Selection, besides: Option<usize>) -> Place {
        let mut subs = self.sessions[key as usize].subs.iter().enumerate();
        let twice =
            subs.any(|(at, sub)| Some(at) != besides && *self.streams.get(sub.place.stream).wish == wish);
        let (rev, now_ns) = (self.encoder.replica.rev, self.now.mono_ns);
        let place = self.streams.join(wish, selection, key, !twice, rev, now_ns);
        self.encoder.judge(self.streams.get_mut(place.stream), false);
        place
    }

    /// A client that joined holds something already: it is owed the rest, and no whole picture.
    fn owe_instead(&mut self, key: SessionKey, place: Place, debt: Debt) {
        let stream = self.streams.get_mut(place.stream);
        // Its first frame goes on from the number in the answer, unless its first picture is still to come.
        let seq = if debt.fresh { None } else { Some(stream.seq) };
        stream.members[place.member as usize].debt =
            Some(Box::new(Debt { seq, joining: !debt.fresh, ..debt }));
        // The stream may be behind what the client holds: it looks at what there is before the client is paid.
        self.streams.mark_stream(place.stream);
        self.queue_debt(key, place);
    }

    /// The name of a new subscription: the client's own, or the next number.
    fn name_for(&mut self, key: SessionKey, asked: Option<&str>) -> Result<String, Reason> {
        let session = &mut self.sessions[key as usize];
        if session.subs.len() >= self.identity.limits.streams_per_session_max {
            return Err(Reason::StreamLimit);
        }
        let taken = |name: &str| session.subs.iter().any(|sub| *sub.name == *name);
        match asked {
            Some(name) if taken(name) => Err(Reason::SubInUse),
            Some(name) => Ok(name.to_owned()),
            None => {
                while taken(&session.next_sub.to_string()) {
                    session.next_sub += 1;
                }
                session.next_sub += 1;
                Ok((session.next_sub - 1).to_string())
            }
        }
    }

    /// The name of a subscription for cursors; see [`Wish::name`].
    pub(super) fn wish_name(&self, wish: &Wish) -> String {
        wish.name(|symbol| self.encoder.replica.name(symbol))
    }

    /// The answer's part about the effective options.
    fn subscription<'a>(
        &self,
        id: Option<&'a RawValue>,
        sub: &'a str,
        place: Place,
        capped: bool,
        rejected: Vec<Rejected>,
        recovered: Option<&'static str>,
    ) -> Subscription<'a> {
        let stream = self.streams.get(place.stream);
        let wish = &stream.wish;
        let debt = stream.members[place.member as usize].debt.as_deref();
        Subscription {
            id,
            sub,
            stream: stream.number,
            seq: stream.seq,
            rev: stream.rev,
            wish: self.wish_name(wish),
            mode: wish.mode.name(),
            rate: wish.rate.map(Rate::per_second),
            capped_by: capped.then_some("limit"),
            fields: wish.fields.names(),
            delta: wish.delta,
            depth: wish.depth,
            decimals: if wish.style.strings { "string" } else { "number" },
            columns: wish.style.columns.then(|| row::columns(wish)),
            digest: wish.digest,
            window: wish.window,
            filter: wish.filter.as_ref().map(|filter| filter.text().to_owned()),
            topics: stream.selection.topics().len(),
            q: match wish.filter {
                Some(_) => Numbers::Sparse("sparse"),
                None => Numbers::Each(self.encoder.event_numbers(stream, debt)),
            },
            rejected_more: rejected.len().saturating_sub(REJECTED_TOLD_MAX),
            rejected: told(rejected),
            removed: Vec::new(),
            recovered,
        }
    }

    /// What topic names mean today under these options, and which could not be taken.
    fn resolve(&mut self, texts: &[String], wish: &Wish, room: usize) -> Found {
        let mut found = Found::default();
        let (mut single, mut open, mut topics) = (Vec::new(), Vec::new(), Vec::new());
        let mut looked_up = texts.len();
        let mut texts: Vec<&String> = texts.iter().collect();
        texts.sort_unstable();
        texts.dedup();
        for text in texts {
            // A symbol listed since the pull a moment ago is not known here yet, and not to the client either.
            let known = |topic: &Topic| self.encoder.knows(topic.symbol());
            let at_most = room - topics.len() + 1;
            let means = TopicName::parse(text).and_then(|name| {
                let mut asked = name.resolve(self.ingest.symbols(), at_most)?;
                looked_up += asked.len();
                asked.retain(known);
                if asked.is_empty() && !name.is_open() {
                    return Err(Refusal::unknown("symbol"));
                }
                let means: Vec<Topic> =
                    asked.iter().flat_map(|topic| wish.mode.with_its_own(*topic)).collect();
                let room = room - topics.len();
                if means.len() > room {
                    let message = format!("expected at most {room} more topics");
                    return Err(Refusal { code: Reason::TopicLimit, message });
                }
                if let Some(refusal) = too_deep(&means, wish.depth, self.ingest.symbols()) {
                    return Err(refusal);
                }
                if means.iter().any(|topic| self.lacks_steps(wish.filter.as_ref(), *topic)) {
                    let message = "filter: expected a move in numbers or %, not in ticks".to_owned();
                    return Err(Refusal { code: Reason::UnknownTick, message });
                }
                Ok((name, asked, means))
            });
            match means {
                Ok((name, asked, means)) => {
                    topics.extend(means);
                    if name.is_open() { open.push(name) } else { single.extend(asked) }
                }
                Err(Refusal { code, message }) => {
                    self.stats.refusals[code as usize] += 1;
                    found.rejected.push(Rejected::new(text, code, message));
                }
            }
        }
        self.looked_up += looked_up;
        found.asked = Asked::new(single, open);
        found.selection = Selection::new(topics).shared_with(&found.asked);
        found
    }

    /// Whether the filter counts price steps that are not known.
    fn lacks_steps(&self, filter: Option<&Filter>, topic: Topic) -> bool {
        let counts = filter.is_some_and(|filter| filter.counts_ticks() && filter.concerns(topic.channel()));
        counts && topic.channel() < Channel::Book && self.encoder.replica.steps(topic.symbol()).is_none()
    }

    /// None of the topics could be taken.
    fn refuse_all(&mut self, key: SessionKey, id: Option<&RawValue>, rejected: Vec<Rejected>) {
        let code = rejected.first().map_or(Reason::BadRequest, |first| first.reason);
        let mistake = match rejected.first() {
            Some(_) => Mistake::new(code, format!("topics: none could be taken, {}", code.text())),
            None => Mistake::new(code, "topics: none would be left, expected at least one"),
        };
        self.refuse(key, id, &mistake, rejected);
    }

    fn unsubscribe(&mut self, key: SessionKey, id: Option<&RawValue>, name: &str) {
        let Some(at) = self.find_sub(key, name) else {
            return self.refuse(key, id, &Mistake::of(Reason::UnknownSub), Vec::new());
        };
        let stream = self.streams.get(self.sessions[key as usize].subs[at].place.stream).number;
        self.leave(key, at);
        self.answer(key, &Answer::Unsubscribed { id, sub: name, stream }.text());
    }

    fn list(&mut self, key: SessionKey, id: Option<&RawValue>) {
        let subs: Vec<_> = self.sessions[key as usize].subs.iter().collect();
        let listed = subs.into_iter().map(|sub| {
            let stream = self.streams.get(sub.place.stream);
            let member = &stream.members[sub.place.member as usize];
            let held = member.debt.as_ref().map_or(stream.rev, |debt| debt.held);
            Listed {
                subscription: self.subscription(None, &sub.name, sub.place, sub.capped, Vec::new(), None),
                held_seq: member.debt.as_ref().map_or(Some(stream.seq), |debt| debt.seq),
                held_rev: held,
                lag_revs: self.encoder.replica.rev - held.min(self.encoder.replica.rev),
                merged: member.merged,
                rows: stream.rows,
                gaps: stream.gaps,
            }
        });
        let frame = Answer::List { id, subs: listed.collect() }.text();
        self.answer(key, &frame);
    }

    fn refuse(&mut self, key: SessionKey, id: Option<&RawValue>, mistake: &Mistake, rejected: Vec<Rejected>) {
        let (code, message) = (mistake.code.label(), mistake.message.as_str());
        let retry_after_ms = mistake.retry_after_ms;
        let answer = Answer::Error { id, code, message, retry_after_ms, rejected: told(rejected) };
        self.answer(key, &answer.text());
        if mistake.code == Reason::RateLimited {
            return; // it was counted when it was read
        }
        self.stats.refusals[mistake.code as usize] += 1;
        let (now_ns, max) = (self.now.mono_ns, self.identity.limits.refusals_max);
        if self.sessions.get_mut(key as usize).is_some_and(|session| session.refuse(now_ns) > max) {
            self.doomed.push((key, Reason::Flood));
        }
        self.let_go(key, if retry_after_ms.is_some() { Reason::Later } else { Reason::Done });
    }

    /// Takes a session's subscription off its stream.
    pub(super) fn leave(&mut self, key: SessionKey, at: usize) {
        let sub = self.sessions[key as usize].subs.remove(at);
        self.leave_place(sub.place);
    }

    fn leave_place(&mut self, place: Place) {
        let Some(moved) = self.streams.leave(place) else { return };
        // Another client's membership moved into the place that became free.
        if let Some(session) = self.sessions.get_mut(moved as usize) {
            let moved = session.subs.iter_mut().find(|other| other.place.stream == place.stream);
            if let Some(moved) = moved {
                moved.place = place;
            }
        }
    }
}

/// The first of them: an answer is no longer than a frame.
fn told(mut rejected: Vec<Rejected>) -> Vec<Rejected> {
    rejected.truncate(REJECTED_TOLD_MAX);
    rejected
}

/// Whether the options of a wish go together.
fn check(wish: &Wish) -> Result<(), Mistake> {
    if wish.digest > 0 && wish.filter.as_ref().is_some_and(Filter::waits) {
        let message = "digest: expected 0 with a filter that holds rows back by move or changed";
        return Err(Mistake::new(Reason::BadRequest, message));
    }
    let on_images = |filter: &Filter| filter.concerns(Channel::Quote) || filter.concerns(Channel::Index);
    if wish.window && wish.mode == Mode::Every {
        return Err(Mistake::new(
            Reason::BadRequest,
            "window: expected false in mode every, which merges nothing",
        ));
    }
    if wish.window && wish.style.columns {
        let message = "window: expected false with columns, whose rows have no place for it";
        return Err(Mistake::new(Reason::BadRequest, message));
    }
    if matches!(wish.mode, Mode::Every | Mode::TradeSafe) && wish.filter.as_ref().is_some_and(on_images) {
        let message = "filter: expected one on fields of trades in the modes every and trade_safe";
        return Err(Mistake::new(Reason::BadRequest, message));
    }
    Ok(())
}

/// What topic names mean.
#[derive(Default)]
struct Found {
    asked: Asked,
    selection: Selection,
    rejected: Vec<Rejected>,
}

/// The topic names of a subscription after an update, and those that it should lose but never had.
fn topics_after(asked: &Update, had: &[TopicName]) -> (Vec<String>, Vec<Rejected>) {
    if let Some(topics) = &asked.topics {
        return (topics.clone(), Vec::new());
    }
    let mut topics: Vec<String> = had.iter().map(TopicName::to_string).collect();
    let mut unknown = Vec::new();
    for name in &asked.remove {
        let shortest = TopicName::parse(name).map(|name| name.shortest().to_string());
        match topics.iter().position(|topic| Ok(topic) == shortest.as_ref()) {
            Some(at) => drop(topics.remove(at)),
            None => {
                let message = "no topic of this subscription".to_owned();
                unknown.push(Rejected::new(name, Reason::UnknownTopic, message));
            }
        }
    }
    topics.extend_from_slice(&asked.add);
    (topics, unknown)
}
