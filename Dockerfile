# Any Debian of version 12 or later will do; a digest behind the name (name@sha256:...) pins it.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip
COPY requirements.lock /build/
RUN python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --no-compile \
        --only-binary :all: --require-hashes --target /opt/conntrack-monitor -r /build/requirements.lock
COPY *.py LICENSE fixtures/demo.rec /opt/conntrack-monitor/
# Compiled now, as the container can't write; unchecked, as nothing in an image changes.
RUN rm -rf /opt/conntrack-monitor/bin \
 && chmod 0755 /opt/conntrack-monitor/conntrack_monitor.py \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/conntrack-monitor

FROM ${BASE}
# The lists and apt's own caches are 86 MB where the base has no rule against them.
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends conntrack python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/apt /var/log/dpkg.log \
        /usr/share/doc/* /usr/share/man/* \
 && mkdir -p /usr/share/GeoIP \
 && mkdir -m 0700 /log \
 && ln -s /opt/conntrack-monitor/conntrack_monitor.py /usr/local/bin/conntrack-monitor
COPY --from=build /opt/conntrack-monitor /opt/conntrack-monitor

ENV LANG=C.UTF-8 TERM=xterm-256color PYTHONDONTWRITEBYTECODE=1 GEOIP_DB_PATHS=/usr/share/GeoIP \
    CONNTRACK_MONITOR_PERMIT="docker run --network host --cap-add NET_ADMIN ..."

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
