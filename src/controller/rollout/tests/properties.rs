//! What holds whatever is seen.

use proptest::prelude::*;
use proptest::sample::select as sample;

use super::*;

const ON_TARGET: [OnTarget; 3] = [OnTarget::No, OnTarget::Perhaps, OnTarget::Yes];

fn phases() -> impl Strategy<Value = NodePhase> {
    sample(NodePhase::ALL.to_vec())
}

prop_compose! {
    fn any_seen()(
        nodes in proptest::collection::vec(
            (
                any::<bool>(), proptest::bool::weighted(0.2), sample(ON_TARGET.to_vec()), proptest::bool::weighted(0.3),
                proptest::option::of((1i64..3, phases(), any::<bool>())), proptest::bool::weighted(0.1),
            ),
            1..8,
        ),
        max_unavailable in 1usize..4,
        max_failures in 1usize..4,
        paused in proptest::bool::weighted(0.2),
        deleting in proptest::bool::weighted(0.1),
        control_plane in sample(vec![ControlPlane::Last, ControlPlane::First]),
        gates in sample(vec![None, Some(Vec::new()), Some(vec!["for etcd-n0 to be Ready".to_owned()])]),
    ) -> Seen {
        let mut seen = Seen { max_unavailable, max_failures, paused, deleting, control_plane, gates, nodes: BTreeMap::new(), ..three() };
        for (index, (ready, cordoned, on_target, control_plane, of_share, marked)) in nodes.into_iter().enumerate() {
            let name = format!("n{index}");
            seen.nodes.insert(name.clone(), NodeView {
                cordoned_for: (cordoned && marked).then(|| ME.to_owned()), on_target, control_plane, ..node(ready, cordoned)
            });
            if let Some((generation, phase, claimed)) = of_share {
                seen.shares.insert(name.clone(), share(generation, Action::Migrate, phase));
                if claimed && seen.slots.len() < max_unavailable {
                    seen.slots.push(slot(&name, generation));
                }
            }
        }
        seen
    }
}

/// What the shell and a well-behaved agent make of a decision: everything that was written ends as `outcome` says.
fn world_after(seen: &mut Seen, decision: &Decision, outcome: impl Fn(&str) -> NodePhase) {
    seen.slots = decision.slots.clone();
    for (name, write) in &decision.writes {
        let action = match write {
            Write::Ask(ask) => ask.action,
            Write::Abort => Action::Abort,
            Write::Proceed(_) | Write::Evict => continue,
        };
        seen.shares
            .insert(name.clone(), share(seen.generation, action, NodePhase::Preparing));
    }
    for slot in &seen.slots {
        let phase = outcome(&slot.name);
        let node = seen.nodes.get_mut(&slot.name).unwrap();
        node.cordoned_for = None;
        (node.ready, node.cordoned, node.on_target) = (
            true,
            slot.cordoned,
            if phase == NodePhase::Succeeded {
                OnTarget::Yes
            } else {
                OnTarget::No
            },
        );
        if let Some(share) = seen.shares.get_mut(&slot.name) {
            share.phase = phase;
        }
    }
}

