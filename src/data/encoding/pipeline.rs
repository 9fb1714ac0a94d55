//! Three steps of work on one group after the other, each by a thread of its own.

use std::sync::mpsc::sync_channel;

use crate::error::Result;

/// Takes groups through three steps: while one is stored, the next is encoded and the one after that prepared, so that a device
/// waits neither for files nor for the disk. At most one group waits before each step. The order is kept, and the first
/// error ends it.
pub fn pipeline<P: Send, E: Send>(
    mut prepared: impl Iterator<Item = Result<P>> + Send,
    encode: impl Fn(P) -> Result<E> + Send,
    mut store: impl FnMut(E) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (to_encode, encoding) = sync_channel(1);
        let (to_store, storing) = sync_channel(1);
        // A step whose successor has ended finds nobody to send to, and ends as well.
        scope.spawn(move || prepared.try_for_each(|group| to_encode.send(group).ok()));
        scope.spawn(move || encoding.into_iter().try_for_each(|group| to_store.send(group.and_then(&encode)).ok()));
        storing.into_iter().try_for_each(|group| store(group?))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::error::Error;

    #[test]
    fn groups_keep_their_order_and_the_first_error_ends_it() {
        let run = |bad: u32| {
            let mut stored = Vec::new();
            let encode = |i: u32| if i == bad { Err(Error::invalid("bad")) } else { Ok(10 * i) };
            let done = pipeline((0..100).map(Ok), encode, |i| {
                stored.push(i);
                Ok(())
            });
            (done.is_ok(), stored)
        };
        assert_eq!(run(100), (true, (0..100).map(|i| 10 * i).collect()));
        assert_eq!(run(3), (false, vec![0, 10, 20]));
        let prepared = [Ok(1), Err(Error::invalid("unreadable")), Ok(3)];
        assert!(pipeline(prepared.into_iter(), Ok, |_| Ok(())).is_err());
        assert!(pipeline((0..100).map(Ok), Ok, |_| Err(Error::invalid("full"))).is_err());
    }

    #[test]
    fn the_next_group_is_prepared_while_one_is_encoded() {
        let (report, reports) = channel();
        let prepared = (0..4).map(|i| {
            report.send(i).unwrap();
            Ok(i)
        });
        // The first group is encoded no sooner than the second is prepared.
        let wait = Duration::from_secs(60);
        let encode = move |i: u32| {
            let seen = if i == 0 { [0, 1].map(|_| reports.recv_timeout(wait).ok()) } else { [None; 2] };
            Ok((i, seen))
        };
        let mut stored = Vec::new();
        pipeline(prepared, encode, |group| {
            stored.push(group);
            Ok(())
        })
        .unwrap();
        assert_eq!(stored[0], (0, [Some(0), Some(1)]));
        assert_eq!(stored.len(), 4);
    }
}
