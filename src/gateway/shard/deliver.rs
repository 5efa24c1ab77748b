//! Frames to clients: shared ones to those on a stream, private ones to those beside it.
//!
//! Bounds kept here: a slice of writes between two looks at the sockets, and a share of each turn for debts, taken in
//! the order in which clients became able to take them; when a slot begins, no more than a slice of them goes before it.

use std::hint::black_box;
use std::time::Duration;

use super::Shard;
use crate::base::limits::{PAYMENTS_PER_TURN, SLICE_WRITES};
use crate::base::reason::Reason;
use crate::flow::dispatch::streams::{Debt, Member, Place, Position, SessionKey, Stream, StreamKey};
use crate::flow::dispatch::wish::Mode;
use crate::flow::frame::answer::Answer;
use crate::flow::frame::batch::Batch;
use crate::flow::outbox::Offered;
use crate::flow::socket::wire::Io;

/// Streams whose data is fetched together: 16 and 32 gained no more.
const LOOK_AHEAD: usize = 8;

/// What clients have taken.
#[derive(Debug, Default)]
struct Given {
    frames: u64,
    bytes: u64,
}

impl Given {
    /// A frame, of which so many bytes are out.
    fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

impl<I: Io> Shard<I> {
    /// Sends the streams that are due.
    pub(super) fn flush_due(&mut self, io: &mut I) {
        let mut due = std::mem::take(&mut self.due);
        self.streams.take_due(self.now.mono_ns, &mut due);
        self.tell_looks(self.streams.can_wait_after(due.len()));
        for block in due.chunks(LOOK_AHEAD) {
            self.look_ahead(block);
            for &key in block {
                if self.streams.find(key).is_some() {
                    self.flush(io, key);
                }
            }
        }
        // Who had nothing to send waits on.
        self.tell_looks(!self.streams.any_open());
        due.clear();
        self.due = due;
    }

    /// Reads what the next frames need from all over the memory, so that the waits for it overlap: each send of the
    /// kernel's leaves the caches to itself.
    fn look_ahead(&self, block: &[StreamKey]) {
        let streams = || block.iter().filter_map(|key| self.streams.find(*key));
        black_box(streams().fold(0, |seen, stream| seen ^ stream.touch()));
        black_box(streams().fold(0, |seen, stream| seen ^ stream.touch_further()));
        let first = |stream: &Stream| self.sessions.get(stream.members.first()?.session as usize);
        black_box(streams().filter_map(first).fold(0, |seen, session| seen ^ session.touch()));
    }

    /// Makes the stream's frames once and gives them to all its clients.
    fn flush(&mut self, io: &mut I, key: StreamKey) {
        let Some(mut batch) = self.shared.take() else { return };
        let stream = self.streams.get_mut(key);
        let before = stream.position();
        let writes = stream.members.len().min(SLICE_WRITES - self.slice.writes);
        let sent = self.encoder.encode_shared(stream, &mut batch, writes as u32, self.now);
        if sent {
            // Nobody joins or leaves while frames go out, so the members can be walked without looking them up.
            let mut members = std::mem::take(&mut stream.members);
            let given = self.give_all(io, key, &mut members, before, &batch, writes);
            let stream = self.streams.get_mut(key);
            if !stream.joined.is_empty()
                && stream.is_open()
                && members.iter().all(|member| member.debt.is_none())
            {
                // Everybody holds the topics that came later: they are like the others from now on.
                stream.joined.clear();
            }
            stream.members = members;
            self.stats.frames_written += given.frames;
            self.stats.bytes_written += given.bytes;
        }
        self.streams.settle(key, sent);
        if !sent {
            self.catch_up_waiting(key);
        }
        self.shared = Some(batch);
    }

    /// Gives the frames to the members, a slice of writes at a time; so many writes are counted already.
    fn give_all(
        &mut self,
        io: &mut I,
        key: StreamKey,
        members: &mut [Member],
        before: Position,
        batch: &Batch,
        mut counted: usize,
    ) -> Given {
        let mut total = Given::default();
        let only = (batch.count() == 1).then(|| batch.frame(0));
        // After a single frame that everybody took there is no rest to forget.
        if only.is_none() || self.rests.len() != 1 || self.rests[0].is_some() {
            self.rests.clear();
            self.rests.resize(batch.count(), None);
        }
        let mut rest = members;
        while !rest.is_empty() {
            let writes = rest.len().min(SLICE_WRITES - self.slice.writes);
            let (members, others) = rest.split_at_mut(writes);
            rest = others;
            let before_frames = total.frames;
            for member in members {
                if self.can_take(key, member, before) {
                    match only {
                        Some(frame) => self.give(member, before, frame, &mut total),
                        None => self.give_parts(member, before, batch, &mut total),
                    }
                }
            }
            let frames = total.frames - before_frames;
            self.slice.writes += writes;
            self.slice.frames += frames;
            // Who has taken some of several frames counts in part.
            let times = frames as usize / batch.count();
            self.encoder.recount(times as i32 - std::mem::take(&mut counted) as i32);
            if self.slice.writes >= SLICE_WRITES {
                self.end_slice(io);
                self.look_at_sockets(io, Some(Duration::ZERO));
            }
        }
        total
    }