proptest! {
    #[test]
    fn never_more_than_the_budget(seen in any_seen()) {
        let decision = decide(&seen);
        if !decision.starts.is_empty() {
            prop_assert!(decision.slots.len() <= seen.max_unavailable);
            let unavailable = seen.nodes.iter().filter(|(name, node)| {
                let bad = !node.control_plane && (!node.ready || node.cordoned);
                bad || decision.slots.iter().any(|slot| slot.name == **name)
            });
            prop_assert!(unavailable.count() <= seen.max_unavailable);
        }
    }

    #[test]
    fn what_is_paused_deleted_braked_or_ended_starts_nothing(seen in any_seen()) {
        let failed = seen.shares.iter().filter(|(name, share)| {
            let ended = matches!(share.phase, NodePhase::RolledBack | NodePhase::Failed);
            ended && seen.nodes.contains_key(*name)
                && !decide(&seen).slots.iter().any(|slot| slot.name == **name)
        }).count();
        if seen.paused || seen.deleting || failed >= seen.max_failures {
            prop_assert_eq!(decide(&seen).starts, Vec::<String>::new());
        }
        let ended = Seen { ended: true, ..seen };
        prop_assert_eq!(decide(&ended).starts, Vec::<String>::new());
    }

    #[test]
    fn pods_stop_in_place_only_where_there_is_no_other_node(seen in any_seen()) {
        let decision = decide(&seen);
        let others = |name: &str, usable: fn(&NodeView) -> bool| {
            seen.nodes.iter().filter(|(other, node)| *other != name && node.takes_pods && usable(node)).count()
        };
        for (name, write) in &decision.writes {
            if let Write::Ask(ask) = write {
                prop_assert_eq!(ask.no_other_node, others(name, |_| true) == 0);
            }
        }
        for name in &decision.starts {
            prop_assert!(others(name, |_| true) == 0 || others(name, |node| node.ready && !node.cordoned) > 0);
        }
    }

    #[test]
    fn nodes_start_by_name_and_the_decision_is_the_same_every_time(seen in any_seen()) {
        let decision = decide(&seen);
        prop_assert!(decision.starts.is_sorted());
        prop_assert_eq!(decide(&seen), decision);
    }

    #[test]
    fn nothing_is_held_back_without_a_reason(seen in any_seen()) {
        let decision = decide(&seen);
        let idle = decision.slots.is_empty() && !decision.waiting.is_empty();
        prop_assert!(!idle || decision.asks_gates || decision.hold.is_some() || decision.waiting.iter().any(|(_, why)| why.is_some()));
    }

    #[test]
    fn a_control_plane_node_starts_alone_and_through_open_gates(seen in any_seen()) {
        let decision = decide(&seen);
        let of_control_plane = |name: &String| seen.nodes[name].control_plane;
        if decision.starts.iter().any(of_control_plane) {
            prop_assert_eq!(decision.slots.len(), 1);
            prop_assert_eq!(&seen.gates, &Some(Vec::new()));
        }
        let active = decision.slots.iter().any(|slot| {
            !decision.starts.contains(&slot.name) && of_control_plane(&slot.name)
        });
        prop_assert!(!active || decision.starts.is_empty(), "nothing starts beside one");
    }

    #[test]
    fn control_planes_have_their_turn_at_the_right_end(seen in any_seen()) {
        let decision = decide(&seen);
        let waits_or_moves = |name: &String| decision.standing.iter().any(|(other, standing)| {
            other == name && matches!(standing, Standing::Pending | Standing::Active)
        });
        for started in &decision.starts {
            let later = match seen.control_plane {
                ControlPlane::Last => seen.nodes[started].control_plane,
                _ => !seen.nodes[started].control_plane,
            };
            let first_kind = seen.nodes.iter().filter(|(_, n)| {
                n.control_plane == (seen.control_plane == ControlPlane::First)
            });
            for (name, _) in first_kind {
                prop_assert!(!later || !waits_or_moves(name), "{} before {}", started, name);
            }
        }
    }

    #[test]
    fn every_node_terminates(seen in any_seen(), bad in any::<u8>()) {
        let gates = Some(Vec::new());
        let mut seen = Seen { max_failures: 100, paused: false, deleting: false, gates, ..seen };
        for node in seen.nodes.values_mut() {
            (node.ready, node.cordoned, node.cordoned_by_others) = (true, false, false);
            node.cordoned_for = None;
        }
        let outcome = |name: &str| {
            let index: u32 = name[1..].parse().unwrap();
            if bad >> index & 1 == 1 { NodePhase::RolledBack } else { NodePhase::Succeeded }
        };
        for _ in 0..30 {
            let decision = decide(&seen);
            world_after(&mut seen, &decision, outcome);
        }
        let decision = decide(&seen);
        prop_assert_eq!(&decision.slots, &[]);
        for (name, standing) in &decision.standing {
            prop_assert!(!matches!(standing, Standing::Pending | Standing::Active), "{} is {:?}", name, standing);
        }
    }
}
