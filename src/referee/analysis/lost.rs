//! What was acknowledged and is gone, and what was ended and is back.

use crate::referee::history::Key;
use serde::Serialize;

use super::faults::{ms, ns};
use super::grants::{Ending, Grant, Grants};
use super::story::Story;
use super::survival::{self, Spread};

/// A grant, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// `name` or `group`.
    pub of: &'static str,
    pub key: String,
    pub owner: String,
    pub token: String,
    pub acked_ms: f64,
    pub why: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Losses {
    /// Acknowledged grants that nobody may have ended, and whose state at the end is known.
    pub judged: usize,
    /// Their state at the end is not known: no read and no view after the last write and the last heal.
    pub unseen: usize,
    pub lost: Vec<Case>,
    /// Gone, but accepted by a node alone that was killed before a peer had surely confirmed it: no promise covers it.
    pub at_risk: Vec<Case>,
    /// Endings whose grants were looked for at the end.
    pub ended_judged: usize,
    pub resurrected: Vec<Case>,
}

pub fn find(story: &Story) -> Losses {
    let mut losses = Losses::default();
    for grant in story.names.all() {
        lost_name(story, grant, &mut losses);
        back_again(story, &story.names, grant, &mut losses, |story, grant| {
            story.last_words(grant.key).iter().map(|word| word.token == Some(grant.token)).collect()
        });
    }
    for grant in story.groups.all() {
        lost_member(story, grant, &mut losses);
        back_again(story, &story.groups, grant, &mut losses, member_is_back);
    }
    losses
}

fn lost_name(story: &Story, grant: &Grant, losses: &mut Losses) {
    // `conflicts` judges what lost a conflict.
    if story.names.may_end_at(grant).is_some() || (!story.one_order() && story.is_recorded_loser(grant)) {
        return;
    }
    let words = story.last_words(grant.key);
    if words.is_empty() && story.ends_with_lease(Key::Name(grant.key)) {
        return;
    }
    if words.is_empty() {
        losses.unseen += 1;
        return;
    }
    losses.judged += 1;
    // The same owner twice stands side by side without consensus, and is listed once (A7).
    let stands = words.iter().any(|word| {
        word.token == Some(grant.token)
            || (word.owner == Some(grant.owner) && (!story.one_order() || word.token.is_none()))
    });
    if stands {
        return;
    }
    let successor = words.iter().find_map(|word| word.owner);
    // Without consensus a name that another holds has been lost to a conflict: `conflicts` asks for its record.
    if !story.one_order() && successor.is_some() {
        losses.judged -= 1;
        return;
    }
    let now = successor.map_or("nobody holds the name".to_owned(), |owner| format!("{owner} holds the name"));
    gone(story, "name", grant, format!("nobody ended it, yet at the end {now}"), losses);
}

fn lost_member(story: &Story, grant: &Grant, losses: &mut Losses) {
    if story.groups.may_end_at(grant).is_some() {
        return;
    }
    let last = story.last_members(grant.key, grant.owner);
    if last.is_empty() && story.ends_with_lease(Key::Group(grant.key)) {
        return;
    }
    if last.is_empty() {
        losses.unseen += 1;
        return;
    }
    losses.judged += 1;
    if !last.contains(&true) {
        let why = "it never left, yet at the end no node and no read has it".to_owned();
        gone(story, "group", grant, why, losses);
    }
}

fn gone(story: &Story, of: &'static str, grant: &Grant, why: String, losses: &mut Losses) {
    let risk = at_risk_from(story, grant);
    if story.one_order() || risk.is_none() {
        losses.lost.push(case(of, grant, why));
    } else {
        let node = grant.node.unwrap_or(0);
        let why =
            format!("{why}; node {node} was killed, cut off or removed for good before a peer had surely confirmed it");
        losses.at_risk.push(case(of, grant, why));
    }
}

/// From when on an acknowledged grant may be lost without a promise being broken. None: never, or not by this.
pub fn at_risk_from(story: &Story, grant: &Grant) -> Option<u64> {
    let node = grant.node.filter(|_| !story.one_order())?;
    let removed = story.faults.felt().filter(|fault| fault.removes() && fault.nodes.contains(&node));
    // A grant without a lease counts while the node counts that accepted it (A1): a member removed for good takes its own along.
    let removed = removed.map(|fault| fault.begin.from).find(|from| *from > grant.acked);
    removed.or_else(|| risk(story, node, grant.acked))
}

