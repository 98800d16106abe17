//! A weave router for tests: a process that takes weaver's arguments, makes its bridge, its links and its firewall rules,
//! speaks its HTTP API as recorded, finds others of its kind over TCP, and carries frames between their bridges over UDP.
//!
//! It is not fast, and it encrypts nothing. What it does not know from a recording it answers with 501.

mod api;
mod capture;
mod dialling;
mod ground;
mod mesh;
mod options;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use self::mesh::Mesh;
use self::options::Options;

/// The folder of the link to the script, which is how tests talk to the router.
pub(crate) const FOLDER: &str = "ARPANET_FAKE_WEAVER";

/// Not a test by itself: the tests start this program again, as the router.
#[test]
fn weaver() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        run(Path::new(&folder));
    }
}

/// What a test wants of the router now, from a file of its folder.
fn wish(folder: &Path, file: &str) -> String {
    let wish = fs::read_to_string(folder.join(file)).unwrap_or_default();
    wish.trim().to_owned()
}

fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "INFO: {words}");
}

fn fatal(words: &str) -> ! {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "FATA: {words}");
    let _ = out.flush();
    std::process::exit(1)
}

fn run(folder: &Path) -> ! {
    let arguments = fs::read_to_string(folder.join("arguments")).unwrap();
    let options = Options::parse(&arguments).unwrap_or_else(|error| fatal(&error));
    match wish(folder, "start").as_str() {
        "exit" => fatal("cannot create bridge: operation not supported"),
        "mute" => forever(),
        "late" => std::thread::sleep(Duration::from_millis(700)),
        _ => {}
    }
    let password = std::env::var("WEAVE_PASSWORD").unwrap_or_default();
    if std::env::var("CHECKPOINT_DISABLE").is_err() {
        fatal("asking the internet for newer versions");
    }
    ground::lay(&options);
    let database = database(&options.database());
    let peers = initial_peers(&options, &database);
    let mesh = Mesh::start(&options, &password).unwrap_or_else(|error| fatal(&error));
    mesh.connect(&peers).unwrap_or_else(|error| fatal(&error));
    api::serve(folder, &options.http, &mesh, &database);
    forever()
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Its peers, a line each. Waits for the lock as long as another router has it, and says nothing.
fn database(path: &Path) -> Arc<PathBuf> {
    let file = fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path);
    let file = file.unwrap_or_else(|error| fatal(&format!("{}: {error}", path.display())));
    let lock = Flock::lock(file, FlockArg::LockExclusive);
    std::mem::forget(lock.unwrap_or_else(|(_, error)| fatal(&error.to_string())));
    Arc::new(path.to_owned())
}

/// Those of the arguments, or where it was launched before those it had then.
fn initial_peers(options: &Options, database: &Path) -> Vec<String> {
    const SENTINEL: &str = "restart.sentinel";
    let restart = fs::metadata(SENTINEL).is_ok();
    fs::write(SENTINEL, "").unwrap_or_else(|error| fatal(&error.to_string()));
    let stored = fs::read_to_string(database).unwrap_or_default();
    let stored: Vec<String> = stored.lines().map(str::to_owned).collect();
    if restart {
        say(&format!(
            "Restart/resume detected - using persisted peer list: {stored:?}"
        ));
        return stored;
    }
    say(&format!(
        "Launch detected - using supplied peer list: {:?}",
        options.peers
    ));
    options.peers.clone()
}

/// Listens as Go does: on a socket that is left from before, too.
fn listen_unix(path: &str) -> UnixListener {
    let _ = fs::remove_file(path);
    UnixListener::bind(path).unwrap_or_else(|error| fatal(&format!("{path}: {error}")))
}
