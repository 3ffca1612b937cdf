#!/usr/bin/env bash
# Installs Conntrack Monitor as a container that runs in the background. See --help.
{ set +xva; } 2>/dev/null # neither a trace nor the environment may show the password
set -euo pipefail
umask 022

readonly NAME=conntrack-monitor VOLUME=geoip-data
readonly IMAGE_DEFAULT=ghcr.io/0xf00f00/conntrack-monitor:latest
readonly EX_USAGE=2 EX_ROOT=3 EX_DOCKER=4 EX_DAEMON=5 EX_FILES=6 EX_IMAGE=7 EX_START=8 EX_REFUSED=9

usage() {
    cat <<'END'
Usage: ./setup-conntrack-monitor.sh [options] [SUDO_PASSWORD]

Installs Conntrack Monitor in ~/conntrack-monitor and starts it; again, to renew it. The databases in the volume
geoip-data stay. SUDO_PASSWORD is only used where docker needs root and sudo a password; "-" reads it from standard
input, without it you are asked. As an argument it ends up in your shell's history.

  --build              build the image from the checkout that this script is in
  --image REF          this image [ghcr.io/0xf00f00/conntrack-monitor:latest]
  --enable-accounting  let the kernel count bytes and packets of each flow, now and at boot
  --uninstall          remove container, image and folder, and the settings of --enable-accounting
  --purge              with --uninstall: the volume with the databases, too (asks first)
  --dry-run            print what would be done, and do nothing
  --yes                ask nothing
  -h, --help           this text

Exit status: 0 well, 2 wrong usage, 3 no root (wrong password), 4 docker or compose is not installed, 5 docker does not
answer, 6 a file can't be written, 7 no image, 8 it does not start, 9 you said no.
END
}

# --- what the installed files say -----------------------------------------------------------------

compose_file() { # IMAGE; as docker-compose.yml of the checkout, without build
    cat <<END
# Conntrack Monitor over this machine's own connection table. Written by setup-conntrack-monitor.sh.
#   docker-compose up -d; docker attach conntrack-monitor     (detach: Ctrl+P Ctrl+Q)
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
    cap_add: [NET_ADMIN] # what reading the table takes; no privileged
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
    volumes: ["geoip-data:/usr/share/GeoIP"]
    # q and Ctrl+C end the program, and this starts it again; only `docker stop` is the end. CONNTRACK_MONITOR_RESTART=no
    # or on-failure lets q be the end.
    restart: ${CONNTRACK_MONITOR_RESTART:-unless-stopped}
    logging: # every frame that somebody saw is in the log, too
      driver: local
      options: { max-size: 1m, max-file: "2" }

volumes:
  geoip-data:
    name: geoip-data
END
}

wrapper_file() {
    cat <<'WRAPPER'
#!/usr/bin/env bash
# Looks at, starts, stops and renews the installed Conntrack Monitor. Written by setup-conntrack-monitor.sh.
set -uo pipefail
readonly NAME=conntrack-monitor
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" || exit 1
here=$PWD

usage() {
    cat <<'TEXT'
Usage: conntrack-monitor COMMAND

  attach     look at it (Ctrl+P Ctrl+Q: look away, it goes on)
  start      start it
  stop       stop it for good, until start
  restart    stop and start it
  status     is it running, is it well?
  logs       what it said; options of docker logs work
  update     fetch the image anew and restart
  uninstall  remove container, image and folder; --purge: the databases, too
TEXT
}

compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -p "$NAME" -f "$here/docker-compose.yml" "$@"
    else
        docker-compose -p "$NAME" -f "$here/docker-compose.yml" "$@"
    fi
}

# Tells one run from the next; ends with "true" while it runs.
run_of() { fact '{{.State.StartedAt}} {{.State.FinishedAt}} {{.RestartCount}} {{.State.Running}}'; }

fact() { docker inspect -f "$1" "$NAME" 2>/dev/null; }

attach() {
    local before modes tries=2
    if ! [ -t 0 ] || ! [ -t 1 ]; then
        echo "attach wants a terminal" >&2
        return 2
    fi
    before=$(run_of)
    case $before in
    *" true") ;;
    *) echo "it is not running; try: $here/conntrack-monitor start" >&2; return 1 ;;
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
        echo "Detached; it goes on. Look again: $here/conntrack-monitor attach"
    elif [ "$(fact '{{.HostConfig.RestartPolicy.Name}}')" = no ]; then
        echo "It has ended. Start it: $here/conntrack-monitor start"
    else
        echo "It has ended, and its restart policy starts it again. To stop it: $here/conntrack-monitor stop"
    fi
}