/// From when on what a node accepted may be known to none that is there in the end.
fn risk(story: &Story, node: u64, accepted: u64) -> Option<u64> {
    let spread = spread(story, node, accepted, story.run_end(), ns(story.run.bounds.confirmation));
    let out_of_reach = || (!spread.known.keys().any(|node| story.in_core(*node))).then_some(accepted);
    spread.at_risk_from.or_else(out_of_reach)
}

fn spread(story: &Story, node: u64, from: u64, until: u64, within: u64) -> Spread {
    survival::follow(&story.faults, &story.run.header.nodes, node, from, until, within)
}

/// A grant that an acknowledged call ended stays ended; `present` tells, for each last word, whether it is there.
fn back_again<'a>(
    story: &Story<'a>,
    grants: &Grants<'a>,
    grant: &Grant<'a>,
    losses: &mut Losses,
    present: impl Fn(&Story, &Grant) -> Vec<bool>,
) {
    let Some(end) = sure_end(story, grants, grant) else { return };
    let last = present(story, grant);
    if last.is_empty() {
        return;
    }
    losses.ended_judged += 1;
    if last.contains(&true) {
        let of = if std::ptr::eq(grants, &story.names) { "name" } else { "group" };
        let why = format!(
            "ended by process {} at {:.3} s, yet it is there at the end",
            story.ops[end.op].process,
            end.acked.unwrap_or(end.invoked) as f64 / 1e9
        );
        losses.resurrected.push(case(of, grant, why));
    }
}

/// An acknowledged call that surely ended this grant, and cannot have been forgotten by a kill.
fn sure_end<'s, 'a>(story: &Story<'a>, grants: &'s Grants<'a>, grant: &'s Grant<'a>) -> Option<&'s Ending<'a>> {
    let bare = grants.endings(grant.key).iter().filter(|end| {
        end.token.is_none()
            && end.acked.is_some()
            && end.owner.is_none_or(|owner| owner == grant.owner)
            && surely_known(story, grant, end)
    });
    grants.ended_by(grant).chain(bare).find(|end| survives(story, end))
}

/// Whether the grant surely stood at the node that took the ending, unless it had ended before.
fn surely_known(story: &Story, grant: &Grant, end: &Ending) -> bool {
    if grant.acked > end.invoked {
        return false;
    }
    if story.one_order() {
        return true;
    }
    let within = ns(story.run.bounds.convergence);
    grant
        .node
        .zip(end.node)
        .is_some_and(|(from, to)| spread(story, from, grant.acked, end.invoked, within).known.contains_key(&to))
}

/// Whether the ending itself cannot have been forgotten by a kill.
fn survives(story: &Story, end: &Ending) -> bool {
    let (Some(node), Some(acked)) = (end.node, end.acked) else { return story.one_order() };
    story.one_order() || risk(story, node, acked).is_none()
}

/// Views list members without tokens, so a later join of the same member, or one that its node did not know of, excuses its presence.
fn member_is_back(story: &Story, grant: &Grant) -> Vec<bool> {
    let Some(end) = sure_end(story, &story.groups, grant) else { return Vec::new() };
    let of_member = |owner: &str| owner == grant.owner;
    let silent = story.groups.silent(grant.key).iter().any(|silent| of_member(silent.owner));
    let others = story.groups.of(grant.key).iter().filter(|other| of_member(other.owner) && other.token != grant.token);
    // A node that knows the grant which the token is of ends with it all that it knows of that member, if the grant still stands.
    let ends_the_rest = !end.came_late && surely_known(story, grant, end);
    let excuses = |other: &Grant| {
        let ended_with_it = ends_the_rest && surely_known(story, other, end);
        !ended_with_it && sure_end(story, &story.groups, other).is_none()
    };
    let excused = silent || others.into_iter().any(excuses);
    if excused { Vec::new() } else { story.last_members(grant.key, grant.owner) }
}

fn case(of: &'static str, grant: &Grant, why: String) -> Case {
    Case {
        of,
        key: grant.key.to_owned(),
        owner: grant.owner.to_owned(),
        token: grant.token.to_owned(),
        acked_ms: ms(grant.acked),
        why,
    }
}
