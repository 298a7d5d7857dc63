//! Properties of units as they come over the bus. One that an older systemd does not have reads as empty, or 0.

use std::collections::{BTreeMap, HashMap};

use zbus::{OwnedVariant, Structure, Variant};

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
        job: has_job(unit),
    }
}

/// Whether a unit has a job: its number, 0 where there is none, and the path of its object.
fn has_job(unit: &Properties) -> bool {
    let job = unit.get("Job").and_then(|value| value.try_clone().ok());
    let job = job.and_then(|value| Structure::try_from(value).ok());
    job.is_some_and(|job| matches!(job.fields(), [Variant::U32(number), ..] if *number > 0))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As `busctl` shows it: `(uo) 0 "/"` without a job.
    #[test]
    fn a_unit_has_a_job_where_its_number_is_not_0() {
        for (number, has) in [(0_u32, false), (7, true)] {
            let job = Structure::from((number, zbus::ObjectPath::try_from("/").unwrap()));
            let job = OwnedVariant::try_from(Variant::from(job)).unwrap();
            let unit = Properties::from([("Job".to_owned(), job)]);
            assert_eq!(as_unit(&unit, &Properties::new()).job, has);
        }
        assert!(!as_unit(&Properties::new(), &Properties::new()).job);
    }
}
