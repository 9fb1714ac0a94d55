//! What two processes say to each other first, before they know whether they are of one run.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What both ends of a connection send first, before anything whose layout may change.
const MAGIC: &[u8; 8] = b"fissfuse";

/// Of what follows.
const PROTOCOL: u32 = 1;

/// No greeting is longer, in bytes.
const LONGEST: u32 = 64 << 10;

/// How long whoever calls or is called may take to answer and to greet.
pub const GREETING: Duration = Duration::from_secs(10);

/// How a process introduces itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Which it is, of how many.
    pub rank: usize,
    pub size: usize,
    /// Where it runs, in words.
    pub place: String,
    /// Where it listens for ranks above it.
    pub port: u16,
    /// Version and commit of the program.
    pub program: String,
    /// Which job of the launcher it is of, where that says so.
    pub job: Option<String>,
    /// Said by rank 0 to those whom it sends to each other.
    pub session: Option<u64>,
}

/// Introduces this process to one that was called, and gives how that introduces itself.
pub fn greet(stream: &TcpStream, hello: &Hello) -> io::Result<Hello> {
    prepare(stream)?;
    send_greeting(stream, hello)?;
    let greeting = read_greeting(stream, || Ok(()));
    greeting.map_err(|e| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => io::Error::other("it does not greet"),
        ErrorKind::UnexpectedEof => io::Error::other("it hung up"),
        _ => e,
    })
}

/// Nobody waits longer than a greeting may take.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(GREETING))?;
    stream.set_write_timeout(Some(GREETING))
}

/// Introduces this process.
pub fn send_greeting(mut stream: &TcpStream, hello: &Hello) -> io::Result<()> {
    let hello = serde_json::to_vec(hello)?;
    let head = [&MAGIC[..], &PROTOCOL.to_le_bytes(), &(hello.len() as u32).to_le_bytes()].concat();
    stream.write_all(&[&head[..], &hello].concat())
}

/// Reads how the other end introduces itself; does `then` as soon as it is known to be this program, of whatever version.
pub fn read_greeting(mut stream: &TcpStream, then: impl FnOnce() -> io::Result<()>) -> io::Result<Hello> {
    let (mut head, mut length) = ([0; 12], [0; 4]);
    stream.read_exact(&mut head)?;
    if head[..8] == MAGIC[..] {
        then()?;
    }
    same_protocol(&head)?;
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(io::Error::other(format!("its greeting has {length} bytes")));
    }
    let mut hello = vec![0; length as usize];
    stream.read_exact(&mut hello)?;
    Ok(serde_json::from_slice(&hello)?)
}

/// Whether these twelve bytes greet as this program does.
fn same_protocol(greeting: &[u8; 12]) -> io::Result<()> {
    let version = u32::from_le_bytes(std::array::from_fn(|i| greeting[8 + i]));
    match (greeting[..8] == MAGIC[..], version == PROTOCOL) {
        (false, _) => Err(io::Error::other("it speaks something else")),
        (_, false) => Err(io::Error::new(
            ErrorKind::Unsupported,
            format!("it is another version of this program, which speaks protocol {version} and not {PROTOCOL}"),
        )),
        _ => Ok(()),
    }
}
