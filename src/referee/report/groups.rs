//! The groups, as data: how many members each node showed, over time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::lanes::stretches;
use crate::referee::analysis::story::Story;

/// Groups that a page can hold, the liveliest first.
const GROUPS_MAX: usize = 12;
/// Stretches of all groups of all systems: at about 20 bytes each, they keep the page small.
pub(super) const STRETCHES_MAX: usize = 15_000;

#[derive(Serialize)]
pub(super) struct GroupStrip<'a> {
    name: &'a str,
    /// A lane per node, in the order of the run's nodes: from, to, and how many members it showed.
    nodes: Vec<Vec<(f64, f64, usize)>>,
}

/// The groups that a page shows, over all systems, by how many calls joined them.
pub(super) fn choose<'s, 'a: 's>(stories: impl Iterator<Item = &'s Story<'a>>) -> Vec<&'a str> {
    let mut joins: BTreeMap<&str, usize> = BTreeMap::new();
    for story in stories {
        story.groups.all().for_each(|grant| *joins.entry(grant.key).or_default() += 1);
    }
    let mut groups: Vec<(&str, usize)> = joins.into_iter().collect();
    groups.sort_by_key(|(name, joins)| (std::cmp::Reverse(*joins), *name));
    groups.into_iter().take(GROUPS_MAX).map(|(name, _)| name).collect()
}

/// The strips of those of the wanted groups that any node showed here, as many as `stretches_max` allows.
pub(super) fn all<'a>(story: &Story, wanted: &[&'a str], stretches_max: usize) -> Vec<GroupStrip<'a>> {
    let mut left = stretches_max;
    let mut strips = Vec::new();
    for name in wanted {
        let lane = |node: &u64| {
            let looks = story.views.iter().filter(|seen| seen.node == *node);
            // A group that nobody is in is as good as none.
            stretches(looks.map(|seen| (seen.at, Some(seen.view.groups.get(*name).map_or(0, |members| members.len())))))
        };
        let nodes: Vec<Vec<(f64, f64, usize)>> = story.run.header.nodes.iter().map(lane).collect();
        let marks: usize = nodes.iter().map(Vec::len).sum();
        if marks > left || nodes.iter().flatten().all(|(_, _, members)| *members == 0) {
            continue;
        }
        left -= marks;
        strips.push(GroupStrip { name, nodes });
    }
    strips
}
