//! What clients ask for, once nobody walks over streams and sessions.
//!
//! Bounds kept here: streams per session, topics per session.

use super::Shard;
use super::session::Sub;
use crate::base::reason::Reason;
use crate::flow::dispatch::streams::{Place, Selection, SessionKey};
use crate::flow::dispatch::topic::{Topic, TopicName};
use crate::flow::dispatch::wish::{Rate, Wish};
use crate::flow::frame::answer::{Answer, Listed, Rejected};
use crate::flow::frame::command::{Command, Mistake, Subscribe};
use crate::flow::socket::wire::Io;
use serde_json::value::RawValue;

impl<I: Io> Shard<I> {
    /// Does what clients asked for since the last turn.
    pub(super) fn obey(&mut self) {
        if !self.requests.is_empty() && !self.knows_all_symbols() {
            self.pull();
        }
        for (key, request) in std::mem::take(&mut self.requests) {
            if self.sessions.get(key as usize).is_none_or(|session| session.ending.is_some()) {
                continue;
            }
            let id = request.id.as_deref();
            match request.command {
                Ok(Command::Subscribe(subscribe)) => self.subscribe(key, id, &subscribe),
                Ok(Command::Unsubscribe { sub }) => self.unsubscribe(key, id, &sub),
                Ok(Command::List) => self.list(key, id),
                Ok(Command::Ping) => {
                    let pong = Answer::Pong { id, ts_us: self.now.wall.us() };
                    self.answer(key, pong.frame());
                }
                Err(mistake) => self.refuse(key, id, &mistake, Vec::new()),
            }
        }
    }

