# setup-conntrack-monitor.sh and the wrapper it installs, with a docker, a sudo and an id of our own in front.
# shellcheck disable=SC2030,SC2031,SC2016

SECRET='p a$s"w0rd'

setup() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
    export STUB=$BATS_TEST_TMPDIR/stub HOME="$BATS_TEST_TMPDIR/a home" SETUP_ROOT=$BATS_TEST_TMPDIR/root
    export PATH=$BATS_TEST_DIRNAME/stubs:$PATH
    mkdir -p "$STUB" "$HOME" "$SETUP_ROOT/etc"
    touch "$STUB/calls" "$STUB/env" "$STUB/stdin"
    echo volume >"$STUB/there"
    echo "$SECRET" >"$STUB/password"
    FOLDER=$HOME/conntrack-monitor
    SCRIPT=$ROOT/setup-conntrack-monitor.sh
    # away from the checkout, where there is no Dockerfile
    cp "$SCRIPT" "$BATS_TEST_TMPDIR/alone.sh"
    ALONE=$BATS_TEST_TMPDIR/alone.sh
    unset CONNTRACK_MONITOR_IMAGE
    for name in $(compgen -v STUB_); do unset "$name"; done
}

# "! command" never fails a test.
not() { if "$@"; then return 1; fi; }

called() { grep -qF -- "$1" "$STUB/calls"; }

# Nothing that was started saw the password: not as input, not in the environment, not as an argument.
no_leak() {
    not grep -qF -- "$SECRET" "$STUB/stdin" "$STUB/env" "$STUB/calls"
}

in_terminal() { # INPUT COMMAND...
    local input=$1
    shift
    mkfifo "$STUB/keys"
    exec 7<>"$STUB/keys" # never at its end: script waits 2 s for nothing after that
    rm "$STUB/keys"
    printf '%s\n' "$input" >&7
    script -qec "$(printf '%q ' "$@")" /dev/null <&7 7>&-
}

# --- options ---

@test "help" {
    run "$SCRIPT" --help
    [ "$status" = 0 ]
    [[ $output == *"--enable-accounting"*"--purge"* ]]
    run "$SCRIPT" -h
    [ "$status" = 0 ]
}

@test "wrong options are 2, in one line and a hint" {
    for words in --frob "--image" "--purge" "--uninstall --build" "--uninstall --enable-accounting" "--uninstall --log"; do
        # shellcheck disable=SC2086
        run "$SCRIPT" $words
        [ "$status" = 2 ]
        [ "${#lines[@]}" = 2 ]
        [[ ${lines[0]} == "error: "* ]]
    done
    [ ! -s "$STUB/calls" ]
}

@test "two passwords are one too many" {
    run "$SCRIPT" one two
    [ "$status" = 2 ]
    [[ $output == *"give only one password"* ]]
}

# --- installing ---

@test "installs: every step with its result, then how to look" {
    run "$SCRIPT"
    [ "$status" = 0 ]
    [[ $output == *"[1] Docker ... ok: 20.10.24, compose 1.29.2"*"[2] "*"ok: ghcr.io/0xf00f00/conntrack-monitor:latest"*"[3] "*"ok: conntrack-monitor_geoip-data"*"[4] writing $FOLDER ... ok"*"[5] "*"ok"*"[6] "*"ok: nothing to remove"*"\"$FOLDER/conntrack-monitor\" attach"*"docker attach"*"reset"* ]]
    called "docker pull ghcr.io/0xf00f00/conntrack-monitor:latest"
    called "docker-compose -p conntrack-monitor -f docker-compose.yml up -d --no-build"
    [ -x "$FOLDER/conntrack-monitor" ]
    cmp "$SCRIPT" "$FOLDER/setup-conntrack-monitor.sh"
    not called sudo
}

@test "compose as a plugin is preferred" {
    STUB_V2=1 run "$SCRIPT"
    [ "$status" = 0 ]
    [[ $output == *"compose 2.26.1"* ]]
    called "docker compose -p conntrack-monitor -f docker-compose.yml up -d --no-build"
}

@test "again: compose replaces its own container, the volume stays" {
    echo container >>"$STUB/there"
    STUB_BEFORE="old|sha256:old|true|conntrack-monitor|$FOLDER|docker-compose.yml" run "$SCRIPT"
    [ "$status" = 0 ]
    called "docker-compose -p conntrack-monitor -f docker-compose.yml up -d --no-build"
    not grep -qE "docker (stop|rm|rename)|volume rm" "$STUB/calls"
}

@test "a container that is not compose's is put aside, and removed when its successor runs" {
    echo container >>"$STUB/there"
    run "$SCRIPT"
    [ "$status" = 0 ]
    called "docker stop -t 5 old"
    called "docker rename old conntrack-monitor-before"
    [[ "$(grep -nE "rename|up -d|docker rm|pull" "$STUB/calls" | tr -d "\n")" == *"docker pull"*"rename"*"up -d"*"docker rm -f conntrack-monitor-before"* ]]
}

@test "the image of the release before goes, when nothing names it any more" {
    printf '%s\n' container image >>"$STUB/there"
    echo sha256:old >"$STUB/image"
    STUB_PULLED=sha256:new STUB_TAGS=0 run "$SCRIPT"
    [ "$status" = 0 ]
    called "docker rmi sha256:old"
    : >"$STUB/calls"
    STUB_PULLED=sha256:newer STUB_TAGS=1 run "$SCRIPT"
    [ "$status" = 0 ]
    not called "docker rmi"
}

