//! Docker's `insecure-registries`: hosts, and networks of hosts.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

use crate::edit::hosts_toml::DOCKER;

/// Docker Hub under its names. Docker always checks its certificate, and reads none for it.
pub const HUB: [&str; 2] = [DOCKER, "index.docker.io"];

/// The registries whose certificate Docker does not check.
#[derive(Clone, Debug, Default)]
pub struct Insecure {
    hosts: BTreeSet<String>,
    /// Each with the text that it was read from.
    networks: Vec<(String, Network)>,
}

impl Insecure {
    /// The values as Docker reads them.
    pub fn read(values: &[String]) -> Self {
        let mut found = Self::default();
        for value in values.iter().map(|value| without_scheme(value)) {
            if let Some(network) = Network::read(value) {
                found.networks.push((value.to_owned(), network));
            } else if !HUB.contains(&value) {
                found.hosts.insert(value.to_owned());
            }
        }
        found
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.networks.is_empty()
    }

    /// The hosts that are listed.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(String::as_str)
    }

    /// The networks, as they are written.
    pub fn networks(&self) -> impl Iterator<Item = &str> {
        self.networks.iter().map(|(text, _)| text.as_str())
    }

    /// Whether a host is listed.
    pub fn lists(&self, host: &str) -> bool {
        self.hosts.contains(host)
    }

    /// Whether a host is listed, or is an address in a network.
    pub fn has(&self, host: &str) -> bool {
        let in_network = |address| self.networks.iter().any(|(_, network)| network.has(address));
        self.lists(host) || address(host).is_some_and(in_network)
    }
}

/// Docker warns of a scheme, and reads what follows.
fn without_scheme(value: &str) -> &str {
    let has = |scheme: &str| {
        let start = value.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &value[scheme.len()..])
    };
    has("http://").or_else(|| has("https://")).unwrap_or(value)
}

/// The address of a host that is one, with or without a port.
fn address(host: &str) -> Option<IpAddr> {
    let port = host.parse::<SocketAddr>().map(|both| both.ip());
    port.or_else(|_| host.trim_matches(['[', ']']).parse()).ok()
}

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let network = Self {
            address: address.parse().ok()?,
            bits: bits.parse().ok()?,
        };
        let most = if network.address.is_ipv4() { 32 } else { 128 };
        (network.bits <= most).then_some(network)
    }

    fn has(self, other: IpAddr) -> bool {
        let differs = match (self.address, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => u128::from(one.to_bits() ^ other.to_bits()) << 96,
            (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differs.leading_zeros() >= self.bits
    }
}
