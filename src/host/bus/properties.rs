//! Properties of units as they come over the bus. One that an older systemd does not have reads as empty, or 0.

use std::collections::{BTreeMap, HashMap};

use zbus::{OwnedVariant, Structure};

use crate::{host::systemd::Unit, plan::facts::Limits};

/// The properties of one interface of a unit, by their names.
pub(super) type Properties = HashMap<String, OwnedVariant>;

pub(super) fn as_unit(unit: &Properties, service: &Properties) -> Unit {
    Unit {
        load: text(unit, "LoadState"),
        active: text(unit, "ActiveState"),
        boot: text(unit, "UnitFileState"),
        main_pid: small(service, "MainPID"),
        restarts: small(service, "NRestarts"),
    }
}

pub(super) fn text(properties: &Properties, name: &str) -> String {
    properties
        .get(name)
        .and_then(|value| <&str>::try_from(value).ok())
        .unwrap_or_default()
        .to_owned()
}

pub(super) fn texts(properties: &Properties, name: &str) -> Vec<String> {
    let value = properties.get(name).and_then(|value| value.try_clone().ok());
    value
        .and_then(|value| Vec::<String>::try_from(value).ok())
        .unwrap_or_default()
}

pub(super) fn small(properties: &Properties, name: &str) -> u32 {
    properties
        .get(name)
        .and_then(|value| u32::try_from(value).ok())
        .unwrap_or(0)
}

pub(super) fn number(properties: &Properties, name: &str) -> u64 {
    properties
        .get(name)
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(0)
}

/// The resource limits of a service. Before systemd 232 a limit has one value, which is both.
pub(super) fn limits(service: &Properties) -> BTreeMap<String, Limits> {
    let names = service
        .keys()
        .filter(|name| name.starts_with("Limit") && !name.ends_with("Soft"));
    names
        .map(|name| {
            let hard = number(service, name);
            let soft = format!("{name}Soft");
            let soft = service.contains_key(&soft).then(|| number(service, &soft));
            let soft = soft.unwrap_or(hard);
            (name.clone(), Limits { soft, hard })
        })
        .collect()
}

pub(super) fn structures(properties: &Properties, name: &str) -> Vec<Structure<'static>> {
    let value = properties.get(name).and_then(|value| value.try_clone().ok());
    value
        .and_then(|value| Vec::<Structure<'static>>::try_from(value).ok())
        .unwrap_or_default()
}
