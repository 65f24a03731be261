//! When which kind of fault comes, before its targets are known. A kind may come to several acts, one after the other or overlapping.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::kinds::{FaultKind, Faults};
use super::targets::Aim;

/// The shortest run that has room for a fault and what comes before and after.
pub const SECONDS_MIN: u64 = 8;
/// Further rounds of faults are added to a long run as long as each fault may last twice its least.
const LONGER: u64 = 2;
/// How long links that flap are cut, and how long they are whole.
const FLAP_MS: std::ops::Range<u64> = 700..1_500;
/// How long a clock that swings stays on one side.
const SWING_MS: u64 = 600;

/// When which kind of fault comes. The same arguments give the same plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// How long the run lasts, from the first call to the last.
    pub length_ms: u64,
    pub slots: Vec<Slot>,
}

/// An act whose target is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// 1, 2, …
    pub id: u64,
    /// The id of the first of the acts that belong together: they draw the same lots.
    pub group: u64,
    pub kind: FaultKind,
    pub aim: Aim,
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// None: it lasts beyond the end of the run.
    pub until_ms: Option<u64>,
}

impl Plan {
    /// Lays the faults out over a run. The error says in one line what would do.
    pub fn new(faults: &Faults, seconds: u64, nodes: usize, seed: u64) -> Result<Self, String> {
        if seconds < SECONDS_MIN {
            return Err(format!("a run lasts at least {SECONDS_MIN} s"));
        }
        let plan = |slots| Self { seed, nodes, length_ms: seconds * 1_000, slots };
        if faults.0.is_empty() {
            return Ok(plan(Vec::new()));
        }
        let needs = |kind: &&FaultKind| nodes < kind.least_nodes();
        if let Some(kind) = faults.0.iter().find(needs) {
            let least = kind.least_nodes();
            return Err(format!("faults need at least {least} nodes ({kind}), or no majority is ever left"));
        }
        let least = least_count(faults);
        let least_ms = faults.0.iter().map(|kind| kind.least_ms()).max().unwrap_or_default();
        if Timing::of(seconds, least).fault_ms < least_ms {
            let enough = (seconds..).find(|s| Timing::of(*s, least).fault_ms >= least_ms).unwrap_or(seconds);
            return Err(format!(
                "{least} faults ({faults}) take at least {enough} s per system; {seconds} s do not suffice"
            ));
        }
        let good = |n: &usize| *n == least || Timing::of(seconds, *n).fault_ms >= least_ms * LONGER;
        let count = (least..).take_while(good).last().unwrap_or(least);
        Ok(plan(slots(faults, Timing::of(seconds, count), count, seed)))
    }
}

impl Plan {
    /// How long the shortest fault lasts, from the first of its acts to the last; those that last to the end do not count.
    pub fn shortest_ms(&self) -> Option<u64> {
        let of_group = |group: u64| {
            let acts = self.slots.iter().filter(|slot| slot.group == group && slot.until_ms.is_some());
            let ends = acts.filter_map(|slot| slot.until_ms).max()?;
            let begins = self.slots.iter().find(|slot| slot.id == group)?.at_ms;
            Some(ends.saturating_sub(begins))
        };
        self.slots.iter().filter(|slot| slot.id == slot.group).filter_map(|slot| of_group(slot.id)).min()
    }
}

/// Each once; `halves` and a kind that is alone twice; `core-only` once, for nothing can come after it.
fn least_count(faults: &Faults) -> usize {
    let twice = match faults.0[..] {
        [kind] => kind != FaultKind::CoreOnly,
        _ => faults.0.contains(&FaultKind::Halves),
    };
    faults.0.len() + usize::from(twice)
}

/// The kinds take turns; those of `halves` alternate the leader's side, those of `oneway` the direction.
fn slots(faults: &Faults, timing: Timing, count: usize, seed: u64) -> Vec<Slot> {
    let (last, turning): (Vec<_>, Vec<_>) = faults.0.iter().partition(|kind| **kind == FaultKind::CoreOnly);
    // Once around, then what is left of the second round begins with `halves`, which must come twice.
    let mut again = turning.clone();
    again.sort_by_key(|kind| *kind != FaultKind::Halves);
    let turns =
        turning.into_iter().chain(again.iter().copied().cycle().take(count)).take(count - last.len()).chain(last);
    let mut slots = Vec::new();
    let mut seen = std::collections::BTreeMap::<FaultKind, usize>::new();
    for (turn, kind) in turns.enumerate() {
        let at = timing.calm_ms + turn as u64 * (timing.fault_ms + timing.gap_ms);
        let times = seen.entry(kind).or_default();
        let group = slots.len() as u64 + 1;
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed ^ group.wrapping_mul(0x2545_f491_4f6c_dd1d));
        for (aim, at_ms, until_ms) in acts(kind, *times, at, at + timing.fault_ms, &mut chance) {
            slots.push(Slot { id: slots.len() as u64 + 1, group, kind, aim, at_ms, until_ms });
        }
        *times += 1;
    }
    slots
}

