//! Any command, query, outcome, answer and failure, for property tests.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate::model::command::{Action, Condition};
use quorate::model::entry::{Entry, Holder};
use quorate::model::ident::{ApToken, LeaseId, Meta, Mode, Revision, Token};
use quorate::model::outcome::{Ended, Hidden, Outcome, Refusal};
use quorate::model::query::{Answer, GroupCount, Page, Query};
use quorate::model::time::UnixMillis;
use quorate::registry::{CommandFailure, Provenance, QueryFailure, Reason, Reply};

/// The end of the year 9999, in milliseconds.
const TIME_MAX: u64 = 253_402_207_200_000;

pub fn ident<T: std::str::FromStr + std::fmt::Debug>() -> impl Strategy<Value = T> {
    let text = prop_oneof!["[a-z]{1,4}", "[ -~]{1,12}", "\\PC{1,20}", Just("\u{1F600}".repeat(128))];
    text.prop_filter_map("no word", |text: String| text.parse().ok())
}

fn meta() -> impl Strategy<Value = Meta> {
    prop_oneof![
        Just(Meta::empty()),
        ("\\PC{0,8}", any::<i64>()).prop_map(|(key, n)| {
            serde_json::json!({ "n": n, "nested": { key: [null, true, "é\"\\\n"] } }).to_string().parse().unwrap()
        }),
        Just(r#"{"z":1.0,"a":123456789012345678901234567890,"\u00e9":"\ud83d\ude00"}"#.parse().unwrap()),
    ]
}

fn lease() -> impl Strategy<Value = Option<LeaseId>> {
    // Dots alone are no id.
    option::of("[!-~]{1,20}".prop_filter_map("an id", |text| text.parse().ok()))
}

pub fn token(mode: Mode) -> BoxedStrategy<Token> {
    match mode {
        Mode::Cp => any::<u64>().prop_map(Token::Cp).boxed(),
        Mode::Ap => {
            any::<[u64; 4]>().prop_map(|[hlc, node, run, number]| Token::Ap(ApToken { hlc, node, run, number })).boxed()
        }
    }
}

pub fn revision(mode: Mode) -> BoxedStrategy<Revision> {
    match mode {
        Mode::Cp => any::<u64>().prop_map(Revision::Cp).boxed(),
        // None begins with a star: in a condition that alone stands for whatever is there.
        Mode::Ap => "[!#-)+-~][!#-~]{0,39}".prop_map(|text| Revision::Ap(text.into())).boxed(),
    }
}

fn entry(mode: Mode, name: bool) -> impl Strategy<Value = Entry> {
    let holder = match name {
        true => (ident(), ident()).prop_map(|(name, owner)| Holder::Owner(name, owner)).boxed(),
        false => (ident(), ident()).prop_map(|(group, member)| Holder::Member(group, member)).boxed(),
    };
    let rest = (meta(), lease(), token(mode), revision(mode), any::<u64>(), 0..TIME_MAX, any::<bool>());
    (holder, rest).prop_map(|(holder, (meta, lease, token, revision, node, since, hidden))| Entry {
        holder,
        meta,
        lease,
        token,
        revision,
        node,
        since: UnixMillis(since),
        hidden,
    })
}

pub fn refusal(mode: Mode, name: bool) -> impl Strategy<Value = Refusal> {
    prop_oneof![
        entry(mode, name).prop_map(|current| Refusal::NameTaken { current }),
        Just(Refusal::NotFound),
        option::of(entry(mode, name)).prop_map(|current| Refusal::TokenStale { current }),
        option::of(entry(mode, name)).prop_map(|current| Refusal::RevisionStale { current }),
        entry(mode, name).prop_map(|current| Refusal::NameExists { current }),
        Just(Refusal::LeaseUnknown),
        Just(Refusal::LeaseExpired),
    ]
}

fn condition(mode: Mode) -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Free),
        Just(Condition::Takeover),
        token(mode).prop_map(Condition::Token),
        revision(mode).prop_map(Condition::Unchanged),
        Just(Condition::Present),
        Just(Condition::Absent),
    ]
}