# --- the volume ---

@test "the volume has compose's name and labels" {
    : >"$STUB/there"
    run "$SCRIPT"
    [ "$status" = 0 ]
    called "docker volume create --label com.docker.compose.project=conntrack-monitor --label com.docker.compose.volume=geoip-data conntrack-monitor_geoip-data"
    not called "docker run"
}

@test "the volume of an earlier version: its files are copied before anything else changes, and it stays" {
    echo old-volume >>"$STUB/there"
    run "$SCRIPT"
    [ "$status" = 0 ]
    [[ $output == *"[3] "*"with the files of geoip-data of an earlier version"*"docker volume rm geoip-data"* ]]
    called "-v geoip-data:/before:ro -v conntrack-monitor_geoip-data:/now --entrypoint sh ghcr.io/0xf00f00/conntrack-monitor:latest"
    [[ "$(grep -nE "docker run|up -d" "$STUB/calls" | tr -d "\n")" == *"docker run"*"up -d"* ]]
    not called "volume rm"
}

# --- nothing is removed before its successor is there ---

# An installation of its own, which runs; then what fails, by the numbers of the steps.
existing() {
    "$SCRIPT" >/dev/null
    printf '%s\n' container image >>"$STUB/there"
    echo sha256:old >"$STUB/image"
    export STUB_BEFORE="old|sha256:old|true|conntrack-monitor|$FOLDER|docker-compose.yml"
    sed -i "s/tty: true/tty: false/" "$FOLDER/docker-compose.yml" # by hand
    before=$(contents)
    : >"$STUB/calls"
}

contents() { (cd "$FOLDER" && find . -type f | sort | xargs cksum && find . | sort); }

untouched() {
    [ "$(contents)" = "$before" ]
    not grep -qE "docker (stop|rm|rename|rmi)|volume rm" "$STUB/calls"
}

@test "step 1 fails: what runs is untouched" {
    existing
    STUB_V1=none run "$SCRIPT"
    [ "$status" = 4 ]
    untouched
}

@test "step 2 fails: what runs is untouched" {
    existing
    sed -i /^image/d "$STUB/there"
    STUB_PULL="no such host" run "$ALONE"
    [ "$status" = 7 ]
    [[ $output == *"The previous installation is unchanged."* ]]
    untouched
    existing
    STUB_BUILD="boom" run "$SCRIPT" --build
    [ "$status" = 7 ]
    untouched
}

@test "step 3 fails: what runs is untouched, and the image has its name again" {
    existing
    sed -i /volume/d "$STUB/there"
    STUB_PULLED=sha256:new STUB_VOLUME="no space left" run "$SCRIPT"
    [ "$status" = 6 ]
    [[ $output == *"the volume conntrack-monitor_geoip-data can't be created: no space left"*"unchanged"* ]]
    called "docker tag sha256:old ghcr.io/0xf00f00/conntrack-monitor:latest"
    [ "$(contents)" = "$before" ]
    not grep -qE "docker (stop|rename)|docker rm " "$STUB/calls"
    echo old-volume >>"$STUB/there"
    STUB_COPY="cp: read error" run "$SCRIPT"
    [ "$status" = 6 ]
    [[ $output == *"geoip-data of an earlier version can't be copied: cp: read error"* ]]
    called "docker volume rm conntrack-monitor_geoip-data" # as it was made by this run
    not called "docker volume rm geoip-data"
    [ "$(contents)" = "$before" ]
}

@test "step 4 fails: the files are as before" {
    existing
    for name in docker-compose.yml conntrack-monitor setup-conntrack-monitor.sh; do
        mkdir "$FOLDER/$name.new" # what it would write first
        touch "$FOLDER/$name.new/x"
        before=$(contents)
        STUB_PULLED=sha256:new run "$SCRIPT"
        [ "$status" = 6 ]
        [[ $output == *"can't be written"*"unchanged"* ]]
        untouched
        rm -r "$FOLDER/$name.new"
    done
}

@test "step 5 fails: files, image and container are as before" {
    existing
    STUB_PULLED=sha256:new STUB_UP="no such device" run "$SCRIPT"
    [ "$status" = 8 ]
    [[ $output == *"no such device"*"The previous installation is restored."* ]]
    [ "$(contents)" = "$before" ]
    called "docker tag sha256:old ghcr.io/0xf00f00/conntrack-monitor:latest"
    called "docker start conntrack-monitor"
    not grep -qE "docker rm |volume rm" "$STUB/calls"
}

@test "step 5 fails: a container that was put aside is there again, and does not run if it did not" {
    existing
    for ran in true false; do
        : >"$STUB/calls"
        STUB_BEFORE="old|sha256:old|$ran|||" STUB_ID=new STUB_RUNNING="false 2" run "$SCRIPT"
        [ "$status" = 8 ]
        [[ "$(tr "\n" " " <"$STUB/calls")" == *"docker rename old conntrack-monitor-before"*"docker rm -f conntrack-monitor"*"docker rename old conntrack-monitor"* ]]
        if [ $ran = true ]; then called "docker start conntrack-monitor"; else not called "docker start"; fi
        [ "$(contents)" = "$before" ]
    done
}

@test "step 5 fails the first time: nothing is left" {
    : >"$STUB/there"
    STUB_UP="no such device" run "$SCRIPT"
    [ "$status" = 8 ]
    [ ! -e "$FOLDER" ]
    called "docker volume rm conntrack-monitor_geoip-data"
    [[ $output != *"before"* ]]
}

