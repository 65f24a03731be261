//! The replicated table: golden scripts of what it answers ([`script`]), and what holds after any steps whatever ([`laws`]).

mod laws;
mod script;

use std::path::Path;

use script::Script;

fn run(script: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/table").join(script);
    goldenscript::run(&mut Script::default(), path).unwrap();
}

#[test]
fn a_name_has_one_owner() {
    run("register.txt");
}

#[test]
fn a_grant_ends_by_its_token_alone() {
    run("unregister.txt");
}

#[test]
fn takeover_and_hand_over_are_told_apart() {
    run("takeover.txt");
}

#[test]
fn conditions_are_held_against_what_stands_there() {
    run("conditions.txt");
}

#[test]
fn a_group_has_any_number_of_members() {
    run("groups.txt");
}

#[test]
fn a_list_comes_in_pages_in_byte_order() {
    run("pages.txt");
}

#[test]
fn a_lease_is_made_once_and_ends_once() {
    run("leases.txt");
}

#[test]
fn all_that_is_bound_to_a_lease_ends_with_it_in_one_revision() {
    run("lease_ends.txt");
}

#[test]
fn a_leases_keeper_is_told_what_it_lost_until_it_has_seen_it() {
    run("lost.txt");
}

#[test]
fn a_new_leader_gives_what_the_last_ones_have_not_used_up() {
    run("ages.txt");
}

#[test]
fn each_revision_is_one_event() {
    run("events.txt");
}
