//! Whether a person approved of the plan, where only approved plans may run.

use crate::{
    plan::{codes::PLAN_NOT_APPROVED, document::Plan, finding::Finding},
    planner::request::Request,
};

/// A plan that nobody approved of. The request lists digests only for a node that has a `NodeMigration`.
pub fn check(request: &Request, plan: &Plan) -> Option<Finding> {
    let digest = plan.digest();
    let approved = &request.approved_plans;
    let is_approved = approved.is_empty() || approved.iter().any(|approved| approved == digest.as_str());
    let node = request
        .cluster
        .as_ref()
        .map_or(&plan.node, |cluster| &cluster.node);
    (!is_approved).then(|| {
        PLAN_NOT_APPROVED.found(
            format!("the plan of this node has the digest {digest}, which spec.approvedPlans does not list"),
            format!(
                "Review the plan (`kubectl describe nodemigration {node}`), then add its digest to spec.approvedPlans of \
                 RuntimeMigration {}.",
                request.migration_name.as_deref().unwrap_or_default()
            ),
        )
    })
}