    /// Whether a member is on the stream or level with it; who is not has a place among the debtors, or will have one.
    fn can_take(&mut self, key: StreamKey, member: &mut Member, before: Position) -> bool {
        let Some(debt) = &mut member.debt else { return true };
        let Some(session) = self.sessions.get(member.session as usize) else { return false };
        if debt.queued {
            return false;
        }
        let idle = session.outbox.is_idle();
        if debt.served_until_ns > self.now.mono_ns {
            // Its images of this slot it has; events that go ahead it is still owed.
            if idle && self.streams.get(key).is_ahead() {
                debt.queued = true;
                self.debtors.push_back(member.session);
            }
            return false;
        }
        let level = (debt.held, debt.events, debt.seq) == (before.held, before.events, Some(before.seq));
        let whole = !debt.under_way && !debt.fresh && debt.news.is_none() && debt.further.is_empty();
        let can = level && whole && idle;
        // Who cannot take anything now comes back when its socket has room.
        if !can && idle {
            debt.queued = true;
            self.debtors.push_back(member.session);
        }
        can
    }

    /// Gives one member the shared frame.
    fn give(&mut self, member: &mut Member, before: Position, frame: &[u8], given: &mut Given) {
        let Some(session) = self.sessions.get_mut(member.session as usize) else { return };
        let offered = match session.beat_waits && session.subs.len() == 1 {
            false => session.outbox.offer(&mut session.wire, frame, &mut self.rests[0], self.now.mono_ns),
            true => session.offer_with_beat(frame, self.now),
        };
        match offered {
            // What is kept will follow before anything else: the client holds it as good as now.
            Ok(Offered::Taken(bytes) | Offered::Kept(bytes)) => {
                given.add(bytes);
                member.debt = None;
            }
            Ok(Offered::Refused) => self.owe(member, Debt::at(before)),
            Err(_) => self.doomed.push((member.session, Reason::Disconnected)),
        }
    }

    /// [`Shard::give`] of several frames: one may wait for a client, the others it is owed.
    #[cold]
    fn give_parts(&mut self, member: &mut Member, before: Position, batch: &Batch, given: &mut Given) {
        let mut held = None;
        for at in 0..batch.count() {
            let Some(session) = self.sessions.get_mut(member.session as usize) else { return };
            let (frame, rest) = (batch.frame(at), &mut self.rests[at]);
            match session.outbox.offer(&mut session.wire, frame, rest, self.now.mono_ns) {
                Ok(offered @ (Offered::Taken(bytes) | Offered::Kept(bytes))) => {
                    given.add(bytes);
                    let Some(after) = self.encoder.held_between.get(at) else { break };
                    held = Some(after);
                    if matches!(offered, Offered::Kept(_)) {
                        return self.owe(member, after.clone());
                    }
                }
                Ok(Offered::Refused) => {
                    return self.owe(member, held.cloned().unwrap_or_else(|| Debt::at(before)));
                }
                Err(_) => return self.doomed.push((member.session, Reason::Disconnected)),
            }
        }
        member.debt = None;
    }

    /// Notes what a client holds that could not take everything.
    #[cold]
    fn owe(&mut self, member: &mut Member, held: Debt) {
        member.debt = Some(Box::new(held));
        self.stats.fell_behind += 1;
    }

    /// A slot began and brought nothing new: those beside the stream may still be owed something.
    fn catch_up_waiting(&mut self, key: StreamKey) {
        for member in &mut self.streams.get_mut(key).members {
            if let Some(debt) = &mut member.debt
                && debt.served_until_ns <= self.now.mono_ns
                && !std::mem::replace(&mut debt.queued, true)
            {
                self.debtors.push_back(member.session);
            }
        }
    }

    /// Puts a client among the debtors, unless it stands there already or is owed nothing.
    pub(super) fn queue_debt(&mut self, key: SessionKey, place: Place) {
        let debt = &mut self.streams.get_mut(place.stream).members[place.member as usize].debt;
        if debt.as_mut().is_some_and(|debt| !std::mem::replace(&mut debt.queued, true)) {
            self.debtors.push_back(key);
        }
    }

