FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# Dependencies first, against empty crates: this layer is built again only when a manifest or the lock file changes.
# Benches and some tests are named in manifests and are not there yet; nothing here builds them.
COPY Cargo.toml Cargo.lock ./
COPY broker/core/Cargo.toml broker/core/
COPY broker/log/Cargo.toml broker/log/
COPY broker/server/Cargo.toml broker/server/
COPY fail-points/Cargo.toml fail-points/
COPY invoice-worker/Cargo.toml invoice-worker/
COPY local-servers/Cargo.toml local-servers/
COPY notification-service/Cargo.toml notification-service/
COPY order-service/Cargo.toml order-service/
COPY orderflow/Cargo.toml orderflow/
COPY payment-service/Cargo.toml payment-service/
COPY proto/Cargo.toml proto/
COPY service-kit/Cargo.toml service-kit/
COPY test-database/Cargo.toml test-database/
RUN for crate in $(dirname $(find . -mindepth 2 -name Cargo.toml)); do \
        mkdir "$crate/src" && touch "$crate/src/lib.rs" && echo 'fn main() {}' > "$crate/src/main.rs"; \
    done \
    && echo 'fn main() {}' > proto/build.rs \
    && sed -i -E '/^\[\[(bench|test)\]\]$/,/^$/d' */Cargo.toml broker/*/Cargo.toml \
    && cargo build --release --locked --package orderflow
# The sources are older than what was just built from the empty crates; without `touch` cargo would keep that.
COPY . .
RUN find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --package orderflow

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin orderflow \
    && install --directory --owner=orderflow --group=orderflow --mode=0700 /data
COPY --from=build /src/target/release/orderflow /usr/local/bin/orderflow
COPY topology.json /etc/orderflow/topology.json
USER orderflow
WORKDIR /data
VOLUME /data
ENTRYPOINT ["orderflow"]