/// A command, and what a registry might say to it.
pub fn command(mode: Mode) -> impl Strategy<Value = (Action, Result<Reply<Outcome>, CommandFailure>)> {
    let grant = move |name: bool| {
        let hidden = (ident(), token(mode)).prop_map(|(owner, token)| Hidden { owner, token });
        prop_oneof![
            (entry(mode, name), option::of(hidden)).prop_map(|(entry, hides)| Outcome::Granted { entry, hides }),
            entry(mode, name).prop_map(|entry| Outcome::Held { entry }),
            refusal(mode, name).prop_map(Outcome::Refused),
        ]
    };
    let end = move |name: bool| {
        prop_oneof![
            Just(Outcome::Ended(Ended::Now)),
            Just(Outcome::Ended(Ended::Before)),
            refusal(mode, name).prop_map(Outcome::Refused),
        ]
    };
    let register = (ident(), ident(), meta(), lease(), condition(mode))
        .prop_map(|(name, owner, meta, lease, condition)| Action::Register { name, owner, meta, lease, condition });
    let join = (ident(), ident(), meta(), lease()).prop_map(|(group, member, meta, lease)| Action::Join {
        group,
        member,
        meta,
        lease,
    });
    let unregister = (ident(), option::of(token(mode))).prop_map(|(name, token)| Action::Unregister { name, token });
    let leave = (ident(), ident(), option::of(token(mode))).prop_map(|(group, member, token)| Action::Leave {
        group,
        member,
        token,
    });
    let said =
        prop_oneof![(register, grant(true)), (join, grant(false)), (unregister, end(true)), (leave, end(false)),];
    (said, revision(mode), provenance(), failure(mode), 0..3).prop_map(
        |((action, value), revision, provenance, reason, kind)| {
            let result = match kind {
                0 => Ok(Reply { value, revision, provenance }),
                1 => Err(CommandFailure::NotApplied(reason)),
                _ => Err(CommandFailure::Unknown(reason)),
            };
            (action, result)
        },
    )
}

/// A query, and what a registry might answer.
pub fn query(mode: Mode) -> impl Strategy<Value = (Query, Result<Reply<Answer>, QueryFailure>)> {
    let found = move |name: bool| {
        prop_oneof![entry(mode, name).prop_map(Answer::Entry), refusal(mode, name).prop_map(Answer::Refused),]
    };
    let entries = move |name: bool| {
        (vec(entry(mode, name), 0..4), option::of("\\PC{1,9}"))
            .prop_map(|(entries, next)| Answer::Entries { entries, next })
    };
    let count = (ident(), any::<u64>()).prop_map(|(group, count)| GroupCount { group, count });
    let groups = (vec(count, 0..4), option::of("\\PC{1,9}")).prop_map(|(groups, next)| Answer::Groups { groups, next });
    let whereis = (ident(), option::of(token(mode))).prop_map(|(name, token)| Query::Whereis { name, token });
    let membership = (ident(), ident(), option::of(token(mode))).prop_map(|(group, member, token)| Query::Membership {
        group,
        member,
        token,
    });
    let members = (ident(), page(false), option::of(any::<u64>())).prop_map(|(group, page, node)| Query::Members {
        group,
        page,
        node,
    });
    let asked = prop_oneof![
        (whereis, found(true)),
        (membership, found(false)),
        (page(true).prop_map(|page| Query::Names { page }), entries(true)),
        (members, entries(false)),
        (page(true).prop_map(|page| Query::Groups { page }), groups),
    ];
    (asked, revision(mode), provenance(), option::of(failure(mode))).prop_map(
        |((query, value), revision, provenance, failure)| {
            let result = match failure {
                None => Ok(Reply { value, revision, provenance }),
                Some(reason) => Err(QueryFailure(reason)),
            };
            (query, result)
        },
    )
}

fn page(prefixed: bool) -> impl Strategy<Value = Page> {
    let prefix = if prefixed { "\\PC{0,9}".boxed() } else { Just(String::new()).boxed() };
    (prefix, option::of("\\PC{0,9}"), 1..=1_000_usize).prop_map(|(prefix, after, limit)| Page { prefix, after, limit })
}

fn failure(mode: Mode) -> impl Strategy<Value = Reason> {
    prop_oneof![
        Just(Reason::NoLeader),
        Just(Reason::NoQuorum),
        Just(Reason::Starting),
        revision(mode).prop_map(|applied| Reason::Behind { applied }),
        Just(Reason::Overloaded),
        Just(Reason::Timeout),
        option::of(1..5_u64).prop_map(|leader| Reason::NotLeader { leader }),
        "\\PC{0,9}".prop_map(Reason::Internal),
    ]
}

fn provenance() -> impl Strategy<Value = Provenance> {
    let share = || option::of((0..9_usize, 0..9_usize));
    (share(), option::of(any::<u64>()), share()).prop_map(|(peers, staleness_ms, acks)| Provenance {
        peers,
        staleness_ms,
        acks,
    })
}
