//! Each host has its plan, in words; and what holds of every plan.

use super::*;

#[test]
fn every_host_has_its_plan() {
    for (name, facts, request) in fixtures::cases() {
        let outcome = plan(&facts, &request);
        insta::assert_snapshot!(name, in_words(&facts, &outcome));
    }
    for (name, facts, request) in fixtures::brought() {
        let outcome = plan(&facts, &request);
        assert!(outcome.plan().is_some(), "{name}: {:?}", outcome.findings);
        insta::assert_snapshot!(name, in_words(&facts, &outcome));
    }
}

/// What comes in an archive is switched to by a drop-in, or by units of its own where there are none.
#[test]
fn archives_have_their_plans() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let request = fixtures::from_archive(Runtime::Containerd);
    let outcome = plan(&facts, &request);
    insta::assert_snapshot!("archive-containerd-beside-an-old-one", in_words(&facts, &outcome));
    facts.containerd = None;
    let outcome = plan(&facts, &request);
    insta::assert_snapshot!("archive-containerd-alone", in_words(&facts, &outcome));
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    facts.cri_dockerd = None;
    let outcome = plan(&facts, &fixtures::from_archive(Runtime::CriDockerd));
    insta::assert_snapshot!("archive-cri-dockerd-alone", in_words(&facts, &outcome));
    let request = fixtures::from_archive(Runtime::CriO);
    for (name, host) in [
        (
            "archive-cri-o-from-cri-dockerd",
            "debian12-kubeadm-1.36-cri-dockerd",
        ),
        (
            "archive-cri-o-from-containerd",
            "debian12-kubeadm-1.36-control-plane-containerd-2.4",
        ),
    ] {
        let mut facts = fixtures::named(host);
        fixtures::ready_for_cri_o(&mut facts);
        let outcome = plan(&facts, &request);
        insta::assert_snapshot!(name, in_words(&facts, &outcome));
    }
}

/// A newer containerd takes the place of the one that serves, and no pod is stopped.
#[test]
fn upgrades_have_their_plans() {
    let (facts, mut request) = fixtures::upgrade();
    request.preflight.allow = vec!["SandboxImageMissing".to_owned()];
    let outcome = plan(&facts, &request);
    insta::assert_snapshot!("upgrade-containerd-1.6", in_words(&facts, &outcome));
    let stops = |planned: &transship::plan::document::PlannedStep| {
        matches!(planned.does, Step::StopPods(_) | Step::Kubelet(_))
    };
    assert!(!outcome.plan().unwrap().steps.iter().any(stops));
}

/// Shims of two releases of 1.x are alike: the program changes, and nothing else.
#[test]
fn a_patch_release_changes_the_program_alone() {
    let facts = fixtures::named("debian12-kubeadm-1.30-containerd");
    let mut request = fixtures::from_archive(Runtime::Containerd);
    request.preflight.allow = vec!["SandboxImageMissing".to_owned()];
    if let Origin::Archive(archive) = &mut request.target.from {
        archive.url = "https://downloads.example.org/containerd-1.7.35-linux-amd64.tar.gz".into();
    }
    let outcome = plan(&facts, &request);
    let plan = outcome.plan().unwrap();
    let files = plan.steps.iter().filter_map(|planned| match &planned.does {
        Step::File(file) => Some(file.path.as_str()),
        _ => None,
    });
    let files: Vec<&str> = files.collect();
    assert_eq!(
        files,
        ["/etc/systemd/system/containerd.service.d/zz-transship.conf"]
    );
    assert_eq!(plan.switched(), plan.steps.len(), "nothing follows the commit");
}

/// A package has its unit; its configuration is written before it, so that the package manager keeps what the plan wrote.
#[test]
fn packages_have_their_plans() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    facts.containerd = None;
    let outcome = plan(&facts, &fixtures::from_package(Runtime::Containerd));
    insta::assert_snapshot!("package-containerd", in_words(&facts, &outcome));
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    facts.cri_dockerd = None;
    let outcome = plan(&facts, &fixtures::from_package(Runtime::CriDockerd));
    insta::assert_snapshot!("package-cri-dockerd", in_words(&facts, &outcome));
    fixtures::ready_for_cri_o(&mut facts);
    let outcome = plan(&facts, &fixtures::from_package(Runtime::CriO));
    insta::assert_snapshot!("package-cri-o", in_words(&facts, &outcome));
    let mut facts = fixtures::named("rocky8-kubeadm-1.22-rpm");
    facts.containerd = None;
    let mut request = fixtures::from_package(Runtime::Containerd);
    request.target.version = Some("1.6.33".into());
    let outcome = plan(&facts, &request);
    insta::assert_snapshot!("package-containerd-rpm", in_words(&facts, &outcome));
}