@test "step 6 fails: it runs, and what is left is named" {
    existing
    STUB_BEFORE="old|sha256:old|true|||" STUB_RM="device busy" run "$SCRIPT"
    [ "$status" = 0 ]
    [[ $output == *"conntrack-monitor-before could not be removed; try: docker rm -f conntrack-monitor-before"* ]]
}

@test "ended while it starts: as before" {
    existing
    STUB_UP_ENDS=1 run bash -c 'echo $$ >"$STUB/pid" && exec "$0"' "$SCRIPT"
    [ "$status" = 143 ]
    [[ $output == *"The previous installation is restored."* ]]
    [ "$(contents)" = "$before" ]
}

@test "an edited compose file is kept as .old, once; ours is not" {
    "$SCRIPT"
    [ ! -e "$FOLDER/docker-compose.yml.old" ]
    "$SCRIPT" --image my/image:2 # ours, though another
    [ ! -e "$FOLDER/docker-compose.yml.old" ]
    "$SCRIPT"
    for text in mine yours; do
        for turn in 1 2; do
            echo "# $text" >>"$FOLDER/docker-compose.yml"
            run "$SCRIPT"
            [[ $output == *"[4] "*"is kept as docker-compose.yml.old"* ]] || [ "$text$turn" != mine1 ]
            not grep -q "$text" "$FOLDER/docker-compose.yml"
        done
    done
    [ "$(tail -qn 1 "$FOLDER"/docker-compose.yml.old* | tr "\n" " ")" = "# mine # yours " ]
    printf '%s\n' "version: '3.8'" services: >"$FOLDER/docker-compose.yml" # somebody else's altogether
    run "$SCRIPT"
    [ "$(head -n 1 "$FOLDER/docker-compose.yml.old.3")" = "version: '3.8'" ]
    STUB_UID=0 "$SCRIPT" --uninstall
    [ ! -e "$FOLDER" ]
}

# But for comments, what builds, and who turns the log on.
lines() { sed '/^ *#/d; s/  *#.*//; /^    build: /d; s/\(CONNTRACK_MONITOR_LOG:\) .*/\1/' "$1"; }

@test "the file it writes is the checkout's, without build" {
    "$SCRIPT" --log
    diff <(lines "$ROOT/docker-compose.yml") <(lines "$FOLDER/docker-compose.yml")
    "$SCRIPT" --no-log
    diff <(lines "$ROOT/docker-compose.yml" | sed '/flow-log:$/d; /_LOG/d; /_flow-log/d; s|, "flow-log:/log"||') \
        <(lines "$FOLDER/docker-compose.yml")
}

# --- the flow log ---

on() { grep -qF 'CONNTRACK_MONITOR_LOG: "${CONNTRACK_MONITOR_LOG:-/log}"' "$FOLDER/docker-compose.yml"; }

@test "a flow log: off by itself, on by --log or the variable, as it is by a later run, off by --no-log" {
    "$SCRIPT"
    not on
    not called flow-log
    : >"$STUB/there"
    run "$SCRIPT" --log
    [ "$status" = 0 ]
    on
    called "docker volume create --label com.docker.compose.project=conntrack-monitor --label com.docker.compose.volume=flow-log conntrack-monitor_flow-log"
    [[ $output == *"[3] "*"and for the flow log ... ok: "*", conntrack-monitor_flow-log"*"--who ADDRESS:PORT --at "* ]]
    "$SCRIPT" --image my/image:2
    on
    run "$SCRIPT" --no-log
    not on
    [[ $output != *"--who"* ]]
    CONNTRACK_MONITOR_LOG=/log "$SCRIPT"
    on
    [ ! -e "$FOLDER/docker-compose.yml.old" ]
}

@test "a flow log as root by sudo: the variables go with it" {
    STUB_DOCKER=root STUB_SUDO=free CONNTRACK_MONITOR_LOG=/log run "$SCRIPT"
    [ "$status" = 0 ]
    on
}

@test "it does not start: the volumes that this run made go, and no other" {
    : >"$STUB/there"
    STUB_UP="no" run "$SCRIPT" --log
    [ "$status" = 8 ]
    called "docker volume rm conntrack-monitor_geoip-data"
    called "docker volume rm conntrack-monitor_flow-log"
    echo volume >"$STUB/there"
    : >"$STUB/calls"
    STUB_UP="no" run "$SCRIPT" --log
    [ "$status" = 8 ]
    not called "docker volume rm"
}

@test "another image, in the file, too" {
    run "$SCRIPT" --image my/image:2
    [ "$status" = 0 ]
    called "docker pull my/image:2"
    grep -qF 'image: ${CONNTRACK_MONITOR_IMAGE:-my/image:2}' "$FOLDER/docker-compose.yml"
}

@test "build" {
    run "$SCRIPT" --build
    [ "$status" = 0 ]
    called "docker build -t ghcr.io/0xf00f00/conntrack-monitor:latest --build-arg VERSION="
    grep -q -- "--build-arg REVISION=[0-9a-f]\{40\}.* --build-arg CREATED=.* $ROOT\$" "$STUB/calls"
    not called "docker pull"
}

@test "build outside of a checkout is 7, and how to get one" {
    run "$ALONE" --build
    [ "$status" = 7 ]
    [[ $output == *"git clone"* ]]
}

@test "a build that fails is 7, with its last lines" {
    STUB_BUILD="step 3: boom" run "$SCRIPT" --build
    [ "$status" = 7 ]
    [[ $output == *"step 3: boom"*"can't be built"* ]]
}

