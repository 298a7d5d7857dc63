//! Nodes with broken files: planning ends with a plan or with a finding, and shows no secret.

use serde_json::Value;
use transship::{
    plan::{digest::Digest, facts::Facts, finding::Severity},
    planner::plan,
};

use crate::{
    fixtures,
    variants::{hold_against, samples},
};

/// Gives the `nth` file of a host another text, and counts the files.
fn put(value: &mut Value, nth: usize, new: &str, seen: &mut usize) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("path") && fields.contains_key("text") {
                if *seen == nth {
                    fields.insert("text".into(), new.into());
                    fields.insert("digest".into(), serde_json::to_value(Digest::of(new)).unwrap());
                }
                *seen += 1;
            }
            fields.values_mut().for_each(|value| put(value, nth, new, seen));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| put(value, nth, new, seen)),
        _ => {}
    }
}

#[test]
fn fuzz_plans() {
    let hosts = [
        "debian12-kubeadm-1.23-dockershim",
        "debian11-kubeadm-1.23-proxies",
        "debian12-kubeadm-1.36-cri-dockerd",
    ];
    let hosts = hosts.map(|name| serde_json::to_value(fixtures::named(name)).unwrap());
    let kinds = [
        ("containerd-toml", "config.toml"),
        ("daemon-json", "daemon.json"),
        ("env", "kubeadm-flags.env"),
        ("yaml", "config.yaml"),
        ("unit", ".conf"),
        ("cni-network", ".conflist"),
    ];
    for (kind, end) in kinds {
        let turn = std::cell::Cell::new(0);
        hold_against(6, &samples(kind, &[end]), |text| {
            // Each host and each of its files in turn, whatever it should be.
            let host = &hosts[turn.get() % hosts.len()];
            let mut files = 0;
            put(&mut host.clone(), usize::MAX, "", &mut files);
            let mut broken = host.clone();
            put(&mut broken, turn.get() / hosts.len() % files, text, &mut 0);
            turn.set(turn.get() + 1);
            let facts: Facts = serde_json::from_value(broken).unwrap();
            let outcome = plan(&facts, &fixtures::request());
            let blocks = outcome
                .findings
                .iter()
                .any(|finding| finding.severity == Severity::Block);
            assert!(outcome.plan().is_none() || !blocks);
        });
    }
}
