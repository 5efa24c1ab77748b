//! CPU and memory of a process, from `/proc`.
//!
//! Bound: two small files each time it is asked; never while the load is measured.

/// Ticks a second in `/proc/PID/stat`: fixed by the kernel's interface on Linux whatever its own timer does.
const USER_HZ: f64 = 100.0;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) user_s: f64,
    pub(super) system_s: f64,
    pub(super) rss_bytes: u64,
}

impl Usage {
    /// Both kinds of CPU time.
    pub(super) fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Reads the figures of process `pid`.
pub(super) fn usage(pid: u32) -> Result<Usage, String> {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{name}"))
            .map_err(|error| format!("process {pid}: {error}"))
    };
    let (user_s, system_s) = cpu_times(&read("stat")?).ok_or(format!("process {pid}: unreadable stat"))?;
    let rss_kib = rss_kib(&read("status")?).ok_or(format!("process {pid}: no VmRSS"))?;
    Ok(Usage { user_s, system_s, rss_bytes: rss_kib * 1024 })
}

/// The name in parentheses may hold blanks; user and system time are the 12th and 13th field after it.
fn cpu_times(stat: &str) -> Option<(f64, f64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / USER_HZ, system / USER_HZ))
}

fn rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_right_ones() {
        let stat = "1 (a b) c) S 2 3 4 5 6 7 8 9 10 11 250 50 0 0 20";
        assert_eq!(cpu_times(stat), Some((2.5, 0.5)));
        assert_eq!(rss_kib("Name:\tx\nVmRSS:\t  1234 kB\n"), Some(1234));
        assert!(usage(std::process::id()).is_ok_and(|own| own.rss_bytes > 0));
    }
}
