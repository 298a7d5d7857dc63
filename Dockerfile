# A static binary and nothing else: the agent copies it to the host, whatever that runs.
# A release names the digest too: --build-arg RUST_IMAGE=rust:1.95.0-alpine@sha256:…
ARG RUST_IMAGE=rust:1.95.0-alpine
FROM ${RUST_IMAGE} AS build
RUN apk add --no-cache musl-dev protobuf-dev protoc
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src ./src
# The binary holds no path of the machine that built it.
ENV RUSTFLAGS="--remap-path-prefix=/src=/transship --remap-path-prefix=/usr/local/cargo=/cargo"
RUN cargo build --release --locked --bin transship && ! grep -qaF /usr/local/cargo/ target/release/transship

FROM scratch
COPY --from=build /src/target/release/transship /transship
ENTRYPOINT ["/transship"]
