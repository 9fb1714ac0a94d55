//! Work on many items, some at a time.

use crate::error::{Error, Result};

/// Does the work block by block, of at most so many items, in their order; where a device has no memory for a block, half of it at a
/// time from then on. A block that fails must have done nothing.
pub(super) fn in_blocks<T>(items: &[T], most: usize, mut work: impl FnMut(&[T]) -> Result<()>) -> Result<()> {
    let (mut left, mut most) = (items, most);
    while !left.is_empty() {
        let (block, rest) = left.split_at(most.min(left.len()));
        match work(block) {
            Err(error @ Error::Device { out_of_memory: true, .. }) if block.len() > 1 => {
                most = block.len().div_ceil(2);
                tracing::debug!("{most} at a time from here on: {error}");
            }
            done => {
                done?;
                left = rest;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_without_memory_is_halved_and_one_item_is_not() {
        let items: Vec<u32> = (0..10).collect();
        let run = |room: usize| {
            let mut blocks = Vec::new();
            let work = |block: &[u32]| {
                if block.len() > room {
                    return Err(Error::no_memory("cuda:0", "allocating", "out of memory"));
                }
                blocks.push(block.to_vec());
                Ok(())
            };
            in_blocks(&items, 8, work).map(|()| blocks)
        };
        let lengths = |room| run(room).unwrap().iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!((lengths(8), lengths(3)), (vec![8, 2], vec![2; 5]));
        assert_eq!(run(5).unwrap().concat(), items);
        assert!(run(0).unwrap_err().to_string().contains("out of memory"));
        let refuse = |_: &[u32]| Err(Error::device("cuda:0", "running", "failed"));
        assert!(in_blocks(&items, 8, refuse).unwrap_err().to_string().contains("failed"));
    }
}
