//! What it takes of the machine.

use std::fs;

use super::peer::{Outcome, Why};

/// What these processes have in memory, in MiB.
pub(super) fn resident(pids: &[i32]) -> Outcome<f64> {
    if pids.is_empty() {
        return Err(Why::failed("its process was not found"));
    }
    let mut kibibytes = 0.0;
    for pid in pids {
        kibibytes += resident_in(&fs::read_to_string(format!("/proc/{pid}/status"))?)
            .ok_or_else(|| Why::failed("its process has ended"))?;
    }
    Ok(kibibytes / 1024.0)
}

/// KiB, of `/proc/PID/status`.
fn resident_in(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Seconds that all cores together have been busy with since the machine started.
pub(super) fn busy() -> Outcome<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks =
        busy_in(&stat).ok_or_else(|| Why::failed("/proc/stat has no line for all cores"))?;
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let second = second.ok().flatten().unwrap_or(100);
    Ok(ticks / second as f64)
}

/// Ticks, of `/proc/stat` (proc(5)): all but idling, waiting for disks, and what the machine's host took.
fn busy_in(stat: &str) -> Option<f64> {
    let fields: Vec<f64> = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))?
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait,) irq, softirq
    let of = |at: usize| fields.get(at).copied();
    Some(of(0)? + of(1)? + of(2)? + of(5)? + of(6)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_neither_idle_nor_waiting_nor_stolen() {
        let stat = "cpu  100 20 30 9000 800 4 5 7777 1 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_in(stat), Some(159.0));
        assert_eq!(busy_in("cpu0 1 2 3\n"), None);
    }

    #[test]
    fn resident_memory_is_in_the_status() {
        let status = "Name:\tx\nVmHWM:\t  900 kB\nVmRSS:\t   512 kB\n";
        assert_eq!(resident_in(status), Some(512.0));
        assert_eq!(resident_in("Name:\tkthread\n"), None);
    }
}
