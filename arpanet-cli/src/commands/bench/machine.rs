//! The machine that figures were made on.

use std::fs;

use serde::Serialize;

/// What has to be known of it to read them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) memory_gib: f64,
    pub(super) kernel: String,
    /// How many processes wanted a core, in the minute before.
    pub(super) load_before: f64,
    /// Whether this program is optimized.
    pub(super) release: bool,
}

impl Machine {
    pub(super) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cores = std::thread::available_parallelism();
        Self {
            processor: processor(&read("/proc/cpuinfo")),
            cores: cores.map_or(1, std::num::NonZero::get),
            memory_gib: memory(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load(&read("/proc/loadavg")),
            release: !cfg!(debug_assertions),
        }
    }

    /// In a line.
    pub(super) fn told(&self) -> String {
        let build = match self.release {
            true => "",
            false => "; arpanet2 is not optimized here: these figures say little",
        };
        format!(
            "{} cores of {}, {:.0} GiB, Linux {}, load before {:.1}{build}",
            self.cores, self.processor, self.memory_gib, self.kernel, self.load_before
        )
    }
}

fn processor(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| {
        let (name, model) = line.split_once(':')?;
        (name.trim() == "model name").then(|| model.trim())
    });
    let model = model.unwrap_or(std::env::consts::ARCH);
    model.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn memory(meminfo: &str) -> f64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    let gibibytes = kibibytes.unwrap_or_default() / f64::from(1 << 20);
    (gibibytes * 10.0).round() / 10.0
}

fn load(loadavg: &str) -> f64 {
    let first = loadavg.split(' ').next();
    first.and_then(|load| load.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A  CPU @ 2GHz\nprocessor\t: 1\n";
        assert_eq!(processor(cpuinfo), "A CPU @ 2GHz");
        assert_eq!(processor(""), std::env::consts::ARCH);
        assert_eq!(memory("MemTotal:        8388608 kB\n"), 8.0);
        assert_eq!(load("1.52 0.8 0.5 1/200 4711\n"), 1.52);
    }
}
