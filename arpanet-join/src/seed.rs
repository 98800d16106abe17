//! The seed's side.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arpanet_core::admission::{Gatekeeper, Membership};
use arpanet_core::roster::RosterEntry;
use arpanet_core::{Error, ErrorKind, NodeAddr};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::Fault;
use crate::limit::{GuessLimiter, Wait};
use crate::request::{Admitted, REQUEST, Request, SignedIdentity, Verdict, check_software};
use crate::session::{Channel, Keys, Side, Transcript, start_pake};
use crate::wire::{
    Answer, CLEAR_FRAME, Confirmation, Hello, Offer, PROTOCOL, Proof, decode, encode, preamble,
    read_frame, read_preamble, write_frame,
};
use crate::{NodeIdentity, Verifier};

/// Conversations at once, and those of one address.
const CONVERSATIONS: usize = 128;
const PER_ADDRESS: usize = 32;
/// How long a conversation may take before the gatekeeper is asked, and again after it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many servers a client names.
const NAMED_SERVERS: usize = 3;

/// What this node serves with.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) membership: Membership,
    pub(crate) verifier: Option<Verifier>,
    pub(crate) gatekeeper: Arc<dyn Gatekeeper>,
}

impl Post {
    fn node(&self) -> NodeAddr {
        self.membership.me.node
    }

    fn servers(&self) -> Vec<(NodeAddr, SocketAddr)> {
        self.membership
            .roster
            .holders()
            .filter(|entry| entry.role.admits())
            .filter_map(|entry| Some((entry.node, entry.endpoint?)))
            .take(NAMED_SERVERS)
            .collect()
    }
}

/// What all conversations share.
#[derive(Debug)]
pub(crate) struct Hall {
    identity: NodeIdentity,
    post: Mutex<Arc<Post>>,
    limiter: Arc<Mutex<GuessLimiter>>,
    crowd: Mutex<HashMap<IpAddr, usize>>,
}

impl Hall {
    pub(crate) fn new(
        identity: NodeIdentity,
        post: Post,
        limiter: Arc<Mutex<GuessLimiter>>,
    ) -> Self {
        Self {
            identity,
            post: Mutex::new(Arc::new(post)),
            limiter,
            crowd: Mutex::default(),
        }
    }

    /// From now on with these.
    pub(crate) fn replace(&self, post: Post) {
        *lock(&self.post) = Arc::new(post);
    }

