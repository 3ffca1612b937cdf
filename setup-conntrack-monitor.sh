#!/usr/bin/env bash
# Installs Conntrack Monitor as a container that runs in the background. See --help.
{ set +xva; } 2>/dev/null # neither a trace nor the environment may show the password
set -euo pipefail
umask 022

readonly NAME=conntrack-monitor
readonly VOLUME=conntrack-monitor_geoip-data # the name that compose gives it where a file says geoip-data only
readonly VOLUME_LOG=conntrack-monitor_flow-log
readonly VOLUME_BEFORE=geoip-data            # the name in an earlier version: its files are copied over
readonly BEFORE=$NAME-before                 # a container that is not compose's, while its successor is tried
readonly IMAGE_DEFAULT=ghcr.io/0xf00f00/conntrack-monitor:latest
readonly EX_USAGE=2 EX_ROOT=3 EX_DOCKER=4 EX_DAEMON=5 EX_FILES=6 EX_IMAGE=7 EX_START=8 EX_REFUSED=9

usage() {
    cat <<'END'
Usage: ./setup-conntrack-monitor.sh [options] [SUDO_PASSWORD]

Installs Conntrack Monitor in ~/conntrack-monitor and starts it. Run it again to update. A running container is replaced
only after the new one has started; if anything fails, the previous installation is restored. Databases (in the volume
conntrack-monitor_geoip-data) and a flow log are kept.
SUDO_PASSWORD is used only if Docker needs root and sudo needs a password. "-" reads it from stdin; without it, you are
asked. As an argument, it ends up in your shell's history. Put a password that begins with - after --.
Where podman is installed and Docker is not, podman runs it, as root: without root it sees only a network of its own.

  --build              build the image from the checkout that contains this script
  --image REF          use this image [ghcr.io/0xf00f00/conntrack-monitor:latest]
  --enable-accounting  make the kernel count bytes and packets of each flow, now and at boot
  --log                keep a flow log, a record of who talks to whom, in the volume conntrack-monitor_flow-log; later
                       runs without this option keep it on
  --no-log             stop keeping a flow log; what was written is kept
  --uninstall          remove container, image and folder, and the settings of --enable-accounting
  --purge              with --uninstall: also remove the volumes with databases and flow log, and geoip-data of an
                       earlier version (asks first)
  --dry-run            print what would be done, without doing it
  --yes                do not ask
  -h, --help           print this help

Exit status: 0 success, 2 wrong usage, 3 no root access (wrong password), 4 neither docker with compose nor podman, 5 docker does
not answer, 6 a file or volume can't be written, 7 no image, 8 the container does not start, 9 not confirmed.
END
}

# --- what the installed files say -----------------------------------------------------------------

settings_file() { # IMAGE LOG
    local text
    if [ "$engine" = podman ]; then text=$(podman_lines "$1" "$2"); else text=$(compose_lines "$1" "$2"); fi
    cat <<'END'
# Conntrack Monitor over this machine's own connection table. Written by setup-conntrack-monitor.sh.
#   ~/conntrack-monitor/conntrack-monitor attach    attach to it; Ctrl+P Ctrl+Q detaches and restores your terminal
END
    printf '#   %-46s  the same, but type reset after Ctrl+P Ctrl+Q\n' "$engine attach conntrack-monitor"
    printf '# Checksum %s: with another text below, this file is kept as %s.old when setup runs again.\n%s\n' \
        "$(checksum <<<"$text")" "$settings" "$text"
}

checksum() { cksum | tr ' ' '-'; } # of standard input

as_written() { # FILE: is it as one of our versions wrote it?
    local noted
    noted=$(sed -n 's/^# Checksum \([0-9-]*\): .*/\1/p' "$1" 2>/dev/null)
    [ -n "$noted" ] && [ "$noted" = "$(sed '1,/^# Checksum /d' "$1" | checksum)" ]
}

# As docker-compose.yml of the checkout, without build; the flow log's lines only where it is on, as compose 1 makes every
# volume that a file names.
compose_lines() { # IMAGE on|off
    cat <<END
services:
  conntrack-monitor:
    image: \${CONNTRACK_MONITOR_IMAGE:-$1}
END
    cat <<'END'
    container_name: conntrack-monitor
    network_mode: host # the table is the network namespace's: without this it would be the container's own, empty one
    tty: true
    stdin_open: true
    cap_drop: [ALL]
    # NET_ADMIN: what reading the table takes. DAC_OVERRIDE: reading a database that docker cp brought with its owner and mode
    # (0600 under umask 077); all that it opens beside the image are the volume and /run. No privileged.
    cap_add: [NET_ADMIN, DAC_OVERRIDE]
    security_opt: ["no-new-privileges:true"]
    read_only: true
    tmpfs: ["/run:size=1m,mode=0755"]
    environment:
      GEOIP_DB_PATHS: /usr/share/GeoIP
      CONNTRACK_MONITOR_CALLED: docker exec conntrack-monitor conntrack-monitor # for its hints, as you would type it
      CONNTRACK_MONITOR_RESTART: "${CONNTRACK_MONITOR_RESTART:-unless-stopped}" # q says so where it is not the end
      CONNTRACK_MONITOR_STOP: docker stop conntrack-monitor # ... and what is
      CONNTRACK_MONITOR_GEOIP_URL: # a value from here or .env goes in; none does where there is none
      CONNTRACK_MONITOR_NO_DOWNLOAD:
END
    if [ "$2" = on ]; then
        cat <<'END'
      CONNTRACK_MONITOR_LOG: "${CONNTRACK_MONITOR_LOG:-/log}" # a flow log: a record of who talks to whom
      CONNTRACK_MONITOR_LOG_KEEP:
      CONNTRACK_MONITOR_LOG_SIZE:
    volumes: ["geoip-data:/usr/share/GeoIP", "flow-log:/log"]
END
    else
        echo '    volumes: ["geoip-data:/usr/share/GeoIP"] # with a flow log: setup-conntrack-monitor.sh --log'
    fi
    cat <<'END'
    # q and Ctrl+C end the program, and this starts it again; only `docker stop` is the end. CONNTRACK_MONITOR_RESTART=no
    # or on-failure lets q be the end.
    restart: ${CONNTRACK_MONITOR_RESTART:-unless-stopped}
    logging: # every frame that somebody saw is in the log, too
      driver: local
      options: { max-size: 1m, max-file: "2" }

volumes:
  geoip-data:
    name: conntrack-monitor_geoip-data # as compose names it by itself in a folder conntrack-monitor
END
    [ "$2" = on ] || return 0
    cat <<'END'
  flow-log:
    name: conntrack-monitor_flow-log
END
}

