#!/usr/bin/env bash
# Drive the client in bash; drive.py lists the commands.
# shellcheck disable=SC1091,SC2034,SC2154
set -euo pipefail
source "$(dirname "$0")/../../../examples/clients/bash/latchkey.sh"
LATCHKEY_ACCESS_KEY=$KEY LATCHKEY_SECRET=$SECRET
command=$1
shift
case $command in
mac)
    LATCHKEY_SECRET=$1
    for text in "${@:2}"; do
        printf %s "$text" | latchkey_mac
        echo
    done
    ;;
sign)
    LATCHKEY_FORM=$1 body=
    if [[ -n $4 ]]; then body=$(mktemp) && printf %s "$4" >"$body"; fi
    latchkey_sign "$2" "$3" "$body" "${@:5}"
    rm -f "$body"
    ;;
call)
    LATCHKEY_FORM=$1 offset_s=$5
    latchkey_now() { echo $(($(date +%s) + offset_s)); }
    ended=0
    response=$(mktemp)
    latchkey_call "$2" "$3" "$4" >"$response" || ended=$?
    printf '%s\n' "$latchkey_status"
    cat "$response"
    rm -f "$response"
    [[ $ended == $((latchkey_status >= 400)) ]]
    ;;
verify)
    body=$(mktemp)
    cat >"$body"
    if latchkey_verify_webhook "$@" <"$body"; then
        sed -n 's/.*"type": "\([^"]*\)".*/valid \1/p' "$body"
    else
        echo invalid
    fi
    rm -f "$body"
    ;;
esac
