//! The ranks of a run, and what they do together.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fate::Fate;
use super::link::{Kind, Link, Peer};
use crate::error::{Error, Result};

/// How long a rank that waits looks at one inbox before it looks whether the group still is.
const TICK: Duration = Duration::from_millis(20);

/// How long to wait for a reason when a message cannot be sent: the reason may be on its way.
const REASON: Duration = Duration::from_millis(500);

/// Ranks that are connected each with each other. What they do together is done by all in the same order.
pub struct Group {
    me: Peer,
    /// By rank; none to itself.
    links: Arc<Vec<Option<Link>>>,
    fate: Arc<Fate>,
    deadline: Duration,
    /// Counts what is done together.
    number: AtomicU64,
    /// Bytes of values that were sent.
    sent: AtomicU64,
    /// What the rank is about, for errors.
    doing: Mutex<String>,
    over: Arc<AtomicBool>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} of {}", self.me, self.size())
    }
}

impl Group {
    /// This rank and its links, one to each other rank. None waits longer for another than the deadline.
    pub fn new(me: Peer, links: Vec<Option<Link>>, fate: Arc<Fate>, deadline: Duration) -> Result<Group> {
        let (links, over) = (Arc::new(links), Arc::new(AtomicBool::new(false)));
        if links.iter().flatten().any(Link::is_tcp) {
            let (links, over) = (links.clone(), over.clone());
            let beat = move || {
                while !over.load(Ordering::Relaxed) {
                    links.iter().flatten().for_each(Link::beat);
                    thread::sleep(Duration::from_millis(500));
                }
            };
            let started = thread::Builder::new().name("signs of life".into()).spawn(beat);
            started.map_err(|e| Error::Rank(format!("cannot start a thread: {e}")))?;
        }
        let (number, sent, doing) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new("while meeting".into()));
        Ok(Group { me, links, fate, deadline, number, sent, doing, over })
    }

    /// Ranks of one process, which compute at these places.
    pub fn within(places: &[String], deadline: Duration) -> Result<Vec<Group>> {
        let peer = |rank: usize| Peer { rank, place: places[rank].clone() };
        let mut links: Vec<Vec<Option<Link>>> = places.iter().map(|_| places.iter().map(|_| None).collect()).collect();
        let pairs = (0..places.len()).flat_map(|other| (0..other).map(move |one| (one, other)));
        for (one, other) in pairs {
            let [to_other, to_one] = Link::within(peer(one), peer(other));
            (links[one][other], links[other][one]) = (Some(to_other), Some(to_one));
        }
        let fate = Arc::new(Fate::default());
        let group = |(rank, links)| Group::new(peer(rank), links, fate.clone(), deadline);
        links.into_iter().enumerate().map(group).collect()
    }

    /// How long a rank waits for another.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Fails if a rank was lost or failed.
    pub fn check(&self) -> Result<()> {
        self.fate.reason().map_or(Ok(()), |why| Err(self.lost(&why)))
    }

    /// This rank's number.
    pub fn rank(&self) -> usize {
        self.me.rank
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.links.len()
    }

    /// Whether messages leave the process.
    pub fn by_tcp(&self) -> bool {
        self.others().any(Link::is_tcp)
    }

    /// Whether this rank writes and prints for all.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// The part of so many things that is this rank's: in order, in parts as equal as can be.
    pub fn part(&self, of: usize) -> Range<usize> {
        part(of, self.rank(), self.size())
    }

    /// The same of another rank.
    pub fn part_of(&self, of: usize, rank: usize) -> Range<usize> {
        part(of, rank, self.size())
    }

    /// Counts bytes of values that went from rank to rank on this rank's account by another way than messages.
    pub(super) fn count(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of values that this rank sent so far, without what messages have beside them.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Says what the rank is about to do, for errors: "in step 3 of epoch 1".
    pub fn now(&self, doing: impl Into<String>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing.into();
    }

    fn others(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flatten()
    }

    /// Tells the others that this rank failed.
    pub fn stop(&self, error: &Error) {
        // What another rank failed of is passed on as it was said, so that all name the same one.
        let why = match (self.fate.reason(), error) {
            (Some(why), _) => why,
            (None, Error::Rank(why)) => why.clone(),
            (None, error) => format!("{} stopped: {error}", self.me),
        };
        self.fate.end(why.clone());
        for link in self.others().filter(|link| link.is_tcp()) {
            let _ = link.send(Kind::Stop, 0, why.as_bytes());
        }
    }

    /// Ends the group in good order: all ranks wait for each other, so that none ends well where another does not.
    pub fn finish(&self) -> Result<()> {
        self.now("at the end");
        self.gather(&[])?;
        for link in self.others() {
            // Who got the last message needs nothing more.
            let _ = link.send(Kind::Leave, 0, &[]);
        }
        self.over.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn begin(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn lost(&self, why: &str) -> Error {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Error::Rank(format!("{why} ({} was {doing})", self.me))
    }

    fn failed(&self, why: &str) -> Error {
        self.fate.end(why.into());
        self.lost(&self.fate.reason().unwrap_or_default())
    }

    fn send(&self, link: &Link, number: u64, bytes: &[u8]) -> Result<()> {
        let Err(error) = link.send(Kind::Data, number, bytes) else { return Ok(()) };
        // A rank that failed says so before its connection goes.
        let start = Instant::now();
        while self.fate.reason().is_none() && start.elapsed() < REASON {
            thread::sleep(TICK);
        }
        Err(self.failed(&format!("{} was lost: {error}", link.peer)))
    }

    fn receive(&self, link: &Link, number: u64) -> Result<Vec<u8>> {
        let mut patience = self.deadline;
        loop {
            match link.receive(TICK) {
                Some(message) if message.kind == Kind::Data && message.number == number => return Ok(message.bytes),
                Some(message) if message.kind == Kind::Leave => {
                    return Err(self.failed(&format!("{} ended before the others", link.peer)));
                }
                Some(message) => {
                    let why = format!(
                        "{} is at {}, not at {number}: the ranks do not do the same",
                        link.peer, message.number
                    );
                    return Err(self.failed(&why));
                }
                None => {}
            }
            if let Some(why) = self.fate.reason() {
                return Err(self.lost(&why));
            }
            // In ticks, not by the clock: time in which this process was stopped does not count.
            patience = patience.saturating_sub(TICK);
            if patience.is_zero() {
                let seconds = self.deadline.as_secs();
                let why = format!("{} lives, but sent nothing for {seconds} s (--deadline)", link.peer);
                return Err(self.failed(&why));
            }
        }
    }

    fn receive_floats(&self, link: &Link, number: u64, count: usize) -> Result<Vec<f32>> {
        let bytes = self.receive(link, number)?;
        match bytes.len() == 4 * count {
            true => Ok(bytemuck::pod_collect_to_vec(&bytes)),
            false => {
                let why =
                    format!("{} sent {} bytes, not {count} values: its model has another size", link.peer, bytes.len());
                Err(self.failed(&why))
            }
        }
    }

    /// Everybody's bytes, by rank.
    pub fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let number = self.begin();
        self.others().try_for_each(|link| self.send(link, number, bytes))?;
        let of = |link: &Option<Link>| link.as_ref().map_or(Ok(bytes.to_vec()), |link| self.receive(link, number));
        self.links.iter().map(of).collect()
    }

    /// The bytes of rank 0, which alone must have some.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let number = self.begin();
        match self.links.first() {
            Some(Some(leader)) => self.receive(leader, number),
            _ => {
                self.others().try_for_each(|link| self.send(link, number, &bytes))?;
                Ok(bytes)
            }
        }
    }

    /// Fails on every rank, with the same words, unless all have the same of what `mine` says: names that of which rank 0 has
    /// another value.
    pub fn agree(&self, mine: &Value) -> Result<()> {
        let all = self.gather(mine.to_string().as_bytes())?;
        let read = |bytes: &Vec<u8>| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let all: Vec<Value> = all.iter().map(read).collect();
        let mut differing = Vec::new();
        for (rank, other) in all.iter().enumerate().skip(1) {
            let name = match &self.links[rank] {
                Some(link) => link.peer.to_string(),
                None => self.me.to_string(),
            };
            let mut found = Vec::new();
            differences("", &all[0], other, &mut found);
            differing.extend((!found.is_empty()).then(|| format!("{name} differs from rank 0: {}", found.join(", "))));
        }
        match differing.is_empty() {
            true => Ok(()),
            false => Err(self.failed(&format!("the ranks are not of one run: {}", differing.join("; ")))),
        }
    }

    /// Adds up the values of all ranks, in the order of the ranks: each is responsible for a part, gets it from all others,
    /// and sends its sum to them. So each sends 2 (n - 1) / n of its values, and the sums have the same bits on all ranks,
    /// whatever carries them.
    pub fn sum(&self, values: &mut [f32]) -> Result<()> {
        let (number, size) = (self.begin(), self.size());
        let len = values.len();
        let part = |rank: usize| part(len, rank, size);
        let (mine, mut sent) = (part(self.rank()), 0);
        for (rank, link) in self.links.iter().enumerate() {
            let Some(link) = link else { continue };
            let bytes = bytemuck::cast_slice(&values[part(rank)]);
            sent += bytes.len();
            self.send(link, number, bytes)?;
        }
        let of = |link: &Option<Link>| match link {
            Some(link) => self.receive_floats(link, number, mine.len()),
            None => Ok(values[mine.clone()].to_vec()),
        };
        // From zero, as the kernel does: so that a sum of negative zeros has the same sign.
        let mut total = vec![0.0; mine.len()];
        for theirs in self.links.iter().map(of) {
            total.iter_mut().zip(&theirs?).for_each(|(sum, value)| *sum += value);
        }
        let number = self.begin();
        for link in self.others() {
            let bytes = bytemuck::cast_slice(&total);
            sent += bytes.len();
            self.send(link, number, bytes)?;
        }
        values[mine].copy_from_slice(&total);
        for (rank, link) in self.links.iter().enumerate() {
            let Some(link) = link else { continue };
            let place = part(rank);
            values[place.clone()].copy_from_slice(&self.receive_floats(link, number, place.len())?);
        }
        self.count(sent);
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            // Of a panic, or of a caller that did not say what failed.
            self.stop(&Error::invalid("it ended early"));
        }
        self.others().for_each(Link::close);
    }
}

/// Part `which` of `of` things, of so many parts.
fn part(of: usize, which: usize, parts: usize) -> Range<usize> {
    let start = |which: usize| (of as u128 * which as u128 / parts as u128) as usize;
    start(which)..start(which + 1)
}

/// Names where two values differ, by the path of their keys.
fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, ours) in ours {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differences(&path, ours, theirs.get(key).unwrap_or(&Value::Null), found);
            }
        }
        _ if ours != theirs => found.push(format!("{path} is {theirs} and not {ours}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