# The same for podman, which has no compose of its own; sh reads it. always: what podman-restart.service starts at boot.
podman_lines() { # IMAGE on|off
    cat <<'END'
exec podman run -d --name conntrack-monitor --network host -it \
    --cap-drop ALL --cap-add NET_ADMIN --cap-add DAC_OVERRIDE --security-opt no-new-privileges \
    --read-only --tmpfs /run:rw,size=1m,mode=0755 \
    -e GEOIP_DB_PATHS=/usr/share/GeoIP -e CONNTRACK_MONITOR_GEOIP_URL -e CONNTRACK_MONITOR_NO_DOWNLOAD \
    -e CONNTRACK_MONITOR_CALLED="podman exec conntrack-monitor conntrack-monitor" \
    -e CONNTRACK_MONITOR_STOP="podman stop conntrack-monitor" \
    -e CONNTRACK_MONITOR_RESTART="${CONNTRACK_MONITOR_RESTART:-always}" --restart "${CONNTRACK_MONITOR_RESTART:-always}" \
    --log-driver k8s-file --log-opt max-size=2mb \
    -v conntrack-monitor_geoip-data:/usr/share/GeoIP \
END
    if [ "$2" = on ]; then
        cat <<'END'
    -e CONNTRACK_MONITOR_LOG="${CONNTRACK_MONITOR_LOG:-/log}" -e CONNTRACK_MONITOR_LOG_KEEP -e CONNTRACK_MONITOR_LOG_SIZE \
    -v conntrack-monitor_flow-log:/log \
END
    fi
    # shellcheck disable=SC2016  # that file's own
    printf '    "${CONNTRACK_MONITOR_IMAGE:-%s}"\n' "$1"
}

wrapper_file() {
    cat <<'HEAD'
#!/usr/bin/env bash
# Attaches to, starts, stops and updates the installed Conntrack Monitor. Written by setup-conntrack-monitor.sh.
set -uo pipefail
HEAD
    printf 'engine=%s\n' "$engine"
    [ "$engine" = docker ] || declare -f docker
    declare -f compose docker_state docker_is_silent cure_of_silence kept_for_root stays_up image_of exists
    cat <<'WRAPPER'
readonly NAME=conntrack-monitor
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" || exit 1
here=$PWD

usage() {
    cat <<'TEXT'
Usage: conntrack-monitor COMMAND

  attach     attach to it (Ctrl+P Ctrl+Q detaches, it keeps running)
  start      start it
  stop       stop it until the next start
  restart    stop and start it
  status     show whether it is running and healthy
  logs       show its output; takes the options of docker logs
  update     fetch the latest image and restart
  uninstall  remove container, image and folder; --purge: also databases and flow log
TEXT
}

composed() { compose -p "$NAME" -f "$here/docker-compose.yml" "$@"; }

start() {
    if [ "$engine" != podman ]; then
        composed up -d --no-build
    elif exists container "$NAME"; then
        docker start "$NAME"
    else
        sh "$here/podman-run"
    fi
}

# Tells one run from the next; ends with "true" while it runs.
run_of() { fact '{{.State.StartedAt}} {{.State.FinishedAt}} {{.RestartCount}} {{.State.Running}}'; }

fact() { docker inspect -f "$1" "$NAME" 2>/dev/null; }

attach() {
    local before modes tries=2
    if ! [ -t 0 ] || ! [ -t 1 ]; then
        echo "attach needs a terminal" >&2
        return 2
    fi
    before=$(run_of)
    case $before in
    *" true") ;;
    *) echo "not running; try: $here/conntrack-monitor start" >&2; return 1 ;;
    esac
    exec 9>>"$here/.viewers"
    command -v flock >/dev/null && flock -s 9
    modes=$(stty -g)
    trap : INT
    docker attach "$NAME" 9>&- && tries=20 # 1 for a detach, else the program's status
    trap - INT
    stty "$modes"
    # docker leaves the alternate screen on and the cursor hidden, and says "read escape sequence".
    printf '\033[?2026l\033[?1049l\033[?25h\033[?1000l\033[?1002l\033[?1003l\033[?1006l\033[?2004l\033[0m\r\033[K'
    while [ "$before" = "$(run_of)" ] && [ "$tries" -gt 0 ]; do # Docker notes an end a moment later
        sleep 0.1
        tries=$((tries - 1))
    done
    if [ "$tries" = 0 ]; then
        # A terminal of no size is drawn on by nobody: nothing goes to the log until the next one attaches.
        if command -v flock >/dev/null && flock -xn 9; then
            docker exec "$NAME" stty -F /dev/console rows 0 cols 0 2>/dev/null
        fi
        echo "Detached; the monitor keeps running. Attach again: $here/conntrack-monitor attach"
    elif [ "$(fact '{{.HostConfig.RestartPolicy.Name}}')" = no ]; then
        echo "The monitor has exited. Start it: $here/conntrack-monitor start"
    else
        echo "The monitor has exited, and its restart policy starts it again. To stop it: $here/conntrack-monitor stop"
    fi
}

