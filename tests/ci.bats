# .ci/run on a machine that lacks something: it tries to install that, and fails with its name before any test has run.

setup() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
    BIN=$BATS_TEST_TMPDIR/bin
    mkdir -p "$BIN" "$BATS_TEST_TMPDIR/home"
    for program in bash cat dirname mktemp rm mkdir env awk sort tr grep; do ln -s "$(type -P $program)" "$BIN/$program"; done
    echo '#!/bin/bash
    echo "apt-get $*" >>"'"$BATS_TEST_TMPDIR"'/asked"' >"$BIN/apt-get"
    echo '#!/bin/bash
    echo "make $*" >>"'"$BATS_TEST_TMPDIR"'/asked"; exit 1' >"$BIN/make"
    chmod +x "$BIN/apt-get" "$BIN/make"
}

has() { # NAME: a program that does whatever it is asked
    printf '#!/bin/bash\nexit 0\n' >"$BIN/$1"
    chmod +x "$BIN/$1"
}

ci() { run env -i PATH="$BIN" HOME="$BATS_TEST_TMPDIR/home" "$ROOT/.ci/run"; }

@test "nothing of it is here: all is named, and no test runs" {
    ci
    [ "$status" = 1 ]
    [[ $output == *"missing: Python 3.10, Python 3.13, compose 2"* ]]
    grep -q "apt-get install .*python3.10" "$BATS_TEST_TMPDIR/asked"
    [ -z "$(grep ^make "$BATS_TEST_TMPDIR/asked")" ]
}

@test "one Python is missing: that one is named" {
    has python3.13
    has docker
    ci
    [ "$status" = 1 ]
    [[ $output == *"missing: Python 3.10"* && $output != *"3.13,"* && $output != *"compose 2"* ]]
}

@test "a Python that leads nowhere is missing" {
    has docker
    has python3.13
    printf '#!/bin/bash\nexit 127\n' >"$BIN/python3.10" # as pyenv's shims
    chmod +x "$BIN/python3.10"
    ci
    [ "$status" = 1 ]
    [[ $output == *"missing: Python 3.10"* ]]
}

@test "compose 2 is missing" {
    has python3.10
    has python3.13
    ci
    [ "$status" = 1 ]
    [[ $output == *"missing: compose 2"* ]]
}

@test "pyenv is asked for a Python" {
    has docker
    has python3.13
    printf '#!/bin/bash\necho "pyenv $*" >>"%s/asked"\n' "$BATS_TEST_TMPDIR" >"$BIN/pyenv"
    chmod +x "$BIN/pyenv"
    ci
    [ "$status" = 1 ]
    grep -q "pyenv install -s 3.10" "$BATS_TEST_TMPDIR/asked"
}

@test "with all of it the tests run" {
    has docker
    has python3.10
    has python3.13
    ci
    [[ $output != *"missing:"* ]]
    grep -q ^make "$BATS_TEST_TMPDIR/asked"
}