@test "no image to be had: built in a checkout" {
    STUB_PULL="no such host" run "$SCRIPT"
    [ "$status" = 0 ]
    called "docker build"
}

@test "no image to be had: the one that is here" {
    echo image >>"$STUB/there"
    STUB_PULL="no such host" run "$ALONE"
    [ "$status" = 0 ]
    [[ $output == *"the local image is used: no such host"* ]]
}

@test "no image at all is 7" {
    STUB_PULL="no such host" run "$ALONE"
    [ "$status" = 7 ]
    [[ $output == *"is not available: no such host"*"--build"* ]]
}

@test "no Docker is 4" {
    mkdir "$BATS_TEST_TMPDIR/bare"
    for program in bash cat dirname env grep; do ln -s "$(type -P $program)" "$BATS_TEST_TMPDIR/bare/$program"; done
    PATH=$BATS_TEST_TMPDIR/bare run "$SCRIPT"
    [ "$status" = 4 ]
    [[ $output == *"Docker is not installed"*"apt install docker.io"* ]]
}

@test "no compose is 4" {
    STUB_V1=none run "$SCRIPT"
    [ "$status" = 4 ]
    [[ $output == *"Compose is not installed"*"apt install docker.io docker-compose"* ]]
}

@test "what to install is said in the system's words" {
    while IFS='|' read -r system words; do
        printf '%b\n' "$system" >"$SETUP_ROOT/etc/os-release"
        STUB_V1=none run "$SCRIPT"
        [ "$status" = 4 ]
        [[ $output == *"try: $words" ]] || { echo "$system: $output" && return 1; }
    done <<'END'
NAME="Debian GNU/Linux"\nID=debian|apt install docker.io docker-compose
ID=raspbian\nID_LIKE=debian|apt install docker.io docker-compose
ID=ubuntu\nID_LIKE=debian|apt install docker.io docker-compose-v2
ID=linuxmint\nID_LIKE="ubuntu debian"|apt install docker.io docker-compose-v2
ID=fedora|dnf install moby-engine docker-compose && systemctl enable --now docker
ID=arch|pacman -S docker docker-compose && systemctl enable --now docker
ID=endeavouros\nID_LIKE='arch'|pacman -S docker docker-compose && systemctl enable --now docker
END
}

# A podman that is the docker of our own, and says so.
with_podman() {
    mkdir "$BATS_TEST_TMPDIR/podman"
    cat >"$BATS_TEST_TMPDIR/podman/podman" <<END
#!/bin/bash
[ "\$1" != --log-level ] || shift 2
printf 'podman %s\n' "\$*" >>"\$STUB/calls"
exec "$BATS_TEST_DIRNAME/stubs/docker" "\$@"
END
    chmod +x "$BATS_TEST_TMPDIR/podman/podman"
    export PATH=$BATS_TEST_TMPDIR/podman:$PATH STUB_VERSION="podman version 4.3.1"
}

@test "podman under docker's name: by podman run, without compose, and the wrapper with podman's words" {
    with_podman
    STUB_UID=0 run "$SCRIPT"
    [ "$status" = 0 ]
    [[ $output == *"[1] Podman ... ok"*"podman attach conntrack-monitor"* ]]
    called "podman run -d --name conntrack-monitor --network host"
    not called compose
    [ ! -e "$FOLDER/docker-compose.yml" ]
    grep -q 'CALLED="podman exec' "$FOLDER/podman-run"
    STUB_UID=0 run "$FOLDER/conntrack-monitor" stop
    [ "$status" = 0 ]
    called "podman stop conntrack-monitor"
    unset STUB_VERSION # a Docker that comes later does not take it over
    STUB_UID=0 run "$SCRIPT" --uninstall
    [ "$status" = 0 ]
    called "podman container inspect conntrack-monitor"
    [ ! -e "$FOLDER" ]
}

@test "podman: the flow log's lines stay, and a file that was edited is kept" {
    with_podman
    STUB_UID=0 "$SCRIPT" --log
    STUB_UID=0 "$SCRIPT"
    grep -q ' -v conntrack-monitor_flow-log:/log' "$FOLDER/podman-run"
    echo "# mine" >>"$FOLDER/podman-run"
    STUB_UID=0 run "$SCRIPT" --no-log
    [[ $output == *"the previous podman-run is kept as podman-run.old"* ]]
    not grep -q flow-log "$FOLDER/podman-run"
}

@test "podman without root sees nothing of this machine: sudo" {
    with_podman
    STUB_SUDO=free run "$SCRIPT" --dry-run
    [ "$status" = 0 ]
    [[ $output == "only root's containers see this machine's table: continuing with sudo"* ]]
    called "sudo -n -- "
}

@test "podman that can't start it: what there was is back" {
    with_podman
    printf '#!/bin/bash\n[ "$1" = run ] || exec "%s" "${@:3}"\necho "Error: no such image" >&2\nexit 125\n' \
        "$BATS_TEST_DIRNAME/stubs/docker" >"$BATS_TEST_TMPDIR/podman/podman"
    STUB_UID=0 run "$SCRIPT"
    [ "$status" = 8 ]
    [[ $output == *"podman can't start it: Error: no such image"* ]]
    [ ! -e "$FOLDER" ]
}

