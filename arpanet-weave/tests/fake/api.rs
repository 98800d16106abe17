//! The HTTP API, as far as it was recorded. `mood` in the folder says how it answers; what was asked stands in `requests`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::mesh::Mesh;
use super::{fatal, listen_unix, wish};

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self {
            status,
            kind: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    fn nothing(status: &'static str) -> Self {
        Self {
            status,
            kind: "",
            body: String::new(),
        }
    }
}

struct Asked {
    method: String,
    path: String,
    wants_json: bool,
    body: String,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub(super) fn serve(folder: &Path, at: &str, mesh: &Arc<Mesh>, database: &Arc<PathBuf>) {
    let handle = {
        let (folder, mesh, database) = (folder.to_owned(), Arc::clone(mesh), Arc::clone(database));
        move |stream: Box<dyn Stream>| {
            let (folder, mesh, database) =
                (folder.clone(), Arc::clone(&mesh), Arc::clone(&database));
            std::thread::spawn(move || talk(stream, &folder, &mesh, &database));
        }
    };
    if at.starts_with('/') {
        let listener = listen_unix(at);
        std::thread::spawn(move || {
            listener
                .incoming()
                .flatten()
                .for_each(|stream| handle(Box::new(stream)))
        });
    } else {
        let listener =
            TcpListener::bind(at).unwrap_or_else(|error| fatal(&format!("{at}: {error}")));
        std::thread::spawn(move || {
            listener
                .incoming()
                .flatten()
                .for_each(|stream| handle(Box::new(stream)))
        });
    }
}

fn talk(stream: Box<dyn Stream>, folder: &Path, mesh: &Arc<Mesh>, database: &Path) {
    let mut stream = BufReader::new(stream);
    let Some(asked) = read(&mut stream) else {
        return;
    };
    note(folder, &asked);
    let mut answer = answer(&asked, mesh, database);
    let mut length = answer.body.len();
    match wish(folder, "mood").as_str() {
        "" => {}
        "slow" => std::thread::sleep(Duration::from_millis(300)),
        "500" => answer = Answer::text("500 Internal Server Error", "something went wrong\n"),
        "503" => answer = Answer::nothing("503 Service Unavailable"),
        "half" => {
            length = answer.body.len().max(20);
            answer.body.truncate(length / 2);
        }
        "garbage" => answer.body = "{\"Ready\": tru".to_owned(),
        "hang" => std::thread::sleep(Duration::from_secs(600)),
        "die" => std::process::exit(3),
        other => fatal(&format!("no mood: {other}")),
    }
    if matches!(
        answer.status,
        "500 Internal Server Error" | "503 Service Unavailable"
    ) || wish(folder, "mood") == "garbage"
    {
        length = answer.body.len();
    }
    let kind = match answer.kind {
        "" => String::new(),
        kind => format!("Content-Type: {kind}\r\n"),
    };
    let head = format!(
        "HTTP/1.1 {}\r\n{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n{}",
        answer.status, answer.body
    );
    let _ = stream.get_mut().write_all(head.as_bytes());
}

fn read(stream: &mut BufReader<Box<dyn Stream>>) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream
            .read_line(&mut line)
            .ok()
            .filter(|length| *length > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines.first()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let length = header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Asked {
        method,
        path,
        wants_json: header("accept").is_some_and(|kind| kind == "application/json"),
        body: String::from_utf8(body).ok()?,
    })
}

fn note(folder: &Path, asked: &Asked) {
    let line = format!("{} {} {}\n", asked.method, asked.path, asked.body);
    let file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(folder.join("requests"));
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

fn peers(form: &str) -> Vec<String> {
    form.split('&')
        .filter_map(|field| field.strip_prefix("peer="))
        .map(|peer| peer.replace("%3A", ":").replace("%21", "!"))
        .collect()
}

fn answer(asked: &Asked, mesh: &Arc<Mesh>, database: &Path) -> Answer {
    let keep = || {
        let state = mesh.state();
        let lines: String = state
            .targets
            .values()
            .map(|attempt| format!("{}\n", attempt.given))
            .collect();
        let _ = fs::write(database, lines);
    };
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/status") => {
            let me = &mesh.me;
            Answer::text(
                "200 OK",
                format!(
                    "        Version: 2.9.0 (version check update disabled)\n\n        Service: router\n       Protocol: weave 1..2\n           Name: {}({})\n",
                    me.name, me.nickname
                ),
            )
        }
        ("GET", "/report") if asked.wants_json => Answer {
            status: "200 OK",
            kind: "application/json",
            body: format!("{:#}", mesh.report()),
        },
        ("GET", "/report") => Answer::text(
            "400 Bad Request",
            "error: must supply one format parameter\n",
        ),
        // It ends the router, which gives out no addresses.
        ("GET", "/metrics") => std::process::exit(2),
        ("POST", "/connect") => match mesh.connect(&peers(&asked.body)) {
            Ok(()) => {
                keep();
                Answer::nothing("200 OK")
            }
            Err(words) => Answer::text("400 Bad Request", words),
        },
        ("POST", "/forget") => {
            mesh.forget(&peers(&asked.body));
            keep();
            Answer::nothing("200 OK")
        }
        ("GET", "/connect") => Answer::nothing("405 Method Not Allowed"),
        _ => Answer::text("501 Not Implemented", "of this there is no recording\n"),
    }
}