status() {
    local state
    # Health is the last that was asked: of one that has stopped it says nothing. Podman has an empty one where it asks none.
    state=$(fact '{{.State.Status}}, since {{if .State.Running}}{{.State.StartedAt}}{{with .State.Health}}{{with .Status}}, {{.}}{{end}}{{end}}{{else}}{{.State.FinishedAt}}, exit status {{.State.ExitCode}}{{end}}') || {
        echo "not installed: there is no container $NAME; try: $here/conntrack-monitor start" >&2
        return 1
    }
    echo "$NAME: $state"
    case $state in running*) ;; *) return 1 ;; esac
}

# The new image first; where it does not run, the one before it does again.
update() {
    local reference before now
    [ "$engine" = docker ] || exec "$here/setup-conntrack-monitor.sh" --folder "$here" # which brings back what there was
    reference=$(fact '{{.Config.Image}}')
    before=$(fact '{{.Image}}')
    composed pull || return
    if composed up -d --no-build && stays_up "$NAME"; then
        now=$(fact '{{.Image}}')
        [ "$now" = "$before" ] || [ "$(docker image inspect -f '{{len .RepoTags}}' "$before" 2>/dev/null)" != 0 ] ||
            docker rmi "$before" >/dev/null 2>&1 || true
        return 0
    fi
    docker logs --tail 3 "$NAME" >&2
    if [ -z "$before" ] || [ "$before" = "$(image_of "$reference")" ]; then
        echo "the container does not stay up" >&2
        return 1
    fi
    echo "the new image does not stay up; going back to the previous one" >&2
    docker tag "$before" "$reference" && composed up -d --no-build
    return 1
}

# sudo only where Docker would answer root; else what is wrong, and what helps.
with_docker() {
    local -a root
    case $(docker_state) in
    '') return ;;
    absent)
        echo "error: not installed: command $engine not found" >&2
        exit 4
        ;;
    silent)
        echo "error: $(docker_is_silent)" >&2
        echo "  try: $(cure_of_silence)" >&2
        exit 5
        ;;
    forbidden)
        if [ "$(id -u)" != 0 ] && command -v sudo >/dev/null; then
            mapfile -t root < <(kept_for_root)
            exec sudo env ${root[@]+"${root[@]}"} "$here/conntrack-monitor" "$@"
        fi
        if [ "$engine" = podman ]; then
            echo "error: it runs as root's: without root podman does not see it" >&2
        else
            echo "error: Docker denies access: only root and the group docker may use it" >&2
        fi
        exit 3
        ;;
    *) ;; # docker says it itself
    esac
}

main() {
    local command=${1:-}
    case $command in
    attach | start | stop | restart | status | logs | update | uninstall) shift ;;
    -h | --help | help) usage; return 0 ;;
    *) usage >&2; return 2 ;;
    esac
    with_docker "$command" "$@"
    case $command in
    attach) attach ;;
    start) start ;;
    stop) docker stop "$NAME" ;;
    restart) docker restart "$NAME" ;;
    status) status ;;
    logs) docker logs "$@" "$NAME" ;;
    update) update ;;
    uninstall) exec "$here/setup-conntrack-monitor.sh" --folder "$here" --uninstall "$@" ;;
    esac
}

main "$@"
WRAPPER
}

# --- words ----------------------------------------------------------------------------------------

in_step=0 # a step's words stand there without an end of line

step() { # NUMBER WHAT
    printf '[%s] %s' "$1" "$2"
    if [ "$dry" = 1 ]; then echo; else printf ' ... ' && in_step=1; fi
}

ok() {
    [ "$dry" = 1 ] || printf 'ok%s\n' "${1:+: $1}"
    in_step=0
}

note() {
    printf '%s\n' "$*"
    in_step=0
}

warn() { printf 'warning: %s\n' "$*" >&2; }

die() { # STATUS WHAT [HELP]
    [ "$in_step" = 0 ] || echo failed
    printf 'error: %s\n' "$2" >&2
    [ -z "${3:-}" ] || printf '  try: %s\n' "$3" >&2
    exit "$1"
}

would() {
    if [ "$1" = docker ]; then set -- "$engine" "${@:2}"; fi
    printf '  would run: %s\n' "${*@Q}"
}

act() { # changes something: run it, or with --dry-run say it
    if [ "$dry" = 1 ]; then would "$@"; else "$@" >/dev/null </dev/null; fi
}

ask() { # QUESTION
    [ "$yes" = 1 ] && return 0
    [ -t 0 ] || die $EX_REFUSED "$1 There is no terminal to confirm it." "--yes"
    local answer
    read -rp "$1 [y/N] " answer
    case $answer in [yY] | [yY][eE][sS]) ;; *) die $EX_REFUSED "nothing was changed" ;; esac
}

# --- options --------------------------------------------------------------------------------------