status() {
    local state
    state=$(fact '{{.State.Status}}, since {{.State.StartedAt}}{{if .State.Health}}, {{.State.Health.Status}}{{end}}') || {
        echo "not installed: there is no container $NAME; try: $here/conntrack-monitor start" >&2
        return 1
    }
    echo "$NAME: $state"
    case $state in running*) ;; *) return 1 ;; esac
}

main() {
    local command=${1:-}
    case $command in
    attach | start | stop | restart | status | logs | update | uninstall) shift ;;
    -h | --help | help) usage; return 0 ;;
    *) usage >&2; return 2 ;;
    esac
    if [ "$(id -u)" != 0 ] && ! docker info >/dev/null 2>&1 && command -v sudo >/dev/null; then
        exec sudo "$here/conntrack-monitor" "$command" "$@"
    fi
    case $command in
    attach) attach ;;
    start) compose up -d --no-build </dev/null ;;
    stop) docker stop "$NAME" ;;
    restart) docker restart "$NAME" ;;
    status) status ;;
    logs) docker logs "$@" "$NAME" ;;
    update) compose pull </dev/null && compose up -d --no-build </dev/null ;;
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

would() { printf '  would run: %s\n' "${*@Q}"; }

act() { # changes something: run it, or with --dry-run say it
    if [ "$dry" = 1 ]; then would "$@"; else "$@" >/dev/null </dev/null; fi
}

ask() { # QUESTION
    [ "$yes" = 1 ] && return 0
    [ -t 0 ] || die $EX_REFUSED "$1 Nobody is here to say so." "--yes"
    local answer
    read -rp "$1 [y/N] " answer
    case $answer in [yY] | [yY][eE][sS]) ;; *) die $EX_REFUSED "nothing was done" ;; esac
}

# --- options --------------------------------------------------------------------------------------

build=0 image='' uninstall=0 purge=0 accounting=0 dry=0 yes=0 password='' has_password=0 password_fd='' from_stdin=0 folder=''
handed=() # the options that are given on to the run as root

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --build) build=1 ;;
        --image)
            [ -n "${2:-}" ] || usage_error "--image wants a name"
            image=$2 handed+=("$1")
            shift
            ;;
        --uninstall) uninstall=1 ;;
        --purge) purge=1 ;;
        --enable-accounting) accounting=1 ;;
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
        -*) usage_error "there is no option $1" ;;
        *) take_argument "$@" ;;
        esac
        handed+=("$1")
        shift
    done
    [ "$purge" = 0 ] || [ "$uninstall" = 1 ] || usage_error "--purge goes with --uninstall"
    [ "$uninstall" = 0 ] || [ "$build$accounting" = 00 ] || usage_error "--uninstall goes with --purge, --dry-run and --yes alone"
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

# The password is an argument: start again with it in a pipe, so that ps shows it no longer than that takes. sudo is
# not asked with it in any argument, and it never stands in the environment.
take_argument() {
    local secret=$1 fd
    shift
    [ -z "$password_fd" ] || usage_error "one password is enough"
    [ -f "$script" ] || usage_error "with a password, save the script to a file and start that"
    warn "the password is now in your shell's history; better: no argument, and be asked, or - and a pipe"
    exec {fd}< <(printf '%s\n' "$secret")
    exec "$BASH" "$script" --password-fd "$fd" ${handed[@]+"${handed[@]}"} "$@"
}

# --- root -----------------------------------------------------------------------------------------

docker_answers() { docker info >/dev/null 2>&1 </dev/null; }

# One escalation for all: the whole script again, as root, its standard input closed to whatever sudo left there.
escalate() {
    local why=$1 said
    local -a again=("$BASH" "$script" --folder "$folder" ${handed[@]+"${handed[@]}"})
    [ "$yes" = 1 ] || again+=(--yes) # what there was to ask has been asked
    [ -f "$script" ] || die $EX_ROOT "$why" "save the script to a file, and start that as root"
    command -v sudo >/dev/null || die $EX_ROOT "$why, and there is no sudo" "start this script as root"
    if sudo -n true </dev/null 2>/dev/null; then
        note "$why: going on with sudo"
        exec sudo -n -- "${again[@]}" </dev/null
    fi
    if [ "$has_password" = 0 ]; then
        [ -t 0 ] || die $EX_ROOT "$why, sudo wants a password, and there is no terminal to ask for it" \
            "a pipe: ... | $script -"
        note "$why."
        read -rsp "Password for sudo: " password
        echo
    fi
    # -k: never the ticket of an earlier sudo, with which the password would not be read and go to the command.
    said=$(printf '%s\n' "$password" | LC_ALL=C sudo -k -S -p '' -- true 2>&1) || {
        case $said in
        *"incorrect password"* | *"try again"* | *"no password was provided"*) die $EX_ROOT "the password is wrong" ;;
        *) die $EX_ROOT "sudo does not let you: ${said##*$'\n'}" ;;
        esac
    }
    note "$why: going on with sudo"
    set +o pipefail # where no password is wanted after all, nobody reads it
    # shellcheck disable=SC2016  # that shell's own $@
    printf '%s\n' "$password" | sudo -k -S -p '' -- sh -c 'exec "$@" </dev/null' sh "${again[@]}"
    exit
}

