//! How processes that train together find each other: all call on rank 0, which tells them of the others.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::fate::Fate;
use super::greeting::{GREETING, Hello, greet, prepare, read_greeting, send_greeting};
use super::group::Group;
use super::link::{Kind, Link, Peer, write_message};
use crate::error::{Error, Result};
use crate::interrupt;

/// How long to wait before looking again.
const TICK: Duration = Duration::from_millis(20);

/// Where and as what a process meets the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// This process.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Where rank 0 listens: host and port.
    pub master: (String, u16),
    /// Which job of the launcher this is, where it says so.
    pub job: Option<String>,
    /// How long to wait for the others, here and whenever something is done together.
    pub deadline: Duration,
}

/// What rank 0 tells when all are there: who is where, and that they belong together.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Introduction {
    session: u64,
    ranks: Vec<(Peer, SocketAddr)>,
}

impl Meeting {
    /// Meets all others. Fails on all ranks if one has another version, another number of ranks or the rank of another, or
    /// does not come in time.
    pub fn meet(&self) -> Result<Group> {
        let fate = Arc::new(Fate::default());
        match self.rank {
            0 => self.receive_all(fate),
            _ => self.call_on_all(fate),
        }
    }

    fn at(&self) -> String {
        format!("{}:{}", self.master.0, self.master.1)
    }

    fn me(&self) -> Peer {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Peer { rank: self.rank, place: format!("host {host}, process {}", std::process::id()) }
    }

