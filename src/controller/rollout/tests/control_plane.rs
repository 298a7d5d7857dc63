//! Control plane nodes: alone, in their turn, through their gates.

use super::*;

/// Two control plane nodes and two workers, two at a time.
fn four(strategy: ControlPlane) -> Seen {
    let mut seen = three();
    seen.max_unavailable = 2;
    seen.max_failures = 9;
    seen.control_plane = strategy;
    seen.nodes.remove("w3");
    for name in ["cp1", "cp2"] {
        let control_plane = NodeView {
            control_plane: true,
            ..node(true, false)
        };
        seen.nodes.insert(name.to_owned(), control_plane);
    }
    seen
}

fn ended(seen: &mut Seen, names: &[&str], phase: NodePhase) {
    for name in names {
        seen.shares
            .insert((*name).to_owned(), share(2, Action::Migrate, phase));
        set(seen, name, |n| n.on_target = OnTarget::Yes);
    }
}

fn why(decision: &Decision, name: &str) -> Option<String> {
    let found = decision.waiting.iter().find(|(waiting, _)| waiting == name);
    found.and_then(|(_, why)| why.clone())
}

#[test]
fn last_is_after_every_worker_has_ended() {
    let mut seen = four(ControlPlane::Last);
    let decision = decide(&seen);
    assert_eq!(decision.starts, ["w1", "w2"]);
    assert_eq!(why(&decision, "cp1").unwrap(), "waits until w1 has ended");

    seen.slots = decision.slots;
    ended(&mut seen, &["w1"], NodePhase::Succeeded);
    ended(&mut seen, &["w2"], NodePhase::Verifying);
    assert_eq!(decide(&seen).starts, Vec::<String>::new(), "one is active");

    ended(&mut seen, &["w2"], NodePhase::Blocked);
    assert_eq!(decide(&seen).starts, ["cp1"], "one at a time");
}

#[test]
fn a_worker_that_cannot_start_keeps_them_waiting() {
    let mut seen = four(ControlPlane::Last);
    ended(&mut seen, &["w1"], NodePhase::Succeeded);
    set(&mut seen, "w2", |n| n.ready = false);
    let decision = decide(&seen);
    assert_eq!(decision.starts, Vec::<String>::new());
    assert_eq!(why(&decision, "cp1").unwrap(), "waits until w2 has ended");
}

#[test]
fn first_is_before_any_worker() {
    let mut seen = four(ControlPlane::First);
    let decision = decide(&seen);
    assert_eq!(decision.starts, ["cp1"]);
    assert_eq!(why(&decision, "w1").unwrap(), "waits until cp1 has ended");

    seen.slots = decision.slots;
    ended(&mut seen, &["cp1"], NodePhase::Succeeded);
    assert_eq!(decide(&seen).starts, ["cp2"]);
    seen.slots = vec![slot("cp2", 2)];
    ended(&mut seen, &["cp2"], NodePhase::RolledBack);
    set(&mut seen, "cp2", |n| n.on_target = OnTarget::No);
    assert_eq!(decide(&seen).starts, ["w1", "w2"]);
}

#[test]
fn the_controllers_own_node_goes_last_among_its_kind() {
    let mut seen = four(ControlPlane::First);
    seen.own_node = Some("cp1".to_owned());
    assert_eq!(decide(&seen).starts, ["cp2"]);
}

#[test]
fn gates_are_asked_before_one_and_after_one() {
    let mut seen = four(ControlPlane::First);
    seen.gates = None;
    let decision = decide(&seen);
    assert!(decision.asks_gates && decision.starts.is_empty());

    seen.gates = Some(vec!["for etcd-cp2 to be Ready".to_owned()]);
    let decision = decide(&seen);
    assert_eq!(decision.starts, Vec::<String>::new());
    assert_eq!(
        decision.hold,
        Some(Hold::Gates(vec!["for etcd-cp2 to be Ready".to_owned()]))
    );
    assert_eq!(why(&decision, "cp1").unwrap(), "waits for etcd-cp2 to be Ready");

    // What the last one left behind keeps the workers waiting.
    ended(&mut seen, &["cp1", "cp2"], NodePhase::Succeeded);
    let decision = decide(&seen);
    assert_eq!(decision.starts, Vec::<String>::new());
    assert_eq!(why(&decision, "w1").unwrap(), "waits for etcd-cp2 to be Ready");
}

#[test]
fn workers_alone_ask_no_gate() {
    let mut seen = four(ControlPlane::Last);
    seen.gates = None;
    let decision = decide(&seen);
    assert!(!decision.asks_gates);
    assert_eq!(decision.starts, ["w1", "w2"]);
}

#[test]
fn plans_are_computed_for_all_at_once() {
    let mut seen = four(ControlPlane::Last);
    (seen.mode, seen.gates) = (Mode::Plan, None);
    let decision = decide(&seen);
    assert!(!decision.asks_gates);
    assert_eq!(decision.starts.len(), 4);
}

#[test]
fn a_cordoned_control_plane_takes_no_budget_from_workers() {
    let mut seen = four(ControlPlane::Last);
    set(&mut seen, "cp1", |n| {
        (n.cordoned, n.cordoned_by_others) = (true, true)
    });
    assert_eq!(decide(&seen).starts, ["w1", "w2"]);
}
