//! containerd's own API as far as names of images and leases go, beside the CRI and on the same store.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use containerd_client::{
    services::v1::{
        CreateImageRequest, CreateImageResponse, CreateRequest, CreateResponse, DeleteImageRequest,
        DeleteRequest, GetImageRequest, GetImageResponse, Image, UpdateImageRequest, UpdateImageResponse,
    },
    types::Descriptor,
};
use futures::future::BoxFuture;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
};
use tonic_prost::ProstCodec;

use super::containerd::Containerd;

#[derive(Clone)]
pub(crate) struct Images(pub(crate) Containerd);
#[derive(Clone)]
pub(crate) struct Leases(pub(crate) Containerd);

impl NamedService for Images {
    const NAME: &'static str = "containerd.services.images.v1.Images";
}
impl NamedService for Leases {
    const NAME: &'static str = "containerd.services.leases.v1.Leases";
}

/// A call that is answered by a function.
struct Answer<F>(F);
impl<F, A, B> UnaryService<A> for Answer<F>
where
    F: FnMut(A) -> Result<B, Status>,
{
    type Response = B;
    type Future = Ready<Result<Response<B>, Status>>;
    fn call(&mut self, request: Request<A>) -> Self::Future {
        assert_eq!(request.metadata().get("containerd-namespace").unwrap(), "k8s.io");
        ready((self.0)(request.into_inner()).map(Response::new))
    }
}

async fn answer<A, B, F>(request: http::Request<Body>, function: F) -> http::Response<Body>
where
    A: prost::Message + Default + Send + 'static,
    B: prost::Message + Default + Send + 'static,
    F: FnMut(A) -> Result<B, Status>,
{
    Grpc::new(ProstCodec::<B, A>::default())
        .unary(Answer(function), request)
        .await
}

macro_rules! service {
    ($service:ident($of:ident, $request:ident) { $($method:literal => $function:expr,)* }) => {
        impl tower::Service<http::Request<Body>> for $service {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }
            fn call(&mut self, $request: http::Request<Body>) -> Self::Future {
                let $of = self.0.clone();
                Box::pin(async move {
                    let method = $request.uri().path().rsplit('/').next().unwrap().to_owned();
                    Ok(match &*method {
                        $($method => answer($request, $function).await,)*
                        other => panic!("nobody calls {other}"),
                    })
                })
            }
        }
    };
}

fn image(name: &str, id: &str) -> Option<Image> {
    let target = Some(Descriptor {
        digest: id.to_owned(),
        ..Default::default()
    });
    Some(Image {
        name: name.to_owned(),
        target,
        ..Default::default()
    })
}

service! {
    Images(store, request) {
        "Get" => |wanted: GetImageRequest| {
            let records = store.records();
            let found = records.iter().find(|(name, _)| *name == wanted.name);
            let (name, id) = found.ok_or_else(|| Status::not_found("image"))?;
            Ok(GetImageResponse { image: image(name, id) })
        },
        "Create" => |new: CreateImageRequest| {
            let image = new.image.unwrap();
            if store.records().iter().any(|(name, _)| *name == image.name) {
                return Err(Status::already_exists("image"));
            }
            store.record(&image.name, &image.target.as_ref().unwrap().digest);
            Ok(CreateImageResponse { image: Some(image) })
        },
        "Update" => |new: UpdateImageRequest| {
            let image = new.image.unwrap();
            store.forget(&image.name);
            store.record(&image.name, &image.target.as_ref().unwrap().digest);
            Ok(UpdateImageResponse { image: Some(image) })
        },
        "Delete" => |gone: DeleteImageRequest| {
            assert!(gone.sync, "what is gone must be gone when the call returns");
            store.forget(&gone.name);
            Ok(())
        },
    }
}

service! {
    Leases(store, request) {
        "Create" => |new: CreateRequest| {
            store.world.lock().unwrap().log.push(format!("lease {}", new.id));
            Ok(CreateResponse::default())
        },
        "Delete" => |gone: DeleteRequest| {
            store.world.lock().unwrap().log.push(format!("end lease {}", gone.id));
            Ok(())
        },
    }
}
