//! The CPU that this process has used, from `/proc/self`.
//!
//! Bound: two small reads before the first round and two after the last; none between.

/// Ticks a second in `/proc/self/stat`: fixed by the kernel's interface on Linux whatever its own timer does.
const USER_HZ: f64 = 100.0;

/// CPU used, in all and by share; the shares have 10 ms steps, the total is exact.
pub(crate) struct Cpu {
    pub(crate) total_us: f64,
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
}

impl Cpu {
    /// What was used between `before` and this.
    pub(crate) fn since(&self, before: &Cpu) -> Cpu {
        Cpu {
            total_us: self.total_us - before.total_us,
            user_s: self.user_s - before.user_s,
            system_s: self.system_s - before.system_s,
        }
    }
}

/// Reads the figures of this (single-threaded) process.
pub(crate) fn cpu() -> Result<Cpu, String> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let stat = read("/proc/self/stat")?;
    // The name in parentheses may hold blanks; user and system time are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    let (user_s, system_s) = (ticks() / USER_HZ, ticks() / USER_HZ);
    let exact_ns = read("/proc/self/schedstat")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().next()?.parse::<f64>().ok());
    let total_us = exact_ns.map_or((user_s + system_s) * 1e6, |ns| ns / 1e3);
    Ok(Cpu { total_us, user_s, system_s })
}
