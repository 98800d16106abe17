//! What is said under the seal: the joiner's request and the seed's verdict.

use arpanet_core::admission::{ClusterKey, NodeInfo};
use arpanet_core::roster::{Identity, Roster};
use arpanet_core::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::error::{Fault, kind_name, kind_named};
use crate::identity::{NodeIdentity, verify};
use crate::session::{Keys, Side};

/// The most bytes of a request.
pub(crate) const REQUEST: usize = 16 * 1024;
/// The most bytes of a verdict: a roster of all 65,534 nodes, each of 300 bytes, fits.
pub(crate) const VERDICT: usize = 32 * 1024 * 1024;

/// This release, as both sides tell each other.
pub(crate) const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) info: NodeInfo,
    pub(crate) identity: SignedIdentity,
    /// The port of the joiner's tunnel; its ip is what the seed sees.
    pub(crate) udp_port: u16,
    pub(crate) replace: bool,
    /// Gives the admission back instead of asking for it.
    #[serde(default)]
    pub(crate) withdraw: bool,
    pub(crate) software: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Admitted(Box<Admitted>),
    Withdrawn {
        /// Whether the node was heard over discovery.
        heard: bool,
    },
    Refused {
        kind: String,
        message: String,
        hint: Option<String>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Admitted {
    pub(crate) key: ClusterKey,
    pub(crate) roster: Roster,
    pub(crate) identity: SignedIdentity,
}

impl Verdict {
    pub(crate) fn refused(error: &Error) -> Self {
        Self::Refused {
            kind: kind_name(error.kind()).to_owned(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    }

    /// The answer to a withdrawal: whether the node was heard.
    pub(crate) fn into_withdrawn(self) -> Result<bool, Fault> {
        match self {
            Self::Withdrawn { heard } => Ok(heard),
            other => Err(other.into_fault()),
        }
    }

    pub(crate) fn into_admitted(self) -> Result<Admitted, Fault> {
        match self {
            Self::Admitted(admitted) => Ok(*admitted),
            other => Err(other.into_fault()),
        }
    }

    fn into_fault(self) -> Fault {
        match self {
            Self::Refused {
                kind,
                message,
                hint,
            } => {
                let error = Error::new(kind_named(&kind), message);
                Fault::Told(match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                })
            }
            Self::Admitted(_) | Self::Withdrawn { .. } => Fault::Told(Error::new(
                ErrorKind::Incompatible,
                "the seed answered what it was not asked",
            )),
        }
    }
}

/// An identity with the proof that its owner is in this very conversation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SignedIdentity {
    identity: Identity,
    signature: Vec<u8>,
}

impl SignedIdentity {
    pub(crate) fn new(identity: &NodeIdentity, side: Side, keys: &Keys) -> Self {
        Self {
            identity: identity.public(),
            signature: identity.sign(purpose(side), keys.transcript()).to_vec(),
        }
    }

    /// The identity, if its owner signed.
    pub(crate) fn check(&self, side: Side, keys: &Keys) -> Option<Identity> {
        let signature = self.signature.as_slice().try_into().ok()?;
        verify(&self.identity, purpose(side), keys.transcript(), signature).then_some(self.identity)
    }
}

const fn purpose(side: Side) -> &'static str {
    match side {
        Side::Joiner => "arpanet2 join: joiner",
        Side::Seed => "arpanet2 join: seed",
    }
}

/// Another major release is refused; the protocol's own version is checked before that.
pub(crate) fn check_software(theirs: &str) -> Result<(), Error> {
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    if major(theirs) == major(SOFTWARE) {
        return Ok(());
    }
    let theirs: String = theirs
        .chars()
        .filter(char::is_ascii_graphic)
        .take(20)
        .collect();
    Err(Error::new(
        ErrorKind::Incompatible,
        format!("the cluster runs arpanet2 {SOFTWARE}, and this node {theirs}"),
    )
    .with_hint("bring both to the same release of arpanet2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_crosses_the_wire_with_kind_and_hint() {
        let error = Error::new(ErrorKind::AlreadyExists, "0.2 is taken by node two")
            .with_hint("take another");
        let wire = serde_json::to_vec(&Verdict::refused(&error)).unwrap();
        let verdict: Verdict = serde_json::from_slice(&wire).unwrap();
        let Err(Fault::Told(told)) = verdict.into_admitted() else {
            panic!("admitted");
        };
        assert_eq!(told.kind(), ErrorKind::AlreadyExists);
        assert_eq!(told.to_string(), error.to_string());
        assert_eq!(told.hint(), error.hint());
    }

    #[test]
    fn another_major_release_is_refused() {
        assert!(check_software(SOFTWARE).is_ok());
        assert!(check_software("0.99.0").is_ok());
        assert_eq!(
            check_software("99.0.0").unwrap_err().kind(),
            ErrorKind::Incompatible
        );
    }
}