# --- Docker ---------------------------------------------------------------------------------------

compose() {
    if docker compose version >/dev/null 2>&1 </dev/null; then
        docker compose "$@" </dev/null
    else
        docker-compose "$@" </dev/null
    fi
}

need_docker() {
    command -v docker >/dev/null ||
        die $EX_DOCKER "Docker is not installed" "apt install docker.io docker-compose (Debian, Ubuntu), then again"
}

need_compose() {
    docker compose version >/dev/null 2>&1 </dev/null || docker-compose version >/dev/null 2>&1 </dev/null ||
        die $EX_DOCKER "Docker has no compose" "apt install docker-compose (Debian), or docker-compose-v2 (Ubuntu)"
}

exists() { docker "$1" inspect "$2" >/dev/null 2>&1 </dev/null; } # container, image or volume

remove_container() {
    exists container "$NAME" || return 0
    act docker stop -t 5 "$NAME" || true
    act docker rm -f "$NAME"
}

in_checkout() { [ -n "$checkout" ] && [ -f "$checkout/Dockerfile" ]; }

get_image() {
    local said
    if [ "$build" = 1 ]; then
        in_checkout || die $EX_IMAGE "there is no checkout around this script to build from" \
            "git clone https://github.com/0xf00f00/conntrack-monitor, then its ./setup-conntrack-monitor.sh --build"
        build_image
        return
    fi
    if [ "$dry" = 1 ]; then would docker pull "$image"; return; fi
    if said=$(docker pull "$image" 2>&1 </dev/null); then
        ok "$image"
    elif in_checkout; then
        note "not to be had: ${said##*$'\n'}"
        step 4 "building it from this checkout"
        build_image
    elif exists image "$image"; then
        ok "not to be had now, the one that is here stays: ${said##*$'\n'}"
    else
        die $EX_IMAGE "$image is not to be had: ${said##*$'\n'}" "--image REF, or --build in a checkout"
    fi
}

build_image() {
    local log
    if [ "$dry" = 1 ]; then would docker build -t "$image" "$checkout"; return; fi
    log=$(docker build -t "$image" "$checkout" 2>&1 </dev/null) || {
        printf '\n%s\n' "$log" | tail -n 20 >&2
        die $EX_IMAGE "the image can't be built; the last lines are above"
    }
    ok "$image, built"
}

start_container() {
    local said
    if [ "$dry" = 1 ]; then would docker compose -p "$NAME" -f "$folder/docker-compose.yml" up -d --no-build; return; fi
    said=$(cd "$folder" && compose -p "$NAME" -f docker-compose.yml up -d --no-build 2>&1) ||
        die $EX_START "docker does not start it: ${said##*$'\n'}"
    for _ in 1 2 3 4 5 6 7 8; do # one that can't read the table has ended by then, more than once
        sleep 0.25
        [ "$(docker inspect -f '{{.State.Running}} {{.RestartCount}}' "$NAME" 2>/dev/null)" = "true 0" ] || {
            said=$(docker logs --tail 3 "$NAME" 2>&1 </dev/null | tr -d '\r')
            die $EX_START "it starts and ends again: ${said:-it says nothing}" "docker logs $NAME"
        }
    done
    ok "$NAME"
}

# --- files ----------------------------------------------------------------------------------------

etc=${SETUP_ROOT:-}/etc # SETUP_ROOT: the tests' own

put() { # FILE MODE, text from standard input; never half a file
    if [ "$dry" = 1 ]; then cat >/dev/null; note "  would write: $1"; return; fi
    cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"
}

write_files() {
    act mkdir -p "$folder" || return
    compose_file "$image" | put "$folder/docker-compose.yml" 0644 || return
    wrapper_file | put "$folder/$NAME" 0755 || return
    if [ -f "$script" ] && ! [ "$script" -ef "$folder/setup-conntrack-monitor.sh" ]; then
        put "$folder/setup-conntrack-monitor.sh" 0755 <"$script" || return
    fi
    # The run as root works for whom the folder above belongs to.
    [ "$dry" = 1 ] || [ "$(id -u)" != 0 ] || chown -R --reference="$(dirname "$folder")" "$folder"
}