    fn hello(&self, port: u16, session: Option<u64>) -> Hello {
        let program = format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("FISSFUSE_COMMIT"));
        let (place, job) = (self.me().place, self.job.clone());
        Hello { rank: self.rank, size: self.size, place, port, program, job, session }
    }

    fn address(&self) -> Result<SocketAddr> {
        let (host, port) = &self.master;
        let found = (host.as_str(), *port).to_socket_addrs();
        let refuse = |e: String| Error::Rank(format!("rank 0 is to be at {}, which is no address: {e}", self.at()));
        found.map_err(|e| refuse(e.to_string()))?.next().ok_or_else(|| refuse("the name has none".into()))
    }

    /// Rank 0: waits for all others to call.
    fn receive_all(&self, fate: Arc<Fate>) -> Result<Group> {
        let address = self.address()?;
        // Others may call at another of this host's addresses.
        let here = if address.ip().is_loopback() { address } else { any(address) };
        let callers = Callers::at(here, |port| self.hello(port, None));
        let callers = callers.map_err(|e| {
            Error::Rank(match e.kind() {
                ErrorKind::AddrInUse => format!(
                    "rank 0 cannot listen at {}: another program does, perhaps another training; take another port for --master \
                     (or MASTER_PORT)",
                    self.at()
                ),
                _ => format!("rank 0 cannot listen at {}: {e}", self.at()),
            })
        })?;
        let mut links: Vec<Option<Link>> = (0..self.size).map(|_| None).collect();
        let told = self.receive_from(&callers, address, &mut links, &fate);
        if let Err(error) = &told {
            let why = fate.reason().unwrap_or_else(|| error.to_string());
            links.iter().flatten().for_each(|link| drop(link.send(Kind::Stop, 0, why.as_bytes())));
        }
        told.and_then(|()| Group::new(self.me(), links, fate, self.deadline))
    }

    fn receive_from(
        &self,
        callers: &Callers,
        address: SocketAddr,
        links: &mut Vec<Option<Link>>,
        fate: &Arc<Fate>,
    ) -> Result<()> {
        let mine = self.hello(address.port(), None);
        let mut ranks = vec![(self.me(), address)];
        let all = self.until(links, fate, |links| {
            let Some((stream, hello)) = callers.next()? else { return Ok(missing(links, 1).is_empty()) };
            let peer = Peer { rank: hello.rank, place: hello.place.clone() };
            if let Some(why) = unfit(&mine, &hello, links) {
                let why = format!("the ranks are not of one run: {peer} {why}");
                let _ = write_message(&mut &stream, Kind::Stop, 0, why.as_bytes());
                return Err(Error::Rank(why));
            }
            let from = stream.peer_addr().map_err(|e| Error::Rank(format!("{peer} was lost: {e}")))?;
            ranks.push((peer.clone(), SocketAddr::new(from.ip(), hello.port)));
            links[hello.rank] = Some(Link::tcp(peer, stream, fate.clone())?);
            Ok(missing(links, 1).is_empty())
        })?;
        if !all {
            return Err(Error::Rank(format!(
                "of {} ranks these did not come to {} within {} s (--deadline): {}",
                self.size,
                self.at(),
                self.deadline.as_secs(),
                missing(links, 1)
            )));
        }
        let began = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let session = xxh3_64(format!("{began} {}", std::process::id()).as_bytes());
        let introduction = serde_json::to_vec(&Introduction { session, ranks }).unwrap_or_default();
        links.iter().flatten().try_for_each(|link| {
            let sent = link.send(Kind::Data, 0, &introduction);
            sent.map_err(|e| Error::Rank(format!("{} was lost: {e}", link.peer)))
        })
    }

    /// Another rank: calls on rank 0, then on those between, and waits for those above.
    fn call_on_all(&self, fate: Arc<Fate>) -> Result<Group> {
        let (address, seconds) = (self.address()?, self.deadline.as_secs());
        let here = if address.ip().is_loopback() { SocketAddr::new(address.ip(), 0) } else { any(address) };
        let callers = Callers::at(SocketAddr::new(here.ip(), 0), |port| self.hello(port, None));
        let callers = callers.map_err(|e| Error::Rank(format!("rank {} cannot listen: {e}", self.rank)))?;
        let mut links: Vec<Option<Link>> = (0..self.size).map(|_| None).collect();
        let (mut called, mut last) = (None, String::new());
        self.until(&mut links, &fate, |_| {
            match TcpStream::connect_timeout(&address, GREETING) {
                Ok(stream) => called = Some(stream),
                Err(e) => last = e.to_string(),
            }
            Ok(called.is_some())
        })?;
        let stream = called.ok_or_else(|| {
            Error::Rank(format!(
                "rank {} did not reach rank 0 at {} within {seconds} s (--deadline): {last}; is rank 0 started, and is that \
                 its address?",
                self.rank,
                self.at()
            ))
        })?;
        let stranger =
            |e| Error::Rank(format!("what listens at {} is not rank 0 of a training of this program: {e}", self.at()));
        let Hello { rank, place, .. } = greet(&stream, &self.hello(callers.port, None)).map_err(stranger)?;
        if rank != 0 {
            return Err(stranger(io::Error::other(format!("it is rank {rank}"))));
        }
        links[0] = Some(Link::tcp(Peer { rank, place }, stream, fate.clone())?);
        let mut introduction = None;
        self.until(&mut links, &fate, |links| {
            introduction = links[0].as_ref().and_then(|leader| leader.receive(TICK));
            Ok(introduction.is_some())
        })?;
        let introduction = introduction.ok_or_else(|| {
            Error::Rank(format!("rank 0 did not begin within {seconds} s (--deadline): it waits for other ranks"))
        })?;
        let Introduction { session, ranks } = serde_json::from_slice(&introduction.bytes)
            .map_err(|e| Error::Rank(format!("rank 0 sent no introduction: {e}")))?;
        for (peer, at) in &ranks {
            if (1..self.rank).contains(&peer.rank) {
                let lost = |e: io::Error| Error::Rank(format!("{peer} cannot be reached at {at}: {e}"));
                let stream = TcpStream::connect_timeout(at, GREETING).map_err(lost)?;
                greet(&stream, &self.hello(callers.port, Some(session))).map_err(lost)?;
                links[peer.rank] = Some(Link::tcp(peer.clone(), stream, fate.clone())?);
            }
        }
        let above = self.until(&mut links, &fate, |links| {
            let Some((stream, hello)) = callers.next()? else { return Ok(missing(links, self.rank + 1).is_empty()) };
            let known = ranks.iter().find(|(peer, _)| peer.rank == hello.rank && hello.rank > self.rank);
            if let Some((peer, _)) = known.filter(|_| hello.session == Some(session)) {
                links[hello.rank] = Some(Link::tcp(peer.clone(), stream, fate.clone())?);
            }
            Ok(missing(links, self.rank + 1).is_empty())
        })?;
        if !above {
            let missing = missing(&links, self.rank + 1);
            return Err(Error::Rank(format!("rank {}: these did not come within {seconds} s: {missing}", self.rank)));
        }
        Group::new(self.me(), links, fate, self.deadline)
    }

    /// Does `step` until it says that all is done, or until the deadline; whether it is done. Those who are there already get
    /// signs of life.
    fn until(
        &self,
        links: &mut Vec<Option<Link>>,
        fate: &Fate,
        mut step: impl FnMut(&mut Vec<Option<Link>>) -> Result<bool>,
    ) -> Result<bool> {
        let start = Instant::now();
        for tick in 0.. {
            if step(links)? {
                return Ok(true);
            }
            fate.check()?;
            interrupt::check(|| "nothing was begun".into())?;
            if start.elapsed() > self.deadline {
                break;
            }
            if tick % 25 == 0 {
                links.iter().flatten().for_each(Link::beat);
            }
            thread::sleep(TICK);
        }
        Ok(false)
    }
}