@test "DOCKER_HOST: what starts that one, not this machine's" {
    while read -r host words; do
        STUB_DOCKER=stopped DOCKER_HOST=$host run "$SCRIPT"
        [ "$status" = 5 ]
        [[ $output == *"at $host: is it running?"*"try: $words" ]] || { echo "$host: $output" && return 1; }
    done <<'END'
unix:///run/user/1000/docker.sock systemctl --user start docker
unix:///run/user/1000/podman/podman.sock systemctl --user start podman.socket
tcp://192.0.2.1:2376 unset DOCKER_HOST, for this machine's own Docker
END
}

@test "a daemon that does not run is 5, whoever asks, with whatever password; nobody is asked for one" {
    STUB_DOCKER=stopped STUB_UID=0 run "$SCRIPT"
    [ "$status" = 5 ]
    [[ $output == *"daemon does not answer at /var/run/docker.sock: is it running?"*"try: systemctl start docker" ]]
    STUB_DOCKER=stopped STUB_GROUPS=docker run "$SCRIPT" "$SECRET" # in the group docker, without sudo
    [ "$status" = 5 ]
    [[ $output == *"daemon does not answer"*"try: sudo systemctl start docker" ]]
    STUB_DOCKER=stopped run in_terminal "" "$SCRIPT"
    [ "$status" = 5 ]
    [[ $output != *"assword"* ]]
    STUB_DOCKER=stopped DOCKER_HOST=unix:///run/x.sock run "$SCRIPT" --uninstall
    [ "$status" = 5 ]
    [[ $output == *"at unix:///run/x.sock"* ]]
    not called sudo
    [ ! -e "$FOLDER" ]
}

@test "what else is wrong with Docker is 5, in its words" {
    STUB_DOCKER=$'more\nerror during connect: TLS' STUB_UID=0 run "$SCRIPT"
    [ "$status" = 5 ]
    [[ $output == *"Docker does not answer: error during connect: TLS"* ]]
    STUB_DOCKER=nobody STUB_UID=0 run "$SCRIPT"
    [ "$status" = 5 ]
    [[ $output == *"Docker denies access to root: Got permission denied"* ]]
}

@test "a folder that can't be written is 6" {
    : >"$FOLDER"
    run "$SCRIPT"
    [ "$status" = 6 ]
    [[ $output == *"can't be written"* ]]
}

@test "a home on NFS, where root may not write: another folder" {
    : >"$FOLDER"
    STUB_UID=0 run "$SCRIPT"
    [ "$status" = 6 ]
    [[ $output == *"can't be written"*"on NFS root may not write: join the group docker, or $SCRIPT --folder /opt/conntrack-monitor" ]]
    STUB_UID=0 run "$SCRIPT" --folder "$BATS_TEST_TMPDIR/elsewhere"
    [ "$status" = 0 ]
    [ -x "$BATS_TEST_TMPDIR/elsewhere/conntrack-monitor" ]
}

@test "Docker can't start it: 8, in its words" {
    STUB_UP="Conflict. The name is in use" run "$SCRIPT"
    [ "$status" = 8 ]
    [[ $output == *"Conflict. The name is in use"* ]]
}

@test "it starts and ends: 8, with what it said" {
    STUB_RUNNING="false 2" run "$SCRIPT"
    [ "$status" = 8 ]
    [[ $output == *"conntrack-monitor: not permitted"* ]]
}

@test "dry run changes nothing and says all" {
    printf '%s\n' container old-volume >>"$STUB/there"
    run "$SCRIPT" --dry-run --enable-accounting --uninstall
    [ "$status" = 2 ]
    STUB_UID=0 run "$SCRIPT" --dry-run --enable-accounting
    [ "$status" = 0 ]
    [[ $output == *"'docker' 'pull'"*"would copy: the files of the volume geoip-data"*"would write: $FOLDER/docker-compose.yml"*"'up' '-d'"*"'sysctl'"* ]]
    [ ! -e "$FOLDER" ]
    [ -z "$(ls -A "$SETUP_ROOT/etc")" ]
    not grep -qE 'docker (stop|rm|pull|build)|up -d|sysctl' "$STUB/calls"
    STUB_UID=0 run "$SCRIPT" --dry-run --uninstall --purge
    [ "$status" = 0 ]
    not grep -qE 'docker (stop|rm|rmi|volume rm)' "$STUB/calls"
}

@test "a script that comes through a pipe installs, too" {
    run bash -c 'bash -s -- --yes <"$0"' "$SCRIPT"
    [ "$status" = 0 ]
    [ -x "$FOLDER/conntrack-monitor" ]
}

# --- root ---

@test "as root nobody is asked" {
    STUB_DOCKER=root STUB_UID=0 run "$SCRIPT"
    [ "$status" = 0 ]
    not called sudo
}

@test "sudo without a password" {
    STUB_DOCKER=root STUB_SUDO=free run "$SCRIPT"
    [ "$status" = 0 ]
    [[ $output == *"only root and the group docker may use Docker: continuing with sudo"* ]]
    [ -x "$FOLDER/conntrack-monitor" ]
}

@test "the password from standard input" {
    STUB_DOCKER=root run bash -c 'printf "%s\nmore\n" "$1" | "$0" -' "$SCRIPT" "$SECRET"
    [ "$status" = 0 ]
    [ -x "$FOLDER/conntrack-monitor" ]
    no_leak
}

@test "the password as an argument: a warning, and it works" {
    STUB_DOCKER=root run "$SCRIPT" "$SECRET"
    [ "$status" = 0 ]
    [[ $output == *"warning: the password is now in your shell's history"* ]]
    [ -x "$FOLDER/conntrack-monitor" ]
    no_leak
}