    fn subscribe(&mut self, key: SessionKey, id: Option<&RawValue>, asked: &Subscribe) {
        let name = match self.name_for(key, asked.sub.as_deref()) {
            Ok(name) => name,
            Err(code) => return self.refuse(key, id, &Mistake::of(code), Vec::new()),
        };
        let subs = self.sessions[key as usize].subs.iter();
        let held: usize = subs.map(|sub| self.streams.get(sub.place.stream).selection.topics().len()).sum();
        let room = self.identity.limits.topics_per_session_max.saturating_sub(held);
        let (names, selection, rejected) = self.resolve(&asked.topics, room);
        for (code, _) in &rejected {
            self.stats.refusals[*code as usize] += 1;
        }
        let first_code = rejected.first().map(|(code, _)| *code);
        let rejected: Vec<Rejected> = rejected.into_iter().map(|(_, rejected)| rejected).collect();
        if let (true, Some(code)) = (names.is_empty(), first_code) {
            let mistake = Mistake::new(code, format!("topics: none could be taken, {}", code.text()));
            return self.refuse(key, id, &mistake, rejected);
        }
        let (rate, capped_by) = self.effective_rate(asked.rate);
        let &Subscribe { mode, fields, delta, depth, strings, .. } = asked;
        let wish = Wish { topics: names, mode, rate, fields, delta, depth, strings };
        let mut subs = self.sessions[key as usize].subs.iter();
        let twice = subs.any(|sub| *self.streams.get(sub.place.stream).wish == wish);
        let (rev, now_ns) = (self.encoder.replica.rev, self.now.mono_ns);
        let place = self.streams.join(wish, selection, key, !twice, rev, now_ns);
        if asked.snapshot {
            self.queue_debt(key, place);
        } else {
            self.streams.get_mut(place.stream).members[place.member as usize].debt = None;
        }
        let recovered = asked.resumes.then_some("reset");
        let frame = self.subscribed(id, &name, place, capped_by, rejected, recovered);
        self.sessions[key as usize].subs.push(Sub { name: name.into(), place });
        self.answer(key, frame);
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

    /// The answer with the effective options.
    fn subscribed(
        &self,
        id: Option<&RawValue>,
        sub: &str,
        place: Place,
        capped_by: Option<&'static str>,
        rejected: Vec<Rejected>,
        recovered: Option<&'static str>,
    ) -> Vec<u8> {
        let stream = self.streams.get(place.stream);
        let wish = &stream.wish;
        let answer = Answer::Subscribed {
            id,
            sub,
            stream: stream.number,
            seq: stream.seq,
            rev: stream.rev,
            mode: wish.mode.name(),
            rate: wish.rate.map(Rate::per_second),
            capped_by,
            fields: wish.fields.names(),
            delta: wish.delta,
            depth: wish.depth,
            decimals: if wish.strings { "string" } else { "number" },
            topics: stream.selection.topics().len(),
            q: self.encoder.event_numbers(stream),
            rejected,
            recovered,
        };
        answer.frame()
    }

    /// What topic names mean today, and which could not be taken.
    fn resolve(&self, texts: &[String], room: usize) -> (Vec<TopicName>, Selection, Vec<(Reason, Rejected)>) {
        let (mut names, mut selection, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        let mut texts: Vec<&String> = texts.iter().collect();
        texts.sort_unstable();
        texts.dedup();
        for text in texts {
            let name = match TopicName::parse(text) {
                Ok(name) => name,
                Err(refusal) => {
                    rejected.push((refusal.code, Rejected::new(text, refusal.code, refusal.message)));
                    continue;
                }
            };
            // A symbol listed since the pull a moment ago is not known here yet, and not to the client either.
            let known =
                |topics: Vec<Topic>| topics.into_iter().filter(|topic| self.encoder.knows(topic.symbol));
            let at_most = room - selection.len() + 1;
            match name.resolve(self.ingest.symbols(), at_most).map(|topics| known(topics).collect::<Vec<_>>())
            {
                Ok(topics) if selection.len() + topics.len() > room => {
                    let message = format!("expected at most {} more topics", room - selection.len());
                    rejected.push((Reason::TopicLimit, Rejected::new(text, Reason::TopicLimit, message)));
                }
                Ok(topics) => {
                    selection.extend(topics);
                    names.push(name);
                }
                Err(refusal) => {
                    rejected.push((refusal.code, Rejected::new(text, refusal.code, refusal.message)));
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        (names, Selection::new(selection), rejected)
    }

    fn effective_rate(&self, asked: Option<f64>) -> (Option<Rate>, Option<&'static str>) {
        match (asked, self.identity.limits.rate_max) {
            (Some(asked), Some(max)) if asked > max => (Some(Rate::at_most(max)), Some("limit")),
            (None, Some(max)) => (Some(Rate::at_most(max)), Some("limit")),
            (asked, _) => (asked.map(Rate::at_most), None),
        }
    }

    fn unsubscribe(&mut self, key: SessionKey, id: Option<&RawValue>, name: &str) {
        let found = self.sessions[key as usize].subs.iter().position(|sub| *sub.name == *name);
        let Some(at) = found else {
            let mistake = Mistake::of(Reason::UnknownSub);
            return self.refuse(key, id, &mistake, Vec::new());
        };
        let stream = self.streams.get(self.sessions[key as usize].subs[at].place.stream).number;
        self.leave(key, at);
        self.answer(key, Answer::Unsubscribed { id, sub: name, stream }.frame());
    }

    fn list(&mut self, key: SessionKey, id: Option<&RawValue>) {
        let subs = self.sessions[key as usize].subs.iter().map(|sub| {
            let stream = self.streams.get(sub.place.stream);
            let debt = &stream.members[sub.place.member as usize].debt;
            Listed {
                sub: &sub.name,
                stream: stream.number,
                seq: debt.as_ref().map_or(Some(stream.seq), |debt| debt.seq),
                topics: stream.selection.topics().len(),
                rate: stream.wish.rate.map(Rate::per_second),
            }
        });
        let frame = Answer::List { id, subs: subs.collect() }.frame();
        self.answer(key, frame);
    }

    fn refuse(&mut self, key: SessionKey, id: Option<&RawValue>, mistake: &Mistake, rejected: Vec<Rejected>) {
        self.stats.refusals[mistake.code as usize] += 1;
        let (code, message) = (mistake.code.label(), mistake.message.as_str());
        let retry_after_ms = mistake.retry_after_ms;
        let answer = Answer::Error { id, code, message, retry_after_ms, rejected };
        self.answer(key, answer.frame());
        let (now_ns, max) = (self.now.mono_ns, self.identity.limits.refusals_max);
        if self.sessions.get_mut(key as usize).is_some_and(|session| session.refuse(now_ns) > max) {
            self.doomed.push((key, Reason::Flood));
        }
    }

    /// Takes a session's subscription off its stream.
    pub(super) fn leave(&mut self, key: SessionKey, at: usize) {
        let sub = self.sessions[key as usize].subs.remove(at);
        let Some(moved) = self.streams.leave(sub.place) else { return };
        // Another client's membership moved into the place that became free.
        if let Some(session) = self.sessions.get_mut(moved as usize) {
            let moved = session.subs.iter_mut().find(|other| other.place.stream == sub.place.stream);
            if let Some(moved) = moved {
                moved.place = sub.place;
            }
        }
    }
}
