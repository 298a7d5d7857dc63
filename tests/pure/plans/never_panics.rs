//! Whatever text a file has, planning ends with a plan or a finding.

use super::*;

proptest! {
    #[test]
    fn no_text_makes_the_planner_panic(at in 0..6usize, new in "(\\PC|\n|[\"'\\\\={}\\[\\]:#-]){0,60}") {
        let mut facts = fixtures::named(LAB);
        match at {
            0 => flags(&mut facts, &format!("KUBELET_KUBEADM_ARGS={new}")),
            1 => flags(&mut facts, &new),
            2 => config(&mut facts, &new),
            3 => text(facts.docker.as_mut().unwrap().daemon_json.as_mut().unwrap(), &new),
            4 => text(facts.kubelet.as_mut().unwrap().config.as_mut().unwrap(), &new),
            _ => text(&mut facts.cni.configs[0], &new),
        }
        let outcome = plan(&facts, &fixtures::request());
        prop_assert_eq!(outcome.plan().is_none(), outcome.findings.iter().any(|f| f.severity == Severity::Block));
    }
}
