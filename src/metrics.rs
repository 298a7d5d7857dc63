//! What Prometheus sees of the controller and of the agents.
//!
//! One [`Metrics`] is made per process and passed to whoever reports. Gauges are set from what is known *now* (the
//! store, the journal), so a count can never drift; counters are for events alone. Every label is the name of a
//! migration or of a node, or comes from a closed set.

use prometheus::{Encoder as _, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::api::migration::{MigrationPhase, NodeCounts};
use crate::api::node_migration::NodePhase;

/// The metrics of this process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    migration_nodes: IntGaugeVec,
    migration_phase: IntGaugeVec,
    migration_last_progress: GaugeVec,
    reconcile_errors: IntCounterVec,
    node_phase: IntGaugeVec,
    node_kubelet_downtime: GaugeVec,
    node_image_bytes: IntGaugeVec,
}

impl Metrics {
    /// Makes the metrics and registers them, with `transship_build_info` set.
    ///
    /// # Errors
    /// A name or label that Prometheus refuses; a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let int = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let float = |name: &str, help: &str, labels: &[&str]| -> Result<GaugeVec, prometheus::Error> {
            let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let reconcile_errors = IntCounterVec::new(
            Opts::new(
                "transship_reconcile_errors_total",
                "Reconciliations that failed and are tried again.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(reconcile_errors.clone()))?;
        let build = int(
            "transship_build_info",
            "1, with the version of this binary.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            migration_nodes: int(
                "transship_migration_nodes",
                "Nodes of a migration in each state.",
                &["migration", "state"],
            )?,
            migration_phase: int(
                "transship_migration_phase",
                "1 for the phase that a migration is in, 0 for the others.",
                &["migration", "phase"],
            )?,
            migration_last_progress: float(
                "transship_migration_last_progress_timestamp_seconds",
                "When a node of the migration last entered or left a phase.",
                &["migration"],
            )?,
            reconcile_errors,
            node_phase: int(
                "transship_node_phase",
                "1 for the phase that the agent's node is in, 0 for the others.",
                &["node", "phase"],
            )?,
            node_kubelet_downtime: float(
                "transship_node_kubelet_downtime_seconds",
                "Time between the kubelet's stop and its start under the target.",
                &["node"],
            )?,
            node_image_bytes: int(
                "transship_node_image_bytes",
                "Bytes of images carried into the target's store.",
                &["node"],
            )?,
            registry,
        })
    }

    /// Forgets every migration; the caller then reports those that exist with [`Metrics::migration`].
    pub fn forget_migrations(&self) {
        self.migration_nodes.reset();
        self.migration_phase.reset();
        self.migration_last_progress.reset();
    }

    /// Reports how far a migration is. `last_progress` is in seconds since the epoch.
    pub fn migration(
        &self,
        name: &str,
        phase: MigrationPhase,
        nodes: &NodeCounts,
        last_progress: Option<f64>,
    ) {
        let NodeCounts {
            total: _,
            pending,
            active,
            planned,
            succeeded,
            rolled_back,
            failed,
            lost,
            blocked,
            skipped,
        } = nodes;
        for (state, count) in [
            ("pending", pending),
            ("active", active),
            ("planned", planned),
            ("succeeded", succeeded),
            ("rolled_back", rolled_back),
            ("failed", failed),
            ("lost", lost),
            ("blocked", blocked),
            ("skipped", skipped),
        ] {
            self.migration_nodes
                .with_label_values(&[name, state])
                .set(i64::from(*count));
        }
        for one in MigrationPhase::ALL {
            self.migration_phase
                .with_label_values(&[name, one.name()])
                .set(i64::from(one == phase));
        }
        if let Some(seconds) = last_progress {
            self.migration_last_progress
                .with_label_values(&[name])
                .set(seconds);
        }
    }

    /// Counts a reconciliation that failed; `reason` comes from a closed set.
    pub fn reconcile_error(&self, reason: &'static str) {
        self.reconcile_errors.with_label_values(&[reason]).inc();
    }

    /// Reports the phase of the agent's node.
    pub fn node_phase(&self, node: &str, phase: NodePhase) {
        for one in NodePhase::ALL {
            self.node_phase
                .with_label_values(&[node, one.name()])
                .set(i64::from(one == phase));
        }
    }

    /// Reports how long the kubelet was away on the agent's node.
    pub fn node_kubelet_downtime(&self, node: &str, downtime: std::time::Duration) {
        self.node_kubelet_downtime
            .with_label_values(&[node])
            .set(downtime.as_secs_f64());
    }

    /// Reports how many bytes of images were carried on the agent's node.
    pub fn node_image_bytes(&self, node: &str, bytes: u64) {
        self.node_image_bytes
            .with_label_values(&[node])
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// Two metrics of one name; a mistake in this file.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// The content type of [`Metrics::text`].
    pub fn content_type() -> String {
        TextEncoder::new().format_type().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new().unwrap();
        let nodes = NodeCounts {
            total: 3,
            active: 1,
            succeeded: 2,
            ..NodeCounts::default()
        };
        metrics.migration("old", MigrationPhase::Running, &nodes, Some(12.5));
        let text = metrics.text().unwrap();
        assert!(
            text.contains(r#"transship_migration_nodes{migration="old",state="succeeded"} 2"#),
            "{text}"
        );
        assert!(
            text.contains(r#"transship_migration_phase{migration="old",phase="Running"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"transship_migration_phase{migration="old",phase="Paused"} 0"#),
            "{text}"
        );
        assert!(
            text.contains(r#"last_progress_timestamp_seconds{migration="old"} 12.5"#),
            "{text}"
        );
        metrics.forget_migrations();
        assert!(!metrics.text().unwrap().contains("old"));
    }

    #[test]
    fn a_node_is_in_one_phase() {
        let metrics = Metrics::new().unwrap();
        metrics.node_phase("w1", NodePhase::Draining);
        metrics.node_phase("w1", NodePhase::Switching);
        let text = metrics.text().unwrap();
        let set: Vec<_> = text
            .lines()
            .filter(|l| l.starts_with("transship_node_phase") && l.ends_with(" 1"))
            .collect();
        assert_eq!(set, [r#"transship_node_phase{node="w1",phase="Switching"} 1"#]);
    }
}