/// Every address of a host, at the same port.
fn any(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => SocketAddr::from(([0u8; 4], address.port())),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], address.port())),
    }
}

/// The ranks from `first` on that are not there, in words.
fn missing(links: &[Option<Link>], first: usize) -> String {
    let missing = links.iter().enumerate().skip(first).filter(|(_, link)| link.is_none());
    missing.map(|(rank, _)| rank.to_string()).collect::<Vec<_>>().join(", ")
}

/// Why whoever says this cannot be one of those that rank 0 waits for.
fn unfit(mine: &Hello, hello: &Hello, links: &[Option<Link>]) -> Option<String> {
    if hello.program != mine.program {
        return Some(format!("is version {} of the program, rank 0 is {}", hello.program, mine.program));
    }
    if hello.size != mine.size {
        return Some(format!("was told of {} ranks, rank 0 of {}", hello.size, mine.size));
    }
    if hello.job != mine.job {
        let job = |job: &Option<String>| job.clone().unwrap_or_else(|| "none".into());
        return Some(format!("is of the launcher's job {}, rank 0 of {}", job(&hello.job), job(&mine.job)));
    }
    match links.get(hello.rank) {
        _ if hello.rank == 0 => Some("says that it is rank 0, as this one does".into()),
        None => Some(format!("is beyond the {} that there are", mine.size)),
        Some(Some(other)) => Some(format!("came after another that says so, {}", other.peer.place)),
        Some(None) => None,
    }
}

/// Whoever calls at an address, as they come.
struct Callers {
    port: u16,
    came: Receiver<Result<(TcpStream, Hello)>>,
    over: Arc<AtomicBool>,
}

impl Callers {
    /// Listens there, and answers with what `hello` makes of the port.
    fn at(address: SocketAddr, hello: impl FnOnce(u16) -> Hello) -> io::Result<Callers> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let (port, (post, came)) = (listener.local_addr()?.port(), channel());
        let (over, hello) = (Arc::new(AtomicBool::new(false)), Arc::new(hello(port)));
        let ended = over.clone();
        thread::Builder::new().name("callers".into()).spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, from)) => answer_aside(stream, from, hello.clone(), post.clone()),
                    Err(_) => thread::sleep(TICK),
                }
            }
        })?;
        Ok(Callers { port, came, over })
    }

    /// The next who greeted as this program does. Fails if one is of another version, which belongs here as little as it can
    /// be left out.
    fn next(&self) -> Result<Option<(TcpStream, Hello)>> {
        self.came.try_recv().ok().transpose()
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Answers in a thread: one that calls and says nothing must not keep others waiting.
fn answer_aside(stream: TcpStream, from: SocketAddr, mine: Arc<Hello>, post: Sender<Result<(TcpStream, Hello)>>) {
    // Answered before it is judged, so that one of another version hears which this is.
    let answered = move |stream: &TcpStream| {
        prepare(stream)?;
        read_greeting(stream, || send_greeting(stream, &mine))
    };
    let answer = move || match answered(&stream) {
        // Nobody waits any more where the meeting is over.
        Ok(hello) => drop(post.send(Ok((stream, hello)))),
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            drop(post.send(Err(Error::Rank(format!("the ranks are not of one run: {from}: {e}")))))
        }
        Err(e) => tracing::warn!("a connection from {from} is none of this training's: {e}"),
    };
    if let Err(e) = thread::Builder::new().name("caller".into()).spawn(answer) {
        tracing::warn!("a connection from {from} was not answered: cannot start a thread: {e}");
    }
}
