//! Prompts that are read together: mostly the questions about one paragraph.

use std::ops::Range;

/// Prompts of a group at most, so that workers have groups to share where all questions are about one paragraph.
const MOST: usize = 8;

/// Consecutive prompts that begin alike, whose first tokens are read once. Which prompts are together does not depend on
/// the number of workers, and neither does what is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptGroup {
    /// Their places.
    pub(crate) prompts: Range<usize>,
    /// First tokens that they have in common, the opening of all prompts among them; that alone where a group is a
    /// single prompt. Each prompt has at least one token more.
    pub(crate) shared: usize,
}

impl PromptGroup {
    /// All prompts, each of at least one token, in groups, in their order. Prompts are together where at least half of what each has behind the
    /// `opening` tokens of all is what they share.
    pub(crate) fn of_all(prompts: &[&[u32]], opening: usize) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for (place, &prompt) in prompts.iter().enumerate() {
            if let Some(group) = groups.last_mut()
                && let Some(shared) = group.shared_with(prompt, prompts, opening)
            {
                *group = Self { prompts: group.prompts.start..place + 1, shared };
            } else {
                groups.push(Self { prompts: place..place + 1, shared: opening });
            }
        }
        groups
    }

    /// Tokens that a group shares together with one more prompt, if that one belongs to it.
    fn shared_with(&self, prompt: &[u32], prompts: &[&[u32]], opening: usize) -> Option<usize> {
        let members = &prompts[self.prompts.clone()];
        let most = if members.len() == 1 { members[0].len() - 1 } else { self.shared };
        let alike = members[0].iter().zip(prompt).take(most.min(prompt.len() - 1));
        let shared = alike.take_while(|(a, b)| a == b).count();
        let longest = members.iter().chain([&prompt]).map(|prompt| prompt.len()).max()?;
        (members.len() < MOST && shared > opening && 2 * (shared - opening) >= longest - opening).then_some(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(prompts: &[&[u32]], opening: usize) -> Vec<(Range<usize>, usize)> {
        PromptGroup::of_all(prompts, opening).into_iter().map(|group| (group.prompts, group.shared)).collect()
    }

    #[test]
    fn prompts_with_half_of_their_own_tokens_in_common_are_together() {
        let (a, b) = ([9, 1, 2, 3, 4], [9, 1, 2, 3, 5, 6, 7]);
        assert_eq!(groups(&[&a, &b], 1), [(0..2, 4)]);
        // Three of seven.
        let long = [9, 1, 2, 3, 5, 6, 7, 8];
        assert_eq!(groups(&[&a, &long], 1), [(0..1, 1), (1..2, 1)]);
        // The third would leave less to the first two than half.
        assert_eq!(groups(&[&b, &[9, 1, 2, 3, 5, 8], &[9, 1, 2, 8]], 1), [(0..2, 5), (2..3, 1)]);
        assert_eq!(groups(&[&b, &[9, 1, 2, 3, 5, 8], &a], 1), [(0..3, 4)]);
    }

    #[test]
    fn each_prompt_keeps_a_token_of_its_own_and_groups_are_small() {
        let same: &[u32] = &[1, 2, 3, 4];
        assert_eq!(groups(&[same; 2], 3), [(0..1, 3), (1..2, 3)], "the opening is all that can be shared");
        assert_eq!(groups(&[same; 11], 0), [(0..8, 3), (8..11, 3)]);
        assert_eq!(groups(&[same, &[1, 2, 3]], 0), [(0..2, 2)]);
        assert_eq!(groups(&[], 0), []);
    }
}
