//! Ways to the other ranks: whole messages, in order, by TCP or within the process.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fate::Fate;
use crate::error::{Error, Result};

/// A rank that sends nothing, not even a sign of life, for so many seconds in a row is lost.
pub const SILENCE: u32 = 10;

/// No message is longer, in bytes: what claims to be is none of ours.
const LONGEST: u64 = 1 << 36;

/// Bytes before a message's content: kind, number, length.
const HEAD: usize = 17;

/// Who another rank is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its number.
    pub rank: usize,
    /// Where it runs, in words.
    pub place: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "rank {} ({})", self.rank, self.place)
    }
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Part of what all ranks do together, whose number it bears.
    Data = 1,
    /// A sign of life.
    Beat = 2,
    /// The sender failed; says why.
    Stop = 3,
    /// The sender is done, and says nothing more.
    Leave = 4,
}

/// A message of a peer.
#[derive(Debug)]
pub struct Message {
    /// What for.
    pub kind: Kind,
    /// Of the common work that it belongs to.
    pub number: u64,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The way to a peer and from it.
pub struct Link {
    /// Who is at its other end.
    pub peer: Peer,
    outgoing: Outgoing,
    inbox: Mutex<Receiver<Message>>,
}

enum Outgoing {
    Tcp(Arc<Mutex<TcpStream>>),
    Within(Sender<Message>),
}

impl Link {
    /// Over a connection whose other end is this peer. A thread reads from it as long as it is open, so that nobody waits for
    /// this rank to listen; what ends it becomes the fate of the group.
    pub fn tcp(peer: Peer, stream: TcpStream, fate: Arc<Fate>) -> Result<Link> {
        let failed = |e: io::Error| Error::Rank(format!("{peer}: cannot use its connection: {e}"));
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_nonblocking(false).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).map_err(failed)?;
        stream.set_write_timeout(Some(Duration::from_secs(SILENCE as u64))).map_err(failed)?;
        let mut reading = Reading { stream: stream.try_clone().map_err(failed)? };
        let (post, inbox) = channel();
        let from = peer.clone();
        let listen = move || reading.listen(&from, &post, &fate);
        thread::Builder::new().name(format!("rank {}", peer.rank)).spawn(listen).map_err(failed)?;
        Ok(Link { peer, outgoing: Outgoing::Tcp(Arc::new(Mutex::new(stream))), inbox: Mutex::new(inbox) })
    }

    /// Both ends of a link between two ranks of this process.
    pub fn within(one: Peer, other: Peer) -> [Link; 2] {
        let ((to_one, of_one), (to_other, of_other)) = (channel(), channel());
        let link = |peer, post, inbox| Link { peer, outgoing: Outgoing::Within(post), inbox: Mutex::new(inbox) };
        // The first is the one's, to the other.
        [link(other, to_other, of_one), link(one, to_one, of_other)]
    }

    /// Whether it leaves the process.
    pub fn is_tcp(&self) -> bool {
        matches!(self.outgoing, Outgoing::Tcp(_))
    }

    /// Sends a message, once the peer's system has room for it.
    pub fn send(&self, kind: Kind, number: u64, bytes: &[u8]) -> io::Result<()> {
        match &self.outgoing {
            Outgoing::Tcp(stream) => {
                write_message(&mut *stream.lock().unwrap_or_else(PoisonError::into_inner), kind, number, bytes)
            }
            Outgoing::Within(post) => {
                let gone = |_| io::Error::from(ErrorKind::BrokenPipe);
                post.send(Message { kind, number, bytes: bytes.to_vec() }).map_err(gone)
            }
        }
    }

    /// Sends a sign of life, unless something is being sent, which is one itself.
    pub fn beat(&self) {
        if let Outgoing::Tcp(stream) = &self.outgoing
            && let Ok(mut stream) = stream.try_lock()
        {
            // Who reads from the connection notices when it is broken.
            let _ = write_message(&mut *stream, Kind::Beat, 0, &[]);
        }
    }

    /// The next message, or `None` if none came for so long.
    pub fn receive(&self, patience: Duration) -> Option<Message> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(patience).ok()
    }

    /// Sends nothing more.
    pub fn close(&self) {
        if let Outgoing::Tcp(stream) = &self.outgoing {
            let _ = stream.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Write);
        }
    }
}

/// Writes a message to a connection.
pub fn write_message(to: &mut impl Write, kind: Kind, number: u64, bytes: &[u8]) -> io::Result<()> {
    let mut head = [0; HEAD];
    head[0] = kind as u8;
    head[1..9].copy_from_slice(&number.to_le_bytes());
    head[9..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    to.write_all(&head)?;
    to.write_all(bytes)
}

/// The end of a connection that is read from.
struct Reading {
    stream: TcpStream,
}

impl Reading {
    /// Passes messages on until the peer leaves or is lost.
    fn listen(&mut self, peer: &Peer, post: &Sender<Message>, fate: &Fate) {
        loop {
            match self.message() {
                Ok(Message { kind: Kind::Beat, .. }) => {}
                Ok(Message { kind: Kind::Stop, bytes, .. }) => {
                    return fate.end(String::from_utf8_lossy(&bytes).into_owned());
                }
                Ok(message) => {
                    let leaves = message.kind == Kind::Leave;
                    // Nobody listens any more where the group is gone.
                    if post.send(message).is_err() || leaves {
                        return;
                    }
                }
                Err(why) => return fate.end(format!("{peer} was lost: {why}")),
            }
        }
    }

    fn message(&mut self) -> Result<Message, String> {
        let mut head = [0; HEAD];
        self.fill(&mut head)?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let kind = match head[0] {
            1 => Kind::Data,
            2 => Kind::Beat,
            3 => Kind::Stop,
            4 => Kind::Leave,
            _ => return Err("it sent what is no message".into()),
        };
        let (number, length) = (word(1), word(9));
        if length > LONGEST {
            return Err(format!("it sent a message of {length} bytes"));
        }
        // Grown as it comes: what was announced may never be sent.
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            let (start, step) = (bytes.len(), (length - bytes.len() as u64).min(16 << 20) as usize);
            bytes.resize(start + step, 0);
            self.fill(&mut bytes[start..])?;
        }
        Ok(Message { kind, number, bytes })
    }

    /// Reads so many bytes. Counts seconds in which this process ran: one that was stopped must not take others for lost.
    fn fill(&mut self, mut bytes: &mut [u8]) -> Result<(), String> {
        let mut silent = 0;
        while !bytes.is_empty() {
            match self.stream.read(bytes) {
                Ok(0) => return Err("its connection was closed".into()),
                Ok(read) => {
                    bytes = &mut bytes[read..];
                    silent = 0;
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    silent += 1;
                    if silent >= SILENCE {
                        return Err(format!("it gave no sign of life for {SILENCE} s"));
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(())
    }
}
