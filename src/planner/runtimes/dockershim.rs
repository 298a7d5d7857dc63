//! dockershim, inside the kubelet up to 1.23: its pods are Docker's containers. It can be left, not gone to.

use crate::{
    plan::{facts::Facts, finding::Finding, kubelet_settings::Settings, runtime::Runtime, step::Endpoint},
    planner::{
        context::{Planner, Source, SourcePart},
        runtimes::docker,
    },
};

/// The planner of dockershim.
pub const PLANNER: Planner = Planner {
    runtime: Runtime::Dockershim,
    source: Some(SourcePart {
        look,
        prepare: |_| Vec::new(),
        switch: |_| Ok(Vec::new()),
        settle: |view| Ok(docker::settle(view)),
        settings: |_| Vec::new(),
        layers: docker::layers,
        check: |_| Vec::new(),
    }),
    target: None,
};

fn look<'a>(facts: &'a Facts, settings: &Settings) -> Result<Source<'a>, Finding> {
    let (docker, engine) = docker::answering(facts)?;
    let engine_at = Endpoint {
        runtime: Runtime::Dockershim,
        socket: docker.endpoint.clone(),
    };
    Ok(Source {
        runtime: Runtime::Dockershim,
        version: engine.version.clone(),
        cri: engine_at.clone(),
        images: engine_at,
        store: &engine.store,
        network: settings.network.clone(),
        sandbox_image: settings.sandbox_image.clone(),
        pull_deadline: settings.pull_deadline.clone(),
        cgroup_driver: Some(&engine.cgroup_driver),
        told_cgroup_driver: None,
        unit: docker::SERVICE,
    })
}
