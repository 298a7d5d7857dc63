//! The rules in `systemd-rules`, which `tests/e2e/systemd-rules` asks of a real systemd, asked of the sweep's.

use std::sync::Arc;

use transship::{
    host::systemd::{Systemd, SystemdError},
    plan::step::{HOLD_FILE, KUBELET_UNIT},
};

use crate::crash_sweep::{
    cases::{self, HOLD},
    world::{Fault, World, path},
};

#[test]
fn the_sweeps_systemd_follows_the_rules_of_a_real_one() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let rules = include_str!("systemd-rules").lines();
    let rules = rules.filter_map(|line| line.split_once("=>").filter(|_| !line.starts_with('#')));
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (requests, facts) in rules {
        let found = runtime.block_on(answer(requests, facts));
        if found != facts.trim() {
            wrong.push(format!("{requests}=>{facts}: {found}"));
        }
        asked += 1;
    }
    assert!(asked > 20, "{asked}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The facts of a rule as they are after its requests.
async fn answer(requests: &str, facts: &str) -> String {
    let mut case = cases::by_hand();
    let mut bind = |unit: &str, to: &str| case.bound.insert(unit.to_owned(), [to.to_owned()].into());
    bind(SOCKET, "docker.service");
    if !requests.contains("alone") {
        bind("docker.service", SOCKET);
    }
    let world = World::new(&Arc::new(case), Fault::Nothing);
    // The sweep's systemd knows conditions and several drop-ins of the kubelet alone.
    let name = if ["hold", "early", "late"]
        .iter()
        .any(|word| requests.contains(word))
    {
        KUBELET_UNIT
    } else {
        "docker.service"
    };
    world.state().units.get_mut(name).unwrap().active = false;
    world.state().units.get_mut(SOCKET).unwrap().active = false;
    world.disable(name).await.unwrap();
    world.free_files().remove(&path(EARLY)).unwrap();
    world.reload().await.unwrap();
    let mut refused = false;
    for request in requests.split_whitespace() {
        refused = ask(&world, name, request).await.is_err();
    }
    let unit = world.unit(name).await.unwrap();
    let socket = world.unit(SOCKET).await.unwrap();
    let described = world.describe(name).await.unwrap();
    let names = described.drop_ins.iter();
    let names = names.map(|path| path.as_str().rsplit('/').next().unwrap());
    let drop_ins: Vec<&str> = names.collect();
    let found = facts.split_whitespace().map(|fact| match fact.split_once('=') {
        Some(("active", _)) => format!("active={}", unit.active),
        Some(("socket", _)) => format!("socket={}", socket.active),
        Some(("boot", _)) => format!("boot={}", unit.boot),
        Some(("load", _)) => format!("load={}", unit.load),
        Some(("drop-ins", _)) => format!("drop-ins={}", drop_ins.join(",")),
        Some(("nofile", _)) => format!("nofile={}", described.limits["LimitNOFILE"].hard),
        _ if refused => "refused".to_owned(),
        _ => "not refused".to_owned(),
    });
    let found: Vec<String> = found.collect();
    assert!(!refused || facts.contains("refused"), "{requests}: refused");
    found.join(" ")
}

async fn ask(world: &Arc<World>, name: &str, request: &str) -> Result<(), SystemdError> {
    match request {
        "start" => world.start(name).await,
        "stop" => {
            let result = world.stop(name).await;
            // In the sweep, somebody starts the kubelet again at once.
            world.state().units.get_mut(name).unwrap().active = false;
            result
        }
        "restart" => world.restart(name).await,
        "enable" => world.enable(name).await.map(drop),
        "disable" => world.disable(name).await.map(drop),
        "mask" => world.mask(name).await.map(drop),
        "unmask" => world.unmask(name).await.map(drop),
        "mask-until-boot" => world.mask_until_boot(name).await,
        "unmask-until-boot" => world.unmask_until_boot(name).await,
        "reset-failed" => world.reset_failed(name).await,
        "reload" => world.reload().await,
        // It is made so at the beginning.
        "alone" => Ok(()),
        "start-socket" => world.start(SOCKET).await,
        "stop-socket" => world.stop(SOCKET).await,
        "mask-socket" => world.mask(SOCKET).await.map(drop),
        "hold" => {
            let files = world.free_files();
            let condition = format!("[Unit]\nConditionPathExists=!{HOLD_FILE}\n");
            files.write(&path(HOLD), condition.as_bytes(), 0o644).unwrap();
            files.write(&path(HOLD_FILE), b"", 0o644).unwrap();
            Ok(())
        }
        "early" => limit(world, EARLY, 1000),
        "late" => limit(world, HOLD, 2000),
        other => unreachable!("no request: {other}"),
    }
}

/// The socket of the unit that is asked.
const SOCKET: &str = "docker.socket";

/// A drop-in of the kubelet that a plan has, and whose name sorts before that of the hold.
const EARLY: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";

fn limit(world: &Arc<World>, at: &str, files: u32) -> Result<(), SystemdError> {
    let text = format!("[Service]\nLimitNOFILE={files}\n");
    world
        .free_files()
        .write(&path(at), text.as_bytes(), 0o644)
        .unwrap();
    Ok(())
}
