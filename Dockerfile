# syntax=docker/dockerfile:1
# The service and the reference renderer in one image:
#
#   docker build -t rrm .
#
# It was checked with a parser and its health check run by hand, but the image was
# never built: no container engine was at hand.

FROM golang:1.26-bookworm AS build
WORKDIR /src
# The modules first: they change less often than the code.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
# Without cgo the programs are static and need nothing of the image below.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/ ./cmd/rrm ./cmd/rrm-renderer

# Not an empty image: renderers that operators add bring programs that want a system.
FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/rrm --shell /usr/sbin/nologin rrm \
    && install -d -o rrm -g rrm -m 0750 /var/lib/rrm
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/rrm /out/rrm-renderer /usr/local/bin/
USER rrm
WORKDIR /var/lib/rrm
VOLUME /var/lib/rrm
EXPOSE 8383
# bash speaks TCP, so the image needs no wget. Alive, not ready: while Postgres is
# away the service is well and says 503 to those who ask it for something.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8383 && printf 'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
# SIGTERM ends it in order; running renderers go with the container.
STOPSIGNAL SIGTERM
ENTRYPOINT ["rrm"]
CMD ["serve", "--listen", "0.0.0.0:8383", "--data-dir", "/var/lib/rrm"]
