//! The rounds: who is sent a frame when, and the send itself.
//!
//! Bound: per client at most the rest of one frame; per run one duration for each round.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::frame::Frame;
use crate::usage::{Cpu, cpu};

/// Rounds that one run may hold: two hours at 100 a second; more would only grow the list of durations.
const ROUNDS_MAX: u64 = 720_000;

/// What a run did.
pub(crate) struct Summary {
    pub(crate) rounds: u64,
    /// Rounds that began more than one interval late: the core was full.
    pub(crate) late: u64,
    pub(crate) frames: u64,
    pub(crate) skipped: u64,
    pub(crate) lost: usize,
    pub(crate) seconds: f64,
    pub(crate) cpu: Cpu,
    pub(crate) round_us_p50: u64,
    pub(crate) round_us_p99: u64,
}

struct Client {
    socket: TcpStream,
    /// What the kernel did not take of the last frame.
    rest: Vec<u8>,
    alive: bool,
}

struct Group {
    frame: Frame,
    clients: Vec<Client>,
}

/// Sends `per_second` frames a second to each client for `seconds`; clients of one group have one moment.
pub(crate) fn send(
    clients: Vec<TcpStream>,
    group: usize,
    payload: usize,
    per_second: f64,
    seconds: f64,
) -> Result<Summary, String> {
    let mut groups = groups(clients, group, payload)?;
    let rounds = ((seconds * per_second) as u64).clamp(1, ROUNDS_MAX);
    let step = Duration::from_secs_f64(1.0 / per_second / groups.len() as f64);
    let mut durations = Vec::with_capacity(rounds as usize);
    let (mut frames, mut skipped, mut late) = (0, 0, 0);
    let (began, cpu_before) = (Instant::now(), cpu()?);
    let mut due = began;
    for _ in 0..rounds {
        // When the load client has left there is nothing more to learn, and skips would only blur the figures.
        if !groups.iter().flat_map(|group| &group.clients).any(|client| client.alive) {
            break;
        }
        let mut spent = Duration::ZERO;
        for group in &mut groups {
            wait_until(due);
            let start = Instant::now();
            if start > due + step {
                late += 1;
                due = start;
            }
            due += step;
            group.frame.stamp(wall_us());
            for client in &mut group.clients {
                match client.send(group.frame.bytes()) {
                    true => frames += 1,
                    false => skipped += 1,
                }
            }
            spent += start.elapsed();
        }
        durations.push(spent.as_micros() as u64);
    }
    let rounds = durations.len() as u64;
    let cpu = cpu()?.since(&cpu_before);
    let seconds = began.elapsed().as_secs_f64();
    let lost = groups.iter().flat_map(|group| &group.clients).filter(|client| !client.alive).count();
    durations.sort_unstable();
    let (round_us_p50, round_us_p99) = (quantile(&durations, 0.5), quantile(&durations, 0.99));
    Ok(Summary { rounds, late, frames, skipped, lost, seconds, cpu, round_us_p50, round_us_p99 })
}

fn groups(clients: Vec<TcpStream>, size: usize, payload: usize) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    let mut clients = clients.into_iter().peekable();
    while clients.peek().is_some() {
        let frame = Frame::new(groups.len() + 1, payload)?;
        let client = |socket| Client { socket, rest: Vec::new(), alive: true };
        groups.push(Group { frame, clients: clients.by_ref().take(size).map(client).collect() });
    }
    Ok(groups)
}

impl Client {
    /// One plain send; false when the frame was skipped because the socket is full or gone.
    fn send(&mut self, frame: &[u8]) -> bool {
        if !self.alive || !(self.rest.is_empty() || self.finish()) {
            return false;
        }
        match self.socket.write(frame) {
            Ok(count) => {
                self.rest.extend_from_slice(&frame[count..]);
                true
            }
            Err(error) => {
                self.alive = error.kind() == ErrorKind::WouldBlock;
                false
            }
        }
    }

    /// Sends the rest of an earlier frame; true when nothing of it is left.
    fn finish(&mut self) -> bool {
        match self.socket.write(&self.rest) {
            Ok(count) => {
                self.rest.drain(..count);
            }
            Err(error) => self.alive = error.kind() == ErrorKind::WouldBlock,
        }
        self.rest.is_empty()
    }
}

fn wait_until(due: Instant) {
    let wait = due.saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        std::thread::sleep(wait);
    }
}

fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn quantile(sorted: &[u64], q: f64) -> u64 {
    let at = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_client_gets_every_frame() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut readers = Vec::new();
        let mut sockets = Vec::new();
        for _ in 0..5 {
            readers.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            sockets.push(listener.accept().unwrap().0);
        }
        let summary = send(sockets, 2, 200, 50.0, 0.1).unwrap();
        assert_eq!((summary.rounds, summary.frames, summary.skipped), (5, 25, 0));
        for mut reader in readers {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), 5 * 204);
        }
    }
}