    /// Answers applicants until it is aborted; all conversations end with it.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener) {
        let seats = Arc::new(Semaphore::new(CONVERSATIONS));
        let mut conversations = JoinSet::new();
        loop {
            // With no seat left, applicants wait in the kernel's queue.
            let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(place) = Place::take(&self, peer.ip()) else {
                        continue;
                    };
                    let hall = Arc::clone(&self);
                    conversations.spawn(async move {
                        let _held = (seat, place);
                        hall.receive(stream, peer).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an applicant could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
            while conversations.try_join_next().is_some() {}
        }
    }

    async fn receive(&self, mut stream: TcpStream, peer: SocketAddr) {
        // Every message here waits for the answer to the one before it.
        let _ = stream.set_nodelay(true);
        match self.converse(&mut stream, peer).await {
            Ok(Some(node)) => tracing::info!(%node, %peer, "admitted"),
            Ok(None) => {}
            Err(fault) => tracing::info!(%peer, reason = %fault, "an applicant was not admitted"),
        }
        farewell(&mut stream).await;
    }

    /// One conversation; the node that was admitted.
    pub(crate) async fn converse(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        peer: SocketAddr,
    ) -> Result<Option<NodeAddr>, Fault> {
        let post = Arc::clone(&lock(&self.post));
        let proving = self.prove(stream, peer.ip(), &post);
        let Some((keys, mut channel, request)) = timeout(PATIENCE, proving)
            .await
            .map_err(|_| Fault::Slow)??
        else {
            return Ok(None);
        };
        let node = (!request.withdraw).then_some(request.info.node);
        let verdict = self.judge(&post, &keys, request, peer).await;
        let refusal = match &verdict {
            Verdict::Admitted(_) | Verdict::Withdrawn { .. } => None,
            Verdict::Refused { message, .. } => Some(message.clone()),
        };
        let verdict = zeroize::Zeroizing::new(encode(&verdict)?);
        timeout(PATIENCE, channel.send(stream, &verdict))
            .await
            .map_err(|_| Fault::Slow)??;
        match refusal {
            None => Ok(node),
            Some(message) => Err(Fault::Told(Error::new(
                ErrorKind::PermissionDenied,
                message,
            ))),
        }
    }

    /// Hears the applicant out, up to its request; `None` when it was told why it will not be heard.
    async fn prove(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        source: IpAddr,
        post: &Post,
    ) -> Result<Option<(Keys, Channel, Request)>, Fault> {
        let mut transcript = Transcript::default();
        let theirs = read_preamble(stream).await?;
        let mine = preamble(PROTOCOL);
        stream.write_all(&mine).await?;
        if !PROTOCOL.fits(theirs) {
            return Err(Fault::Version(theirs));
        }
        transcript.add(&preamble(theirs));
        transcript.add(&mine);

        let hello = read_frame(stream, CLEAR_FRAME).await?;
        transcript.add(&hello);
        let hello: Hello = decode(&hello)?;
        let node = post.node();
        let refuse = async |stream, answer: Answer| write_frame(stream, &encode(&answer)?).await;
        if hello.seed != node {
            refuse(stream, Answer::AnotherNode { node }).await?;
            return Ok(None);
        }
        let Some(verifier) = &post.verifier else {
            let servers = post.servers();
            refuse(stream, Answer::AdmitsNobody { node, servers }).await?;
            return Ok(None);
        };
        let guess = match Guess::begin(&self.limiter, source) {
            Ok(guess) => guess,
            Err(Wait::Busy) => {
                refuse(stream, Answer::Busy).await?;
                return Ok(None);
            }
            Err(Wait::TooMany(wait)) => {
                tracing::warn!(%source, "too many wrong passwords");
                let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                refuse(stream, Answer::TooManyGuesses { retry_after_ms }).await?;
                return Ok(None);
            }
        };

        let (pake, message) = start_pake(Side::Seed, verifier.hash(), hello.me, node);
        let offer = encode(&Answer::Offer(Offer {
            node,
            cluster: post.membership.cluster,
            kdf: verifier.kdf(),
            salt: verifier.salt(),
            pake: message,
        }))?;
        write_frame(stream, &offer).await?;
        transcript.add(&offer);
        let proof: Proof = decode(&read_frame(stream, CLEAR_FRAME).await?)?;
        transcript.add(&proof.pake);
        let agreed = Keys::agree(pake, &proof.pake, transcript);
        let keys = match agreed {
            Ok(keys)
                if proof
                    .confirm
                    .ct_eq(keys.confirmation(Side::Joiner).as_ref())
                    .into() =>
            {
                keys
            }
            _ => {
                guess.was_wrong();
                write_frame(stream, &encode(&Confirmation::Wrong)?).await?;
                return Err(Fault::WrongPassword);
            }
        };
        drop(guess);
        let confirm = *keys.confirmation(Side::Seed);
        write_frame(stream, &encode(&Confirmation::Right { confirm })?).await?;

        let mut channel = keys.channel(Side::Seed);
        let request: Request = decode(&channel.receive(stream, REQUEST).await?)?;
        if request.info.node != hello.me {
            return Err(Fault::Tampered);
        }
        Ok(Some((keys, channel, request)))
    }

    /// Asks the gatekeeper, once the request is sound.
    pub(crate) async fn judge(
        &self,
        post: &Post,
        keys: &Keys,
        request: Request,
        peer: SocketAddr,
    ) -> Verdict {
        if let Err(error) = check_software(&request.software) {
            return Verdict::refused(&error);
        }
        let Some(identity) = request.identity.check(Side::Joiner, keys) else {
            let error = Error::new(
                ErrorKind::Unauthenticated,
                "the node did not prove that its identity is its own",
            );
            return Verdict::refused(&error);
        };
        let info = request.info;
        if request.withdraw {
            return match post.gatekeeper.withdraw(info.node, identity).await {
                Ok(heard) => Verdict::Withdrawn { heard },
                Err(error) => Verdict::refused(&error),
            };
        }
        let seen = SocketAddr::new(peer.ip().to_canonical(), request.udp_port);
        // The cluster's clock is the gatekeeper's: it sets the epoch.
        let entry = RosterEntry::new(info.node, info.name, info.role, identity, 0)
            .at(Some(info.advertise.unwrap_or(seen)));
        match post.gatekeeper.admit(entry, request.replace).await {
            Ok(roster) => Verdict::Admitted(Box::new(Admitted {
                key: post.membership.key.clone(),
                roster,
                identity: SignedIdentity::new(&self.identity, Side::Seed, keys),
            })),
            Err(error) => Verdict::refused(&error),
        }
    }
}

/// Ends the conversation so that the last words arrive: closing with something unread would take them back.
async fn farewell(stream: &mut TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(64 * 1024), &mut tokio::io::sink()).await
    };
    let _ = timeout(Duration::from_secs(1), drained).await;
}

/// One of the places that an address may take.
struct Place {
    hall: Arc<Hall>,
    address: IpAddr,
}

impl Place {
    fn take(hall: &Arc<Hall>, address: IpAddr) -> Option<Self> {
        let mut crowd = lock(&hall.crowd);
        let taken = crowd.entry(address).or_default();
        if *taken >= PER_ADDRESS {
            return None;
        }
        *taken += 1;
        Some(Self {
            hall: Arc::clone(hall),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = lock(&self.hall.crowd);
        if let Some(taken) = crowd.get_mut(&self.address) {
            *taken -= 1;
            if *taken == 0 {
                crowd.remove(&self.address);
            }
        }
    }
}

/// A guess of the password, counted while it is made and, when it was wrong, for a minute after.
struct Guess {
    limiter: Arc<Mutex<GuessLimiter>>,
    source: IpAddr,
    wrong: bool,
}

impl Guess {
    fn begin(limiter: &Arc<Mutex<GuessLimiter>>, source: IpAddr) -> Result<Self, Wait> {
        lock(limiter).begin(source, Instant::now())?;
        Ok(Self {
            limiter: Arc::clone(limiter),
            source,
            wrong: false,
        })
    }

    fn was_wrong(mut self) {
        self.wrong = true;
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        let wrong = self.wrong.then(Instant::now);
        lock(&self.limiter).settle(self.source, wrong);
    }
}

/// No code panics while it holds one of these locks, so a poisoned one is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
