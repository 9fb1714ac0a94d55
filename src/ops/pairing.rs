//! Which left item meets which right item: mentions and candidates, queries and sequences.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tensor::{Indices, Ragged};

/// Items grouped by an owner: owner i has members `members[offsets[i]..offsets[i + 1]]`, in rising order.
#[derive(Debug)]
pub struct Groups {
    offsets: Indices,
    members: Indices,
    /// Where each member stands in `members`.
    rank: Vec<u32>,
}

impl Groups {
    /// Groups the positions of `owner_of` by their owner.
    fn new(owner_of: &[u32], owners: usize) -> Groups {
        let mut offsets = vec![0u32; owners + 1];
        owner_of.iter().for_each(|&o| offsets[o as usize + 1] += 1);
        for i in 0..owners {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let mut members = vec![0; owner_of.len()];
        for (position, &owner) in owner_of.iter().enumerate() {
            members[next[owner as usize] as usize] = position as u32;
            next[owner as usize] += 1;
        }
        let mut rank = vec![0; members.len()];
        members.iter().enumerate().for_each(|(at, &member)| rank[member as usize] = at as u32);
        Groups { offsets: offsets.into(), members: members.into(), rank }
    }

    /// Place of a member when all owners' members are laid end to end.
    pub fn rank(&self, member: u32) -> usize {
        self.rank[member as usize] as usize
    }

    /// Members of owner `i`, in rising order.
    pub fn of(&self, i: usize) -> &[u32] {
        &self.members[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// First place of each owner's members, then the number of members.
    pub fn offsets(&self) -> &Indices {
        &self.offsets
    }

    /// Members of all owners, laid end to end.
    pub fn members(&self) -> &Indices {
        &self.members
    }

    /// Number of owners.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no owners.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A list of pairs (left item, right item), with the pairs of each item. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Pairing {
    left: Arc<Half>,
    right: Arc<Half>,
}

#[derive(Debug)]
struct Half {
    item_of: Indices,
    pairs_of: Groups,
}

impl Half {
    fn new(item_of: Vec<u32>, items: usize) -> Result<Arc<Half>> {
        if let Some(item) = item_of.iter().find(|&&item| item as usize >= items) {
            return Err(Error::shape("pairing", format!("item {item} of {items}")));
        }
        let pairs_of = Groups::new(&item_of, items);
        Ok(Arc::new(Half { item_of: item_of.into(), pairs_of }))
    }
}

impl Pairing {
    /// Pairs (`left[p]`, `right[p]`) of `lefts` and `rights` items.
    pub fn new(left: Vec<u32>, lefts: usize, right: Vec<u32>, rights: usize) -> Result<Pairing> {
        if left.len() != right.len() {
            return Err(Error::shape("pairing", format!("{} left and {} right items", left.len(), right.len())));
        }
        Ok(Pairing { left: Half::new(left, lefts)?, right: Half::new(right, rights)? })
    }

    /// Pairs (i, i) of `n` items. All arrays of them count, so that a device needs no copies.
    pub fn identity(n: usize) -> Pairing {
        let item_of = Indices::counting(n);
        let pairs_of = Groups { offsets: Indices::counting(n + 1), members: item_of.clone(), rank: item_of.to_vec() };
        let half = Arc::new(Half { item_of, pairs_of });
        Pairing { left: half.clone(), right: half }
    }

    /// The same pairs with left and right exchanged.
    pub fn flip(&self) -> Pairing {
        Pairing { left: self.right.clone(), right: self.left.clone() }
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.left.item_of.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Left item of each pair.
    pub fn left(&self) -> &Indices {
        &self.left.item_of
    }

    /// Right item of each pair.
    pub fn right(&self) -> &Indices {
        &self.right.item_of
    }

    /// Pairs of each left item.
    pub fn by_left(&self) -> &Groups {
        &self.left.pairs_of
    }

    /// Pairs of each right item.
    pub fn by_right(&self) -> &Groups {
        &self.right.pairs_of
    }

    /// All arrays that a device may ask for.
    pub fn arrays(&self) -> [&Indices; 6] {
        let (left, right) = (&self.left, &self.right);
        let groups = [&left.pairs_of, &right.pairs_of];
        let [[a, b], [c, d]] = groups.map(|groups| [&groups.offsets, &groups.members]);
        [&left.item_of, &right.item_of, a, b, c, d]
    }

    /// Where each pair's attention weights would begin if there were one for each row of its right item's sequence, laid end
    /// to end; kernels multiply by the number of heads.
    pub fn starts(&self, sequences: &Ragged) -> Result<Indices> {
        let (mut starts, mut total) = (Vec::with_capacity(self.len()), 0u32);
        for &sequence in self.right().iter() {
            if sequence as usize >= sequences.len() {
                return Err(Error::shape("pairing", format!("sequence {sequence} of {}", sequences.len())));
            }
            starts.push(total);
            let longer = total.checked_add(sequences.range(sequence as usize).len() as u32);
            let too_many = || Error::shape("pairing", "more than 2^32 attention weights; take a smaller batch");
            total = longer.ok_or_else(too_many)?;
        }
        Ok(starts.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Textbook;

    #[test]
    fn pairs_are_found_from_both_sides() {
        let pairs = Pairing::new(vec![0, 0, 2], 3, vec![1, 0, 1], 2).unwrap();
        assert_eq!(
            (pairs.by_left().of(0), pairs.by_left().of(1), pairs.by_left().of(2)),
            (&[0, 1][..], &[][..], &[2][..])
        );
        assert_eq!((pairs.by_right().of(0), pairs.by_right().of(1)), (&[1][..], &[0, 2][..]));
        assert_eq!(pairs.flip().left()[..], [1, 0, 1]);
        assert!(Pairing::new(vec![3], 3, vec![0], 1).is_err());
    }

    #[test]
    fn attention_weights_lie_end_to_end() {
        let textbook = Textbook { sequences: 2, length: 5 };
        let sequences = Ragged::new([2, 5], textbook).unwrap();
        let pairs = Pairing::new(vec![0, 0, 2], 3, vec![1, 0, 1], 2).unwrap();
        assert_eq!(pairs.starts(&sequences).unwrap()[..], [0, 5, 7]);
        assert!(pairs.flip().starts(&sequences).is_err(), "left item 2 has no sequence");
        let identity = Pairing::identity(2);
        assert_eq!(identity.starts(&sequences).unwrap()[..], sequences.offsets()[..2]);
        assert_eq!((identity.by_left().of(1), identity.by_right().rank(1)), (&[1][..], 1));
    }
}