@test "options on both sides of the password" {
    STUB_DOCKER=root run "$SCRIPT" --image my/image:2 "$SECRET" --build
    [ "$status" = 0 ]
    called "docker build -t my/image:2"
    no_leak
}

@test "the password at a prompt, unseen" {
    STUB_DOCKER=root run in_terminal "$SECRET" "$SCRIPT"
    [ "$status" = 0 ]
    [[ $output == *"Password for sudo:"* ]]
    [ -x "$FOLDER/conntrack-monitor" ]
    no_leak
}

@test "a wrong password is 3 and one line" {
    for way in argument input; do
        : >"$STUB/calls"
        if [ $way = argument ]; then
            STUB_DOCKER=root run "$SCRIPT" wrong
        else
            STUB_DOCKER=root run bash -c 'echo wrong | "$0" -' "$SCRIPT"
            [ "$output" = "error: the password is wrong" ]
        fi
        [ "$status" = 3 ]
        [[ $output == *"error: the password is wrong" ]]
        [ ! -e "$FOLDER" ]
    done
}

@test "an empty password is a wrong one" {
    STUB_DOCKER=root run bash -c '"$0" - </dev/null' "$SCRIPT"
    [ "$status" = 3 ]
    [ "$output" = "error: the password is wrong" ]
}

@test "sudo that lets nobody is 3, in its words" {
    STUB_DOCKER=root STUB_SUDO=denied run "$SCRIPT" "$SECRET"
    [ "$status" = 3 ]
    [[ $output == *"you is not in the sudoers file."* ]]
}

@test "a password that sudo does not read goes to nobody" {
    STUB_DOCKER=root STUB_SUDO=late run "$SCRIPT" "$SECRET"
    [ "$status" = 0 ]
    no_leak
}

@test "no password and no terminal is 3, and what to do" {
    STUB_DOCKER=root run bash -c '"$0" </dev/null' "$SCRIPT"
    [ "$status" = 3 ]
    [[ $output == *"there is no terminal to ask"* ]]
}

@test "a password that begins with - works after --, and every message about options says so" {
    for SECRET in -secret --secret -x --uninstall -h - --; do
        echo "$SECRET" >"$STUB/password"
        : >"$STUB/calls"
        STUB_DOCKER=root run "$SCRIPT" --yes -- "$SECRET"
        [ "$status" = 0 ]
        called "sudo -k -S"
        rm -r "$FOLDER"
    done
    for words in -Pa55 --Pa55word --frob; do
        run "$SCRIPT" "$words"
        [ "$status" = 2 ]
        [[ $output == *"a password that begins with - after --"* ]]
        [[ $output != *Pa55* ]]
    done
    run "$SCRIPT" -- one two
    [ "$status" = 2 ]
    run "$SCRIPT" --help
    [[ $output == *"a password that begins with - after --"* ]]
}

@test "who is in the group docker, but not since this login, is told so" {
    STUB_DOCKER=root STUB_GROUPS_NOW=docker run "$SCRIPT" wrong
    [ "$status" = 3 ]
    [[ $output == *"log out and in again: you are in the group docker"*"the password is wrong" ]]
}

@test "root is told what sudo keeps from it" {
    STUB_DOCKER=root STUB_SUDO=free CONNTRACK_MONITOR_IMAGE=my/image:3 DOCKER_HOST=unix:///run/x.sock run "$SCRIPT"
    [ "$status" = 0 ]
    called "CONNTRACK_MONITOR_IMAGE=my/image:3"
    called "DOCKER_HOST=unix:///run/x.sock"
    called "docker pull my/image:3"
}

@test "no sudo is 3" {
    mkdir "$BATS_TEST_TMPDIR/bare"
    for program in bash cat dirname env grep id docker; do ln -s "$(type -P $program)" "$BATS_TEST_TMPDIR/bare/$program"; done
    STUB_DOCKER=root PATH=$BATS_TEST_TMPDIR/bare run "$SCRIPT"
    [ "$status" = 3 ]
    [[ $output == *"sudo is not installed"* ]]
}

@test "a password that is not needed is not used" {
    run "$SCRIPT" "$SECRET"
    [ "$status" = 0 ]
    [[ $output == *"No password was needed."* ]]
    not called sudo
    no_leak
}

@test "ps shows no password once anything has been started" {
    mkfifo "$STUB/gate"
    STUB_HANG=$STUB/gate "$SCRIPT" "$SECRET" >"$STUB/out" 2>&1 3>&- &
    while [ ! -e "$STUB/hangs" ]; do command sleep 0; done
    found=$(grep -lF -- "$SECRET" /proc/[0-9]*/cmdline 2>/dev/null | grep -v "/$$/" || true)
    seen=$(for file in $found; do tr '\0' ' ' <"$file"; done | grep -v grep || true)
    unset STUB_HANG
    rm "$STUB/hangs"
    (while ! [ -s "$STUB/done" ]; do timeout 1 bash -c 'exec 5>"$0"' "$STUB/gate" || true; done) 3>&- &
    wait %1 || true
    echo done >"$STUB/done"
    wait
    [ -z "$seen" ]
}

@test "no trace shows the password" {
    STUB_DOCKER=root run bash -xv "$SCRIPT" "$SECRET"
    [ "$status" = 0 ]
    [[ $output != *"$SECRET"* ]]
    STUB_DOCKER=root run env SHELLOPTS=xtrace bash -a "$SCRIPT" "$SECRET"
    [ "$status" = 0 ]
    [[ $output != *"$SECRET"* ]]
    no_leak
}

