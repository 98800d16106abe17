//! Why an image does not come. Engines pass on what the registry, or the way to it, said in words, and mostly under one
//! status: the words are all there is to tell a wrong name from a wrong password. Pure.

use arpanet_core::runtime::PullRequest;
use arpanet_core::{Error, ErrorKind};

use crate::error::own;

/// Words of docker's and Podman's engines, what they mean, and what can be done. The first that is found counts.
const MEANINGS: &[(&[&str], Meaning)] = &[
    (
        &["no space left on device", "disk quota exceeded"],
        Meaning::Full,
    ),
    (
        &["toomanyrequests", "too many requests", "rate limit"],
        Meaning::TooOften,
    ),
    (
        &[
            "no matching manifest",
            "no image found in image index",
            "no image found in manifest list",
        ],
        Meaning::OtherMachine,
    ),
    (
        &[
            "invalid reference format",
            "invalid repository name",
            "must be lowercase",
        ],
        Meaning::NoName,
    ),
    (
        &["http response to https client", "x509:", "tls: "],
        Meaning::NotTrusted,
    ),
    (
        &[
            "no such host",
            "connection refused",
            "connection reset",
            "network is unreachable",
            "no route to host",
            "i/o timeout",
            "timeout exceeded",
            "deadline exceeded",
            "request canceled while waiting",
            "server misbehaving",
            "temporary failure in name resolution",
            "bad gateway",
            "service unavailable",
            "unexpected eof",
            ": eof",
        ],
        Meaning::OutOfReach,
    ),
    // The engine's default registry says this of what it does not have and of what it does not show.
    (
        &["repository does not exist", "repository not found"],
        Meaning::Unknown,
    ),
    (
        &[
            "unauthorized",
            "authentication required",
            "no basic auth credentials",
            "incorrect username or password",
            "invalid username/password",
        ],
        Meaning::Unauthenticated,
    ),
    (
        &["denied", "insufficient_scope", "forbidden"],
        Meaning::Denied,
    ),
    (
        &[
            "not found",
            "manifest unknown",
            "name unknown",
            "does not exist",
            "no such image",
        ],
        Meaning::Unknown,
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Full,
    TooOften,
    OtherMachine,
    NoName,
    NotTrusted,
    OutOfReach,
    Unknown,
    Unauthenticated,
    Denied,
    Other,
}

/// What the words mean, but for those of the image's own name.
fn meaning(image: &str, words: &str) -> Meaning {
    let name = image.rsplit_once('@').map_or(image, |(name, _)| name);
    let path = name.rsplit_once('/').map_or(0, |(before, _)| before.len());
    let name = match name[path..].split_once(':') {
        Some((last, _)) => &name[..path + last.len()],
        None => name,
    };
    let words = words.replace(name, "").to_lowercase();
    let found = MEANINGS
        .iter()
        .find(|(signs, _)| signs.iter().any(|sign| words.contains(sign)));
    found.map_or(Meaning::Other, |(_, meaning)| *meaning)
}

const WITHOUT: &str = "docker load and docker import work without a registry";

/// The refusal of a pull, by the engine's words.
pub(super) fn refusal(request: &PullRequest, words: &str) -> Error {
    let image = &request.image;
    let registry = request.registry();
    let at = registry.map_or_else(String::new, |registry| format!(" {registry}"));
    let known = request.credentials.is_some();
    let (kind, why, hint) = match meaning(image, words) {
        Meaning::Full => (
            ErrorKind::Exhausted,
            "the engine's disk is full",
            "make room there: docker system prune removes what nobody uses".to_owned(),
        ),
        Meaning::TooOften => (
            ErrorKind::Unavailable,
            "its registry was asked too often",
            format!("wait, or be known to it: docker login{at}"),
        ),
        Meaning::OtherMachine => (
            ErrorKind::Incompatible,
            "it is not made for this kind of machine",
            "choose an image, or a tag of it, that is".to_owned(),
        ),
        Meaning::NoName => (
            ErrorKind::InvalidInput,
            "that can't be the name of an image",
            "a name is as in nginx:1 or registry.example:5000/team/web:1, in small letters"
                .to_owned(),
        ),
        Meaning::NotTrusted => (
            ErrorKind::Incompatible,
            "the engine does not trust its registry",
            format!(
                "have the engine trust the certificate of{at}, or name it in docker's insecure-registries or Podman's registries.conf"
            ),
        ),
        Meaning::OutOfReach => (
            ErrorKind::Unavailable,
            "its registry is out of reach",
            format!(
                "can this host's engine reach{}? {WITHOUT}",
                if at.is_empty() { " the internet" } else { &at }
            ),
        ),
        Meaning::Unknown => (
            ErrorKind::NotFound,
            "its registry does not have it",
            if known {
                format!("is its name right? {WITHOUT}")
            } else {
                format!(
                    "is its name right? one that is not for everybody needs a docker login{at} first; {WITHOUT}"
                )
            },
        ),
        Meaning::Unauthenticated if known => (
            ErrorKind::Unauthenticated,
            "its registry does not take these credentials",
            format!("are they right, and still good? docker login{at} asks for them anew"),
        ),
        Meaning::Unauthenticated => (
            ErrorKind::Unauthenticated,
            "its registry wants to know who asks",
            format!("docker login{at}, and try again"),
        ),
        Meaning::Denied => (
            ErrorKind::PermissionDenied,
            if known {
                "its registry does not give it to this user"
            } else {
                "its registry does not give it to everybody"
            },
            format!("is its name right? docker login{at} as somebody who may have it"),
        ),
        Meaning::Other => (
            ErrorKind::Unavailable,
            "the engine gave up",
            WITHOUT.to_owned(),
        ),
    };
    own(kind, format!("the image {image} can't be pulled: {why}"))
        .with_hint(hint)
        .with_source(said(words))
}

/// The engine's words as one sentence.
fn said(words: &str) -> String {
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.trim_end_matches('.') {
        "" => "the engine does not say why".to_owned(),
        words => format!("the engine says: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use arpanet_core::runtime::RegistryCredentials;

    use super::*;

    #[test]
    fn the_words_of_engines_have_their_kinds() {
        for (words, kind) in [
            // docker 20.10
            (
                "manifest for 127.0.0.1:5000/web:2 not found: manifest unknown: manifest unknown",
                ErrorKind::NotFound,
            ),
            (
                "pull access denied for nonexistent, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                ErrorKind::NotFound,
            ),
            (
                "Get \"http://127.0.0.1:5000/v2/\": dial tcp 127.0.0.1:5000: connect: connection refused",
                ErrorKind::Unavailable,
            ),
            (
                "Get \"https://registry.example/v2/\": dial tcp: lookup registry.example: no such host",
                ErrorKind::Unavailable,
            ),
            (
                "Get \"https://registry.example/v2/\": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)",
                ErrorKind::Unavailable,
            ),
            (
                "Head \"http://127.0.0.1:5000/v2/web/manifests/1\": no basic auth credentials",
                ErrorKind::Unauthenticated,
            ),
            (
                "Head \"http://127.0.0.1:5000/v2/web/manifests/1\": unauthorized: authentication required",
                ErrorKind::Unauthenticated,
            ),
            (
                "Get \"https://10.0.0.1:5000/v2/\": http: server gave HTTP response to HTTPS client",
                ErrorKind::Incompatible,
            ),
            (
                "Get \"https://10.0.0.1:5000/v2/\": x509: certificate signed by unknown authority",
                ErrorKind::Incompatible,
            ),
            (
                "no matching manifest for linux/arm64/v8 in the manifest list entries",
                ErrorKind::Incompatible,
            ),
            (
                "toomanyrequests: You have reached your pull rate limit",
                ErrorKind::Unavailable,
            ),
            (
                "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
                ErrorKind::Exhausted,
            ),
            (
                "invalid reference format: repository name must be lowercase",
                ErrorKind::InvalidInput,
            ),
            // with containerd's store
            (
                "failed to resolve reference \"registry.example/web:1\": registry.example/web:1: not found",
                ErrorKind::NotFound,
            ),
            (
                "failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized",
                ErrorKind::Unauthenticated,
            ),
            ("error from registry: denied", ErrorKind::PermissionDenied),
            // Podman
            (
                "initializing source docker://127.0.0.1:5000/web:2: reading manifest 2 in 127.0.0.1:5000/web: manifest unknown",
                ErrorKind::NotFound,
            ),
            (
                "initializing source docker://127.0.0.1:5000/web:1: unable to retrieve auth token: invalid username/password: unauthorized: authentication required",
                ErrorKind::Unauthenticated,
            ),
            (
                "initializing source docker://127.0.0.1:1/web:1: pinging container registry 127.0.0.1:1: Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                ErrorKind::Unavailable,
            ),
            ("something else", ErrorKind::Unavailable),
        ] {
            let error = refusal(&PullRequest::new("web:1"), words);
            assert_eq!(error.kind(), kind, "{words}");
            assert!(error.hint().is_some(), "{words}");
            let source = error.source().unwrap().to_string();
            assert!(source.contains(words), "{source}");
        }
    }

    #[test]
    fn a_hint_names_the_registry_and_the_way_in() {
        let request = PullRequest::new("127.0.0.1:5000/web:1");
        let words = "unauthorized: authentication required";
        let error = refusal(&request, words);
        assert!(
            error
                .hint()
                .unwrap()
                .contains("docker login 127.0.0.1:5000")
        );
        assert!(error.to_string().contains("wants to know"), "{error}");
        let known = request.credentials(Some(RegistryCredentials::password("jane", "Pears")));
        let error = refusal(&known, words);
        assert!(error.to_string().contains("does not take"), "{error}");
        assert!(!format!("{error:?}").contains("Pears"));
    }

    #[test]
    fn an_image_s_own_name_means_nothing() {
        let words = |image: &str| format!("manifest for {image} not found");
        for image in [
            "team/denied:1",
            "127.0.0.1:5000/unauthorized",
            "denied@sha256:00",
        ] {
            let error = refusal(&PullRequest::new(image), &words(image));
            assert_eq!(error.kind(), ErrorKind::NotFound, "{image}");
        }
    }

    #[test]
    fn words_that_are_none_are_told_as_such() {
        assert_eq!(said(" \n"), "the engine does not say why");
        assert_eq!(said("no\n such thing."), "the engine says: no such thing");
    }
}
