//! Which prompts go through the decoder together, and what they share.

use std::cmp::Reverse;
use std::ops::Range;

use crate::kar::model::Question;

/// Fewer common tokens than this are not worth a prefix of their own.
pub const LEAST_SHARED: usize = 8;

/// Questions about one mention.
#[derive(Debug)]
pub struct Group {
    /// Their positions.
    pub members: Vec<usize>,
    /// Tokens in common with all other groups.
    pub common: usize,
    /// Tokens that all members have in common, at least as many.
    pub shared: usize,
    /// Tokens to compute for it.
    pub cost: usize,
}

impl Group {
    /// Whether its members share a prefix of their own.
    pub fn shares_more(&self) -> bool {
        self.shared > self.common
    }
}

/// Length of what all of these begin with, and at least one token less than any has.
pub fn common_len<'a>(prompts: impl Iterator<Item = &'a Vec<u32>>) -> usize {
    let mut prompts = prompts;
    let Some(first) = prompts.next() else { return 0 };
    prompts.fold(first.len().saturating_sub(1), |len, other| {
        let same = first.iter().zip(other).take(len).take_while(|(a, b)| a == b).count();
        same.min(other.len().saturating_sub(1))
    })
}

/// Groups of questions, the longest first, so that what needs most memory comes at once and the time left is not
/// underestimated.
pub fn groups(
    questions: &[Question],
    asked: &[usize],
    prompts: &[Vec<u32>],
    common: usize,
    share: bool,
    room: usize,
) -> Vec<Group> {
    let mut groups: Vec<Group> = asked
        .chunk_by(|&a, &b| questions[a].group == questions[b].group)
        .map(|members| {
            let in_common = common_len(members.iter().map(|&m| &prompts[m]));
            let more = share && members.len() > 1 && in_common >= common + LEAST_SHARED;
            let shared = if more { in_common } else { common };
            let own: usize = members.iter().map(|&m| prompts[m].len() - shared + room).sum();
            Group { members: members.to_vec(), common, shared, cost: own + shared - common }
        })
        .collect();
    groups.sort_by_key(|g| Reverse(g.cost));
    groups
}

/// Cuts groups into batches of at most so many tokens, or of one group.
pub fn batches(groups: &[Group], tokens: usize) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut used = 0;
    for (i, group) in groups.iter().enumerate() {
        match batches.last_mut().filter(|_| used + group.cost <= tokens) {
            Some(batch) => batch.end = i + 1,
            None => {
                batches.push(i..i + 1);
                used = 0;
            }
        }
        used += group.cost;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_prompts_begin_with_leaves_each_a_token() {
        let common = |prompts: &[&[u32]]| common_len(prompts.iter().map(|p| p.to_vec()).collect::<Vec<_>>().iter());
        assert_eq!(common(&[&[1, 2, 3, 4], &[1, 2, 5], &[1, 2, 3]]), 2);
        assert_eq!(common(&[&[1, 2, 3], &[1, 2]]), 1);
        assert_eq!(common(&[&[1, 2, 3], &[1, 2, 3]]), 2);
        assert_eq!((common(&[&[1, 2]]), common(&[&[2], &[1]]), common(&[])), (1, 0, 0));
    }

    #[test]
    fn batches_hold_every_group_once_and_few_tokens() {
        let group = |cost| Group { members: vec![cost], common: 0, shared: 0, cost };
        let groups: Vec<Group> = [90, 40, 30, 30, 20, 10].map(group).into();
        assert_eq!(batches(&groups, 60), [0..1, 1..2, 2..4, 4..6]);
        assert_eq!(batches(&groups, 150), [0..2, 2..6]);
        assert!(batches(&[], 10).is_empty());
    }
}