@test "what root writes is the user's" {
    STUB_DOCKER=root STUB_SUDO=free run "$SCRIPT"
    [ "$(stat -c %u:%g "$FOLDER" "$FOLDER/conntrack-monitor" | sort -u)" = "$(stat -c %u:%g "$HOME")" ]
}

# --- accounting ---

@test "accounting, now and at boot" {
    STUB_UID=0 run "$SCRIPT" --enable-accounting
    [ "$status" = 0 ]
    called "sysctl -q -w net.netfilter.nf_conntrack_acct=1"
    grep -qx "net.netfilter.nf_conntrack_acct = 1" "$SETUP_ROOT/etc/sysctl.d/90-conntrack-monitor.conf"
    grep -qx "options nf_conntrack acct=1" "$SETUP_ROOT/etc/modprobe.d/conntrack-monitor.conf"
}

@test "accounting wants root, also where docker does not" {
    STUB_SUDO=free run "$SCRIPT" --enable-accounting
    [ "$status" = 0 ]
    [[ $output == *"changing kernel settings needs root: continuing with sudo"* ]]
    called "sysctl -q -w"
}

@test "a kernel that takes no accounting is 3" {
    STUB_UID=0 STUB_SYSCTL=no run "$SCRIPT" --enable-accounting
    [ "$status" = 3 ]
    [[ $output == *"modprobe nf_conntrack"* ]]
}

# --- uninstalling ---

installed() {
    STUB_UID=0 "$SCRIPT" --enable-accounting >/dev/null
    printf '%s\n' container image >>"$STUB/there"
    : >"$STUB/calls"
}

@test "uninstall: container, image, folder and settings; the volume stays" {
    installed
    STUB_UID=0 run "$SCRIPT" --uninstall
    [ "$status" = 0 ]
    called "docker rm -f conntrack-monitor"
    called "docker rmi an/image:1"
    not called "volume rm"
    [ ! -e "$FOLDER" ]
    [ -z "$(find "$SETUP_ROOT" -type f)" ]
    [[ $output == *"Databases and flow log remain in: conntrack-monitor_geoip-data conntrack-monitor_flow-log"* ]]
}

@test "uninstall takes no file of the user's" {
    installed
    echo mine >"$FOLDER/notes"
    STUB_UID=0 run "$SCRIPT" --uninstall
    [ "$status" = 0 ]
    [[ $output == *"files of yours"* ]]
    [ "$(ls -A "$FOLDER")" = notes ]
}

@test "uninstall where nothing is" {
    : >"$STUB/there"
    run "$SCRIPT" --uninstall
    [ "$status" = 0 ]
    not grep -qE 'docker (rm|rmi|stop)' "$STUB/calls"
}

@test "an image that something else uses stays" {
    installed
    STUB_UID=0 STUB_RMI=used run "$SCRIPT" --uninstall
    [ "$status" = 0 ]
    [[ $output == *"it is in use"* ]]
}

@test "purge asks first: yes, no, and nobody there" {
    installed
    STUB_UID=0 run in_terminal n "$SCRIPT" --uninstall --purge
    [ "$status" = 9 ]
    [ "$(cat "$STUB/calls")" = "docker --version" ]
    STUB_UID=0 run bash -c '"$0" --uninstall --purge </dev/null' "$SCRIPT"
    [ "$status" = 9 ]
    [ -z "$(grep -v "^docker --version" "$STUB/calls")" ]
    STUB_UID=0 run in_terminal y "$SCRIPT" --uninstall --purge
    [ "$status" = 0 ]
    [[ $output == *"conntrack-monitor_flow-log with the whole flow log?"* ]]
    called "docker volume rm conntrack-monitor_geoip-data"
    called "docker volume rm conntrack-monitor_flow-log"
}

@test "purge with --yes asks nobody, and takes the volume of an earlier version, too" {
    installed
    echo old-volume >>"$STUB/there"
    STUB_UID=0 run bash -c '"$0" --uninstall --purge --yes </dev/null' "$SCRIPT"
    [ "$status" = 0 ]
    called "docker volume rm conntrack-monitor_geoip-data"
    called "docker volume rm geoip-data"
}

@test "uninstall with sudo: asked once, as the user" {
    installed
    STUB_DOCKER=root STUB_SUDO=free run in_terminal y "$SCRIPT" --uninstall --purge
    [ "$status" = 0 ]
    called "docker volume rm conntrack-monitor_geoip-data"
    [ ! -e "$FOLDER" ]
}

# --- the wrapper ---

wrapper() {
    "$SCRIPT" >/dev/null
    : >"$STUB/calls"
    WRAPPER=$FOLDER/conntrack-monitor
    echo "2026-11-23 true" >"$STUB/state"
}

@test "wrapper: help, and wrong words are 2" {
    wrapper
    run "$WRAPPER" --help
    [ "$status" = 0 ]
    [[ $output == *attach*start*stop*restart*status*logs*update*uninstall* ]]
    run "$WRAPPER" frob
    [ "$status" = 2 ]
    run "$WRAPPER"
    [ "$status" = 2 ]
}

@test "wrapper: attach gives the terminal back after detaching, and nobody's terminal has no size" {
    wrapper
    run in_terminal "" "$WRAPPER" attach
    [ "$status" = 0 ]
    [[ $output == *$'frame read escape sequence'*$'\033[?1049l\033[?25h'*"Detached; the monitor keeps running."* ]]
    called "docker exec conntrack-monitor stty -F /dev/console rows 0 cols 0"
}