build=0 image='' uninstall=0 purge=0 accounting=0 dry=0 yes=0 password='' has_password=0 password_fd='' from_stdin=0 folder='' log='' also=''
handed=() # the options that are given on to the run as root

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --build) build=1 ;;
        --image)
            [ -n "${2:-}" ] || usage_error "--image needs a name"
            image=$2 handed+=("$1")
            shift
            ;;
        --uninstall) uninstall=1 ;;
        --purge) purge=1 ;;
        --enable-accounting) accounting=1 ;;
        --log) log=on ;;
        --no-log) log=off ;;
        --dry-run) dry=1 ;;
        --yes | -y) yes=1 ;;
        -h | --help) usage; exit 0 ;;
        --folder) # the run as root, whose home is another
            folder=${2:?}
            handed+=("$1")
            shift
            ;;
        --password-fd)
            password_fd=${2:?}
            shift 2
            continue
            ;;
        -)
            from_stdin=1
            shift
            continue
            ;;
        --)
            shift
            [ $# -le 1 ] || usage_error "give only one password"
            [ $# = 0 ] || take_argument "$@"
            break
            ;;
        -*) no_option "$1" ;;
        *) take_argument "$@" ;;
        esac
        handed+=("$1")
        shift
    done
    [ "$purge" = 0 ] || [ "$uninstall" = 1 ] || usage_error "--purge requires --uninstall"
    [ "$uninstall" = 0 ] || [ "$build$accounting$log" = 00 ] || usage_error "--uninstall can only be combined with --purge, --dry-run and --yes"
    if [ -n "$password_fd" ]; then
        IFS= read -r password <&"$password_fd" || true
        exec {password_fd}<&-
        has_password=1
    elif [ "$from_stdin" = 1 ]; then
        IFS= read -r password || true
        has_password=1
        exec </dev/null
    fi
    folder=${folder:-${HOME:?}/$NAME}
}

usage_error() {
    printf 'error: %s\n  try: %s --help\n' "$1" "$script" >&2
    exit $EX_USAGE
}

no_option() { # WORD, which may be a password: then it is not repeated
    local named=''
    if [[ $1 =~ ^--[a-z-]+$ ]]; then named=$1; fi
    usage_error "unknown option${named:+ $named}; put a password that begins with - after --"
}

# The password is an argument: start again with it in a pipe, so that ps shows it no longer than that takes. sudo is
# not asked with it in any argument, and it never stands in the environment.
take_argument() {
    local secret=$1 fd
    shift
    [ -z "$password_fd" ] || usage_error "give only one password"
    [ -f "$script" ] || usage_error "to give a password, save the script to a file and run it"
    warn "the password is now in your shell's history; safer: no argument (you are asked), or - and a pipe"
    exec {fd}< <(printf '%s\n' "$secret")
    exec "$BASH" "$script" --password-fd "$fd" ${handed[@]+"${handed[@]}"} "$@"
}

# --- root -----------------------------------------------------------------------------------------

# What root is to know of our environment, which sudo keeps from it: NAME=VALUE lines.
kept_for_root() {
    local name
    for name in DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG CONTAINERS_CONF CONTAINERS_STORAGE_CONF CONNTRACK_MONITOR_{IMAGE,RESTART,GEOIP_URL,NO_DOWNLOAD,LOG,LOG_KEEP,LOG_SIZE} SETUP_ROOT; do
        [ -z "${!name:-}" ] || printf '%s=%s\n' "$name" "${!name}"
    done
}

# What a login that began before one was put into the group docker does not know.
in_group_since() {
    [[ " $(id -nG "$(id -un)" 2>/dev/null) " == *" docker "* ]] && [[ " $(id -nG) " != *" docker "* ]]
}

# One escalation for all: the whole script again, as root, its standard input closed to whatever sudo left there.
escalate() {
    local why=$1 said help="start this script as root"
    local -a environment again
    mapfile -t environment < <(kept_for_root)
    again=(env ${environment[@]+"${environment[@]}"} "$BASH" "$script" --folder "$folder" ${handed[@]+"${handed[@]}"})
    [ "$yes" = 1 ] || again+=(--yes) # what there was to ask has been asked
    ! in_group_since || help="log out and in again: you are in the group docker, but not since this login began"
    [ -f "$script" ] || die $EX_ROOT "$why" "save the script to a file and run it as root"
    command -v sudo >/dev/null || die $EX_ROOT "$why, and sudo is not installed" "$help"
    if sudo -n true </dev/null 2>/dev/null; then
        note "$why: continuing with sudo"
        exec sudo -n -- "${again[@]}" </dev/null
    fi
    if [ "$has_password" = 0 ]; then
        [ -t 0 ] || die $EX_ROOT "$why; sudo needs a password, and there is no terminal to ask for it" \
            "a pipe: ... | $script -"
        note "$why."
        read -rsp "Password for sudo: " password
        echo
    fi
    set +o pipefail # where no password is wanted after all, nobody reads it
    # -k: never the ticket of an earlier sudo, with which the password would not be read and go to the command.
    said=$(printf '%s\n' "$password" | LC_ALL=C sudo -k -S -p '' -- true 2>&1) || {
        ! in_group_since || printf '%s\n' "$why; without sudo: $help" >&2
        case $said in
        *"incorrect password"* | *"try again"* | *"no password was provided"*) die $EX_ROOT "the password is wrong" ;;
        *) die $EX_ROOT "sudo denies access: ${said##*$'\n'}" ;;
        esac
    }
    note "$why: continuing with sudo"
    # shellcheck disable=SC2016  # that shell's own $@
    printf '%s\n' "$password" | sudo -k -S -p '' -- sh -c 'exec "$@" </dev/null' sh "${again[@]}"
    exit
}

# --- Docker, or podman under its name -------------------------------------------------------------

engine=docker settings=docker-compose.yml

# Podman takes Docker's words, but for compose; its package podman-docker gives it Docker's name. What is installed stays
# with the engine that it has.
choose_engine() {
    local said=''
    if command -v docker >/dev/null && ! [ -e "$folder/podman-run" ]; then
        said=$(docker --version 2>/dev/null </dev/null) || true
        case ${said,,} in *podman*) ;; *) return 0 ;; esac
    fi
    command -v podman >/dev/null || return 0
    engine=podman settings=podman-run
    # Without systemd it logs that timers of health checks are none; what fails is said all the same.
    docker() { command podman --log-level fatal "$@"; }
}

