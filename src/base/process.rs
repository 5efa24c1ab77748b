//! What Linux tells of a process: the only reader of `/proc`.
//!
//! Bound kept here: a few small files each time it is asked, which is a scrape, or before and after a load.

use std::fs;

/// Ticks a second in `/proc/PID/stat`: fixed by the kernel's interface on Linux whatever its own timer does.
const USER_HZ: f64 = 100.0;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time in its own code, in seconds.
    pub user_s: f64,
    /// CPU time in the kernel, in seconds.
    pub system_s: f64,
    /// CPU time of the threads that it has now, in seconds and to the nanosecond, where Linux tells it.
    threads_s: Option<f64>,
    /// Memory in RAM.
    pub rss_bytes: u64,
}

impl Usage {
    /// Both kinds of CPU time, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// Both kinds of CPU time since `before`, in seconds: to the nanosecond, but to 10 ms when threads have ended meanwhile.
    pub fn cpu_s_since(&self, before: &Self) -> f64 {
        let ticks_s = self.cpu_s() - before.cpu_s();
        let threads_s = self.threads_s.zip(before.threads_s).map(|(now_s, before_s)| now_s - before_s);
        // User and system time are each rounded down.
        threads_s.filter(|exact_s| (exact_s - ticks_s).abs() <= 2.0 / USER_HZ).unwrap_or(ticks_s)
    }
}

/// Reads the figures of a process: a number, or `self`. The error says what could not be read.
pub fn usage(process: &str) -> Result<Usage, String> {
    let read = |name: &str| {
        fs::read_to_string(format!("/proc/{process}/{name}"))
            .map_err(|error| format!("process {process}: {error}"))
    };
    let cpu_times = cpu_times(&read("stat")?);
    let (user_s, system_s) = cpu_times.ok_or(format!("process {process}: unreadable stat"))?;
    let rss_kib = number(&read("status")?, "VmRSS:").ok_or(format!("process {process}: no VmRSS"))?;
    Ok(Usage { user_s, system_s, threads_s: threads_s(process), rss_bytes: rss_kib * 1024 })
}

fn threads_s(process: &str) -> Option<f64> {
    let nanoseconds = |thread: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    };
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let total: u64 = threads.map(|thread| nanoseconds(thread.ok()?)).sum::<Option<u64>>()?;
    Some(total as f64 / 1e9)
}

/// How many file descriptors this process has open, and how many it may have. `None` where there is no `/proc`.
pub fn descriptors() -> Option<(u64, u64)> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some((open, number(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")?))
}

/// The name in parentheses may hold blanks; user and system time are the 12th and 13th field after it.
fn cpu_times(stat: &str) -> Option<(f64, f64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / USER_HZ, system / USER_HZ))
}

/// The first number of the line that begins so.
fn number(text: &str, begin: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(begin))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_exact_while_threads_last() {
        let at = |user_s, threads_s| Usage { user_s, threads_s, ..Usage::default() };
        let since = |threads_s| at(2.51, threads_s).cpu_s_since(&at(1.0, Some(0.99)));
        let is_about =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        is_about(since(Some(2.512345)), 1.522345);
        is_about(since(Some(1.4)), 1.51); // a thread of a second has ended
        is_about(since(None), 1.51);
    }

    #[test]
    fn the_fields_are_the_right_ones() {
        let stat = "1 (a b) c) S 2 3 4 5 6 7 8 9 10 11 250 50 0 0 20";
        assert_eq!(cpu_times(stat), Some((2.5, 0.5)));
        assert_eq!(number("Name:\tx\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234));
        assert!(usage("self").is_ok_and(|own| own.rss_bytes > 0 && own.threads_s > Some(0.0)));
        assert!(descriptors().is_some_and(|(open, allowed)| 2 < open && open < allowed));
    }
}
