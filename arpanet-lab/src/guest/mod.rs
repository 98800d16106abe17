//! A machine with another kernel, for what this machine's kernel can't do.

mod archive;
mod libraries;
mod modules;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arpanet_core::{Error, ErrorKind, Result};
use tempfile::TempDir;

use self::archive::Archive;
use self::modules::Modules;

/// The emulator, of Debian's package `qemu-system-x86`.
const EMULATOR: &str = "qemu-system-x86_64";
/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";
/// The guest's first process.
const INIT: &[u8] = include_bytes!("init.sh");
/// How long the kernel may take to come up and go down, beside the command.
const AROUND: Duration = Duration::from_secs(60);
/// How many times longer a command may take by this machine's clock than by the guest's.
const SLOWER: u32 = 10;

/// A machine in the machine: qemu without help of the hardware, a kernel of Debian's that is booted from a folder, and a file
/// system in memory with busybox and what it is given. It runs one command and is gone.
///
/// The kernel is in a folder, as Debian's package unpacks: `boot/vmlinuz-*` and `lib/modules`. The guest has no network and no
/// disk; its clock begins as this machine's, counts what the guest computes, and passes over what it waits for; commands run as
/// root.
#[derive(Debug, Clone)]
pub struct Guest {
    kernel: PathBuf,
    /// In mebibytes.
    memory: u32,
    modules: Vec<String>,
    programs: Vec<PathBuf>,
    files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
    environment: BTreeMap<String, String>,
}

/// What a command in a [`Guest`] came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GuestRun {
    /// Its exit code; 128 and the signal's number where a signal ended it, which is SIGKILL at the time limit. `None` where the
    /// guest itself broke down.
    pub code: Option<i32>,
    /// What it wrote, to both of its streams.
    pub output: String,
    /// What the kernel said.
    pub console: String,
    /// From the start of the machine to its end.
    pub took: Duration,
}

impl GuestRun {
    /// Of a test program: what all came to, and in what time.
    ///
    /// # Panics
    /// Where it did not end well, with all that it and the machine have written.
    #[must_use]
    #[track_caller]
    pub fn passed(&self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.output, self.console);
        let mut lines = self.output.lines().rev();
        let closing = lines.find(|line| !line.is_empty()).unwrap_or_default();
        format!("in a guest, in {:?}: {closing}", self.took)
    }
}