compose() {
    if docker compose version >/dev/null 2>&1 </dev/null; then
        docker compose "$@" </dev/null
    else
        docker-compose "$@" </dev/null
    fi
}

# What stands between us and Docker, in the order in which it has to be mended: absent (no command docker), silent
# (nobody answers), forbidden (not to us); "" if nothing does, docker's own words for anything else.
docker_state() {
    local said status=0
    local -a patience=()
    command -v "$engine" >/dev/null || { echo absent && return; }
    if [ "$engine" = podman ]; then # no daemon; a user's containers are others, and have no right on the host's network
        [ "$(id -u)" = 0 ] || echo forbidden
        return
    fi
    ! command -v timeout >/dev/null || patience=(timeout 20)
    # not docker info: that ends with "errors pretty printing info" whatever is wrong
    said=$(${patience[@]+"${patience[@]}"} docker version --format '{{.Server.Version}}' 2>&1 >/dev/null </dev/null) || status=$?
    case $status,${said,,} in
    0,*) ;;
    *"permission denied"*) echo forbidden ;;
    124,* | *"cannot connect to the docker daemon"* | *"failed to connect to the docker api"*) echo silent ;;
    *) echo "${said##*$'\n'}" ;;
    esac
}

docker_is_silent() {
    echo "Docker is installed, but its daemon does not answer at ${DOCKER_HOST:-/var/run/docker.sock}: is it running?"
}

# A socket of the user's own is the user's service; what is further away can't be started from here.
cure_of_silence() {
    case ${DOCKER_HOST:-} in
    unix:///run/user/*/podman/*) echo "systemctl --user start podman.socket" && return ;;
    unix:///run/user/*) echo "systemctl --user start docker" && return ;;
    '' | unix:///run/docker.sock | unix:///var/run/docker.sock) ;;
    *) echo "unset DOCKER_HOST, for this machine's own Docker" && return ;;
    esac
    if [ "$(id -u)" = 0 ]; then echo "systemctl start docker"; else echo "sudo systemctl start docker"; fi
}

# How Docker and compose are installed here: Debian's and Raspberry Pi OS's words where the system is not known.
how_to_install() {
    local line systems=' '
    if [ -r "$etc/os-release" ]; then
        while read -r line; do
            case $line in ID=* | ID_LIKE=*) line=${line#*=} && systems+="${line//[\"\']/} " ;; esac
        done <"$etc/os-release"
    fi
    case $systems in
    *' ubuntu '*) echo "apt install docker.io docker-compose-v2" ;;
    *' fedora '*) echo "dnf install moby-engine docker-compose && systemctl enable --now docker" ;;
    *' arch '*) echo "pacman -S docker docker-compose && systemctl enable --now docker" ;;
    *' debian '* | *' raspbian '*) echo "apt install docker.io docker-compose" ;;
    *) echo "apt install docker.io docker-compose (Debian, Raspberry Pi OS), then again" ;;
    esac
}

need_docker() { # STATE
    case $1 in
    '') ;;
    absent)
        die $EX_DOCKER "Docker is not installed: command docker not found" \
            "$(how_to_install)"
        ;;
    silent) die $EX_DAEMON "$(docker_is_silent)" "$(cure_of_silence)" ;;
    forbidden) die $EX_DAEMON "Docker denies access to root: $(docker version 2>&1 >/dev/null </dev/null | tail -n 1)" ;;
    *) die $EX_DAEMON "Docker does not answer: $1" "docker version" ;;
    esac
}

need_compose() {
    [ "$engine" = docker ] || return 0
    docker compose version >/dev/null 2>&1 </dev/null || docker-compose version >/dev/null 2>&1 </dev/null ||
        die $EX_DOCKER "Docker Compose is not installed" "$(how_to_install)"
}

exists() { docker "$1" inspect "$2" >/dev/null 2>&1 </dev/null; } # container, image or volume

# Does a container that was just started stay as it is? One that can't read the table has ended by then, more than once.
stays_up() { # NAME
    local first
    first=$(docker inspect -f '{{.State.Running}} {{.RestartCount}} {{.State.StartedAt}}' "$1" 2>/dev/null)
    for _ in 1 2 3 4 5 6 7 8; do
        case $first in true*) ;; *) return 1 ;; esac
        sleep 0.25
        [ "$(docker inspect -f '{{.State.Running}} {{.RestartCount}} {{.State.StartedAt}}' "$1" 2>/dev/null)" = "$first" ] ||
            return 1
    done
}

image_of() { docker image inspect -f '{{.Id}}' "$1" 2>/dev/null </dev/null || true; } # REFERENCE

remove_container() { # NAME
    exists container "$1" || return 0
    act docker stop -t 5 "$1" || true
    act docker rm -f "$1"
}

in_checkout() { [ -n "$checkout" ] && [ -f "$checkout/Dockerfile" ]; }

get_image() {
    local said
    if [ "$build" = 1 ]; then
        in_checkout || die $EX_IMAGE "this script is not in a checkout to build from" \
            "git clone https://github.com/0xf00f00/conntrack-monitor, then its ./setup-conntrack-monitor.sh --build"
        build_image
        return
    fi
    if [ "$dry" = 1 ]; then would docker pull "$image"; return; fi
    if said=$(docker pull "$image" 2>&1 </dev/null); then
        ok "$image"
    elif in_checkout; then
        note "not available: ${said##*$'\n'}"
        step 2 "building it from this checkout"
        build_image
    elif exists image "$image"; then
        ok "not available now; the local image is used: ${said##*$'\n'}"
    else
        die $EX_IMAGE "$image is not available: ${said##*$'\n'}" "--image REF, or --build in a checkout"
    fi
}

