//! What runs as a holder: single-threaded, so that it can change its namespaces.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, pause, setgroups, sethostname, setresgid, setresuid, setsid};

/// The entry of a holder, with the arguments that follow those of its [`HolderCommand`](crate::HolderCommand).
///
/// Must be called before the program has started a thread.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let outcome = match args.as_slice() {
        [verb] if *verb == "switch" => switch(),
        [verb, name, disk] if *verb == "host" => host(name, Path::new(disk)),
        [verb, name, disk] if *verb == "init" => init(name, Path::new(disk)),
        [verb, pid, user, command @ ..] if *verb == "exec" => return exec(pid, user, command),
        _ => Err(std::io::Error::other(
            "this is a part of the lab and not for use by hand",
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    // Nobody to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::FAILURE
}

fn say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

fn context(what: &'static str) -> impl Fn(Errno) -> std::io::Error {
    move |errno| std::io::Error::other(format!("{what}: {}", errno.desc()))
}

/// Keeps the switch's network namespace.
fn switch() -> std::io::Result<()> {
    setsid().map_err(context("a new session"))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(context("a new network namespace"))?;
    say(&std::process::id().to_string())?;
    say("ready")?;
    loop {
        pause();
    }
}

/// Makes a host's namespaces, starts its first process in them, and lives as long as that.
fn host(name: &OsStr, disk: &Path) -> std::io::Result<()> {
    setsid().map_err(context("a new session"))?;
    let namespaces = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    unshare(namespaces).map_err(context("new namespaces"))?;
    let mut init = Command::new("/proc/self/exe");
    // The same way into this program again, but for the verb.
    let own: Vec<OsString> = std::env::args_os().skip(1).collect();
    let before = own.len().saturating_sub(3);
    init.args(own.get(..before).unwrap_or_default())
        .arg("init")
        .arg(name)
        .arg(disk);
    let mut child = init.spawn()?;
    say(&child.id().to_string())?;
    child.wait()?;
    Ok(())
}

/// The first process of a host: mounts what is the host's own, then reaps, as the first process must.
fn init(name: &OsStr, disk: &Path) -> std::io::Result<()> {
    // Never without the holder that reports its end.
    set_pdeathsig(Signal::SIGKILL).map_err(context("an end with its holder"))?;
    sethostname(name).map_err(context("a host name"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(context("private mounts"))?;
    if is_ours(Path::new("/etc"))? {
        layer(disk, "etc", Path::new("/etc"))?;
        layer(disk, "lib", Path::new("/var/lib"))?;
        // A docker engine's layers can't lie on a layer.
        std::fs::create_dir_all("/var/lib/docker")?;
        bind(&disk.join("docker"), Path::new("/var/lib/docker"))?;
    } else {
        // An ordinary user, in a user namespace: a layer over files of another owner could not be written to.
        copy_readable(Path::new("/etc"), &disk.join("etc"))?;
        bind(&disk.join("etc"), Path::new("/etc"))?;
        bind(&disk.join("lib"), Path::new("/var/lib"))?;
    }
    own_etc(name)?;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        none,
    )
    .map_err(context("/proc"))?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=755"),
    )
    .map_err(context("/run"))?;
    say("ready")?;
    // Whoever made the host waits for nothing more, and must not be kept waiting by a pipe.
    let null = File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null).map_err(context("standard output"))?;
    nix::unistd::dup2_stderr(&null).map_err(context("standard error"))?;
    // The first process of a host is sent no signal that it does not handle, unless it waits for it.
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    ended.thread_block().map_err(context("signals"))?;
    loop {
        while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
            waitpid(None, Some(WaitPidFlag::WNOHANG))
        {}
        ended.wait().map_err(context("signals"))?;
    }
}

/// Lays the host's own layer over a folder of the machine.
fn layer(disk: &Path, part: &str, over: &Path) -> std::io::Result<()> {
    let path = |part: &str| disk.join(part).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        over.display(),
        path(part),
        path(&format!("{part}-work"))
    );
    mount(
        Some("overlay"),
        over,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(context("a layer of the host's own (overlayfs)"))
}

/// Whether root of this user namespace owns it, and not a user that this namespace does not know.
fn is_ours(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::metadata(path)?.uid() == 0)
}

/// Copies what this user may read, the first time a host is started. What may not be read is not there.
fn copy_readable(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)?.flatten() {
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if target.symlink_metadata().is_ok() {
            continue;
        }
        if kind.is_dir() {
            std::fs::create_dir(&target)?;
            // A folder that may not be read stays empty.
            let _ = copy_readable(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, &target)?;
        } else if kind.is_file() {
            let _ = std::fs::copy(entry.path(), &target);
        }
    }
    Ok(())
}

/// Puts a folder of the host's own in the place of one of the machine.
fn bind(folder: &Path, over: &Path) -> std::io::Result<()> {
    let none: Option<&str> = None;
    mount(Some(folder), over, none, MsFlags::MS_BIND, none)
        .map_err(context("a folder of the host's own"))
}

/// What a host must not share with the machine: its DNS servers, above all, may lie in 10.0.0.0/8.
fn own_etc(name: &OsStr) -> std::io::Result<()> {
    let resolv = PathBuf::from("/etc/resolv.conf");
    // A bind mount or a link that the machine has there would be written through.
    let _ = umount2(&resolv, MntFlags::MNT_DETACH);
    let _ = std::fs::remove_file(&resolv);
    std::fs::write(&resolv, "# A lab host has no DNS server of its own.\n")?;
    std::fs::write("/etc/hostname", format!("{}\n", name.to_string_lossy()))
}

/// Runs a command in a host, as a user of it, and ends as it ends.
fn exec(pid: &OsStr, user: &OsStr, command: &[&OsStr]) -> ExitCode {
    let [program, args @ ..] = command else {
        return fail("no command");
    };
    if let Err(error) = enter(Path::new(pid), user) {
        return fail(&format!("the lab host can't be entered: {error}"));
    }
    match Command::new(program)
        .args(args)
        .stdin(Stdio::inherit())
        .status()
    {
        Ok(status) => {
            let code = status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal))
                .unwrap_or(1);
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Err(error) => {
            let _ = fail(&format!("{}: {error}", program.display()));
            // As a shell answers for a command that is not there, or not to be run.
            ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound {
                127
            } else {
                126
            })
        }
    }
}

fn enter(pid: &Path, user: &OsStr) -> std::io::Result<()> {
    let folder = Path::new("/proc").join(pid).join("ns");
    let open = |name: &str| File::open(folder.join(name));
    let namespaces = [
        (open("net")?, CloneFlags::CLONE_NEWNET),
        (open("uts")?, CloneFlags::CLONE_NEWUTS),
        (open("pid")?, CloneFlags::CLONE_NEWPID),
        // Last: it changes what the paths above mean.
        (open("mnt")?, CloneFlags::CLONE_NEWNS),
    ];
    for (file, kind) in namespaces {
        setns(file, kind)?;
    }
    std::env::set_current_dir("/")?;
    let id: u32 = user
        .to_string_lossy()
        .parse()
        .map_err(std::io::Error::other)?;
    if id != 0 {
        let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
    }
    Ok(())
}
