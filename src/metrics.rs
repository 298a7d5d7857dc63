//! What Prometheus sees: of the migrations, and of the nodes what their agents report. The agents themselves listen
//! nowhere.
//!
//! One [`Metrics`] is made per process and passed to whoever reports. Gauges are set from what is known *now* (the
//! store, the journal), so a count can never drift; counters are for events alone. Every label is the name of a
//! migration or of a node, or comes from a closed set.

use std::collections::BTreeSet;

use prometheus::{Encoder as _, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::api::migration::{MigrationPhase, NodeCounts};
use crate::api::node_migration::NodeMigration;
use crate::plan::codes;
use crate::plan::finding::Severity;

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
    node_info: IntGaugeVec,
    node_findings: IntGaugeVec,
    finding_nodes: IntGaugeVec,
    policies_missing: IntGauge,
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
        let policies_missing = IntGauge::new(
            "transship_admission_policies_missing",
            "Admission policies of the chart that are missing on a server that could have them.",
        )?;
        registry.register(Box::new(policies_missing.clone()))?;
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
                "1 for the phase that a node is in; a node is in one.",
                &["node", "migration", "phase"],
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
            node_info: int(
                "transship_node_info",
                "1, with the runtime that a node leaves and the runtime that it goes to.",
                &["node", "source", "target"],
            )?,
            node_findings: int(
                "transship_node_findings",
                "Findings of a node's preflight, by severity.",
                &["node", "severity"],
            )?,
            finding_nodes: int(
                "transship_finding_nodes",
                "Nodes whose preflight has a finding of this code and severity.",
                &["code", "severity"],
            )?,
            policies_missing,
            registry,
        })
    }

    /// Forgets every migration and node; a leader then reports those that exist with [`Metrics::migration`] and
    /// [`Metrics::node`].
    pub fn forget(&self) {
        self.migration_nodes.reset();
        self.migration_phase.reset();
        self.migration_last_progress.reset();
        self.node_phase.reset();
        self.node_kubelet_downtime.reset();
        self.node_image_bytes.reset();
        self.node_info.reset();
        self.node_findings.reset();
        self.finding_nodes.reset();
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

    /// Reports what is known of a node. A code that this version does not know is counted as `other`: the agent's token
    /// could make up any number of them.
    pub fn node(&self, share: &NodeMigration) {
        let node = share.metadata.name.as_deref().unwrap_or_default();
        let migration = share.spec.migration.name.as_str();
        self.node_phase
            .with_label_values(&[node, migration, share.phase().name()])
            .set(1);
        let Some(status) = share.current() else { return };
        let source = status.source.as_ref().map_or("", |source| source.runtime.name());
        self.node_info
            .with_label_values(&[node, source, share.spec.target.runtime.name()])
            .set(1);
        if let Some(millis) = status.kubelet_downtime_millis {
            let downtime = std::time::Duration::from_millis(millis.unsigned_abs());
            self.node_kubelet_downtime
                .with_label_values(&[node])
                .set(downtime.as_secs_f64());
        }
        if let Some(bytes) = status.image_bytes {
            self.node_image_bytes.with_label_values(&[node]).set(bytes);
        }
        let codes = codes::all_codes();
        let mut of_node = BTreeSet::new();
        for finding in &status.findings {
            let known = codes.iter().find(|code| code.name == finding.code);
            let code = known.map_or("other", |code| code.name);
            let severity = match finding.severity {
                Severity::Block => "Block",
                Severity::Warn => "Warn",
                Severity::Info => "Info",
            };
            self.node_findings.with_label_values(&[node, severity]).inc();
            if of_node.insert((code, severity)) {
                self.finding_nodes.with_label_values(&[code, severity]).inc();
            }
        }
    }

    /// Reports how many of the chart's admission policies are missing on a server that could have them.
    pub fn policies_missing(&self, missing: usize) {
        self.policies_missing
            .set(i64::try_from(missing).unwrap_or(i64::MAX));
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
        metrics.forget();
        assert!(!metrics.text().unwrap().contains("old"));
    }

    fn node(status: serde_json::Value) -> NodeMigration {
        let mut status = status;
        for (key, value) in [("migrationUid", "m"), ("nodeUid", "n"), ("action", "Migrate")] {
            status[key] = value.into();
        }
        status["migrationGeneration"] = 1.into();
        let share = serde_json::json!({ "metadata": { "name": "w1" }, "status": status, "spec": { "nodeUid": "n",
            "action": "Migrate", "migration": { "name": "m", "uid": "m", "generation": 1 },
            "target": { "runtime": "containerd" } } });
        serde_json::from_value(share).unwrap()
    }

    #[test]
    fn a_node_is_in_one_phase_and_its_labels_are_from_closed_sets() {
        let metrics = Metrics::new().unwrap();
        metrics.node(&node(serde_json::json!({ "phase": "Draining" })));
        metrics.forget();
        let finding = |code: &str| serde_json::json!({ "severity": "Block", "code": code, "message": "made up", "remedy": "" });
        metrics.node(&node(
            serde_json::json!({ "phase": "Switching", "kubeletDowntimeMillis": 1500, "imageBytes": 7,
            "source": { "runtime": "dockershim", "version": "20.10.24" },
            "findings": [finding("DockerSocketMounted"), finding("MadeUp"), finding("MadeUpToo")] }),
        ));
        let text = metrics.text().unwrap();
        for line in [
            r#"transship_node_phase{migration="m",node="w1",phase="Switching"} 1"#,
            r#"transship_node_info{node="w1",source="dockershim",target="containerd"} 1"#,
            r#"transship_node_kubelet_downtime_seconds{node="w1"} 1.5"#,
            r#"transship_node_image_bytes{node="w1"} 7"#,
            r#"transship_node_findings{node="w1",severity="Block"} 3"#,
            r#"transship_finding_nodes{code="DockerSocketMounted",severity="Block"} 1"#,
            r#"transship_finding_nodes{code="other",severity="Block"} 1"#,
        ] {
            assert!(
                text.lines().any(|present| present == line),
                "{line} is missing in {text}"
            );
        }
        assert!(!text.contains("Draining") && !text.contains("MadeUp"), "{text}");
    }
}