build_image() {
    local log
    local -a labels=()
    if [ "$dry" = 1 ]; then would docker build -t "$image" "$checkout"; return; fi
    # version, commit and its time: where Python and git are here
    read -ra labels < <(python3 "$checkout/scripts/release.py" labels 2>/dev/null </dev/null) || true
    if [ "$engine" = podman ]; then labels+=(--format docker); fi # the other one has no health check
    log=$(docker build -t "$image" ${labels[@]+"${labels[@]}"} "$checkout" 2>&1 </dev/null) || {
        printf '\n%s\n' "$log" | tail -n 20 >&2
        die $EX_IMAGE "the image can't be built; see the last lines above"
    }
    ok "$image, built"
}

start_container() {
    local said
    if [ "$dry" = 1 ] && [ "$engine" = podman ]; then would sh "$folder/$settings"; return; fi
    if [ "$dry" = 1 ]; then would docker compose -p "$NAME" -f "$folder/docker-compose.yml" up -d --no-build; return; fi
    replacing=1
    if [ -n "$before_id" ] && [ "$before_project" != "$NAME" ]; then # else compose replaces it itself
        docker stop -t 5 "$before_id" >/dev/null </dev/null || true
        docker rename "$before_id" "$BEFORE" </dev/null || die $EX_START "the container $NAME can't be renamed"
    fi
    if [ "$engine" = podman ]; then
        said=$(sh "$folder/$settings" 2>&1 </dev/null) || die $EX_START "podman can't start it: ${said##*$'\n'}"
    else
        said=$(cd "$folder" && compose -p "$NAME" -f docker-compose.yml up -d --no-build 2>&1) ||
            die $EX_START "Docker can't start it: ${said##*$'\n'}"
    fi
    stays_up "$NAME" || {
        said=$(docker logs --tail 3 "$NAME" 2>&1 </dev/null | tr -d '\r')
        die $EX_START "it starts and exits again: ${said:-no output}"
    }
    ok "$NAME"
}

# --- the volumes ----------------------------------------------------------------------------------

# With compose's own labels, so that compose takes it for its own.
make_volume() { # its name in the compose file
    local said name=${NAME}_$1 project=com.docker.compose.project=$NAME volume=com.docker.compose.volume=$1
    if exists volume "$name"; then return; fi
    volumes_made+=("$name")
    if [ "$dry" = 1 ]; then
        would docker volume create --label "$project" --label "$volume" "$name"
    else
        said=$(docker volume create --label "$project" --label "$volume" "$name" 2>&1 </dev/null) ||
            die $EX_FILES "the volume $name can't be created: ${said##*$'\n'}"
    fi
}

make_volumes() {
    make_volume geoip-data
    [ "$log" = off ] || make_volume flow-log
    if ! exists volume "$VOLUME_BEFORE"; then
        ok "$VOLUME$also"
    elif [ "$dry" = 1 ]; then
        note "  would copy: the files of the volume $VOLUME_BEFORE of an earlier version"
    else
        adopt_volume
    fi
}

