//! The head of a request: where its body ends, and whether it is one that we look into.

/// A longer head is handed on without being understood: registries' passwords in headers make long ones.
pub(super) const LONGEST: usize = 1 << 20;

const FIELDS: usize = 128;

/// What the first bytes of a request are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a head.
    Partial,
    Head(Head),
    /// No request of HTTP/1.
    Foreign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// In bytes, with the empty line.
    pub(super) length: usize,
    pub(super) body: Body,
    pub(super) purpose: Purpose,
    /// The client waits for a "100 Continue" before it sends the body.
    pub(super) expects: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Sized(u64),
    Chunked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Creates a container.
    Creation,
    /// Begins a command, on this connection unless the body says detached.
    Exec,
    /// What follows on this connection is not HTTP/1, if the engine agrees.
    Upgrade,
    Other,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => return Parsed::Partial,
        _ => return Parsed::Foreign,
    };
    let is_post = request.method == Some("POST");
    let mut purpose = match segments(request.path.unwrap_or_default()).as_slice() {
        ["containers", "create"] if is_post => Purpose::Creation,
        ["exec", _, "start"] if is_post => Purpose::Exec,
        // Old clients attach without asking for an upgrade.
        ["containers", _, "attach"] if is_post => Purpose::Upgrade,
        _ => Purpose::Other,
    };
    let mut body = Body::Sized(0);
    let mut expects = false;
    for field in request.headers.iter() {
        let value = field.value.trim_ascii();
        match field.name.to_ascii_lowercase().as_str() {
            "upgrade" => purpose = Purpose::Upgrade,
            "expect" => expects |= value.eq_ignore_ascii_case(b"100-continue"),
            "transfer-encoding" if value.eq_ignore_ascii_case(b"chunked") => body = Body::Chunked,
            "transfer-encoding" => return Parsed::Foreign,
            "content-length" if body != Body::Chunked => {
                let length = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok());
                match length {
                    Some(length) => body = Body::Sized(length),
                    None => return Parsed::Foreign,
                }
            }
            _ => {}
        }
    }
    if request.method == Some("CONNECT") {
        purpose = Purpose::Upgrade;
    }
    Parsed::Head(Head {
        length,
        body,
        purpose,
        expects,
    })
}

/// The parts of a path, without the API's version and the query.
fn segments(target: &str) -> Vec<&str> {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let mut segments: Vec<_> = path.split('/').skip(1).collect();
    let is_version = |text: &str| {
        text.strip_prefix('v')
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    if segments.first().is_some_and(|first| is_version(first)) {
        segments.remove(0);
    }
    // Podman answers to docker's paths below this one too.
    if segments.first() == Some(&"libpod") {
        segments.clear();
    }
    segments
}

/// This head for another body: sized, or in chunks where `length` is `None`.
pub(super) fn reframed(head: &[u8], length: Option<usize>) -> Vec<u8> {
    let framing = match length {
        Some(length) => format!("Content-Length: {length}\r\n\r\n"),
        None => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
    };
    let mut lines: Vec<u8> = Vec::with_capacity(head.len() + framing.len());
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let is_framing = name.eq_ignore_ascii_case(b"content-length")
            || name.eq_ignore_ascii_case(b"transfer-encoding");
        if !is_framing && !line.trim_ascii().is_empty() {
            lines.extend_from_slice(line);
        }
    }
    lines.extend_from_slice(framing.as_bytes());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        match parse(text.as_bytes()) {
            Parsed::Head(head) => head,
            other => panic!("{text:?} is {other:?}"),
        }
    }

    #[test]
    fn knows_what_a_request_is_for() {
        for (line, purpose) in [
            ("POST /containers/create", Purpose::Creation),
            ("POST /v1.41/containers/create?name=a", Purpose::Creation),
            ("GET /v1.41/containers/create", Purpose::Other),
            ("POST /v1.41/volumes/create", Purpose::Other),
            ("POST /v1.41/libpod/containers/create", Purpose::Other),
            ("POST /v1.41/exec/abc/start", Purpose::Exec),
            ("POST /v1.41/exec/abc/resize?h=1&w=1", Purpose::Other),
            ("POST /containers/abc/attach?stream=1", Purpose::Upgrade),
            ("POST /containers/create/attach", Purpose::Upgrade),
            ("GET /v1.41/containers/json", Purpose::Other),
            ("GET /vx/containers/create", Purpose::Other),
        ] {
            let head = head(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert_eq!(head.purpose, purpose, "{line}");
        }
        let session = "POST /session HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        assert_eq!(head(session).purpose, Purpose::Upgrade);
    }

    #[test]
    fn finds_where_the_body_ends() {
        let sized = "PUT /x HTTP/1.1\r\ncontent-length: 12 \r\nExpect: 100-Continue\r\n\r\nbody";
        let parsed = head(sized);
        assert_eq!(parsed.length, sized.len() - 4);
        assert_eq!((parsed.body, parsed.expects), (Body::Sized(12), true));
        for fields in [
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
        ] {
            let parsed = head(&format!("POST /x HTTP/1.1\r\n{fields}\r\n\r\n"));
            assert_eq!(parsed.body, Body::Chunked);
        }
        for foreign in [
            "hello\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "POST /x HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "POST /x HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ] {
            assert_eq!(parse(foreign.as_bytes()), Parsed::Foreign, "{foreign:?}");
        }
        assert_eq!(parse(b"POST /x HT"), Parsed::Partial);
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(LONGEST));
        assert_eq!(parse(endless.as_bytes()), Parsed::Foreign);
    }

    #[test]
    fn changes_nothing_but_the_framing() {
        let head =
            b"POST /containers/create HTTP/1.1\r\nhost: x\r\nContent-length: 7\r\nX-A:  b\r\n\r\n";
        let rest = "POST /containers/create HTTP/1.1\r\nhost: x\r\nX-A:  b\r\n";
        assert_eq!(
            reframed(head, Some(9)),
            format!("{rest}Content-Length: 9\r\n\r\n").as_bytes()
        );
        assert_eq!(
            reframed(head, None),
            format!("{rest}Transfer-Encoding: chunked\r\n\r\n").as_bytes()
        );
    }
}
