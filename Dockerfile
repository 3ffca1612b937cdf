# Any Debian of version 12 or later will do; a digest behind the name (name@sha256:...) pins it.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip conntrack ca-certificates
COPY requirements.lock /build/
# Where nobody compiles a wheel of maxminddb for this machine (arm/v7), another machine's without its C reader: all are then
# pure Python, as in the one file. PIP_PLATFORM=linux_armv7l builds that anywhere.
ARG PIP_PLATFORM=
RUN set -e; cd /build; \
    fetch() { python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --no-compile --no-deps \
        --only-binary :all: --require-hashes --target /opt/conntrack-monitor "$@" -r requirements.lock; }; \
    if ! fetch; then \
        echo "Packages without C for this machine."; \
        fetch --platform manylinux2014_x86_64 --implementation cp --python-version 3.11 --abi cp311; \
        find /opt/conntrack-monitor -name '*.so' -delete; \
    fi
COPY *.py LICENSE fixtures/demo.rec /opt/conntrack-monitor/
COPY scripts/image_tree.py /build/
# Compiled now, as the container can't write; unchecked, as nothing in an image changes.
RUN chmod 0755 /opt/conntrack-monitor/conntrack_monitor.py \
 && python3 /build/image_tree.py /opt/conntrack-monitor /image \
 && mkdir -p /image/usr/share/GeoIP /image/usr/local/bin /image/usr/lib/ssl /image/root /image/run /image/proc /image/sys /image/dev \
 && mkdir -m 0700 /image/log && mkdir -m 1777 /image/tmp \
 && ln -s /opt/conntrack-monitor/conntrack_monitor.py /image/usr/local/bin/conntrack-monitor \
 && ln -s /etc/ssl/certs/ca-certificates.crt /image/usr/lib/ssl/cert.pem \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /image/opt /image/usr/lib/python3*

# Nothing of the base but what image_tree.py takes: no shell scripts, no setuid programs, no package manager, no perl.
FROM scratch
COPY --from=build /image /

ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin LANG=C.UTF-8 TERM=xterm-256color PYTHONDONTWRITEBYTECODE=1 GEOIP_DB_PATHS=/usr/share/GeoIP \
    CONNTRACK_MONITOR_IMAGE=ghcr.io/0xf00f00/conntrack-monitor:latest

ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="Conntrack Monitor" \
      org.opencontainers.image.description="Who talks to whom through this machine: the kernel's connection table, live" \
      org.opencontainers.image.source="https://github.com/0xf00f00/conntrack-monitor" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# The loop touches the file every 2 s, whatever else goes wrong. Asking costs a find, not a Python.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["sh", "-c", "test -n \"$(find /run/conntrack-monitor -newermt '-15 seconds')\""]

# env: Ctrl+Z and Ctrl+\ of whoever is attached neither stop nor end what all others look at, under --init, too; and what
# asks the program to end waits until it listens, as the kernel drops it for a process 1 that does not.
ENTRYPOINT ["env", "--ignore-signal=TSTP,QUIT", "--block-signal=TERM,INT", \
    "conntrack-monitor", "--heartbeat", "/run/conntrack-monitor"]