enable_accounting() {
    act modprobe -q nf_conntrack 2>/dev/null || true # one that is built in is none
    act sysctl -q -w net.netfilter.nf_conntrack_acct=1 ||
        die $EX_ROOT "the kernel does not take net.netfilter.nf_conntrack_acct" "modprobe nf_conntrack, then again"
    act mkdir -p "$etc/sysctl.d" "$etc/modprobe.d"
    echo "net.netfilter.nf_conntrack_acct = 1" | put "$etc/sysctl.d/90-$NAME.conf" 0644
    # At boot the module is often loaded after the sysctls were set.
    echo "options nf_conntrack acct=1" | put "$etc/modprobe.d/$NAME.conf" 0644
}

accounting_files() { [ -e "$etc/sysctl.d/90-$NAME.conf" ] || [ -e "$etc/modprobe.d/$NAME.conf" ]; }

# --- what is done ---------------------------------------------------------------------------------

install() {
    step 1 "Docker"
    need_compose
    ok "$(docker version --format '{{.Server.Version}}' </dev/null), compose $(compose version --short)"
    step 2 "writing $folder"
    write_files || die $EX_FILES "$folder can't be written"
    ok
    step 3 "removing an existing installation"
    if exists container "$NAME"; then
        remove_container || die $EX_DAEMON "the container $NAME can't be removed" "docker rm -f $NAME"
        ok
    else
        ok "there is none"
    fi
    step 4 "the image"
    get_image
    step 5 "starting it"
    start_container
    step 6 "the volume for the databases"
    [ "$dry" = 1 ] || exists volume "$VOLUME" || die $EX_START "there is no volume $VOLUME"
    ok "$VOLUME"
    if [ "$accounting" = 1 ]; then
        step 7 "accounting, now and at boot"
        enable_accounting
        ok "it counts flows that begin from now on"
    fi
    [ "$dry" = 0 ] || return 0
    cat <<END

Look at it:  "$folder/$NAME" attach     (look away: Ctrl+P Ctrl+Q)
Stop it:     "$folder/$NAME" stop
END
}

remove() {
    step 1 "the container"
    local installed
    installed=$(docker inspect -f '{{.Config.Image}}' "$NAME" 2>/dev/null </dev/null) || installed=$image
    remove_container || die $EX_DAEMON "the container $NAME can't be removed" "docker rm -f $NAME"
    ok
    step 2 "the image"
    if ! exists image "$installed"; then
        ok "there is none"
    elif act docker rmi "$installed"; then
        ok "$installed"
    else
        note "it stays, as something else uses it"
    fi
    step 3 "$folder"
    remove_files
    if [ "$purge" = 1 ]; then
        step 4 "the volume with the databases"
        if ! exists volume "$VOLUME"; then
            ok "there is none"
        else
            act docker volume rm "$VOLUME" || die $EX_DAEMON "the volume $VOLUME is in use"
            ok "$VOLUME"
        fi
    fi
    [ "$purge" = 1 ] || ! exists volume "$VOLUME" || note "The databases stay in the volume $VOLUME; --uninstall --purge takes them, too."
}

remove_files() {
    local -a ours=("$folder/docker-compose.yml" "$folder/$NAME" "$folder/setup-conntrack-monitor.sh" "$folder/.viewers")
    act rm -f -- "${ours[@]}" || die $EX_FILES "$folder can't be emptied"
    if accounting_files; then
        act rm -f -- "$etc/sysctl.d/90-$NAME.conf" "$etc/modprobe.d/$NAME.conf" || die $EX_FILES "$etc can't be written"
    fi
    [ "$dry" = 0 ] || return 0
    if ! [ -d "$folder" ]; then
        ok "there is none"
    elif rmdir -- "$folder" 2>/dev/null; then
        ok
    else
        note "it stays: there are files of yours in it"
    fi
}

main() {
    parse "$@"
    need_docker
    [ "$purge" = 0 ] || [ "$dry" = 1 ] || ask "Remove the volume $VOLUME with all databases in it, your own ones too?"
    if [ "$(id -u)" != 0 ]; then
        if ! docker_answers; then
            escalate "Docker answers root only"
        elif [ "$accounting" = 1 ] || { [ "$uninstall" = 1 ] && accounting_files; }; then
            escalate "the kernel's settings want root"
        fi
    fi
    password=''
    [ "$has_password" = 0 ] || [ "$(id -u)" = 0 ] || note "No password was needed."
    image=${image:-${CONNTRACK_MONITOR_IMAGE:-$IMAGE_DEFAULT}}
    docker_answers ||
        die $EX_DAEMON "Docker does not answer: $(docker info 2>&1 >/dev/null </dev/null | tail -n 1)" "systemctl start docker"
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