type Act = (Aim, u64, Option<u64>);

/// What a kind comes to between two moments, the `times`-th time.
fn acts(kind: FaultKind, times: usize, at: u64, until: u64, chance: &mut Xoshiro256PlusPlus) -> Vec<Act> {
    let even = times.is_multiple_of(2);
    let whole = |aim| vec![(aim, at, Some(until))];
    match kind {
        FaultKind::Halves => whole(Aim::Halves { leader_in_minority: even }),
        FaultKind::IsolateLeader => whole(Aim::IsolateLeader),
        FaultKind::Ring => whole(Aim::Ring),
        FaultKind::Bridge => whole(Aim::Bridge),
        FaultKind::Oneway => whole(Aim::Oneway { outgoing: even }),
        FaultKind::Flap => flap(at, until, chance),
        FaultKind::Kill => whole(Aim::KillMinority),
        FaultKind::KillAll => whole(Aim::KillAll),
        FaultKind::PowerCut => whole(Aim::CutPower),
        FaultKind::Pause => whole(Aim::PauseLeader),
        FaultKind::Skew => skew(at, until),
        FaultKind::Loss => whole(Aim::Lose),
        FaultKind::Delay => whole(Aim::Delay),
        FaultKind::DropResponse => whole(Aim::DropAnswers),
        FaultKind::Membership => whole(Aim::Replace { leader: even }),
        FaultKind::Transfer => whole(Aim::Transfer),
        FaultKind::DiskFull => whole(Aim::FillDisk),
        FaultKind::Corrupt => whole(Aim::Corrupt),
        FaultKind::Chaos => chaos(at, until, chance),
        FaultKind::CoreOnly => core_only(at, until),
    }
}

fn flap(at: u64, until: u64, chance: &mut Xoshiro256PlusPlus) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut now = at;
    while now < until {
        let cut_until = (now + chance.random_range(FLAP_MS)).min(until);
        // A cut too short to be probed would leave it open whether it was there.
        if cut_until - now >= FLAP_MS.start {
            acts.push((Aim::Sides, now, Some(cut_until)));
        }
        now = cut_until + chance.random_range(FLAP_MS);
    }
    acts
}

/// One jump for the first half, then to and fro.
fn skew(at: u64, until: u64) -> Vec<Act> {
    let half = at.midpoint(until);
    let mut acts = vec![(Aim::Skew { swing: None }, at, Some(half))];
    let mut now = half;
    for swing in 0.. {
        let next = (now + SWING_MS).min(until);
        if next - now < SWING_MS {
            break;
        }
        acts.push((Aim::Skew { swing: Some(swing % 2 == 1) }, now, Some(next)));
        now = next;
    }
    acts
}

/// A partition, a kill, a pause, lossy links and a replaced member, each overlapping others. The moments vary by a tenth of the whole.
fn chaos(at: u64, until: u64, chance: &mut Xoshiro256PlusPlus) -> Vec<Act> {
    let mut part = |percent: u64| at + (until - at) * (percent + chance.random_range(0..10)) / 100;
    vec![
        (Aim::Lose, part(0), Some(part(40))),
        (Aim::Victim { place: 0, pause: false }, part(5), Some(part(40))),
        (Aim::Sides, part(15), Some(part(65))),
        (Aim::Victim { place: 1, pause: true }, part(25), Some(part(45))),
        (Aim::Replace { leader: false }, part(60), Some(until)),
    ]
}

/// A storm; what then is not of the core stays broken. It breaks before the storm ends, so that there is no moment in which all is well.
fn core_only(at: u64, until: u64) -> Vec<Act> {
    let calm = at.midpoint(until);
    vec![(Aim::CutAll, at, Some(calm)), (Aim::OutsideCut, calm - 300, None), (Aim::OutsideKill, calm - 300, None)]
}

/// How a run is divided: calm, fault, gap, fault, …, rest.
#[derive(Clone, Copy, Debug)]
struct Timing {
    calm_ms: u64,
    fault_ms: u64,
    gap_ms: u64,
}

