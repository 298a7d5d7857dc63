# A static binary and nothing else: the agent copies it to the host, whatever that runs.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev protobuf-dev protoc
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src ./src
RUN cargo build --release --locked --bin transship

FROM scratch
COPY --from=build /src/target/release/transship /transship
ENTRYPOINT ["/transship"]