@test "wrapper: while another one looks, the terminal keeps its size" {
    wrapper
    mkfifo "$STUB/gate"
    flock -s "$FOLDER/.viewers" bash -c 'echo >"$STUB/held"; read -r <"$STUB/gate"' 3>&- &
    while [ ! -e "$STUB/held" ]; do command sleep 0; done
    run in_terminal "" "$WRAPPER" attach
    echo >"$STUB/gate"
    wait
    [ "$status" = 0 ]
    not called "docker exec"
}

@test "wrapper: after q it says what the restart policy does" {
    wrapper
    STUB_AFTER="2026-11-24 true" run in_terminal "" "$WRAPPER" attach
    [[ $output == *"starts it again. To stop it:"* ]]
    echo "2026-11-23 true" >"$STUB/state"
    STUB_AFTER="2026-11-23 false" STUB_POLICY=no run in_terminal "" "$WRAPPER" attach
    [[ $output == *"The monitor has exited. Start it:"* ]]
    not called "docker exec"
}

@test "wrapper: nothing to attach to, and nothing to attach with" {
    wrapper
    echo "2026-11-23 false" >"$STUB/state"
    run in_terminal "" "$WRAPPER" attach
    [ "$status" = 1 ]
    [[ $output == *"not running; try:"* ]]
    run bash -c '"$0" attach </dev/null' "$WRAPPER"
    [ "$status" = 2 ]
    [[ $output == *"needs a terminal"* ]]
}

@test "wrapper: start, stop, restart, logs, update" {
    wrapper
    for word in start stop restart "logs -f" update; do
        # shellcheck disable=SC2086
        run "$WRAPPER" $word
        [ "$status" = 0 ]
    done
    called "docker-compose -p conntrack-monitor -f $FOLDER/docker-compose.yml up -d --no-build"
    called "docker stop conntrack-monitor"
    called "docker restart conntrack-monitor"
    called "docker logs -f conntrack-monitor"
    called "docker-compose -p conntrack-monitor -f $FOLDER/docker-compose.yml pull"
    STUB_V2=1 run "$WRAPPER" start
    called "docker compose -p conntrack-monitor"
}

@test "wrapper: status" {
    wrapper
    STUB_STATUS="running, since then, healthy" run "$WRAPPER" status
    [ "$status" = 0 ]
    [ "$output" = "conntrack-monitor: running, since then, healthy" ]
    STUB_STATUS="exited, since then" run "$WRAPPER" status
    [ "$status" = 1 ]
    run "$WRAPPER" status
    [ "$status" = 1 ]
    [[ $output == *"there is no container"* ]]
}

@test "wrapper: uninstall" {
    wrapper
    run "$WRAPPER" uninstall
    [ "$status" = 0 ]
    [ ! -e "$FOLDER" ]
}

@test "wrapper: through a link, and with sudo where docker wants it" {
    wrapper
    ln -s "$WRAPPER" "$HOME/cm"
    STUB_DOCKER=root STUB_SUDO=free run "$HOME/cm" stop
    [ "$status" = 0 ]
    called "sudo env "
    called "$FOLDER/conntrack-monitor stop"
    called "docker stop conntrack-monitor"
}

@test "wrapper: where Docker does not run, nobody is asked for a password" {
    wrapper
    STUB_DOCKER=stopped STUB_SUDO=free run "$WRAPPER" stop
    [ "$status" = 5 ]
    [[ $output == *"daemon does not answer"*"try: sudo systemctl start docker" ]]
    not called sudo
    STUB_DOCKER=nobody STUB_UID=0 run "$WRAPPER" stop
    [ "$status" = 3 ]
}

@test "wrapper: update goes back to the image before, if the new one does not stay up" {
    wrapper
    echo container >>"$STUB/there"
    echo image >>"$STUB/there"
    echo sha256:old >"$STUB/image"
    STUB_RUNNING="false 3" run "$WRAPPER" update
    [ "$status" = 1 ]
    [[ $output == *"the container does not stay up"* ]] # as the image is the same
    : >"$STUB/calls"
    STUB_PULL="no such host" run "$WRAPPER" update
    [ "$status" = 1 ]
    not called "up -d"
    STUB_PULLED=sha256:new STUB_RUNNING="false 3" run "$WRAPPER" update
    [ "$status" = 1 ]
    [[ $output == *"going back to the previous one"* ]]
    [[ "$(tr "\n" " " <"$STUB/calls")" == *"up -d"*"docker tag sha256:old an/image:1"*"up -d"* ]]
    echo sha256:old >"$STUB/image"
    STUB_PULLED=sha256:new STUB_TAGS=0 run "$WRAPPER" update
    [ "$status" = 0 ]
    called "docker rmi sha256:old"
}

@test "shellcheck finds nothing" {
    command -v shellcheck || skip "shellcheck is not installed"
    sed -n "/<<'WRAPPER'/,/^WRAPPER/p" "$SCRIPT" | sed '1s/.*/#!\/bin\/bash\nengine=docker/;$d' >"$BATS_TEST_TMPDIR/wrapper"
    shellcheck "$ROOT"/*.sh "$ROOT"/scripts/*.sh "$ROOT/.ci/run" "$BATS_TEST_TMPDIR/wrapper" "$BATS_TEST_DIRNAME"/stubs/*
}