    /// Pays clients what they are owed, as far as their sockets take it.
    pub(super) fn pay(&mut self, io: &mut I) {
        for key in std::mem::take(&mut self.drained) {
            self.queue_debts(key);
        }
        for paid in 0..PAYMENTS_PER_TURN.max(self.sessions.len() / 4) {
            let Some(session) = self.debtors.pop_front() else { return };
            self.pay_one(session);
            if self.slice.writes >= SLICE_WRITES {
                self.end_slice(io);
                self.look_at_sockets(io, Some(Duration::ZERO));
                // Those on streams do not wait for a crowd of newcomers or of slow clients.
                let is_due = self.streams.next_due_ns().is_some_and(|due_ns| due_ns <= self.now.mono_ns);
                if is_due && paid >= PAYMENTS_PER_TURN {
                    return;
                }
            }
        }
    }

    /// Puts a client whose socket has room again among the debtors, unless it was served in this slot.
    fn queue_debts(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key as usize).filter(|session| session.ending.is_none()) else {
            return;
        };
        for at in 0..session.subs.len() {
            let place = self.sessions[key as usize].subs[at].place;
            let stream = self.streams.get(place.stream);
            let debt = stream.members[place.member as usize].debt.as_deref();
            if debt.is_some_and(|debt| stream.is_ahead() || debt.served_until_ns <= self.now.mono_ns) {
                self.queue_debt(key, place);
            }
        }
    }

    /// Which of a client's subscriptions is paid next: they take turns, since one payment may leave no room for another.
    fn next_debt(&self, key: SessionKey) -> Option<usize> {
        let session = self.sessions.get(key as usize)?;
        let (count, paid) = (session.subs.len(), usize::from(session.paid_sub));
        (1..=count).map(|after| (paid + after) % count).find(|at| {
            let Place { stream, member } = session.subs[*at].place;
            let debt = &self.streams.get(stream).members[member as usize].debt;
            debt.as_ref().is_some_and(|debt| debt.queued)
        })
    }

    fn pay_one(&mut self, key: SessionKey) {
        let Some(sub) = self.next_debt(key) else { return };
        let session = &mut self.sessions[key as usize];
        let place = session.subs[sub].place;
        let slot_end_ns = self.streams.slot_end_ns(place.stream);
        let stream = self.streams.get_mut(place.stream);
        let Some(debt) = stream.members[place.member as usize].debt.as_deref_mut() else { return };
        debt.queued = false;
        if !session.outbox.is_idle() || session.ending.is_some() {
            return; // it comes back when its socket has taken what waits
        }
        let mut paid = debt.clone();
        let has_images = !stream.is_ahead() || stream.owes_images(&paid, self.now.mono_ns);
        let (was_first, seq_before) = (paid.fresh || paid.joining, paid.seq);
        let level = self.encoder.encode_private(stream, &mut paid, &mut self.private, self.now);
        let frame = self.private.frame(0);
        let has_frame = !frame.is_empty();
        let offered = if has_frame {
            session.outbox.offer(&mut session.wire, frame, &mut None, self.now.mono_ns)
        } else {
            Ok(Offered::Taken(0))
        };
        match offered {
            // Nothing went out, so nothing was paid. The socket reports when it has room.
            Ok(Offered::Refused) => return self.encoder.recount(-1),
            Ok(Offered::Taken(bytes) | Offered::Kept(bytes)) => {
                session.paid_sub = sub as u16;
                let frames = u64::from(has_frame);
                self.stats.frames_written += frames;
                self.stats.frames_private += frames;
                self.stats.bytes_written += bytes as u64;
                self.slice.writes += 1;
                self.slice.frames += frames;
            }
            Err(_) => {
                self.encoder.recount(-1);
                self.doomed.push((key, Reason::Disconnected));
                return;
            }
        }
        let whole = !paid.fresh && !paid.under_way;
        if stream.wish.mode == Mode::Snapshot && whole {
            let (name, number) = (session.subs[sub].name.clone(), stream.number);
            self.leave(key, sub);
            self.answer(key, &Answer::Unsubscribed { id: None, sub: &name, stream: number }.text());
            self.let_go(key, Reason::Done);
            return;
        }
        // The catch-up was this client's frame of the slot, unless it has brought it level with those who had theirs.
        if has_images {
            let served = has_frame && whole && !was_first && (stream.is_open() || !level);
            paid.served_until_ns = slot_end_ns.filter(|_| served).unwrap_or_default();
        }
        let level = level && paid.served_until_ns <= self.now.mono_ns;
        let member = &mut stream.members[place.member as usize];
        let merged = seq_before.zip(paid.seq).map_or(0, |(before, seq)| seq.saturating_sub(before + 1));
        member.merged = member.merged.saturating_add(merged as u32);
        member.debt = (!level).then(|| Box::new(paid));
        if !(level || whole && stream.wish.rate.is_some()) && session.outbox.is_idle() {
            self.queue_debt(key, place);
        }
    }
}
