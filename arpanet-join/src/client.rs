//! The joiner's side.

use std::time::Duration;

use arpanet_core::Result;
use arpanet_core::admission::{ClusterKey, NodeInfo, Password, Seed};
use arpanet_core::roster::{ClusterId, Roster};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error::{self, Fault};
use crate::request::{Request, SOFTWARE, SignedIdentity, VERDICT, Verdict};
use crate::session::{Keys, Side, Transcript, start_pake};
use crate::wire::{
    Answer, CLEAR_FRAME, Confirmation, Hello, Offer, PROTOCOL, Proof, decode, encode, preamble,
    read_frame, read_preamble, write_frame,
};
use crate::{JoinConfig, NodeIdentity, Verifier, verifier};

/// What a node asks a seed for.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) password: &'a Password,
    pub(crate) me: &'a NodeInfo,
    pub(crate) identity: &'a NodeIdentity,
    pub(crate) udp_port: u16,
    pub(crate) replace: bool,
    /// Gives the admission back instead of asking for it.
    pub(crate) withdraw: bool,
    pub(crate) seed: Seed,
}

/// What the seed gives.
pub(crate) struct Given {
    pub(crate) cluster: ClusterId,
    pub(crate) key: ClusterKey,
    pub(crate) roster: Roster,
    pub(crate) verifier: Verifier,
}

/// How an attempt ended that did not fail.
enum Attempt {
    Admitted(Box<Given>),
    /// Whether the seed has heard this node over discovery.
    Withdrawn(bool),
    /// Others are joining: ask again soon.
    Busy,
}

/// Asks until admitted or refused, or until the time is over.
pub(crate) async fn join(config: &JoinConfig, asking: &Asking<'_>) -> Result<Given> {
    match ask(config, asking).await? {
        Attempt::Admitted(given) => Ok(*given),
        Attempt::Withdrawn(_) | Attempt::Busy => Err(error::silent(asking.seed, config.timeout)),
    }
}

/// Gives an admission back; whether the seed has heard this node over discovery.
pub(crate) async fn withdraw(config: &JoinConfig, asking: &Asking<'_>) -> Result<bool> {
    match ask(config, asking).await? {
        Attempt::Withdrawn(heard) => Ok(heard),
        Attempt::Admitted(_) | Attempt::Busy => Err(error::silent(asking.seed, config.timeout)),
    }
}

async fn ask(config: &JoinConfig, asking: &Asking<'_>) -> Result<Attempt> {
    let seed = asking.seed;
    let deadline = Instant::now() + config.timeout;
    let silent = || error::silent(seed, config.timeout);
    loop {
        let connect = TcpStream::connect(seed.endpoint);
        let mut stream = timeout_at(deadline, timeout(config.connect_timeout, connect))
            .await
            .and_then(|connected| connected)
            .map_err(|_| error::no_connection(seed, config.connect_timeout))?
            .map_err(|source| error::connect(seed, source))?;
        // Every message here waits for the answer to the one before it.
        let _ = stream.set_nodelay(true);
        let attempt = timeout_at(deadline, converse(&mut stream, asking))
            .await
            .map_err(|_| silent())?
            .map_err(|fault| error::conversation(seed, fault))?;
        match attempt {
            Attempt::Busy => {
                let pause = Duration::from_millis(rand::random_range(50..200));
                timeout_at(deadline, sleep(pause))
                    .await
                    .map_err(|_| silent())?;
            }
            done => return Ok(done),
        }
    }
}

async fn converse(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    asking: &Asking<'_>,
) -> Result<Attempt, Fault> {
    let seed = asking.seed;
    let mut transcript = Transcript::default();

    let mine = preamble(PROTOCOL);
    stream.write_all(&mine).await?;
    let theirs = read_preamble(stream).await?;
    if !PROTOCOL.fits(theirs) {
        return Err(Fault::Version(theirs));
    }
    transcript.add(&mine);
    transcript.add(&preamble(theirs));

    let hello = encode(&Hello {
        me: asking.me.node,
        seed: seed.node,
    })?;
    write_frame(stream, &hello).await?;
    transcript.add(&hello);
    let answer = read_frame(stream, CLEAR_FRAME).await?;
    transcript.add(&answer);
    let offer: Offer = match decode(&answer)? {
        Answer::Offer(offer) if offer.node == seed.node => offer,
        Answer::Offer(Offer { node, .. }) | Answer::AnotherNode { node } => {
            return Err(error::another_node(seed, node));
        }
        Answer::AdmitsNobody { node, .. } if node != seed.node => {
            return Err(error::another_node(seed, node));
        }
        Answer::AdmitsNobody { servers, .. } => return Err(error::admits_nobody(seed, &servers)),
        Answer::TooManyGuesses { retry_after_ms } => {
            let wait = Duration::from_millis(retry_after_ms);
            return Err(error::too_many_guesses(seed, wait));
        }
        Answer::Busy => return Ok(Attempt::Busy),
    };

    let verifier = verifier::hash(asking.password, offer.kdf, Some(offer.salt))
        .await
        .map_err(|source| error::absurd_kdf(seed, source))?;
    let (pake, message) = start_pake(Side::Joiner, verifier.hash(), asking.me.node, seed.node);
    transcript.add(&message);
    let keys = Keys::agree(pake, &offer.pake, transcript)?;
    let proof = Proof {
        pake: message,
        confirm: *keys.confirmation(Side::Joiner),
    };
    write_frame(stream, &encode(&proof)?).await?;
    let confirm = match decode(&read_frame(stream, CLEAR_FRAME).await?)? {
        Confirmation::Right { confirm } => confirm,
        Confirmation::Wrong => return Err(Fault::WrongPassword),
    };
    if !bool::from(confirm.ct_eq(keys.confirmation(Side::Seed).as_ref())) {
        return Err(error::impostor(seed));
    }

    let mut channel = keys.channel(Side::Joiner);
    let request = Request {
        info: asking.me.clone(),
        identity: SignedIdentity::new(asking.identity, Side::Joiner, &keys),
        udp_port: asking.udp_port,
        replace: asking.replace,
        withdraw: asking.withdraw,
        software: SOFTWARE.to_owned(),
    };
    channel.send(stream, &encode(&request)?).await?;
    let verdict: Verdict = decode(&channel.receive(stream, VERDICT).await?)?;
    if asking.withdraw {
        return verdict.into_withdrawn().map(Attempt::Withdrawn);
    }
    let admitted = verdict.into_admitted()?;

    let seeds = admitted.identity.check(Side::Seed, &keys);
    let holder = |node| admitted.roster.holder(node).map(|entry| entry.identity);
    if seeds.is_none() || holder(seed.node) != seeds {
        return Err(error::unsound(
            seed,
            "did not prove to be who the roster says it is",
        ));
    }
    if holder(asking.me.node) != Some(asking.identity.public()) {
        return Err(error::unsound(
            seed,
            "its roster names another holder of the address",
        ));
    }
    Ok(Attempt::Admitted(Box::new(Given {
        cluster: offer.cluster,
        key: admitted.key,
        roster: admitted.roster,
        verifier,
    })))
}
