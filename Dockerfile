# The image of ecr-sidecar, and with `--target emulator` that of the AWS which compose.yaml emulates.
#
# Behind a mirror, or offline, name images of your own: the first has Rust, a C compiler, glibc's static libraries and
# CA certificates, the second may be empty. There are no cache mounts: a registry that comes with the first would be
# hidden by them. The digest is that of the index, for all architectures.
ARG BUILD_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG RUNTIME_IMAGE=scratch
# A bill of materials is taken from Cargo.lock too, for the program itself doesn't tell what is in it.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

# What decides the dependencies, and nothing else: as long as this stays, so do the layers of their builds.
FROM ${BUILD_IMAGE} AS manifests
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo/config.toml .cargo/
COPY tests/emulator/Cargo.toml tests/emulator/
COPY tests/support/Cargo.toml tests/support/
COPY packaging/build-release packaging/
# cargo wants a source for each target that a manifest names.
RUN mkdir -p src benches tests/emulator/src tests/support/src \
    && for crate in src tests/emulator/src tests/support/src; do echo '//! A stand-in.' >"$crate/lib.rs"; done \
    && for program in src/main benches/compare benches/load benches/secrets tests/emulator/src/main; do \
        printf '//! A stand-in.\nfn main() {}\n' >"$program.rs"; \
    done

FROM manifests AS build
RUN packaging/build-release
COPY src src
# What `--version` says.
ARG REVISION=
ARG CREATED=
# These are older than what was just built from their stand-ins, which is cargo's measure.
# By its second name the program is a docker credential helper.
RUN export ECR_SIDECAR_COMMIT="$REVISION" ECR_SIDECAR_COMMIT_DATE="${CREATED%%T*}" \
    && touch src/lib.rs src/main.rs && install -D "$(packaging/build-release)" /image/usr/local/bin/ecr-sidecar \
    && ln /image/usr/local/bin/ecr-sidecar /image/usr/local/bin/docker-credential-ecr-sidecar
RUN install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt
# A new named volume takes owner and mode from here. The user of this image may write, and any other one of group 0,
# which is what a user id without an entry in /etc/passwd has (docker's --user, OpenShift). Others may pass: whether
# they can read the file is up to the file's mode.
RUN install -d -m 0771 -o 65534 -g 0 /image/var/run/ecr-sidecar

FROM manifests AS emulator-build
ENV CARGO_PROFILE_DEV_DEBUG=none
RUN cargo build --locked --package ecr-emulator
COPY tests/emulator tests/emulator
RUN touch tests/emulator/src/lib.rs tests/emulator/src/main.rs \
    && cargo build --locked --package ecr-emulator \
    && install -D -s target/*/debug/ecr-emulator /image/usr/local/bin/ecr-emulator

FROM scratch AS emulator
COPY --from=emulator-build /image /
USER 65534:65534
ENTRYPOINT ["/usr/local/bin/ecr-emulator"]

FROM ${RUNTIME_IMAGE}
COPY --from=build /image /
# Flux's controllers run as this user: the file is then the consumer's own, without an fsGroup.
USER 65534:65534
ENTRYPOINT ["/usr/local/bin/ecr-sidecar"]
CMD ["run"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/ecr-sidecar", "health", "ready"]

ARG VERSION=0.0.0
ARG REVISION=unknown
# The commit's date, so that a commit has one image: git log -1 --format=%cI
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="ecr-sidecar" \
    org.opencontainers.image.description="Keeps Amazon ECR credentials fresh where the main container reads them" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.source="${SOURCE}"
