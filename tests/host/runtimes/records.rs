//! What containerd's own API reports of all namespaces.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use containerd_client::services::v1::{
    Container, DeprecationWarning, Image, ListContainerMessage, ListContainersRequest, ListImagesRequest,
    ListImagesResponse, ListNamespacesRequest, ListNamespacesResponse, Namespace, ServerResponse,
    container::Runtime,
};
use futures::{future::BoxFuture, stream};
use tokio::net::UnixListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, ServerStreamingService, UnaryService},
    transport::Server,
};
use tonic_prost::ProstCodec;
use transship::runtime::containerd::Containerd;

const LABEL: &str = "io.containerd.image/converted-docker-schema1";
const RUNC: &str = "io.containerd.runc.v2";

macro_rules! service {
    ($service:ident, $name:literal, $request:ident => $answer:expr) => {
        #[derive(Clone)]
        struct $service;
        impl NamedService for $service {
            const NAME: &'static str = $name;
        }
        impl tower::Service<http::Request<Body>> for $service {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }
            fn call(&mut self, $request: http::Request<Body>) -> Self::Future {
                Box::pin(async move { Ok($answer) })
            }
        }
    };
}

service!(Introspection, "containerd.services.introspection.v1.Introspection", request => {
    Grpc::new(ProstCodec::<ServerResponse, ()>::default()).unary(About, request).await
});
service!(Namespaces, "containerd.services.namespaces.v1.Namespaces", request => {
    Grpc::new(ProstCodec::<ListNamespacesResponse, ListNamespacesRequest>::default())
        .unary(AllNamespaces, request)
        .await
});
service!(Containers, "containerd.services.containers.v1.Containers", request => {
    Grpc::new(ProstCodec::<ListContainerMessage, ListContainersRequest>::default())
        .server_streaming(OfOneNamespace, request)
        .await
});

service!(Images, "containerd.services.images.v1.Images", request => {
    Grpc::new(ProstCodec::<ListImagesResponse, ListImagesRequest>::default())
        .unary(AllImages, request)
        .await
});

/// Of the namespace of Kubernetes, as a server that does not know the filter.
struct AllImages;
impl UnaryService<ListImagesRequest> for AllImages {
    type Response = ListImagesResponse;
    type Future = Ready<Result<Response<ListImagesResponse>, Status>>;
    fn call(&mut self, request: Request<ListImagesRequest>) -> Self::Future {
        assert_eq!(request.metadata().get("containerd-namespace").unwrap(), "k8s.io");
        assert_eq!(request.get_ref().filters, [format!("labels.\"{LABEL}\"")]);
        let image = |name: &str, label: &str| Image {
            name: name.to_owned(),
            labels: [(label.to_owned(), "true".to_owned())].into(),
            ..Default::default()
        };
        ready(Ok(Response::new(ListImagesResponse {
            images: vec![image("new", "other"), image("old", LABEL)],
        })))
    }
}

struct About;
impl UnaryService<()> for About {
    type Response = ServerResponse;
    type Future = Ready<Result<Response<ServerResponse>, Status>>;
    fn call(&mut self, _: Request<()>) -> Self::Future {
        let warning = |id: &str| DeprecationWarning {
            id: format!("io.containerd.deprecation/{id}"),
            ..Default::default()
        };
        ready(Ok(Response::new(ServerResponse {
            deprecations: ["cri-registry-mirrors", "cri-api-v1alpha2", "cri-registry-mirrors"]
                .map(warning)
                .into(),
            ..Default::default()
        })))
    }
}

struct AllNamespaces;
impl UnaryService<ListNamespacesRequest> for AllNamespaces {
    type Response = ListNamespacesResponse;
    type Future = Ready<Result<Response<ListNamespacesResponse>, Status>>;
    fn call(&mut self, _: Request<ListNamespacesRequest>) -> Self::Future {
        let namespaces = ["k8s.io", "moby"].map(|name| Namespace {
            name: name.to_owned(),
            ..Default::default()
        });
        ready(Ok(Response::new(ListNamespacesResponse {
            namespaces: namespaces.into(),
        })))
    }
}

/// A container of each runtime, as a server that does not know the filter.
struct OfOneNamespace;
impl ServerStreamingService<ListContainersRequest> for OfOneNamespace {
    type Response = ListContainerMessage;
    type ResponseStream = stream::Iter<std::vec::IntoIter<Result<ListContainerMessage, Status>>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;
    fn call(&mut self, request: Request<ListContainersRequest>) -> Self::Future {
        let namespace = request.metadata().get("containerd-namespace").unwrap();
        let namespace = namespace.to_str().unwrap().to_owned();
        assert_eq!(request.get_ref().filters, [format!("runtime.name!=\"{RUNC}\"")]);
        let container = |runtime: &str| {
            Ok(ListContainerMessage {
                container: Some(Container {
                    id: format!("{namespace}-1"),
                    runtime: Some(Runtime {
                        name: runtime.to_owned(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
            })
        };
        let answers = vec![container(RUNC), container("io.containerd.runtime.v1.linux")];
        ready(Ok(Response::new(stream::iter(answers))))
    }
}

#[tokio::test]
async fn records_of_all_namespaces_and_deprecated_features_are_listed() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("containerd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let connections = stream::unfold(listener, |listener| async {
        Some((
            listener.accept().await.map(|(connection, _)| connection),
            listener,
        ))
    });
    let server = Server::builder()
        .add_service(Introspection)
        .add_service(Namespaces)
        .add_service(Containers)
        .add_service(Images)
        .serve_with_incoming(connections);
    tokio::spawn(server);
    let containerd = Containerd::connect(&socket).await.unwrap();
    let record = |namespace: &str| {
        let id = format!("{namespace}-1");
        (
            namespace.to_owned(),
            id,
            "io.containerd.runtime.v1.linux".to_owned(),
        )
    };
    let found = containerd.records_of_other_runtimes(RUNC).await.unwrap();
    assert_eq!(found, [record("k8s.io"), record("moby")]);
    let ids =
        ["cri-api-v1alpha2", "cri-registry-mirrors"].map(|id| format!("io.containerd.deprecation/{id}"));
    assert_eq!(containerd.deprecations().await.unwrap(), ids);
}