#[test]
fn the_hosts_cover_layouts_drivers_and_forms_of_files() {
    let hosts = fixtures::all();
    let covered = |of: &dyn Fn(&Facts) -> Option<String>| -> BTreeSet<String> {
        hosts.iter().filter_map(|(_, facts)| of(facts)).collect()
    };
    let layouts = covered(&|facts| Some(format!("{:?}", facts.layout)));
    assert!(
        ["Kubeadm", "PlainUnit", "K3s"]
            .iter()
            .all(|layout| layouts.contains(*layout)),
        "{layouts:?}"
    );
    let drivers = covered(&|facts| Some(Settings::of(facts.kubelet.as_ref()?, &[]).unwrap().cgroup_driver));
    assert_eq!(drivers.into_iter().collect::<Vec<_>>(), ["cgroupfs", "systemd"]);
    let runtimes = covered(&|facts| {
        Settings::of(facts.kubelet.as_ref()?, &[])
            .unwrap()
            .runtime
            .map(|found| found.to_string())
    });
    assert_eq!(
        runtimes.into_iter().collect::<Vec<_>>(),
        ["containerd", "cri-dockerd", "cri-o", "dockershim"]
    );
    let pairs: BTreeSet<_> = fixtures::cases()
        .iter()
        .filter_map(|(_, facts, request)| {
            let outcome = plan(facts, request);
            let planned = outcome.plan()?;
            Some((planned.source.runtime.name(), planned.target.runtime.name()))
        })
        .collect();
    let wanted = fixtures::pairs().into_iter();
    let wanted = wanted.map(|(source, target)| (source.name(), target.name()));
    assert_eq!(pairs, wanted.collect());
    let configs = covered(&|facts| {
        let file = &facts.containerd.as_ref()?.config.file;
        let version = file.as_ref().map_or("no file", |file| {
            file.text
                .lines()
                .find(|line| line.starts_with("version"))
                .unwrap_or("no version")
        });
        Some(version.split(" #").next()?.to_owned())
    });
    assert_eq!(
        configs.into_iter().collect::<Vec<_>>(),
        ["no file", "no version", "version = 2", "version = 3"]
    );
    let ready = hosts
        .iter()
        .filter(|(_, facts)| plan(facts, &fixtures::request()).plan().is_some())
        .count();
    assert!(ready >= 6, "{ready} hosts can be planned");
}

#[test]
fn what_was_found_is_what_its_digest_says() {
    for (name, facts) in fixtures::all() {
        for file in facts.texts() {
            assert_eq!(file.digest, Digest::of(&file.text), "{name}: {}", file.path);
        }
    }
}

#[test]
fn a_plan_survives_serialisation_and_is_the_same_every_time() {
    for (name, facts, request) in fixtures::cases() {
        let outcome = plan(&facts, &request);
        assert_eq!(outcome, plan(&facts, &request), "{name}");
        if let Some(plan) = outcome.plan() {
            let read = serde_json::from_slice(&serde_json::to_vec(plan).unwrap()).unwrap();
            assert_eq!(plan, &read, "{name}");
            assert_eq!(plan.words().len(), plan.steps.len());
        }
    }
}

/// Mode `Plan` shows the digest of the plan that `Apply` runs, if nothing changes on the node in between.
#[test]
fn a_digest_is_that_of_what_is_done() {
    let (facts, request) = (fixtures::named(LAB), fixtures::request());
    let digest = |facts: &Facts, request: &Request| plan(facts, request).plan().unwrap().digest();
    let first = digest(&facts, &request);

    let mut same = request.clone();
    same.migration = "00000000-0000-4000-8000-000000000002-7".into();
    same.migration_name = Some("another".into());
    same.preflight.allow = vec!["DiskSpace".into(), "NoSuchCode".into()];
    same.images.transfer = Transfer::All;
    let mut later = facts.clone();
    for disk in &mut later.disks {
        disk.free -= 1 << 20;
    }
    // A pod has gone.
    engine(&mut later).store.containers.pop();
    let outcome = plan(&later, &same);
    assert_ne!(outcome.findings, plan(&facts, &request).findings);
    assert_ne!(outcome.plan(), plan(&facts, &request).plan());
    assert_eq!(digest(&later, &same), first);

    let changes: [fn(&mut Facts, &mut Request); 6] = [
        |facts, _| facts.machine_id = "another".into(),
        |facts, _| facts.digest_key = "another".into(),
        |facts, _| facts.containerd.as_mut().unwrap().version = "1.7.28".into(),
        |_, request| {
            request.target.sandbox_image = Some("registry.k8s.io/pause:3.9".into());
            request.preflight.allow = vec!["SandboxImageMissing".into()];
        },
        |_, request| request.drain.mode = DrainMode::InPlace,
        |_, request| request.source.keep = true,
    ];
    for (number, change) in changes.iter().enumerate() {
        let (mut facts, mut request) = (facts.clone(), request.clone());
        change(&mut facts, &mut request);
        assert_ne!(digest(&facts, &request), first, "change {number}");
    }
    // Every step counts, and so does their order.
    let planned = plan(&facts, &request).plan().unwrap().clone();
    for index in 1..planned.steps.len() {
        let mut other = planned.clone();
        let step = other.steps.remove(index);
        assert_ne!(other.digest(), first, "without step {index}");
        other.steps.insert(index - 1, step);
        assert_ne!(other.digest(), first, "step {index} is one earlier");
    }
}
