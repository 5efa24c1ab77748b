//! Whether the gateway lives, is ending, or is broken: what its threads tell each other of that.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// One gateway's life.
#[derive(Debug, Default)]
pub struct Life {
    /// It is ending: no new clients, feeds stop, shards say goodbye.
    pub draining: AtomicBool,
    /// A part that nothing works without has died.
    pub dead: AtomicBool,
    /// Told when that happens.
    pub broken: Notify,
}

/// Marks the gateway as dead if its thread panics.
pub struct Guard<'a>(&'a Life);

impl Life {
    /// To be held by a thread that the gateway cannot do without.
    pub fn guard(&self) -> Guard<'_> {
        Guard(self)
    }

    /// Whether new clients may come.
    pub fn takes_clients(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && !self.dead.load(Ordering::Relaxed)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.dead.store(true, Ordering::SeqCst);
            self.0.broken.notify_one();
        }
    }
}