# Once: what is removed from the new volume later does not come back. Of two files of one name the later one stays.
adopt_volume() {
    local said
    # shellcheck disable=SC2016  # that shell's own
    said=$(docker run --rm --network none --cap-drop ALL --cap-add DAC_OVERRIDE --cap-add CHOWN --cap-add FOWNER \
        -v "$VOLUME_BEFORE:/before:ro" -v "$VOLUME:/now" --entrypoint sh "$image" -c '
            [ -e /now/.copied-from-geoip-data ] && exit
            cp -au --remove-destination /before/. /now/ && : >/now/.copied-from-geoip-data && echo copied' 2>&1 </dev/null) ||
        die $EX_FILES "the databases in the volume $VOLUME_BEFORE of an earlier version can't be copied: ${said##*$'\n'}"
    if [ "$said" = copied ]; then
        ok "$VOLUME, with the files of $VOLUME_BEFORE of an earlier version$also"
        old_volume=1
    else
        ok "$VOLUME$also"
    fi
}

# --- files ----------------------------------------------------------------------------------------

etc=${SETUP_ROOT:-}/etc # SETUP_ROOT: the tests' own

put() { # FILE MODE, text from standard input; never half a file
    if [ "$dry" = 1 ]; then cat >/dev/null; note "  would write: $1"; return; fi
    cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"
}

ours=(docker-compose.yml podman-run "$NAME" setup-conntrack-monitor.sh) # the files in the folder, of which one is the engine's

# A server of NFS takes root for nobody, unless told otherwise.
cure_of_folder() {
    if [ "$(id -u)" = 0 ]; then
        echo "on NFS root may not write: join the group docker, or $0 --folder /opt/$NAME"
    else
        echo "$0 --folder FOLDER"
    fi
}

write_files() {
    local name
    [ -d "$folder" ] || folder_made=1
    act mkdir -p "$folder" || return
    keep_edited || return
    for name in "${ours[@]}"; do
        [ "$dry" = 1 ] || ! [ -f "$folder/$name" ] || ln -f "$folder/$name" "$folder/$name.before" 2>/dev/null ||
            cp -p "$folder/$name" "$folder/$name.before" || return
    done
    writing=1
    settings_file "$image" "$log" | put "$folder/$settings" 0644 || return
    wrapper_file | put "$folder/$NAME" 0755 || return
    if [ -f "$script" ] && ! [ "$script" -ef "$folder/setup-conntrack-monitor.sh" ]; then
        put "$folder/setup-conntrack-monitor.sh" 0755 <"$script" || return
    fi
    # The run as root works for whom the folder above belongs to.
    [ "$dry" = 1 ] || [ "$(id -u)" != 0 ] || chown -R --reference="$(dirname "$folder")" "$folder"
}

# A compose file that is not as we wrote it is kept under a name that nothing has yet.
keep_edited() {
    local file=$folder/$settings number=2
    [ -f "$file" ] && ! as_written "$file" || return 0
    kept=$file.old
    while [ -e "$kept" ]; do
        if cmp -s "$file" "$kept"; then kept='' && return; fi
        kept=$file.old.$number
        number=$((number + 1))
    done
    if [ "$dry" = 1 ]; then note "  would keep: $kept"; else cp -p "$file" "$kept"; fi
}

restore_files() {
    local name
    for name in "${ours[@]}"; do
        if [ -f "$folder/$name.before" ]; then
            rm -f -- "$folder/$name" # two names of one file can't be moved onto each other
            mv -f "$folder/$name.before" "$folder/$name"
        elif [ "$writing" = 1 ]; then
            rm -f -- "$folder/$name"
        fi
        rm -f -- "$folder/$name.new" 2>/dev/null || true
    done
    [ -z "$kept" ] || rm -f -- "$kept"
    [ "$folder_made" = 0 ] || rmdir -- "$folder" 2>/dev/null || true
}

enable_accounting() {
    act modprobe -q nf_conntrack 2>/dev/null || true # one that is built in is none
    act sysctl -q -w net.netfilter.nf_conntrack_acct=1 ||
        die $EX_ROOT "the kernel rejects net.netfilter.nf_conntrack_acct" "modprobe nf_conntrack, then run this again"
    act mkdir -p "$etc/sysctl.d" "$etc/modprobe.d"
    echo "net.netfilter.nf_conntrack_acct = 1" | put "$etc/sysctl.d/90-$NAME.conf" 0644
    # At boot the module is often loaded after the sysctls were set.
    echo "options nf_conntrack acct=1" | put "$etc/modprobe.d/$NAME.conf" 0644
}

accounting_files() { [ -e "$etc/sysctl.d/90-$NAME.conf" ] || [ -e "$etc/modprobe.d/$NAME.conf" ]; }

# --- what is done ---------------------------------------------------------------------------------

# What there was, and how far we are: what going back needs.
before_id='' before_image='' before_running='' before_project='' before_place='' before_files='' tagged=''
writing=0 folder_made=0 kept='' volumes_made=() old_volume=0 replacing=0

look_back() {
    local facts
    tagged=$(image_of "$image")
    exists container "$NAME" || return 0
    facts=$(docker inspect -f '{{.Id}}|{{.Image}}|{{.State.Running}}|{{with .Config.Labels}}{{index . "com.docker.compose.project"}}|{{index . "com.docker.compose.project.working_dir"}}|{{index . "com.docker.compose.project.config_files"}}{{end}}' \
        "$NAME" 2>/dev/null </dev/null) || true
    IFS='|' read -r before_id before_image before_running before_project before_place before_files <<<"$facts"
}

# A failure, or Ctrl+C: files, image, volume and container are as they were.
go_back() {
    local status=$? name
    trap - EXIT
    [ "$dry" = 0 ] || exit "$status"
    trap '' INT TERM
    set +e
    if [ "$writing$folder_made" != 00 ]; then restore_files; fi
    if [ -n "$tagged" ] && [ "$tagged" != "$(image_of "$image")" ]; then docker tag "$tagged" "$image" </dev/null; fi
    if [ "$replacing" = 1 ]; then
        if bring_back >/dev/null 2>&1 </dev/null; then
            if [ -n "$before_id" ]; then echo "The previous installation is restored." >&2; fi
        else
            warn "the previous container could not be restarted; try: $folder/$NAME start"
        fi
    elif [ -n "$before_id" ]; then
        echo "The previous installation is unchanged." >&2
    fi
    for name in ${volumes_made[@]+"${volumes_made[@]}"}; do docker volume rm "$name" >/dev/null 2>&1 </dev/null; done
    exit "$status"
}

bring_back() {
    local now file
    local -a files=()
    now=$(docker inspect -f '{{.Id}}' "$NAME" 2>/dev/null)
    [ -z "$now" ] || [ "$now" = "$before_id" ] || docker rm -f "$NAME"
    [ -n "$before_id" ] || return 0
    if exists container "$before_id"; then # put aside, by us or by compose
        [ "$now" = "$before_id" ] || docker rename "$before_id" "$NAME"
    else
        while IFS= read -r -d , file; do files+=(-f "$file"); done <<<"$before_files,"
        (cd "$before_place" && compose -p "$before_project" "${files[@]}" up --no-start --no-build)
    fi
    # No plain return anywhere here: in a trap its status is that of what came before the trap.
    if [ "$before_running" = true ]; then docker start "$NAME"; else exists container "$NAME"; fi
}

# Only now, as its successor runs.
remove_before() {
    local id name
    for name in "${ours[@]}"; do act rm -f -- "$folder/$name.before"; done
    if exists container "$BEFORE"; then
        act docker rm -f "$BEFORE" || warn "the container $BEFORE could not be removed; try: $engine rm -f $BEFORE"
    fi
    for id in $before_image $tagged; do # of the release before: nothing names it any more
        [ "$(docker image inspect -f '{{len .RepoTags}}' "$id" 2>/dev/null </dev/null)" != 0 ] ||
            act docker rmi "$id" 2>/dev/null || true
    done
    if [ -n "$before_id" ]; then ok; else ok "nothing to remove"; fi
}

# With a log or without: as this run says, else as it is.
choose_log() {
    [ -n "$log" ] || [ -z "${CONNTRACK_MONITOR_LOG:-}" ] || log=on
    if [ -z "$log" ]; then
        log=off
        ! grep -q '^ *\(-e \)\?CONNTRACK_MONITOR_LOG[:=] \?"' "$folder/$settings" 2>/dev/null || log=on
    fi
    if [ "$log" = on ]; then also=", $VOLUME_LOG"; fi
}

install() {
    choose_log
    if [ "$engine" = podman ]; then
        step 1 "Podman"
        ok "$(docker version --format '{{.Client.Version}}' </dev/null)"
    else
        step 1 "Docker"
        need_compose
        ok "$(docker version --format '{{.Server.Version}}' </dev/null), compose $(compose version --short)"
    fi
    look_back
    trap go_back EXIT
    step 2 "the image"
    get_image
    step 3 "the volume for the databases${also:+, and for the flow log}"
    make_volumes
    step 4 "writing $folder"
    write_files || die $EX_FILES "$folder can't be written" "$(cure_of_folder)"
    ok "${kept:+the previous $settings is kept as ${kept##*/}}"
    step 5 "starting the container"
    start_container
    trap - EXIT
    step 6 "removing the previous version"
    remove_before
    if [ "$accounting" = 1 ]; then
        step 7 "accounting, now and at boot"
        enable_accounting
        ok "flows that begin from now on are counted"
    fi
    [ "$dry" = 0 ] || return 0
    cat <<END

Attach:      "$folder/$NAME" attach     (detach with Ctrl+P Ctrl+Q; restores your terminal)
Or:          $engine attach $NAME      (after Ctrl+P Ctrl+Q, type reset to restore your terminal)
Stop:        "$folder/$NAME" stop
END
    [ "$log" = off ] || cat <<END
Look up:     $engine exec $NAME $NAME --who ADDRESS:PORT --at 2026-11-24T14:02:30+01:00
END
    [ "$old_volume" = 0 ] || echo "The volume $VOLUME_BEFORE is no longer used; once everything works, remove it: $engine volume rm $VOLUME_BEFORE"
    if [ "$engine" = podman ] && ! systemctl is-enabled -q podman-restart.service 2>/dev/null; then
        echo "To start it at boot, too: systemctl enable podman-restart.service"
    fi
}

remove() {
    step 1 "the container"
    local installed name
    local -a left=()
    installed=$(docker inspect -f '{{.Config.Image}}' "$NAME" 2>/dev/null </dev/null) || installed=$image
    for name in "$NAME" "$BEFORE"; do
        remove_container "$name" || die $EX_DAEMON "the container $name can't be removed" "$engine rm -f $name"
    done
    ok
    step 2 "the image"
    if ! exists image "$installed"; then
        ok "none"
    elif act docker rmi "$installed"; then
        ok "$installed"
    else
        note "kept: it is in use"
    fi
    step 3 "$folder"
    remove_files
    for name in "$VOLUME" "$VOLUME_BEFORE" "$VOLUME_LOG"; do
        if exists volume "$name"; then left+=("$name"); fi
    done
    if [ "$purge" = 1 ]; then
        step 4 "the volumes with the databases and the flow log"
        for name in ${left[@]+"${left[@]}"}; do
            act docker volume rm "$name" || die $EX_DAEMON "the volume $name is in use"
        done
        ok "${left[*]:-none}"
    elif [ ${#left[@]} -gt 0 ]; then
        note "Databases and flow log remain in: ${left[*]}; --uninstall --purge removes these volumes, too."
    fi
}

remove_files() {
    local name
    local -a files=("$folder/.viewers" "$folder"/{docker-compose.yml,podman-run}.old*)
    for name in "${ours[@]}"; do files+=("$folder/$name" "$folder/$name".{before,new}); done
    act rm -f -- "${files[@]}" || die $EX_FILES "$folder can't be cleared"
    if accounting_files; then
        act rm -f -- "$etc/sysctl.d/90-$NAME.conf" "$etc/modprobe.d/$NAME.conf" || die $EX_FILES "$etc can't be written"
    fi
    [ "$dry" = 0 ] || return 0
    if ! [ -d "$folder" ]; then
        ok "none"
    elif rmdir -- "$folder" 2>/dev/null; then
        ok
    else
        note "kept: it contains files of yours"
    fi
}

main() {
    local state
    parse "$@"
    choose_engine
    command -v docker >/dev/null || need_docker absent
    [ "$purge" = 0 ] || [ "$dry" = 1 ] ||
        ask "Remove the volume $VOLUME, and $VOLUME_BEFORE of an earlier version, with all databases in them (including your own), and $VOLUME_LOG with the whole flow log?"
    state=$(docker_state)
    if [ "$(id -u)" != 0 ]; then
        if [ "$state" = forbidden ]; then
            if [ "$engine" = podman ]; then escalate "only root's containers see this machine's table"; fi
            escalate "only root and the group docker may use Docker"
        elif [ -z "$state" ] && { [ "$accounting" = 1 ] || { [ "$uninstall" = 1 ] && accounting_files; }; }; then
            escalate "changing kernel settings needs root"
        fi
    fi
    password=''
    need_docker "$state"
    [ "$has_password" = 0 ] || [ "$(id -u)" = 0 ] || note "No password was needed."
    image=${image:-${CONNTRACK_MONITOR_IMAGE:-$IMAGE_DEFAULT}}
    if [ "$uninstall" = 1 ]; then remove; else install; fi
}

script=${BASH_SOURCE[0]:-}
checkout=''
if [ -f "$script" ]; then
    checkout=$(cd "$(dirname "$script")" && pwd)
    script=$checkout/${script##*/}
fi
trap 'exit 130' INT
trap 'exit 143' TERM
main "$@"