impl Timing {
    /// 20 s and two faults: 2.5 calm, 4.5 fault, 3 healed, 4.5 fault, 5.5 healed.
    fn of(seconds: u64, faults: usize) -> Self {
        let length = seconds * 1_000;
        let beyond = (length - SECONDS_MIN * 1_000).min(12_000);
        let calm_ms = 800 + beyond * 1_700 / 12_000;
        let rest_ms = 1_800 + beyond * 3_700 / 12_000;
        let middle = length - calm_ms - rest_ms;
        // A gap is two thirds of a fault, and there is one gap fewer than faults.
        let fault_ms = 3 * middle / (5 * faults as u64 - 2);
        Self { calm_ms, fault_ms, gap_ms: fault_ms * 2 / 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Faults {
        text.parse().unwrap()
    }

    #[test]
    fn the_usual_run_has_two_cuts_between_calm_and_rest() {
        let plan = Plan::new(&faults("halves"), 20, 5, 7).unwrap();
        let times = plan.slots.iter().map(|slot| (slot.at_ms, slot.until_ms)).collect::<Vec<_>>();
        assert_eq!(times, [(2_500, Some(7_000)), (10_000, Some(14_500))]);
    }

    #[test]
    fn several_kinds_take_turns_and_those_of_one_act_never_overlap() {
        let plan = Plan::new(&faults("pause,halves,kill,isolate-leader"), 30, 5, 1).unwrap();
        let kinds = plan.slots.iter().map(|slot| slot.kind).collect::<Vec<_>>();
        assert_eq!(&kinds[..4], faults("pause,halves,kill,isolate-leader").0);
        assert_eq!(kinds[4], FaultKind::Halves);
        for pair in plan.slots.windows(2) {
            assert!(pair[0].until_ms.unwrap() < pair[1].at_ms);
        }
        let halves = plan.slots.iter().filter(|slot| slot.kind == FaultKind::Halves).map(|slot| slot.aim);
        let aims = [true, false].map(|leader_in_minority| Aim::Halves { leader_in_minority });
        assert_eq!(halves.collect::<Vec<_>>(), aims);
        assert!(plan.slots.iter().all(|slot| slot.until_ms.unwrap() - slot.at_ms >= 2_000));
    }

    #[test]
    fn every_length_from_the_shortest_on_ends_after_its_last_fault() {
        for seconds in SECONDS_MIN..200 {
            let plan = Plan::new(&faults("halves"), seconds, 5, 1).unwrap();
            assert!(plan.slots.len() >= 2);
            assert!(plan.slots.last().unwrap().until_ms.unwrap() + 1_500 < plan.length_ms, "{seconds}: {plan:?}");
        }
    }

    #[test]
    fn every_kind_fits_into_a_run_of_its_least_and_every_act_has_a_time() {
        for kind in FaultKind::ALL {
            let alone = Faults(vec![kind]);
            let plan = (SECONDS_MIN..60).find_map(|seconds| Plan::new(&alone, seconds, 5, 3).ok()).unwrap();
            assert!(plan.slots.iter().all(|slot| slot.kind == kind));
            for (place, slot) in plan.slots.iter().enumerate() {
                assert_eq!(slot.id, place as u64 + 1);
                assert!(slot.until_ms.is_none_or(|until| slot.at_ms < until && until < plan.length_ms), "{plan:?}");
            }
        }
    }

    #[test]
    fn links_that_flap_are_cut_more_than_once_each_time_long_enough_to_be_probed() {
        let plan = Plan::new(&faults("flap"), 20, 5, 1).unwrap();
        let first = plan.slots.iter().filter(|slot| slot.group == 1).collect::<Vec<_>>();
        assert!(first.len() >= 2, "{first:?}");
        assert!(first.iter().all(|slot| slot.until_ms.unwrap() - slot.at_ms >= FLAP_MS.start));
        assert!(first.windows(2).all(|pair| pair[0].until_ms.unwrap() + FLAP_MS.start <= pair[1].at_ms));
    }

    #[test]
    fn chaos_has_several_faults_in_force_at_once() {
        for seed in 0..50 {
            let plan = Plan::new(&faults("chaos"), 30, 5, seed).unwrap();
            let during = |at: u64| plan.slots.iter().filter(|s| s.at_ms <= at && at < s.until_ms.unwrap()).count();
            assert!((0..30_000).step_by(50).map(during).max() >= Some(3), "{plan:?}");
            assert!(plan.slots.iter().all(|slot| slot.at_ms < slot.until_ms.unwrap()), "{plan:?}");
        }
    }

    #[test]
    fn the_core_comes_last_and_the_rest_is_never_mended() {
        let plan = Plan::new(&faults("core-only,halves"), 40, 5, 1).unwrap();
        let lasting = plan.slots.iter().filter(|slot| slot.until_ms.is_none()).collect::<Vec<_>>();
        assert_eq!(lasting.len(), 2);
        let last_heal = plan.slots.iter().filter_map(|slot| slot.until_ms).max().unwrap();
        assert!(lasting.iter().all(|slot| slot.kind == FaultKind::CoreOnly && slot.at_ms < last_heal));
        assert!(plan.slots.iter().all(|slot| slot.at_ms <= lasting[0].at_ms));
    }

    #[test]
    fn too_little_time_or_too_few_nodes_are_told_with_what_would_do() {
        let told = Plan::new(&faults("halves,kill,pause,isolate-leader"), 12, 5, 1).unwrap_err();
        assert!(told.contains("take at least 24 s per system; 12 s do not suffice"), "{told}");
        assert!(Plan::new(&faults("halves"), 7, 5, 1).unwrap_err().contains("at least 8 s"));
        assert!(Plan::new(&faults("halves"), 20, 2, 1).unwrap_err().contains("at least 3 nodes"));
        assert!(Plan::new(&faults("kill,ring"), 40, 3, 1).unwrap_err().contains("at least 4 nodes (ring)"));
        assert!(Plan::new(&faults("none"), 20, 1, 1).unwrap().slots.is_empty());
    }
}
