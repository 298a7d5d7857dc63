//! The test harness itself: identities are what they claim to be.

use crate::server::{ADMIN, QUIET, Release, kubelet};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::PostParams;
use rstest::rstest;
use serde_json::json;

#[rstest]
#[tokio::test]
async fn a_kubelet_may_change_its_own_node_and_no_other(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let server = QUIET.of(release).await;
    let admin: Api<Node> = Api::all(server.client(ADMIN).await);
    for name in ["w12", "w13"] {
        let node = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        admin.create(&PostParams::default(), &node).await.unwrap();
    }
    let kubelet: Api<Node> = Api::all(server.client(&kubelet("w12")).await);
    kubelet.cordon("w12").await.unwrap();
    let refused = kubelet.cordon("w13").await.unwrap_err();
    assert!(
        refused.to_string().contains("not allowed to modify node"),
        "{refused}"
    );
}