impl Guest {
    /// A machine with the kernel in this folder, of 1,024 MiB.
    #[must_use]
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
        let guest = Self {
            kernel: kernel.into(),
            memory: 1024,
            modules: Vec::new(),
            programs: Vec::new(),
            files: BTreeMap::new(),
            environment: BTreeMap::new(),
        };
        guest
            .file("/etc/passwd", 0o644, users)
            .file("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n")
            .file("/etc/hosts", 0o644, "127.0.0.1 localhost\n")
            .file("/etc/hostname", 0o644, "guest\n")
    }

    /// With this much memory, in mebibytes. Files are in it twice while it boots.
    #[must_use]
    pub const fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// With these modules of the kernel, and those that they need. Others can't be loaded later.
    #[must_use]
    pub fn modules<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.modules.extend(names.into_iter().map(Into::into));
        self
    }

    /// With this program of the machine, at the same place, without what is in it for debuggers, and with its libraries.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.programs.push(path.into());
        self
    }

    /// With this file.
    #[must_use]
    pub fn file(mut self, at: impl Into<PathBuf>, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(at.into(), (mode, content.into()));
        self
    }

    /// With this in the environment of the command.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Boots it, runs a command, whose program stands with its whole path, and ends it. Dropping the future ends it too. The limit
    /// is by the guest's clock; by this machine's it may take ten times as long.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] says what is missing: emulator, kernel, module, program. A command that fails is no error: see
    /// its code.
    pub async fn run(&self, command: &[impl AsRef<OsStr>], limit: Duration) -> Result<GuestRun> {
        let words: Vec<&OsStr> = command.iter().map(AsRef::as_ref).collect();
        let script = script(&self.environment, &words, limit);
        let folder = TempDir::with_prefix("arpanet2-guest-").map_err(broken)?;
        let place = |name: &str| folder.path().join(name);
        self.write(&place("initramfs"), &script).map_err(broken)?;
        let began = Instant::now();
        let mut line = tokio::process::Command::new(EMULATOR);
        // Its clock counts what it computes and passes over what it would wait for: however busy this machine is, no time
        // limit in the guest is missed for that.
        line.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1"])
            .args(["-icount", "shift=0,sleep=off", "-rtc", "clock=vm"])
            .args(["-m", &self.memory.to_string()])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(self.kernel_image().map_err(broken)?)
            .arg("-initrd")
            .arg(place("initramfs"))
            // A kernel that breaks down ends the machine, as the end of the first process does.
            .args([
                "-append",
                "console=ttyS0 quiet panic=-1 reboot=t mitigations=off",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for name in ["console", "output", "code"] {
            line.arg("-serial")
                .arg(format!("file:{}", place(name).display()));
        }
        let emulator = line.spawn().map_err(|source| {
            let error = Error::new(ErrorKind::NotFound, format!("{EMULATOR} can't be started"));
            let hint = "install Debian's package qemu-system-x86";
            error.with_hint(hint).with_source(source)
        })?;
        let ended =
            tokio::time::timeout(limit * SLOWER + AROUND, emulator.wait_with_output()).await;
        let read = |name: &str| {
            let bytes = fs::read(place(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let mut console = read("console");
        if let Ok(ended) = ended {
            console += &String::from_utf8_lossy(&ended.map_err(broken)?.stderr);
        }
        Ok(GuestRun {
            code: read("code").trim().parse().ok(),
            output: read("output"),
            console,
            took: began.elapsed(),
        })
    }

    fn kernel_image(&self) -> io::Result<PathBuf> {
        let images = fs::read_dir(self.kernel.join("boot"))?.flatten();
        let mut images =
            images.filter(|file| file.file_name().to_string_lossy().starts_with("vmlinuz"));
        let image = images.next().map(|file| file.path());
        image.ok_or_else(|| missing(format!("no kernel is in {}", self.kernel.display())))
    }

    fn write(&self, to: &Path, script: &str) -> io::Result<()> {
        let mut archive = Archive::new(BufWriter::new(File::create(to)?));
        archive.folder(Path::new("/tmp"), 0o1777)?;
        archive.device(Path::new("/dev/console"), 0o600, (5, 1))?;
        archive.file(Path::new("/init"), 0o755, INIT)?;
        archive.file(Path::new("/guest/command"), 0o755, script.as_bytes())?;
        let busybox = fs::read(BUSYBOX).map_err(|_| {
            missing(format!(
                "{BUSYBOX} of Debian's package busybox-static is not there"
            ))
        })?;
        archive.file(Path::new(BUSYBOX), 0o755, &busybox)?;
        let modules = match self.modules.is_empty() {
            true => Vec::new(),
            false => Modules::find(&self.kernel.join("lib/modules"))?.in_order(&self.modules)?,
        };
        let mut list = String::new();
        for path in modules {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let at = format!("/guest/{name}");
            archive.file(Path::new(&at), 0o644, &fs::read(&path)?)?;
            list.push_str(&at);
            list.push('\n');
        }
        archive.file(Path::new("/guest/modules"), 0o644, list.as_bytes())?;
        let mut libraries = BTreeMap::new();
        for program in &self.programs {
            archive.file(program, 0o755, &stripped(program)?)?;
            for library in libraries::of(program)? {
                libraries
                    .entry(library.clone())
                    .or_insert(fs::read(&library)?);
            }
        }
        for (at, content) in &libraries {
            archive.file(at, 0o755, content)?;
        }
        for (at, (mode, content)) in &self.files {
            archive.file(at, *mode, content)?;
        }
        archive.finish()
    }
}

/// A program without what is in it for debuggers: most of its size, for one that was built to be tested.
fn stripped(program: &Path) -> io::Result<Vec<u8>> {
    let folder = TempDir::with_prefix("arpanet2-guest-")?;
    let to = folder.path().join("program");
    let told = Command::new("strip")
        .arg("--strip-debug")
        .arg("-o")
        .arg(&to)
        .arg(program)
        .output()?;
    if told.status.success() {
        return fs::read(&to);
    }
    // A script, say.
    fs::read(program)
}

/// What runs the command in the guest.
fn script(environment: &BTreeMap<String, String>, words: &[&OsStr], limit: Duration) -> String {
    let mut script = String::from("#!/bin/busybox sh\n");
    for (name, value) in environment {
        script += &format!("export {name}={}\n", quoted(value));
    }
    script += &format!("exec timeout -s KILL {}", limit.as_secs().max(1));
    for word in words {
        script += &format!(" {}", quoted(&word.to_string_lossy()));
    }
    script + "\n"
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn missing(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, message)
}

fn broken(source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, "the guest can't be made")
        .operation("boot a guest")
        .with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_command_as_they_are() {
        let words = ["/bin/echo", "it's", "a  b", "$HOME"].map(OsStr::new);
        let environment = BTreeMap::from([("A".to_owned(), "1 'x'".to_owned())]);
        let expected = "#!/bin/busybox sh\nexport A='1 '\\''x'\\'''\nexec timeout -s KILL 90 '/bin/echo' 'it'\\''s' 'a  b' '$HOME'\n";
        assert_eq!(
            script(&environment, &words, Duration::from_secs(90)),
            expected
        );
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let empty = tempfile::tempdir().unwrap();
        fs::create_dir_all(empty.path().join("lib/modules")).unwrap();
        let guest = Guest::new(empty.path()).modules(["wireguard"]);
        let error = guest
            .run(&["/bin/true"], Duration::from_secs(1))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            source.contains("wireguard") || source.contains(BUSYBOX),
            "{source}"
        );
    }
}
